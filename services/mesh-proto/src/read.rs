//! One GET: which owners to ask, when to hedge, and which answers make a result.
use crate::{HedgeBudget, LegFailure, Monotonic, NodeId, ReadAnswer, Version};
use arrayvec::ArrayVec;
use bytes::Bytes;
use std::time::Duration;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The first live value wins; it may be briefly stale.
    #[default]
    One,
    /// As `One`, but never older than this version.
    Session(Version),
    /// The newest of enough owners that every write acknowledged before the read began is seen.
    Quorum,
}

/// The bounds of one read.
#[derive(Clone, Copy, Debug)]
pub struct ReadConfig {
    /// How fresh.
    pub consistency: Consistency,
    /// How many owners in sync must answer "absent" or "gone" for a miss, and answer at all for a quorum:
    /// REPLICATION_FACTOR − WRITE_CONCERN + 1.
    pub answers_needed: usize,
    /// How many legs may be in flight (READ_MAX_FANOUT). More are allowed when `answers_needed` demands it.
    pub fanout_max: usize,
    /// When the second leg starts if the first has not answered.
    pub hedge_delay: Duration,
    /// The time between further legs.
    pub hedge_interval: Duration,
    /// When one leg is given up (READ_PER_TRY_MS).
    pub per_try: Duration,
    /// When the whole read is given up (READ_TIMEOUT_MS).
    pub timeout: Duration,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadStep {
    /// Ask this owner.
    Send {
        /// The leg's number, to hand back with its answer.
        leg: usize,
        /// Whom.
        peer: NodeId,
        /// Whether it is a hedge, as against a first leg or one that replaces a failed or insufficient one.
        hedged: bool,
    },
    /// Nothing until an answer arrives or this moment passes.
    Wait(Monotonic),
    /// Finished; legs still in flight are to be cancelled.
    Done(ReadOutcome),
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadOutcome {
    /// A live value.
    Value {
        /// Which write.
        version: Version,
        /// The value.
        value: Bytes,
        /// Its expiry, so that a stale local replica can be repaired.
        expiry: crate::Expiry,
        /// The leg that brought it; nothing if the local replica did.
        leg: Option<usize>,
    },
    /// Enough owners say that there is none; the tombstone's or stub's version if there is one.
    Miss {
        /// The newest version seen.
        version: Option<Version>,
    },
    /// All owners were asked, and too few could answer.
    Unavailable {
        /// How many gave a usable answer.
        answers: usize,
        /// How many were needed.
        needed: usize,
    },
    /// Owners disagree with the caller about the ring: merge their member lists and start again.
    WrongRing,
    /// The time was up.
    TimedOut,
}

/// The read state machine: `handle_answer` and `handle_failure` in, `poll` until `Wait` or `Done`.
#[derive(Debug)]
pub struct Read {
    _todo: (),
}

impl Read {
    /// Starts a read. `owners` are the *other* owners in the order of preference; `local` is what this node's own replica
    /// said if it is an owner (never `WrongRing`).
    #[must_use]
    pub fn new(_config: ReadConfig, _owners: &[NodeId], _local: Option<ReadAnswer>, _now: Monotonic) -> Self {
        todo!()
    }
    /// A leg answered.
    pub fn handle_answer(&mut self, _now: Monotonic, _leg: usize, _answer: ReadAnswer) {
        todo!()
    }
    /// A leg failed: the next owner is asked at once.
    pub fn handle_failure(&mut self, _now: Monotonic, _leg: usize, _failure: LegFailure) {
        todo!()
    }
    /// What to do now. A hedge takes a token from `budget`; without one the read waits for the legs it has.
    pub fn poll(&mut self, _now: Monotonic, _budget: &mut HedgeBudget) -> ReadStep {
        todo!()
    }
    /// Legs that were sent and have neither answered nor failed, to be cancelled after `Done`.
    #[must_use]
    pub fn in_flight(&self) -> ArrayVec<usize, 8> {
        todo!()
    }
}
