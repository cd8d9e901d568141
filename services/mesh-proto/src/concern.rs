//! How many owners a key has, how many of them make a write, and what follows: how many answers make a quorum. It stands apart
//! because reads, writes and settings all rest on it.

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

    /// How many owners in sync must have applied a write, so that one of them would have known of any acknowledged write with
    /// a higher version. With a write concern of one no order is promised, and nobody has to be in sync.
    #[must_use]
    pub fn confirmations_needed(self, replicas: ReplicationFactor) -> usize {
        if self.get() == 1 { 0 } else { self.answers_needed(replicas).min(self.get()) }
    }
}
