//! Several rounds of one write: which comes next, and what may be said of them all when the last has failed.

use mesh_proto::{RingHash, Round, Version, Write};

use crate::WriteError;

/// What the rounds of one write have shown, and may have left behind.
pub(crate) struct Trail {
    /// The most owners that had the write after one round.
    acks: usize,
    may_be_written: bool,
    /// Of the last round.
    ring: Option<RingHash>,
    /// Which round comes next, unless the ring changes.
    pub(crate) next: Round,
    /// Whether nothing has happened that a write may need more than two rounds for.
    pub(crate) is_orderly: bool,
}

impl Trail {
    pub(crate) const fn new() -> Self {
        Self { acks: 0, may_be_written: false, ring: None, next: Round::First, is_orderly: true }
    }

    /// Which round is to be sent in this ring: a change of owners starts again.
    pub(crate) fn next_round(&mut self, ring: RingHash) -> Round {
        if self.ring.replace(ring).is_some_and(|before| before != ring) {
            (self.next, self.is_orderly) = (Round::First, false);
        }
        self.next
    }

    pub(crate) fn add(&mut self, round: &Write) {
        self.acks = self.acks.max(round.acks());
        self.may_be_written |= round.may_be_written();
        self.is_orderly &= round.is_orderly();
    }

    /// `refusal` says that nothing was written; once any round may have left a trace, no later one can say so.
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
