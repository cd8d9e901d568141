//! What all threads of one node share: its replica, its roster, what is to be repaired, and counters.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh_proto::{
    ApplyOrigin, Counters, DriftRefused, Event, Frame, FrameBody, GossipMessage, Hello, Hints, Incarnation, KeyHash,
    Member, Membership, MembershipConfig, MembershipOutput, Monotonic, Mutant, NodeId, ReadAnswer, Record, RepairPlan,
    RequestId, RingHash, Slot, Stage, Weight, WriteAnswer,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info_span;

use crate::{
    Config, Observer, Stats,
    announced::Announced,
    clock::Clock,
    evicted::Evicted,
    membership::{
        gossip_routes::{GossipRoutes, Sent},
        reach::Reach,
        roster::RingRoster,
        spans::GossipSpans,
    },
    replica::Replica,
};

/// How many seeds and dead members may wait to be joined; more are dropped and come again with a later round.
pub(crate) const JOINS_WAITING_MAX: usize = 64;

/// How many connections a node dials at a time. More would only make all of them slower, until they time out and are dialled again.
const DIALS_AT_ONCE_MAX: usize = 16;

/// What all threads of a node share.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) id: NodeId,
    /// Random per process start.
    pub(crate) start: u64,
    pub(crate) clock: Clock,
    pub(crate) replica: Replica,
    pub(crate) evicted: Evicted,
    pub(crate) plan: Mutex<RepairPlan>,
    pub(crate) observer: Arc<dyn Observer>,
    /// What peers have missed. Locked where a write leg has failed, and by upkeep for a batch at a time.
    pub(crate) hints: Mutex<Hints>,
    /// Whom to compare digests with as soon as can be.
    pub(crate) compare_wanted: Mutex<BTreeSet<NodeId>>,
    pub(crate) counters: Counters,
    pub(crate) routes: GossipRoutes,
    /// A permit for each dial of all runtimes.
    pub(crate) dials: Semaphore,
    pub(crate) reach: Reach,
    /// Cancelled when the node stops or crashes: every task of it ends.
    pub(crate) stopped: CancellationToken,
    /// Whether the node answers nobody for now, as a stopped process would.
    pub(crate) paused: Arc<Announced<bool>>,
    /// Whether there has been a connection to every living member since this node was last alone.
    pub(crate) has_joined: AtomicBool,
    /// Since when this node has been rejected because another one has its name.
    pub(crate) duplicate_since: Mutex<Option<Monotonic>>,
    /// Whether some peer takes only smaller records than this node does.
    pub(crate) has_smaller_peer: AtomicBool,
    /// Why the mesh has turned this node away for good.
    pub(crate) refused: watch::Sender<Option<String>>,
    /// Wakes the resync when there is something new to compare.
    pub(crate) resync_wanted: Notify,
    pub(crate) joins: mpsc::Sender<String>,
    pub(crate) roster: RingRoster,
    gossip_spans: Mutex<GossipSpans>,
}

/// Adds one. Relaxed everywhere: counters order nothing.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Core {
    pub(crate) fn new(config: Config, observer: Arc<dyn Observer>, joins: mpsc::Sender<String>) -> Self {
        let seed = if config.seed == 0 { rand::random() } else { config.seed };
        let clock = Clock::new(config.wall_clock.clone());
        let id = config.id();
        // The process start is part of every version: a restarted node never repeats one.
        let start = seed ^ clock.unix().get().rotate_left(32);
        let me = Member {
            id,
            addr: config.public_addr.clone(),
            incarnation: mesh_proto::Incarnation::new(start & 0xffff_ffff),
            weight: Weight::from_capacity(config.store.bytes_max),
            state: mesh_proto::MemberState::Alive,
            // Who was told of others lets them say what it will own, and catches up first.
            stage: if config.seeds.iter().any(|seed| *seed != config.public_addr) {
                Stage::Joining
            } else {
                Stage::Normal
            },
        };
        let membership_config = MembershipConfig {
            interval: config.gossip_interval,
            suspicion: config.suspicion,
            indirect_probes: 3,
            forget_after: config.forget_after,
            seeds: config.seeds.iter().filter(|seed| **seed != config.public_addr).cloned().collect(),
        };
        let roster = RingRoster::new(&config, Membership::new(membership_config, me, clock.now(), seed));
        Self {
            id,
            start,
            replica: Replica::new(&config, id, start, clock.clone()),
            evicted: Evicted::default(),
            plan: Mutex::new(RepairPlan::default()),
            observer,
            hints: Mutex::new(Hints::new(config.hints)),
            compare_wanted: Mutex::default(),
            counters: Counters::default(),
            routes: GossipRoutes::default(),
            dials: Semaphore::new(DIALS_AT_ONCE_MAX),
            reach: Reach::default(),
            stopped: CancellationToken::new(),
            paused: Announced::new(false),
            has_joined: AtomicBool::new(false),
            duplicate_since: Mutex::default(),
            has_smaller_peer: AtomicBool::new(false),
            refused: watch::Sender::new(None),
            resync_wanted: Notify::new(),
            joins,
            roster,
            gossip_spans: Mutex::default(),
            clock,
            config,
        }
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            protocol: Hello::PROTOCOL,
            id: self.id,
            addr: self.config.public_addr.clone(),
            start: self.start,
            mesh: self.config.mesh.clone(),
            replicas: u8::try_from(self.config.replicas.get()).unwrap_or(u8::MAX),
            concern: u8::try_from(self.config.concern.get()).unwrap_or(u8::MAX),
            limits: self.config.record_limits(),
        }
    }

    /// A frame that expects no reply.
    pub(crate) fn frame(&self, body: FrameBody) -> Frame {
        Frame::new(RequestId::default(), self.roster.ring_hash(), body)
    }

    /// Applies a write to this node's own replica.
    pub(crate) fn write_replica(&self, from: Option<NodeId>, record: &Record) -> WriteAnswer {
        self.replica.write(record).unwrap_or_else(|refused| self.refuse_drift(from, &refused))
    }

    fn refuse_drift(&self, from: Option<NodeId>, refused: &DriftRefused) -> WriteAnswer {
        count(&self.counters.drift_refused);
        let ahead = Duration::from_millis(refused.ahead_ms);
        self.observer.event(&Event::DriftRefused { peer: from, ahead });
        WriteAnswer::Drift { ahead_ms: refused.ahead_ms }
    }

    /// Brings this node's own replica up to date with what another owner has sent to a reader. A newer version of what it holds is
    /// taken as a write would be; of what it does not hold, only what there is room for: to read must not evict.
    pub(crate) fn repair_replica(&self, record: &Record) {
        let now = self.clock.unix();
        match self.replica.observe(record.version, now) {
            Ok(()) => drop(self.replica.store.apply(record, ApplyOrigin::Repair, now)),
            Err(refused) => drop(self.refuse_drift(None, &refused)),
        }
    }

    /// Makes versions by the wall clock again if it was set back.
    pub(crate) fn follow_wall_clock(&self) {
        if self.replica.follow_wall_clock() {
            self.observer.event(&Event::ClockSetBack);
        }
    }

    /// [`Replica::read`] for a caller with this ring.
    pub(crate) fn read_replica_in(&self, ring: RingHash, slot: Slot, hash: KeyHash, key: &[u8]) -> ReadAnswer {
        if self.roster.ring_hash() == ring || Mutant::RingUnchecked.is_planted() {
            let answer = self.replica.read(slot, hash, key);
            // What it means to be in sync may have changed with the ring meanwhile.
            if self.roster.ring_hash() == ring || Mutant::RingUnchecked.is_planted() {
                return answer;
            }
        }
        count(&self.counters.wrong_ring);
        ReadAnswer::WrongRing(self.roster.members())
    }

    /// [`Core::write_replica`] for a coordinator with this ring.
    pub(crate) fn write_replica_in(&self, ring: RingHash, from: Option<NodeId>, record: &Record) -> WriteAnswer {
        if self.roster.ring_hash() == ring || Mutant::RingUnchecked.is_planted() {
            let answer = self.write_replica(from, record);
            // Others may have compared the slot under the next ring before the record was here. It then counts for nothing,
            // or what counts would not be where the next owners have looked.
            if self.roster.ring_hash() == ring || Mutant::RingUnchecked.is_planted() {
                return answer;
            }
        }
        count(&self.counters.wrong_ring);
        WriteAnswer::WrongRing(self.roster.members())
    }

    /// A write has not been confirmed by one of its owners.
    pub(crate) fn missed_write(&self, peer: NodeId, record: &Record) {
        count(&self.counters.missed_writes);
        let given_up = self.hints.lock().handle_missed(self.clock.now(), peer, record);
        self.observer.event(&Event::MissedWrite { peer, version: record.version });
        if let Some(queue) = given_up {
            self.observer.event(&Event::HintsDropped(queue));
        }
    }

    /// Has digests compared with these peers as soon as can be.
    pub(crate) fn compare_now(&self, peers: impl IntoIterator<Item = NodeId>) {
        self.compare_wanted.lock().extend(peers.into_iter().filter(|peer| *peer != self.id));
        self.resync_wanted.notify_one();
    }

    /// Builds the ring from the membership, after a change of it. `distrust` says that the others believed this node dead.
    pub(crate) fn build_ring(&self, distrust: bool) {
        let _span = info_span!("ring.build").entered();
        let built = self.roster.build_ring(&self.plan, &self.replica.sync, distrust);
        self.counters.left_early.fetch_add(built.left_early, Ordering::Relaxed);
        self.observer.event(&built.event);
        self.resync_wanted.notify_one();
    }

    /// Enters the ring.
    pub(crate) fn enter_ring(&self) {
        self.with_membership(|membership, now| membership.handle_stage(now, Stage::Syncing));
    }

    /// Enters the ring at once if that is small, and another member can reach this node.
    pub(crate) fn enter_small_ring(&self) {
        if self.reach.is_reachable() && self.roster.is_ring_small() {
            self.enter_ring();
        }
    }

    /// Whether no write is under way any more that a process before this one, with the same name, may have answered: what it held is
    /// gone, and its answer must not count beside one that comes after this node has compared with the others. Where every member owns
    /// every slot, who coordinates the write is one of those that it compares with.
    pub(crate) fn has_outlived_writes(&self) -> bool {
        self.roster.ring().members().len() < self.config.replicas.get()
            || self.clock.now().since_start() > self.config.write_timeout
            || Mutant::ReturnsInHaste.is_planted()
    }

    /// This node holds all that the others have shown it.
    pub(crate) fn handle_in_sync(&self) {
        if self.roster.membership.lock().me().stage == Stage::Syncing {
            self.with_membership(Membership::handle_in_sync);
        }
    }

    /// Whether all that `peer`, which is leaving by this claim, holds of this node's slots is here. If not it will be.
    pub(crate) fn has_taken_over(&self, peer: NodeId, incarnation: Incarnation) -> bool {
        let (is_done, left_early) = self.roster.has_taken_over(peer, incarnation);
        self.counters.left_early.fetch_add(left_early, Ordering::Relaxed);
        if !is_done {
            self.resync_wanted.notify_one();
        }
        is_done
    }

    /// Runs `input` on the membership, then does what it asks for.
    pub(crate) fn with_membership(&self, input: impl FnOnce(&mut Membership, Monotonic)) {
        let now = self.clock.now();
        let outputs = self.roster.run(now, input);
        let mut ring_changed = false;
        let mut refuted = false;
        let mut members_changed = false;
        let mut dialled = Vec::new();
        for output in outputs {
            match output {
                MembershipOutput::Send { to, message, .. } => {
                    if self.routes.send(to, Bytes::from(message.encode()), now) == Sent::StillDialled {
                        dialled.push(to);
                    }
                }
                // A full queue loses nothing: seeds and the dead are tried again for ever.
                MembershipOutput::Join { addr } => drop(self.joins.try_send(addr)),
                MembershipOutput::RingChanged => ring_changed = true,
                MembershipOutput::Refuted => refuted = true,
                MembershipOutput::Event(event) => {
                    members_changed |= matches!(event, Event::Member { .. } | Event::Forgotten { .. });
                    let span = self.gossip_spans.lock().of(&event);
                    span.in_scope(|| self.observer.event(&event));
                }
            }
        }
        if !dialled.is_empty() && !Mutant::DialledAreAccused.is_planted() {
            self.roster.membership.lock().handle_unsent(&dialled);
        }
        if ring_changed || refuted {
            self.build_ring(refuted && !Mutant::DeathForgotten.is_planted());
        }
        if ring_changed || members_changed {
            self.roster.members.send_replace(Arc::new(self.roster.members()));
        }
        self.roster.moved.notify_one();
    }

    pub(crate) fn handle_gossip(&self, from: NodeId, datagram: &[u8]) -> bool {
        if *self.paused.borrow() {
            return true;
        }
        let Some(message) = GossipMessage::decode(datagram) else { return false };
        self.with_membership(|membership, now| membership.handle_message(now, from, message));
        true
    }

    /// Merges a member list that came in a frame.
    pub(crate) fn handle_members(&self, members: &[Member]) {
        self.with_membership(|membership, now| membership.handle_members(now, members));
        self.roster.handle_list();
        self.enter_small_ring();
    }

    /// Forgets a member that is gone. False if it is present or not known.
    pub(crate) fn forget(&self, id: NodeId) -> bool {
        let mut is_forgotten = false;
        self.with_membership(|membership, _| is_forgotten = membership.handle_forgotten(id));
        is_forgotten
    }

    /// A peer has greeted, or answered a greeting.
    pub(crate) fn handle_greeting(&self, peer: NodeId, hello: &Hello) {
        *self.duplicate_since.lock() = None;
        if !hello.limits.cover(self.config.record_limits()) {
            // Relaxed: until it is seen, peers refuse what they do not take.
            self.has_smaller_peer.store(true, Ordering::Relaxed);
        }
        let members = Arc::clone(&self.roster.members.borrow());
        self.reach.handle_greeting(peer, hello.start, &members);
    }

    /// Another member has been taken for this node, and this one rejected for that, for longer than it takes to give up a process
    /// that is gone.
    pub(crate) fn is_duplicate_for_long(&self) -> bool {
        let now = self.clock.now();
        let since = *self.duplicate_since.lock().get_or_insert(now);
        now.since(since) > self.config.suspicion * 2 + self.config.gossip_interval * 8
    }

    /// Waits while the node is paused.
    pub(crate) async fn unpaused(&self) {
        if *self.paused.borrow() {
            self.paused.subscribe().wait_for(|paused| !paused).await;
        }
    }

    pub(crate) fn refuse(&self, reason: String) {
        self.refused.send_replace(Some(reason));
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.stats(self.replica.store.stats(), self.hints.lock().stats(self.clock.now()))
    }
}
