//! Several rounds of one write: which comes next, and what may be said of them all when the last has failed.

use mesh_proto::{RingHash, Round, Version, Write};

use crate::WriteError;

/// What the rounds of one write have shown, and may have left behind.
#[derive(Default)]
pub(crate) struct Trail {
    /// The most owners that had the write after one round.
    acks: usize,
    may_be_written: bool,
    /// The ring in which round 1 has brought all that round 2 needs.
    seen_in: Option<RingHash>,
    /// How many rounds were sent in `seen_in`.
    rounds: u64,
}

impl Trail {
    /// Which round is to be sent in this ring: a change of owners starts again.
    pub(crate) fn round_in(&self, ring: RingHash) -> Round {
        if self.seen_in == Some(ring) { Round::Second } else { Round::First }
    }

    /// Owners in this ring held something newer; `next` is the round to be sent there.
    pub(crate) fn overtaken(&mut self, ring: RingHash, next: Round) {
        let before = if self.seen_in == Some(ring) { self.rounds } else { 1 };
        (self.seen_in, self.rounds) = match next {
            Round::First => (None, 0),
            Round::Second => (Some(ring), before + 1),
        };
    }

    pub(crate) fn add(&mut self, round: &Write) {
        self.acks = self.acks.max(round.acks());
        self.may_be_written |= round.may_be_written();
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
