//! One runtime's way into the node, and the request path itself: what happens for a GET, a SET and a DELETE.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh_proto::{
    Body, Consistency, ControlRequest, Expiry, FrameBody, KeyHash, LegFailure, LegOutcome, Monotonic, Mutant, NodeId,
    Op, OpOutcome, OpRecord, Read, ReadAnswer, ReadConfig, ReadOutcome, Record, RequestId, Ring, RingHash, Round, Slot,
    TraceContext, Version, Write, WriteOutcome, encode_read,
};
use tokio::sync::oneshot;

use crate::{
    GetError, GetOptions, Hit, Lookup, Ttl, WriteError, WriteOptions, Written,
    call::{Legs, ReadCall, WriteCall, renew},
    core::{Core, count},
    group::{Entry, Groups, Told},
    link::Waiter,
    peers::{Peers, ReadLegs},
    trail::{Trail, refusal},
    underway::{Asked, Underway},
};

/// How long a read goes on trying when owners see another ring or are still catching up.
const RING_PATIENCE: Duration = Duration::from_millis(500);

/// The pause before a third attempt, and each one after it, at a read or a write.
const RING_PAUSE: Duration = Duration::from_millis(2);

/// How long an owner may be silent when others have answered all that round 2 of a write needs, before that begins.
const SILENCE_MAX: Duration = Duration::from_millis(5);

/// How long an operation waits for connections that are just being made before it is refused.
const CONNECTING: Duration = Duration::from_millis(8);

/// One runtime's way into the node: its own peer connections, the shared store. Its futures must be polled on the runtime
/// that it was made on.
#[derive(Clone)]
pub struct Worker {
    core: Arc<Core>,
    pub(crate) peers: Arc<Peers>,
    in_flight: Arc<AtomicUsize>,
    groups: Arc<Groups>,
}

impl Worker {
    pub(crate) fn new(core: Arc<Core>, peers: Arc<Peers>) -> Self {
        Self { core, peers, in_flight: Arc::default(), groups: Groups::new() }
    }

    /// Operations in flight on this worker.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        // Relaxed: a figure for people.
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Reads a key. `record` is filled at the end, and also if this future is dropped before it.
    ///
    /// # Errors
    /// [`GetError`]; nothing was changed.
    pub async fn get(
        &self,
        key: &Bytes,
        options: GetOptions,
        record: &mut Option<OpRecord>,
    ) -> Result<Lookup, GetError> {
        let core = &*self.core;
        let started = core.clock.now();
        let hash = KeyHash::of(key);
        let slot = Slot::of(hash);
        let asked = Asked { op: Op::Get, started, hash, trace: options.trace };
        self.admit().await.ok_or(GetError::Stopped)?;
        let ring = core.ring();
        let (ring_hash, local) = (ring.hash(), ring.owns(core.id, slot).then(|| core.read_replica(slot, hash, key)));
        if let (Some(ReadAnswer::Value { version, value, .. }), Consistency::One) = (&local, options.consistency) {
            let hit = Hit { value: value.clone(), version: *version, served_by: core.id };
            asked.record(core, record, (OpOutcome::HitLocal, Some(*version), Legs::new()));
            return Ok(Lookup::Local(hit));
        }
        drop(ring);
        let mut underway = Underway::new(core, &self.in_flight, asked, record);
        let (result, legs) = self.read(key, hash, (ring_hash, local), options, started, &mut underway).await;
        let outcome = match &result {
            Ok(Lookup::Local(_)) => OpOutcome::HitLocal,
            Ok(Lookup::Remote(_)) => OpOutcome::HitRemote,
            Ok(Lookup::Miss { .. }) => OpOutcome::Miss,
            Err(GetError::TimedOut) => OpOutcome::Indeterminate,
            Err(GetError::Unavailable { .. } | GetError::Stopped) => OpOutcome::Unavailable,
        };
        let version = match &result {
            Ok(Lookup::Local(hit) | Lookup::Remote(hit)) => Some(hit.version),
            Ok(Lookup::Miss { version }) => *version,
            Err(_) => None,
        };
        underway.end(outcome, version, legs);
        result
    }

    /// Writes a value. `record` is filled at the end, and also if this future is dropped before it.
    ///
    /// # Errors
    /// [`WriteError`]; each variant says whether anything was written.
    pub async fn set(
        &self,
        key: Bytes,
        value: Bytes,
        options: WriteOptions,
        record: &mut Option<OpRecord>,
    ) -> Result<Written, WriteError> {
        self.write(Op::Set, (key, Body::Value(value)), options, record).await
    }

    /// Deletes a key, whether or not it is there. `record` is filled at the end, and also if this future is dropped before it.
    ///
    /// # Errors
    /// [`WriteError`]; each variant says whether anything was written.
    pub async fn delete(
        &self,
        key: Bytes,
        options: WriteOptions,
        record: &mut Option<OpRecord>,
    ) -> Result<Written, WriteError> {
        self.write(Op::Delete, (key, Body::Tombstone), options, record).await
    }

    async fn read(
        &self,
        key: &Bytes,
        hash: KeyHash,
        (local_ring, mut local): (RingHash, Option<ReadAnswer>),
        options: GetOptions,
        started: Monotonic,
        underway: &mut Underway<'_>,
    ) -> (Result<Lookup, GetError>, Legs) {
        let (core, slot) = (&*self.core, Slot::of(hash));
        let mut legs = Legs::new();
        let patience = started + RING_PATIENCE.min(core.config.read_timeout);
        let mut ask_former = false;
        self.peers.hedge_budget.lock().deposit();
        for attempt in 0_u32.. {
            if attempt > 1 {
                tokio::time::sleep(RING_PAUSE).await;
            }
            let ring = Arc::clone(&core.ring());
            if attempt > 0 || ring.hash() != local_ring {
                local = ring.owns(core.id, slot).then(|| core.read_replica_in(ring.hash(), slot, hash, key));
            }
            let mut owners = self.peers.by_cost(ring.owners(slot), started);
            if ask_former {
                owners.extend(core.former_owners(&ring, slot).into_iter().take(owners.remaining_capacity()));
            }
            let held = version_of(local.as_ref());
            let local = local.take().filter(|answer| !matches!(answer, ReadAnswer::WrongRing(_)));
            let machine = Read::new(self.read_config(options.consistency), &owners, local, started);
            let call = ReadCall::new(machine, started);
            underway.reads(&call);
            let mut sent = ReadLegs::new(&self.peers);
            let outcome = call
                .run(core, &self.peers.hedge_budget, |call, leg, peer, now| {
                    let trace = options.trace.map(|trace| trace.of_leg(leg));
                    let id = self.send_read(call, leg, peer, now, key, hash, &ring, trace)?;
                    sent.push(peer, id);
                    Ok(())
                })
                .await;
            let won = if let ReadOutcome::Value { leg, .. } = &outcome { *leg } else { None };
            let ended = call.finish(won, core.clock.now().since(started));
            self.count_legs(&ended);
            sent.cancel(|peer| ended.iter().any(|leg| leg.peer == peer && leg.outcome == LegOutcome::Cancelled));
            renew(&mut legs, ended);
            match outcome {
                ReadOutcome::WrongRing if core.clock.now() < patience => self.share_members(&owners),
                // Owners that have just taken over the slot are about to know, and those before them may know already.
                ReadOutcome::Unavailable { .. }
                    if core.clock.now() < patience
                        && ring.members().len() > 1
                        && call.with_machine(Read::is_catching_up) =>
                {
                    ask_former = true;
                }
                outcome => return (self.conclude(outcome, key, hash, &ring, &owners, held), legs),
            }
        }
        (Err(GetError::Unavailable { answers: 0, needed: core.answers_needed() }), legs)
    }

    /// What a read's last attempt says to its caller. `held` is this node's own version.
    fn conclude(
        &self,
        outcome: ReadOutcome,
        key: &Bytes,
        hash: KeyHash,
        ring: &Ring,
        owners: &[NodeId],
        held: Option<Version>,
    ) -> Result<Lookup, GetError> {
        let core = &*self.core;
        match outcome {
            ReadOutcome::WrongRing => Err(GetError::Unavailable { answers: 0, needed: core.answers_needed() }),
            ReadOutcome::Value { version, value, expiry, leg: Some(leg) } => {
                let record = Record { hash, key: key.clone(), version, expiry, body: Body::Value(value.clone()) };
                self.repair_replica(ring, Slot::of(hash), held, &record);
                let served_by = owners.get(leg).copied().unwrap_or(core.id);
                Ok(Lookup::Remote(Hit { value, version, served_by }))
            }
            ReadOutcome::Value { version, value, leg: None, .. } => {
                Ok(Lookup::Local(Hit { value, version, served_by: core.id }))
            }
            ReadOutcome::Miss { version } => Ok(Lookup::Miss { version }),
            ReadOutcome::Unavailable { answers, needed } => Err(GetError::Unavailable { answers, needed }),
            ReadOutcome::TimedOut => Err(GetError::TimedOut),
        }
    }

    /// Writes the request frame of one read leg.
    #[expect(
        clippy::too_many_arguments,
        reason = "the leg's identity and the request's parts; a struct would be used once"
    )]
    fn send_read(
        &self,
        call: &Arc<ReadCall>,
        leg: usize,
        peer: NodeId,
        now: Monotonic,
        key: &Bytes,
        hash: KeyHash,
        ring: &Ring,
        trace: Option<TraceContext>,
    ) -> Result<RequestId, LegFailure> {
        let deadline = now + self.core.config.read_timeout;
        self.peers.with_link(peer, |link| {
            let waiter = Waiter::Read { call: Arc::clone(call), leg };
            link.request(waiter, now, deadline, |outbox, id| {
                encode_read(outbox, id, ring.hash(), trace, hash, key);
            })
        })
    }

    /// Counts remote reads, and what the hedges were worth.
    fn count_legs(&self, legs: &Legs) {
        if !legs.is_empty() {
            count(&self.core.counters.remote_reads);
        }
        if legs.iter().any(|leg| leg.outcome == LegOutcome::Won && leg.hedged) {
            count(&self.core.counters.hedge_wins);
        }
    }

    /// A read that found a newer version than this node's own replica brings the replica up to date.
    fn repair_replica(&self, ring: &Ring, slot: Slot, held: Option<Version>, record: &Record) {
        let core = &*self.core;
        if ring.owns(core.id, slot) && held.is_none_or(|held| held < record.version) {
            // Whether it is taken is the store's business: something newer may have come meanwhile.
            core.write_replica(None, record);
        }
    }

    async fn write(
        &self,
        op: Op,
        (key, body): (Bytes, Body),
        options: WriteOptions,
        slot: &mut Option<OpRecord>,
    ) -> Result<Written, WriteError> {
        let core = &*self.core;
        let started = core.clock.now();
        self.admit().await.ok_or(WriteError::Stopped)?;
        let expiry = match &body {
            Body::Value(_) => self.expiry(options.ttl),
            Body::Tombstone | Body::Expired => Expiry::NEVER,
        };
        let hash = KeyHash::of(&key);
        let asked = Asked { op, started, hash, trace: options.trace };
        let mut underway = Underway::new(core, &self.in_flight, asked, slot);
        let lead = match self.groups.enter(hash, &key) {
            Entry::Go(lead) => lead,
            Entry::Wait(told) => match self.told(told, started).await {
                Told::Go(lead) => Some(lead),
                Told::Carried(result) => {
                    count(&core.counters.carried_writes);
                    return underway.written(result, Legs::new());
                }
            },
        };
        // Only now: above all that this node has met while the write waited.
        let record = Record { hash, key, version: core.tick(), expiry, body };
        let (result, legs) = self.replicate(record, options.trace, started, &mut underway).await;
        if let Some(lead) = lead {
            lead.end(result);
        }
        underway.written(result, legs)
    }

    /// Waits until a write of the same key, which is in flight, has ended.
    async fn told(&self, told: oneshot::Receiver<Told>, started: Monotonic) -> Told {
        let core = &*self.core;
        let deadline = core.clock.instant(started + core.config.write_timeout);
        match tokio::time::timeout_at(deadline, told).await {
            Ok(Ok(told)) => told,
            // Another write may be carrying it.
            _ => Told::Carried(Err(WriteError::Indeterminate {
                acks: 0,
                needed: core.config.concern.get(),
                version: core.tick(),
            })),
        }
    }

    /// Sends a record to all its owners, in two rounds at most, and starts again where owners see another ring or are not in sync.
    async fn replicate(
        &self,
        mut record: Record,
        trace: Option<TraceContext>,
        started: Monotonic,
        underway: &mut Underway<'_>,
    ) -> (Result<Written, WriteError>, Legs) {
        let (core, slot) = (&*self.core, Slot::of(record.hash));
        let deadline = started + core.config.write_timeout;
        let needed = core.config.concern.get();
        let mut trail = Trail::new();
        let mut legs = Legs::new();
        for attempt in 0_u32.. {
            if attempt > 1 {
                tokio::time::sleep(RING_PAUSE).await;
            }
            let ring = Arc::clone(&core.ring());
            let reachable = self.reachable(&ring, slot).await;
            if reachable < needed {
                return (Err(trail.verdict(record.version, needed, WriteError::NoQuorum { reachable, needed })), legs);
            }
            let round = trail.next_round(ring.hash());
            match attempt {
                0 => {}
                1 => count(&core.counters.second_rounds),
                _ if trail.is_orderly => count(&core.counters.further_rounds),
                _ => {}
            }
            let call = self.send_write(round, &ring, slot, record.clone(), trace, started, deadline);
            underway.writes(&call);
            let outcome = call.outcome(SILENCE_MAX).await;
            renew(&mut legs, call.finish(core.clock.now().since(started)));
            let version = call.version();
            call.with_machine(|machine| trail.add(machine));
            match outcome {
                WriteOutcome::Acknowledged => return (Ok(Written { version }), legs),
                WriteOutcome::Stale { newest, next } => {
                    if core.versions.load().observe(newest, core.clock.unix()).is_err() {
                        return (Err(trail.verdict(version, needed, WriteError::Drift)), legs);
                    }
                    record.version = core.tick();
                    // A clock that has just been set back stamps lower.
                    let is_above = record.version > version.max(newest);
                    trail.next = if is_above { next } else { Round::First };
                }
                WriteOutcome::WrongRing => self.share_members(ring.owners(slot)),
                // Owners that have just taken over the slot are about to know.
                WriteOutcome::Unconfirmed => {}
                WriteOutcome::Refused { .. } | WriteOutcome::Indeterminate { .. } => {
                    let refusal = call.with_machine(|machine| refusal(machine, reachable, needed));
                    return (Err(trail.verdict(version, needed, refusal)), legs);
                }
            }
            if core.clock.now() >= deadline {
                break;
            }
        }
        (Err(trail.verdict(record.version, needed, WriteError::NoQuorum { reachable: 0, needed })), legs)
    }

    /// Puts one leg per owner on its way. This node's own replica is a leg like any other, but for its turn: see [`WriteCall`].
    #[expect(clippy::too_many_arguments, reason = "the round and the request's parts; a struct would be used once")]
    fn send_write(
        &self,
        round: Round,
        ring: &Ring,
        slot: Slot,
        record: Record,
        trace: Option<TraceContext>,
        started: Monotonic,
        deadline: Monotonic,
    ) -> Arc<WriteCall> {
        let core = &*self.core;
        let now = core.clock.now();
        let owners = ring.owners(slot);
        let (concern, replicas) = (core.config.concern, core.config.replicas);
        let machine = Write::new(round, concern, concern.confirmations_needed(replicas), owners.len());
        let own = owners.iter().position(|owner| *owner == core.id);
        // If this clock was set since another owner last took a write that it stamped, one of them has to accept this one first.
        let last = own.filter(|_| owners.len() > 1 && !core.is_in_step());
        let stamped = (last, core.clock_offset_ms());
        let call = WriteCall::new(machine, (ring.hash(), owners), stamped, record, started, now);
        for (leg, owner) in owners.iter().enumerate().filter(|(_, owner)| **owner != core.id) {
            let waiter = Waiter::Write { call: Arc::clone(&call), leg };
            let (trace, write) = (trace.map(|trace| trace.of_leg(leg)), (ring.hash(), &call.record));
            let sent = self.peers.with_link(*owner, |link| link.send_write(waiter, now, deadline, trace, write));
            if let Err(failure) = sent {
                call.handle_failure(core, now, leg, failure);
            }
        }
        if let Some(leg) = own.filter(|_| last.is_none()) {
            call.apply_here(core, leg);
        }
        for peer in ring.joining(slot) {
            // It will be compared with before it counts, so it does not matter if this comes to nothing.
            let write = (ring.hash(), &call.record);
            let _ = self.peers.with_link(peer, |link| link.send_write(Waiter::Joining, now, deadline, None, write));
        }
        call
    }

    /// How many owners can be sent to, this node included. If they are too few only because a connection is just being
    /// made, waits for it a little.
    async fn reachable(&self, ring: &Ring, slot: Slot) -> usize {
        let core = &*self.core;
        let owners = ring.owners(slot);
        let count_up = || owners.iter().filter(|owner| **owner == core.id || self.peers.is_up(**owner)).count();
        let needed = core.config.concern.get();
        let mut up = count_up();
        let patience = core.clock.now() + CONNECTING;
        while up < needed && owners.len() >= needed && core.clock.now() < patience {
            tokio::time::sleep(Duration::from_millis(1)).await;
            up = count_up();
        }
        up
    }

    /// Owners see another ring: tell them whom this node knows, ahead of the next attempt on the same streams. Their own
    /// lists have come with their answers.
    fn share_members(&self, owners: &[NodeId]) {
        let frame = self.core.frame(FrameBody::Control(ControlRequest::Members(self.core.members())));
        for owner in owners.iter().filter(|owner| **owner != self.core.id) {
            if let Some(link) = self.peers.link(*owner) {
                link.tell(&frame);
            }
        }
    }

    /// Asks these peers to keep what they recorded of a trace: its fate is known only now.
    pub fn keep_trace(&self, trace: u128, peers: impl IntoIterator<Item = NodeId>) {
        let frame = self.core.frame(FrameBody::Control(ControlRequest::KeepTrace(trace.to_be_bytes())));
        for link in peers.into_iter().filter_map(|peer| self.peers.link(peer)) {
            link.tell(&frame);
        }
    }

    fn read_config(&self, consistency: Consistency) -> ReadConfig {
        let config = &self.core.config;
        let hedge_delay = self.peers.hedge_delay();
        ReadConfig {
            consistency,
            answers_needed: self.core.answers_needed(),
            fanout_max: config.read_fanout_max,
            hedge_delay,
            hedge_interval: config.hedge_interval.unwrap_or(hedge_delay),
            per_try: self.peers.read_per_try(),
            timeout: config.read_timeout,
        }
    }

    fn expiry(&self, ttl: Ttl) -> Expiry {
        let after = match ttl {
            Ttl::NodeDefault => self.core.config.default_ttl,
            Ttl::Never => None,
            Ttl::After(time) => Some(time),
        };
        let after = after.filter(|_| !Mutant::ExpiryForgotten.is_planted());
        after.map_or(Expiry::NEVER, |time| Expiry::at(self.core.clock.unix() + time))
    }

    /// Waits while the node is paused; nothing if it has stopped.
    async fn admit(&self) -> Option<()> {
        if *self.core.paused.borrow() {
            self.core.unpaused().await;
        }
        (!self.core.stopped.is_cancelled()).then_some(())
    }
}

impl Core {
    fn answers_needed(&self) -> usize {
        self.config.concern.answers_needed(self.config.replicas)
    }
}

fn version_of(answer: Option<&ReadAnswer>) -> Option<Version> {
    match answer {
        Some(ReadAnswer::Value { version, .. } | ReadAnswer::Gone { version }) => Some(*version),
        _ => None,
    }
}
