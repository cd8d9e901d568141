//! Several attempts at one write, and what may be said of them all when the last has failed.

use mesh_proto::{Version, Write};

use crate::WriteError;

/// What the attempts at one write may have left behind.
#[derive(Default)]
pub(crate) struct Trail {
    /// The most owners that applied one attempt.
    acks: usize,
    may_be_written: bool,
}

impl Trail {
    pub(crate) fn add(&mut self, attempt: &Write) {
        self.acks = self.acks.max(attempt.acks());
        self.may_be_written |= attempt.may_be_written();
    }

    /// `refusal` says that nothing was written; once any attempt may have left a trace, no later one can say so.
    pub(crate) fn verdict(&self, version: Version, needed: usize, refusal: WriteError) -> WriteError {
        if self.may_be_written { WriteError::Indeterminate { acks: self.acks, needed, version } } else { refusal }
    }
}

/// What to tell the caller of a write that certainly was not written.
pub(crate) fn refusal(machine: &Write, reachable: usize, needed: usize) -> WriteError {
    let refusals = machine.refusals();
    if refusals.too_large > 0 {
        WriteError::TooLarge
    } else if refusals.drift > 0 {
        WriteError::Drift
    } else {
        WriteError::NoQuorum { reachable, needed }
    }
}
