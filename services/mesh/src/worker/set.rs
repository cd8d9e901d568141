//! SET, and what it has in common with DELETE: writes of one key queue up, and each goes to all owners, in the rounds that
//! `mesh_proto::Write` asks for. This file stamps, sends and sleeps; what to do next the machine says.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use mesh_proto::{
    Body, Expiry, KeyHash, LegFailure, LegQueues, Monotonic, Mutant, NodeId, OpOutcome, OpRecord, OperationKind,
    Record, Refusals, Ring, Round, Slot, TraceContext, Write, WriteAnswer, WriteConfig, WriteOutcome, WriteRounds,
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout, timeout_at},
};

use super::Worker;
use crate::{
    Ttl, WriteError, WriteOptions, Written,
    call::WriteCall,
    core::count,
    group::{GroupOutcome, WriteTurn},
    links::link::Waiter,
    recorder::{OpRecorder, RecordedOperation},
};

/// How long an owner may be silent when others have answered all that round 2 of a write needs, before that begins.
const SILENCE_MAX: Duration = Duration::from_millis(5);

/// How long an operation waits for connections that are just being made before it is refused.
const CONNECTING: Duration = Duration::from_millis(8);

impl Worker {
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
        self.write(OperationKind::Set, (key, Body::Value(value)), options, record).await
    }

    pub(super) async fn write(
        &self,
        op: OperationKind,
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
        let operation = RecordedOperation { op, started, hash, trace: options.trace };
        let mut recorder = OpRecorder::new(core, &self.in_flight, operation, slot);
        let lead = match self.groups.enter(hash, &key) {
            WriteTurn::Go(lead) => lead,
            WriteTurn::Wait(told) => match self.told(told, started).await {
                GroupOutcome::Go(lead) => Some(lead),
                GroupOutcome::Carried(result) => {
                    count(&core.counters.carried_writes);
                    return written(recorder, result);
                }
            },
        };
        // Only now: above all that this node has met while the write waited.
        let record = Record { hash, key, version: core.replica.tick(), expiry, body };
        let result = self.replicate(record, operation, &mut recorder).await;
        if let Some(lead) = lead {
            lead.end(result);
        }
        written(recorder, result)
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

    /// Waits until a write of the same key, which is in flight, has ended.
    async fn told(&self, told: oneshot::Receiver<GroupOutcome>, started: Monotonic) -> GroupOutcome {
        let core = &*self.core;
        let deadline = core.clock.instant(started + core.config.write_timeout);
        match timeout_at(deadline, told).await {
            Ok(Ok(told)) => told,
            // Another write may be carrying it.
            _ => GroupOutcome::Carried(Err(WriteError::Indeterminate {
                acks: 0,
                needed: core.config.concern.get(),
                version: core.replica.tick(),
            })),
        }
    }

    /// Sends a record to all its owners, in two rounds at most, and starts again where owners see another ring or are not in sync.
    async fn replicate(
        &self,
        mut record: Record,
        operation: RecordedOperation,
        recorder: &mut OpRecorder<'_>,
    ) -> Result<Written, WriteError> {
        let (core, slot) = (&*self.core, Slot::of(record.hash));
        let needed = core.config.concern.get();
        let mut rounds = WriteRounds::new(operation.started, core.config.write_timeout);
        // A refusal says that nothing was written; once any round may have left a trace, no later one can say so.
        let fail = |rounds: &WriteRounds, version, refusal| match rounds.acks_if_written() {
            Some(acks) => Err(WriteError::Indeterminate { acks, needed, version }),
            None => Err(refusal),
        };
        loop {
            if let Some(pause) = rounds.pause() {
                sleep(pause).await;
            }
            let ring = Arc::clone(&core.roster.ring());
            let reachable = self.reachable(&ring, slot).await;
            if reachable < needed {
                return fail(&rounds, record.version, WriteError::NoQuorum { reachable, needed });
            }
            // Relaxed: until it is seen, peers refuse what they do not take.
            if core.has_smaller_peer.load(Ordering::Relaxed) && self.admitting(&ring, &record) < needed {
                return fail(&rounds, record.version, WriteError::TooLarge);
            }
            let round = rounds.begin(ring.hash());
            match rounds.begun() {
                1 => {}
                2 => count(&core.counters.second_rounds),
                _ if rounds.is_orderly() => count(&core.counters.further_rounds),
                _ => {}
            }
            let version = record.version;
            let call = self.send_round(round, &ring, record.clone(), (operation, rounds.deadline()));
            recorder.writes(&call);
            let outcome = outcome(&call).await;
            recorder.renew(call.end(core.clock.now()));
            call.with_machine(|machine| rounds.handle_done(machine));
            match outcome {
                // A node that starts waits for as long as a write may take, and no longer: see `Core::has_outlived_writes`.
                WriteOutcome::Acknowledged if core.clock.now() > rounds.deadline() => {
                    return fail(&rounds, version, WriteError::NoQuorum { reachable, needed });
                }
                WriteOutcome::Acknowledged => {
                    self.send_to_joining(&ring, &call, rounds.deadline());
                    return Ok(Written { version });
                }
                WriteOutcome::Stale { newest, next } => {
                    if core.replica.observe(newest, core.clock.unix()).is_err() {
                        return fail(&rounds, version, WriteError::Drift);
                    }
                    record.version = core.replica.tick();
                    rounds.handle_version_changed(next, record.version > version.max(newest));
                }
                WriteOutcome::WrongRing => self.share_members(ring.owners(slot)),
                // Owners that have just taken over the slot are about to know.
                WriteOutcome::Unconfirmed => {}
                WriteOutcome::Refused { .. } | WriteOutcome::Indeterminate { .. } => {
                    let refusal = call.with_machine(|machine| refusal(machine.refusals()));
                    return fail(&rounds, version, refusal.unwrap_or(WriteError::NoQuorum { reachable, needed }));
                }
            }
            if core.clock.now() >= rounds.deadline() {
                return fail(&rounds, record.version, WriteError::NoQuorum { reachable: 0, needed });
            }
        }
    }

    /// Puts one leg per owner on its way. This node's own replica is a leg like any other, but for its turn.
    fn send_round(
        &self,
        round: Round,
        ring: &Ring,
        record: Record,
        (operation, deadline): (RecordedOperation, Monotonic),
    ) -> Arc<WriteCall> {
        let core = &*self.core;
        let now = core.clock.now();
        let slot = Slot::of(record.hash);
        let owners = ring.owners(slot);
        let (concern, replicas) = (core.config.concern, core.config.replicas);
        let config = WriteConfig { round, concern, confirmations: concern.confirmations_needed(replicas) };
        let mut machine = Write::new(config, owners, operation.started, now);
        let own = owners.iter().position(|owner| *owner == core.id);
        // If this clock was set since another owner last took a write that it stamped, one of them has to accept this one first.
        let waits = own.filter(|_| owners.len() > 1 && !core.replica.is_in_step());
        if let Some(own) = waits {
            machine.hold_back(own);
        }
        let call = WriteCall::new(machine, record, ring.hash(), core.replica.clock_offset_ms());
        for (leg, owner) in owners.iter().enumerate().filter(|(_, owner)| **owner != core.id) {
            let waiter = Waiter::Write { call: Arc::clone(&call), leg };
            let trace = operation.trace.map(|trace| trace.of_leg(leg));
            match self.send_leg(&call, (*owner, waiter), (now, deadline), trace) {
                Ok(true) => {}
                Ok(false) => call.handle_answer(core, now, (leg, LegQueues::default()), &WriteAnswer::TooLarge),
                Err(failure) => call.handle_failure(core, now, leg, failure),
            }
        }
        if let Some(leg) = own.filter(|_| waits.is_none()) {
            call.apply_here(core, leg);
        }
        if Mutant::JoinersFirst.is_planted() {
            self.send_to_joining(ring, &call, deadline);
        }
        call
    }

    /// Gives a write that was acknowledged to those that are about to own its slot. They will be compared with before they count, so it does
    /// not matter if this comes to nothing; but one that all owners refused would be read from them.
    fn send_to_joining(&self, ring: &Ring, call: &WriteCall, deadline: Monotonic) {
        for peer in ring.joining(Slot::of(call.record.hash)) {
            let _ = self.send_leg(call, (peer, Waiter::Joining), (self.core.clock.now(), deadline), None);
        }
    }

    /// Queues a round's record for a peer; false if the peer takes none of its size.
    fn send_leg(
        &self,
        call: &WriteCall,
        (to, waiter): (NodeId, Waiter),
        (now, deadline): (Monotonic, Monotonic),
        trace: Option<TraceContext>,
    ) -> Result<bool, LegFailure> {
        self.peers.with_link(to, |link| match link.limits.admit(&call.record) {
            true => link.send_write(waiter, now, deadline, trace, (call.ring, &call.record)).map(|_| true),
            false => Ok(false),
        })
    }

    /// How many owners take a record of this size, as far as that is known.
    fn admitting(&self, ring: &Ring, record: &Record) -> usize {
        let admits = |owner: NodeId| self.peers.link(owner).is_none_or(|link| link.limits.admit(record));
        ring.owners(Slot::of(record.hash)).iter().filter(|owner| admits(**owner)).count()
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
            sleep(Duration::from_millis(1)).await;
            up = count_up();
        }
        up
    }
}

/// Waits for a round's result. Legs have deadlines of their own, so this needs no timer, unless round 2 could begin and an owner
/// is silent: then [`SILENCE_MAX`] is all that the silent one gets.
async fn outcome(call: &WriteCall) -> WriteOutcome {
    if let Some(outcome) = call.settled(true).await {
        return outcome;
    }
    if let Ok(Some(outcome)) = timeout(SILENCE_MAX, call.settled(false)).await {
        return outcome;
    }
    call.handle_impatience();
    loop {
        if let Some(outcome) = call.settled(false).await {
            return outcome;
        }
    }
}

/// What the caller can mend, if that is why owners turned a write down.
const fn refusal(refusals: Refusals) -> Option<WriteError> {
    match refusals {
        Refusals { too_large: 1.., .. } => Some(WriteError::TooLarge),
        Refusals { drift: 1.., .. } => Some(WriteError::Drift),
        _ => None,
    }
}

/// Ends a write with its result.
fn written(recorder: OpRecorder<'_>, result: Result<Written, WriteError>) -> Result<Written, WriteError> {
    let (outcome, version) = match result {
        Ok(Written { version }) => (OpOutcome::Acknowledged, Some(version)),
        Err(WriteError::Indeterminate { version, .. }) => (OpOutcome::Indeterminate, Some(version)),
        Err(_) => (OpOutcome::Refused, None),
    };
    recorder.end(outcome, version);
    result
}
