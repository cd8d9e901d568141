//! The flight record of an operation: handed to its caller, and reported to the observer. The caller may go away before the
//! operation ends; peers may have done their part by then, so it is recorded all the same.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mesh_proto::{KeyHash, LegRecord, Monotonic, OpOutcome, OpRecord, OperationKind, TraceContext, Version};

use crate::{
    call::{Legs, ReadCall, WriteCall},
    core::Core,
};

/// What is known of an operation from its start.
#[derive(Clone, Copy)]
pub(crate) struct RecordedOperation {
    pub(crate) op: OperationKind,
    pub(crate) started: Monotonic,
    pub(crate) hash: KeyHash,
    pub(crate) trace: Option<TraceContext>,
}

impl RecordedOperation {
    /// Fills the caller's `slot` with how it ended, and reports it to the observer.
    pub(crate) fn record(
        self,
        core: &Core,
        slot: &mut Option<OpRecord>,
        (outcome, version, legs): (OpOutcome, Option<Version>, Legs),
    ) {
        let Self { op, started, hash, trace } = self;
        let took = core.clock.now().since(started);
        core.observer.operation(slot.insert(OpRecord { op, outcome, took, started, hash, version, trace, legs }));
    }
}

/// Records an operation that has legs, also if it is dropped before its end.
pub(crate) struct OpRecorder<'a> {
    core: &'a Core,
    in_flight: &'a AtomicUsize,
    operation: RecordedOperation,
    slot: &'a mut Option<OpRecord>,
    attempt: Option<Attempt>,
    /// Of the attempts that have ended.
    legs: Legs,
    is_over: bool,
}

/// The last attempt, which knows its legs.
enum Attempt {
    Read(Arc<ReadCall>),
    Write(Arc<WriteCall>),
}

impl<'a> OpRecorder<'a> {
    /// The operation counts as in flight until it ends or is dropped.
    pub(crate) fn new(
        core: &'a Core,
        in_flight: &'a AtomicUsize,
        operation: RecordedOperation,
        slot: &'a mut Option<OpRecord>,
    ) -> Self {
        // Relaxed here and below: a figure that orders nothing.
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self { core, in_flight, operation, slot, attempt: None, legs: Legs::new(), is_over: false }
    }

    pub(crate) fn reads(&mut self, call: &Arc<ReadCall>) {
        self.attempt = Some(Attempt::Read(Arc::clone(call)));
    }

    pub(crate) fn writes(&mut self, call: &Arc<WriteCall>) {
        self.attempt = Some(Attempt::Write(Arc::clone(call)));
    }

    /// An attempt has ended. Its legs take the places of those before. A place that has been asked keeps its leg in any case,
    /// because a peer may have tied what it did to it.
    pub(crate) fn renew(&mut self, attempt: Legs) {
        renew(&mut self.legs, attempt);
    }

    pub(crate) fn end(mut self, outcome: OpOutcome, version: Option<Version>) {
        self.is_over = true;
        self.record(outcome, version);
    }

    fn record(&mut self, outcome: OpOutcome, version: Option<Version>) {
        self.operation.record(self.core, self.slot, (outcome, version, std::mem::take(&mut self.legs)));
    }
}

impl Drop for OpRecorder<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_over {
            return;
        }
        let now = self.core.clock.now();
        let version = match self.attempt.take() {
            Some(Attempt::Read(call)) => {
                self.renew(call.end(now));
                None
            }
            Some(Attempt::Write(call)) => {
                call.abandon();
                self.renew(call.end(now));
                Some(call.record.version)
            }
            None => None,
        };
        self.record(OpOutcome::Abandoned, version);
    }
}

fn renew(legs: &mut Legs, attempt: Legs) {
    if legs.is_empty() {
        *legs = attempt;
        return;
    }
    for (place, leg) in attempt.into_iter().enumerate() {
        match legs.get_mut(place) {
            Some(earlier) => *earlier = LegRecord { started: earlier.started, ..leg },
            // There are no more owners than places.
            None => drop(legs.try_push(leg)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_proto::{LegOutcome, LegQueues, NodeId};

    use super::*;

    fn legs(attempt: u64, count: u64) -> Legs {
        let at = Duration::from_millis(attempt);
        let leg = |peer| LegRecord {
            peer: NodeId::new(10 * attempt + peer),
            hedged: false,
            outcome: LegOutcome::Failed,
            started: at,
            ended: at,
            queues: LegQueues::default(),
        };
        (0..count).map(leg).collect()
    }

    #[test]
    fn every_place_that_was_asked_keeps_a_leg() {
        let mut all = Legs::new();
        for (attempt, count) in [(1, 2), (2, 1), (3, 3)] {
            renew(&mut all, legs(attempt, count));
        }
        let peers: Vec<u64> = all.iter().map(|leg| leg.peer.get()).collect();
        assert_eq!(peers, [30, 31, 32], "the last attempt stands");
        let started: Vec<u128> = all.iter().map(|leg| leg.started.as_millis()).collect();
        assert_eq!(started, [1, 1, 3], "and reaches back to the first");
        renew(&mut all, legs(4, 1));
        assert_eq!(all.len(), 3, "a place that was asked before stays");
    }
}
