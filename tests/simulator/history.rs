//! Everything that clients did and were told, in the order it happened. One thread runs a simulation, so the numbers that
//! operations begin and end with are their true order.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use mesh_proto::Version;

/// Number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// Which write: the client and its count of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId {
    /// The client.
    pub session: u8,
    /// From 1.
    pub seq: u64,
}

/// A moment: its place in the order of events, and the simulation's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// Its place.
    pub number: u64,
    /// Since the start.
    pub time: Duration,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Acknowledged, with this version.
    Acknowledged(Version),
    /// Nobody knows; if it was written, its version is not above this, where the node has said so.
    Unknown(Option<Version>),
    /// The node said that nothing was written.
    Refused,
}

/// How a read was to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Consistency `one`.
    One,
    /// Consistency `session`, with what the client had seen of the key.
    Session(Version),
    /// Consistency `quorum`.
    Quorum,
    /// Consistency `one`, when all replicas have come to agree: as good as a quorum.
    Settled,
}

/// What a read brought.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// A value that some write made.
    Value {
        /// Its version.
        version: Version,
        /// The write that it names.
        write: WriteId,
    },
    /// A value that is none of ours, or another key's.
    Wrong(String),
    /// There is none.
    Miss,
    /// No answer.
    Failed,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A value was set, to live so long if that is limited.
    Set {
        /// Which write.
        write: WriteId,
        /// How long.
        ttl: Option<Duration>,
        /// What became of it.
        fate: Fate,
    },
    /// The key was deleted.
    Delete {
        /// What became of it.
        fate: Fate,
    },
    /// The key was read.
    Get {
        /// How.
        level: Level,
        /// What was there.
        seen: Seen,
    },
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Whose.
    pub session: u8,
    /// The place of the node that was asked.
    pub via: usize,
    /// The key.
    pub key: Key,
    /// When it was asked for.
    pub begun: Moment,
    /// When it was answered.
    pub ended: Moment,
    /// What was done.
    pub action: Action,
}

/// All operations, in the order they ended.
#[derive(Debug, Default)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
    next: u64,
}

impl History {
    /// The next moment.
    pub const fn moment(&mut self, time: Duration) -> Moment {
        self.next += 1;
        Moment { number: self.next, time }
    }

    /// A number that two histories share only if they are the same.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.operations.hash(&mut hasher);
        hasher.finish()
    }
}
