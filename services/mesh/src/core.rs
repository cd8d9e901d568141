//! What all threads of one node share: store, ring, clocks, membership, sync state, counters.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use mesh_proto::{
    Agreement, Applied, ApplyOrigin, Counters, Event, Found, Frame, FrameBody, GossipMessage, Hello, Hints,
    HybridClock, KeyHash, Member, Membership, MembershipConfig, MembershipOutput, Monotonic, Mutant, NodeId,
    ReadAnswer, Record, RepairPlan, RequestId, Ring, RingHash, Slot, SlotSync, Stage, Store, Version, Weight,
    WriteAnswer,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Observer, Stats,
    announced::Announced,
    clock::Clock,
    gossip_routes::{GossipRoutes, Sent},
    reach::Reach,
    ring_change::RingChange,
};

/// How many seeds and dead members may wait to be joined; more are dropped and come again with a later round.
pub(crate) const JOINS_WAITING_MAX: usize = 64;

/// How many connections a node dials at a time. More would only make all of them slower, until they time out and are dialled again.
const DIALS_AT_ONCE_MAX: usize = 16;

/// A clock that moves by no more than this is not taken to have been set.
const CLOCK_STEP_MAX_MS: u64 = 100;

/// The shared heart of a node.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) id: NodeId,
    /// Random per process start.
    pub(crate) start: u64,
    pub(crate) clock: Clock,
    /// Replaced when the wall clock was set back.
    pub(crate) versions: ArcSwap<HybridClock>,
    /// See [`Core::handle_vouched`]. At first no clock is near it.
    vouched_ms: AtomicI64,
    pub(crate) store: Store,
    pub(crate) sync: SlotSync,
    pub(crate) plan: Mutex<RepairPlan>,
    /// What tombstones wait for. Locked by upkeep alone.
    pub(crate) agreement: Mutex<Agreement>,
    pub(crate) observer: Arc<dyn Observer>,
    /// What peers have missed. Locked by whoever finds out that a write leg has failed, and by upkeep for a batch at a time.
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
    /// Since when this node has been turned away because another one has its name.
    pub(crate) duplicate_since: Mutex<Option<Monotonic>>,
    /// Whether some peer takes only smaller records than this node does.
    pub(crate) has_smaller_peer: AtomicBool,
    /// Why the mesh has turned this node away for good.
    pub(crate) refused: watch::Sender<Option<String>>,
    /// All members, for those who keep connections to them.
    pub(crate) members: Arc<Announced<Arc<Vec<Member>>>>,
    /// Wakes upkeep when the membership's next deadline may have moved.
    pub(crate) membership_moved: Notify,
    /// Wakes the resync when there is something new to compare.
    pub(crate) resync_wanted: Notify,
    pub(crate) joins: mpsc::Sender<String>,
    pub(crate) ring: ArcSwap<Ring>,
    /// What rings before this one leave to be done.
    pub(crate) change: RingChange,
    pub(crate) membership: Mutex<Membership>,
}

/// Adds one. Relaxed everywhere: counters order nothing.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Whether a clock has not been set between these two offsets.
const fn is_near(one_ms: i64, other_ms: i64) -> bool {
    one_ms.abs_diff(other_ms) <= CLOCK_STEP_MAX_MS
}

/// What versions end in: never the same for two nodes, two process starts or two clocks.
fn writer(id: NodeId, start: u64, since: Monotonic) -> u64 {
    let since_ns = u64::try_from(since.since_start().as_nanos()).unwrap_or(u64::MAX);
    KeyHash::of(&[id.get().to_le_bytes(), start.wrapping_add(since_ns).to_le_bytes()].concat()).get()
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
            seeds: config.seeds.iter().filter(|seed| **seed != config.public_addr).cloned().collect(),
        };
        let ring = config.rings.ring(&[(id, me.weight)], &[], config.replicas);
        let membership = Membership::new(membership_config, me.clone(), clock.now(), seed);
        Self {
            id,
            start,
            versions: ArcSwap::from_pointee(HybridClock::new(writer(id, start, Monotonic::default()))),
            vouched_ms: AtomicI64::new(i64::MIN),
            store: Store::new(&config.store),
            sync: SlotSync::default(),
            plan: Mutex::new(RepairPlan::default()),
            agreement: Mutex::new(Agreement::new(config.tombstone_margin())),
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
            members: Announced::new(Arc::new(vec![me])),
            membership_moved: Notify::new(),
            resync_wanted: Notify::new(),
            joins,
            ring: ArcSwap::new(ring),
            change: RingChange::default(),
            membership: Mutex::new(membership),
            clock,
            config,
        }
    }

    pub(crate) fn ring(&self) -> Guard<Arc<Ring>> {
        self.ring.load()
    }

    pub(crate) fn ring_hash(&self) -> RingHash {
        self.ring.load().hash()
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
        Frame { request: RequestId::default(), ring: self.ring_hash(), trace: None, body }
    }

    /// Whether this node is meant to be the first of its mesh: it was told of no other.
    pub(crate) fn is_seed(&self) -> bool {
        self.config.seeds.iter().all(|seed| *seed == self.config.public_addr)
    }

    /// What this node's own replica says about a key. Only an owner may be asked.
    pub(crate) fn read_replica(&self, slot: Slot, hash: KeyHash, key: &[u8]) -> ReadAnswer {
        match self.store.get(hash, key, self.clock.unix()) {
            Found::Value { version, expiry, value } => {
                ReadAnswer::Value { version, expiry, value, in_sync: self.sync.is_in_sync(slot) }
            }
            _ if !self.sync.is_in_sync(slot) && !Mutant::MissWhenEmpty.is_planted() => ReadAnswer::Unknown,
            Found::Gone { version } => ReadAnswer::Gone { version },
            Found::Absent => ReadAnswer::Absent,
        }
    }

    /// A version above all that this node has given or met.
    pub(crate) fn tick(&self) -> Version {
        self.versions.load().tick(self.clock.unix())
    }

    /// By how much the wall clock is ahead of the process's own time: constant, unless it is set.
    pub(crate) fn clock_offset_ms(&self) -> i64 {
        let own_ms = i64::try_from(self.clock.now().since_start().as_millis()).unwrap_or(i64::MAX);
        i64::try_from(self.clock.unix().get()).unwrap_or(i64::MAX).saturating_sub(own_ms)
    }

    /// Whether the wall clock is as it was when another owner last took a write that was stamped by it.
    pub(crate) fn is_in_step(&self) -> bool {
        // Relaxed, here and below: an old figure makes a write wait for another owner, no more.
        is_near(self.vouched_ms.load(Ordering::Relaxed), self.clock_offset_ms())
    }

    /// Another owner has taken a write that was stamped while the wall clock was ahead by so much.
    pub(crate) fn handle_vouched(&self, offset_ms: i64) {
        if !is_near(self.vouched_ms.load(Ordering::Relaxed), offset_ms) {
            self.vouched_ms.store(offset_ms, Ordering::Relaxed);
        }
    }

    /// If the wall clock was set back, makes versions by it again: what was stamped since has been refused everywhere. A key's
    /// owners see to it that a write is newer than what they hold, so nothing goes back.
    pub(crate) fn follow_wall_clock(&self) {
        if self.versions.load().is_left_ahead(self.clock.unix()) {
            // What is being stamped meanwhile has the old writer: never the same as anything new.
            let since = self.clock.now();
            self.versions.store(Arc::new(HybridClock::new(writer(self.id, self.start, since))));
            self.observer.event(&Event::ClockSetBack);
        }
    }

    /// Applies a write to this node's own replica.
    pub(crate) fn write_replica(&self, from: Option<NodeId>, record: &Record) -> WriteAnswer {
        // Before the record is applied: what is newer may come with the rest of the slot only afterwards.
        let in_sync = self.sync.is_in_sync(Slot::of(record.hash));
        let now = self.clock.unix();
        if let Err(refused) = self.versions.load().observe(record.version, now) {
            count(&self.counters.drift_refused);
            let ahead = Duration::from_millis(refused.ahead_ms);
            self.observer.event(&Event::DriftRefused { peer: from, ahead });
            return WriteAnswer::Drift { ahead_ms: refused.ahead_ms };
        }
        match self.store.apply(record, ApplyOrigin::Write, now) {
            // Only repairs are skipped.
            Applied::Stored | Applied::Skipped if in_sync => WriteAnswer::Applied,
            Applied::Stored | Applied::Skipped => WriteAnswer::AppliedUnconfirmed,
            Applied::Stale { .. } if Mutant::StaleWriteAcked.is_planted() => WriteAnswer::Applied,
            Applied::Stale { newer } => WriteAnswer::Stale { newer, in_sync },
            Applied::Collected { newer } => WriteAnswer::Collected { newer },
            Applied::TooLarge => WriteAnswer::TooLarge,
        }
    }

    /// [`Core::read_replica`] for a caller with this ring.
    pub(crate) fn read_replica_in(&self, ring: RingHash, slot: Slot, hash: KeyHash, key: &[u8]) -> ReadAnswer {
        if self.ring_hash() == ring || Mutant::RingUnchecked.is_planted() {
            let answer = self.read_replica(slot, hash, key);
            // What it means to be in sync may have changed with the ring meanwhile.
            if self.ring_hash() == ring || Mutant::RingUnchecked.is_planted() {
                return answer;
            }
        }
        count(&self.counters.wrong_ring);
        ReadAnswer::WrongRing(self.members())
    }

    /// [`Core::write_replica`] for a coordinator with this ring.
    pub(crate) fn write_replica_in(&self, ring: RingHash, from: Option<NodeId>, record: &Record) -> WriteAnswer {
        if self.ring_hash() == ring || Mutant::RingUnchecked.is_planted() {
            let answer = self.write_replica(from, record);
            // Others may have compared the slot under the next ring before the record was here. It then counts for nothing,
            // or what counts would not be where the next owners have looked.
            if self.ring_hash() == ring || Mutant::RingUnchecked.is_planted() {
                return answer;
            }
        }
        count(&self.counters.wrong_ring);
        WriteAnswer::WrongRing(self.members())
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

    /// Runs `input` on the membership, then does what it asks for.
    pub(crate) fn with_membership(&self, input: impl FnOnce(&mut Membership, Monotonic)) {
        let now = self.clock.now();
        let mut outputs = Vec::new();
        {
            let mut membership = self.membership.lock();
            input(&mut membership, now);
            while let Some(output) = membership.poll(now) {
                outputs.push(output);
            }
        }
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
                    members_changed |= matches!(event, Event::Member { .. });
                    self.observer.event(&event);
                }
            }
        }
        if !dialled.is_empty() && !Mutant::DialledAreAccused.is_planted() {
            self.membership.lock().handle_unsent(&dialled);
        }
        if ring_changed || refuted {
            self.build_ring(refuted && !Mutant::DeathForgotten.is_planted());
        }
        if ring_changed || members_changed {
            self.members.send_replace(Arc::new(self.members()));
        }
        self.membership_moved.notify_one();
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
        self.handle_list();
    }

    /// A peer has greeted, or answered a greeting.
    pub(crate) fn handle_greeting(&self, peer: NodeId, hello: &Hello) {
        *self.duplicate_since.lock() = None;
        if !hello.limits.cover(self.config.record_limits()) {
            // Relaxed: until it is seen, peers refuse what they do not take.
            self.has_smaller_peer.store(true, Ordering::Relaxed);
        }
        let members = Arc::clone(&self.members.borrow());
        self.reach.handle_greeting(peer, hello.start, &members);
    }

    /// Another member has been taken for this node, and this one turned away for that, for longer than it takes to give up a process
    /// that is gone.
    pub(crate) fn is_duplicate_for_long(&self) -> bool {
        let now = self.clock.now();
        let since = *self.duplicate_since.lock().get_or_insert(now);
        now.since(since) > self.config.suspicion * 2 + self.config.gossip_interval * 8
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.membership.lock().members()
    }

    pub(crate) fn next_membership_deadline(&self) -> Monotonic {
        self.membership.lock().next_deadline()
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
        self.counters.stats(self.store.stats(), self.hints.lock().stats(self.clock.now()))
    }
}
