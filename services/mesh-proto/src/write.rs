//! One SET or DELETE: when enough owners have applied it, and when that has become impossible.
use crate::{Version, WriteAnswer};
use thiserror::Error;

/// How many owners each key has (REPLICATION_FACTOR), 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicationFactor(u8);

/// How many owners must have applied a write before it is acknowledged (WRITE_CONCERN), 1 to REPLICATION_FACTOR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteConcern(u8);

/// Why a replication factor or write concern was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConcernError {
    /// Outside 1 to 8.
    #[error("REPLICATION_FACTOR={0}: expected 1 to 8")]
    Replicas(u64),
    /// Zero, or more acknowledgements than replicas.
    #[error("WRITE_CONCERN={acks}: expected 1 to REPLICATION_FACTOR, which is {replicas}")]
    Acks {
        /// What was asked for.
        acks: u64,
        /// How many replicas there are.
        replicas: u8,
    },
}

impl ReplicationFactor {
    /// The most replicas a key may have.
    pub const MAX: usize = 8;
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ConcernError::Replicas`] outside 1 to 8.
    pub fn new(replicas: u64) -> Result<Self, ConcernError> {
        u8::try_from(replicas).ok().filter(|r| (1..=8).contains(r)).map(Self).ok_or(ConcernError::Replicas(replicas))
    }
    /// 1 to 8.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl WriteConcern {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ConcernError::Acks`] if `acks` is zero or above `replicas`.
    pub fn new(acks: u64, replicas: ReplicationFactor) -> Result<Self, ConcernError> {
        u8::try_from(acks)
            .ok()
            .filter(|a| *a >= 1 && *a <= replicas.0)
            .map(Self)
            .ok_or(ConcernError::Acks { acks, replicas: replicas.0 })
    }
    /// 1 to the replication factor.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
    /// How many owners must answer so that at least one of them has seen every acknowledged write:
    /// REPLICATION_FACTOR − WRITE_CONCERN + 1.
    #[must_use]
    pub const fn answers_needed(self, replicas: ReplicationFactor) -> usize {
        replicas.get() - self.get() + 1
    }
}

/// Why a leg brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegFailure {
    /// There was no connection, or the peer's queue was full: the request was certainly not sent.
    NotSent,
    /// The connection broke after the request was sent: whether it was applied is unknown.
    Disconnected,
    /// No answer in time: whether it was applied is unknown.
    TimedOut,
    /// The peer refused it for good, such as for its clock being too far off.
    Refused,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteStep {
    /// Nothing until a leg answers or fails.
    Wait,
    /// The caller may be answered; legs still in flight go on in the background.
    Done(WriteOutcome),
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// WRITE_CONCERN owners have applied it.
    Acknowledged,
    /// Owners hold a newer version: observe it, take a higher one, start again.
    Stale {
        /// The newest version an owner reported.
        newest: Version,
    },
    /// Owners disagree with the caller about the ring: merge their member lists and start again.
    WrongRing,
    /// WRITE_CONCERN can no longer be reached and no owner can have applied it: certainly not written.
    Refused {
        /// How many owners applied it: always 0.
        acks: usize,
    },
    /// WRITE_CONCERN can no longer be reached but some owner has, or may have, applied it.
    Indeterminate {
        /// How many owners certainly applied it.
        acks: usize,
    },
}

/// The write state machine: one leg per owner, this node's own replica being a leg like any other.
#[derive(Debug)]
pub struct Write {
    _todo: (),
}

impl Write {
    /// Starts with one leg in flight per owner. With fewer owners than `concern`, the first `poll` says `Refused`.
    #[must_use]
    pub fn new(_concern: WriteConcern, _owners: usize) -> Self {
        todo!()
    }
    /// A leg answered.
    pub fn handle_answer(&mut self, _leg: usize, _answer: &WriteAnswer) {
        todo!()
    }
    /// A leg failed.
    pub fn handle_failure(&mut self, _leg: usize, _failure: LegFailure) {
        todo!()
    }
    /// The time is up: whatever is in flight counts as unknown.
    pub fn handle_timeout(&mut self) {
        todo!()
    }
    /// Whether there is a result. Once `Done`, always the same.
    pub fn poll(&mut self) -> WriteStep {
        todo!()
    }
    /// Whether every leg has answered or failed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        todo!()
    }
}
