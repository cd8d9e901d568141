//! GET: from this node's own replica if that is enough, and else from the owners that `mesh_proto::Read` picks. This file sends,
//! sleeps and counts; what to do next the machine says.

use std::{pin::pin, sync::Arc, task::Poll};

use arrayvec::ArrayVec;
use bytes::Bytes;
use mesh_proto::{
    Body, Consistency, KeyHash, LegFailure, LegOutcome, Monotonic, NodeId, OpOutcome, OpRecord, OperationKind, Read,
    ReadAnswer, ReadAttempts, ReadConfig, ReadOutcome, ReadStep, Record, RequestId, Ring, RingHash, Slot, Version,
    encode_read,
};
use tokio::time::{Sleep, sleep, sleep_until};

use super::Worker;
use crate::{
    GetError, GetOptions, Hit, Lookup,
    call::{Legs, ReadCall},
    core::{Core, count},
    links::{link::Waiter, peers::Peers},
    recorder::{OpRecorder, RecordedOperation},
};

impl Worker {
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
        let operation = RecordedOperation { op: OperationKind::Get, started, hash, trace: options.trace };
        self.admit().await.ok_or(GetError::Stopped)?;
        let ring = core.roster.ring();
        let (ring_hash, local) = (ring.hash(), ring.owns(core.id, slot).then(|| core.replica.read(slot, hash, key)));
        if let (Some(ReadAnswer::Value { version, value, .. }), Consistency::One) = (&local, options.consistency) {
            let hit = Hit { value: value.clone(), version: *version, served_by: core.id };
            operation.record(core, record, (OpOutcome::HitLocal, Some(*version), Legs::new()));
            return Ok(Lookup::Local(hit));
        }
        drop(ring);
        let mut recorder = OpRecorder::new(core, &self.in_flight, operation, record);
        let request = Request { worker: self, key, operation, consistency: options.consistency };
        let result = request.read((ring_hash, local), &mut recorder).await;
        let (outcome, version) = match &result {
            Ok(Lookup::Local(hit)) => (OpOutcome::HitLocal, Some(hit.version)),
            Ok(Lookup::Remote(hit)) => (OpOutcome::HitRemote, Some(hit.version)),
            Ok(Lookup::Miss { version }) => (OpOutcome::Miss, *version),
            Err(GetError::TimedOut) => (OpOutcome::Indeterminate, None),
            Err(GetError::Unavailable { .. } | GetError::Stopped) => (OpOutcome::Unavailable, None),
        };
        recorder.end(outcome, version);
        result
    }
}

/// A GET that this node's own replica has not answered at once.
struct Request<'a> {
    worker: &'a Worker,
    key: &'a Bytes,
    operation: RecordedOperation,
    consistency: Consistency,
}

impl Request<'_> {
    /// Attempts, until one ends with a result or the time for more is over. `local` is what this node's own replica has said, in
    /// the ring of that hash.
    async fn read(
        &self,
        (local_ring, mut local): (RingHash, Option<ReadAnswer>),
        recorder: &mut OpRecorder<'_>,
    ) -> Result<Lookup, GetError> {
        let (core, peers) = (&*self.worker.core, &*self.worker.peers);
        let RecordedOperation { hash, started, .. } = self.operation;
        let slot = Slot::of(hash);
        let mut attempts = ReadAttempts::new(started, core.config.read_timeout);
        peers.hedge_budget.lock().deposit();
        loop {
            if let Some(pause) = attempts.begin() {
                sleep(pause).await;
            }
            let ring = Arc::clone(&core.roster.ring());
            if attempts.is_repeat() || ring.hash() != local_ring {
                local = ring.owns(core.id, slot).then(|| core.read_replica_in(ring.hash(), slot, hash, self.key));
            }
            let mut owners = peers.by_cost(ring.owners(slot), started);
            if attempts.asks_former() {
                owners.extend(core.roster.former_owners(&ring, slot).into_iter().take(owners.remaining_capacity()));
            }
            let held = version_of(local.as_ref());
            let local = local.take().filter(|answer| !matches!(answer, ReadAnswer::WrongRing(_)));
            let call = ReadCall::new(Read::new(self.config(), &owners, local, started));
            recorder.reads(&call);
            let outcome = self.run(&call, &ring, recorder).await;
            let members = ring.members().len();
            if !call.with_machine(|read| attempts.handle_done(core.clock.now(), read, members)) {
                return self.conclude(outcome, &ring, &owners, held);
            }
            if outcome == ReadOutcome::WrongRing {
                self.worker.share_members(&owners);
            }
        }
    }

    /// Drives one attempt to its end: puts legs on their way, and sleeps until an answer comes or the machine wants to be asked.
    async fn run(&self, call: &Arc<ReadCall>, ring: &Ring, recorder: &mut OpRecorder<'_>) -> ReadOutcome {
        let (core, peers) = (&*self.worker.core, &*self.worker.peers);
        let mut sent = SentLegs { peers, legs: ArrayVec::new() };
        let mut timer = pin!(None::<Sleep>);
        let outcome = std::future::poll_fn(|context| {
            loop {
                let now = core.clock.now();
                match call.step(now, &peers.hedge_budget, context) {
                    ReadStep::Send { leg, peer, hedged } => {
                        if hedged {
                            count(&core.counters.hedges);
                        }
                        match self.send(call, (leg, peer), ring, now) {
                            // One entry per owner, and there are at most eight.
                            Ok(id) => drop(sent.legs.try_push((peer, id))),
                            Err(failure) => call.handle_failure(now, leg, failure),
                        }
                    }
                    ReadStep::Wait(until) => {
                        let deadline = core.clock.instant(until);
                        if timer.as_ref().as_pin_ref().is_none_or(|timer| timer.deadline() != deadline) {
                            timer.set(Some(sleep_until(deadline)));
                        }
                        match timer.as_mut().as_pin_mut().map(|timer| timer.poll(context)) {
                            Some(Poll::Pending) => return Poll::Pending,
                            _ => timer.set(None),
                        }
                    }
                    ReadStep::Done(outcome) => return Poll::Ready(outcome),
                }
            }
        })
        .await;
        let legs = call.end(core.clock.now());
        self.count(&legs);
        sent.cancel(|peer| legs.iter().any(|leg| leg.peer == peer && leg.outcome == LegOutcome::Cancelled));
        recorder.renew(legs);
        outcome
    }

    /// Writes the request frame of one leg.
    fn send(
        &self,
        call: &Arc<ReadCall>,
        (leg, peer): (usize, NodeId),
        ring: &Ring,
        now: Monotonic,
    ) -> Result<RequestId, LegFailure> {
        let RecordedOperation { hash, trace, .. } = self.operation;
        let deadline = now + self.worker.core.config.read_timeout;
        self.worker.peers.with_link(peer, |link| {
            let waiter = Waiter::Read { call: Arc::clone(call), leg };
            link.request(waiter, now, deadline, |outbox, id| {
                encode_read(outbox, id, ring.hash(), trace.map(|trace| trace.of_leg(leg)), (hash, self.key));
            })
        })
    }

    /// What the last attempt says to the caller. `held` is this node's own version.
    fn conclude(
        &self,
        outcome: ReadOutcome,
        ring: &Ring,
        owners: &[NodeId],
        held: Option<Version>,
    ) -> Result<Lookup, GetError> {
        let core = &*self.worker.core;
        match outcome {
            ReadOutcome::WrongRing => Err(GetError::Unavailable { answers: 0, needed: answers_needed(core) }),
            ReadOutcome::Value { version, value, expiry, leg: Some(leg) } => {
                let (hash, key) = (self.operation.hash, self.key.clone());
                // A newer version than this node's own replica has: the replica is brought up to date.
                if ring.owns(core.id, Slot::of(hash)) && held.is_none_or(|held| held < version) {
                    let record = Record { hash, key, version, expiry, body: Body::Value(value.clone()) };
                    // Whether it is taken is the store's business: something newer may have come meanwhile.
                    core.repair_replica(&record);
                }
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

    /// Counts remote reads, and what the hedges were worth.
    fn count(&self, legs: &Legs) {
        let counters = &self.worker.core.counters;
        if !legs.is_empty() {
            count(&counters.remote_reads);
        }
        if legs.iter().any(|leg| leg.outcome == LegOutcome::Won && leg.hedged) {
            count(&counters.hedge_wins);
        }
    }

    fn config(&self) -> ReadConfig {
        let (core, peers) = (&*self.worker.core, &*self.worker.peers);
        let hedge_delay = peers.hedge_delay();
        ReadConfig {
            consistency: self.consistency,
            answers_needed: answers_needed(core),
            fanout_max: core.config.read_fanout_max,
            hedge_delay,
            hedge_interval: core.config.hedge_interval.unwrap_or(hedge_delay),
            per_try: peers.read_per_try(),
            timeout: core.config.read_timeout,
            may_be_evicted: core.evicted.is_any(),
        }
    }
}

/// One attempt's legs under way. If the caller goes away they are cancelled.
struct SentLegs<'a> {
    peers: &'a Peers,
    legs: ArrayVec<(NodeId, RequestId), 8>,
}

impl SentLegs<'_> {
    /// The attempt is over: forgets the legs, and cancels those at the peers that have not answered.
    fn cancel(&mut self, is_open: impl Fn(NodeId) -> bool) {
        for (peer, id) in self.legs.drain(..).filter(|(peer, _)| is_open(*peer)) {
            if let Some(link) = self.peers.link(peer) {
                link.cancel(id);
            }
        }
    }
}

impl Drop for SentLegs<'_> {
    fn drop(&mut self) {
        self.cancel(|_| true);
    }
}

fn answers_needed(core: &Core) -> usize {
    core.config.concern.answers_needed(core.config.replicas)
}

fn version_of(answer: Option<&ReadAnswer>) -> Option<Version> {
    match answer {
        Some(ReadAnswer::Value { version, .. } | ReadAnswer::Gone { version }) => Some(*version),
        _ => None,
    }
}
