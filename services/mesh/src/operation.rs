//! What callers hand to a node and get back.

use bytes::Bytes;
use mesh_proto::{Consistency, NodeId, TraceContext, Version};
use thiserror::Error;

use crate::Ttl;

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct GetOptions {
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// The caller's trace.
    pub trace: Option<TraceContext>,
}

/// How to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// How long the value is to live; meaningless for a delete.
    pub ttl: Ttl,
    /// The caller's trace.
    pub trace: Option<TraceContext>,
}

/// A live value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The value.
    pub value: Bytes,
    /// Which write made it.
    pub version: Version,
    /// The node whose replica answered.
    pub served_by: NodeId,
}

/// What a read found. A miss is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// In this node's own replica.
    Local(Hit),
    /// At another owner.
    Remote(Hit),
    /// Enough owners say there is none.
    Miss {
        /// The newest deletion or expired value seen.
        version: Option<Version>,
    },
}

/// Why a read gave no answer. Reads change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GetError {
    /// Too few owners could answer.
    #[error("{answers} of the {needed} owners needed could answer: wait for the mesh to recover, or try another node")]
    Unavailable {
        /// How many could.
        answers: usize,
        /// How many were needed.
        needed: usize,
    },
    /// READ_TIMEOUT_MS passed.
    #[error("no owner answered in time")]
    TimedOut,
    /// The node is stopping or paused.
    #[error("the node is stopping")]
    Stopped,
}

/// An acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its version.
    pub version: Version,
}

/// Why a write was not acknowledged. Each variant says whether anything changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// Too few owners are reachable. Nothing was written.
    #[error("{reachable} of the {needed} owners needed are reachable: nothing was written")]
    NoQuorum {
        /// Owners that could be sent to, this node included.
        reachable: usize,
        /// WRITE_CONCERN.
        needed: usize,
    },
    /// Fewer than WRITE_CONCERN owners confirmed it. It may or may not have been written.
    #[error("{acks} of the {needed} owners needed confirmed the write: it may or may not have been written")]
    Indeterminate {
        /// How many confirmed.
        acks: usize,
        /// WRITE_CONCERN.
        needed: usize,
        /// The version it has if it was written.
        version: Version,
    },
    /// The value does not fit the owners' stores. Nothing was written.
    #[error("the value is larger than a store can hold: nothing was written")]
    TooLarge,
    /// This node's clock is too far behind the others'. Nothing was written.
    #[error("this node's clock differs too much from the other owners': check the clocks; nothing was written")]
    Drift,
    /// The node is stopping or paused. Nothing was written.
    #[error("the node is stopping: nothing was written")]
    Stopped,
}
