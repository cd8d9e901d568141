//! An operation from its beginning to its flight record. Its caller may go away before it ends; peers may have done their
//! part by then, so it is recorded all the same.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mesh_proto::{KeyHash, Monotonic, Op, OpOutcome, OpRecord, TraceContext, Version};

use crate::{
    WriteError, Written,
    call::{Legs, ReadCall, WriteCall},
    core::Core,
};

/// What is known of an operation from its start.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) op: Op,
    pub(crate) started: Monotonic,
    pub(crate) hash: KeyHash,
    pub(crate) trace: Option<TraceContext>,
}

impl Asked {
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

/// An operation that has legs.
pub(crate) struct Underway<'a> {
    core: &'a Core,
    in_flight: &'a AtomicUsize,
    asked: Asked,
    slot: &'a mut Option<OpRecord>,
    attempt: Option<Attempt>,
    is_over: bool,
}

/// Its attempt so far, which knows its legs.
enum Attempt {
    Read(Arc<ReadCall>),
    Write(Arc<WriteCall>),
}

impl<'a> Underway<'a> {
    /// It counts as in flight until it ends or is dropped.
    pub(crate) fn new(
        core: &'a Core,
        in_flight: &'a AtomicUsize,
        asked: Asked,
        slot: &'a mut Option<OpRecord>,
    ) -> Self {
        // Relaxed here and below: a figure that orders nothing.
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self { core, in_flight, asked, slot, attempt: None, is_over: false }
    }

    pub(crate) fn reads(&mut self, call: &Arc<ReadCall>) {
        self.attempt = Some(Attempt::Read(Arc::clone(call)));
    }

    pub(crate) fn writes(&mut self, call: &Arc<WriteCall>) {
        self.attempt = Some(Attempt::Write(Arc::clone(call)));
    }

    /// Ends a write with its result.
    pub(crate) fn written(self, result: Result<Written, WriteError>, legs: Legs) -> Result<Written, WriteError> {
        let (outcome, version) = match result {
            Ok(Written { version }) => (OpOutcome::Acknowledged, Some(version)),
            Err(WriteError::Indeterminate { version, .. }) => (OpOutcome::Indeterminate, Some(version)),
            Err(_) => (OpOutcome::Refused, None),
        };
        self.end(outcome, version, legs);
        result
    }

    pub(crate) fn end(mut self, outcome: OpOutcome, version: Option<Version>, legs: Legs) {
        self.is_over = true;
        self.asked.record(self.core, self.slot, (outcome, version, legs));
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_over {
            return;
        }
        let took = self.core.clock.now().since(self.asked.started);
        let (legs, version) = match &self.attempt {
            Some(Attempt::Read(call)) => (call.finish(None, took), None),
            Some(Attempt::Write(call)) => {
                call.abandon();
                (call.finish(took), Some(call.version()))
            }
            None => (Legs::new(), None),
        };
        self.asked.record(self.core, self.slot, (OpOutcome::Abandoned, version, legs));
    }
}
