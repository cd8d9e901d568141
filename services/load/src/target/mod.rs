//! The seam between the load and what is loaded: HTTP nodes in `runner`, in-process nodes in `direct-runner`.

pub(crate) mod cluster;
mod version;

use std::future::Future;

use borsh::{BorshDeserialize, BorshSerialize};
use clap::ValueEnum;
use serde::Serialize;

pub use self::{
    cluster::{Cluster, NodeStats, NodeView},
    version::WriteVersion,
};
use crate::{Ended, Kept, Parts, Way};

/// A node's place in the list of targets.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeIndex(pub usize);

/// How fresh a read must be (READ_CONSISTENCY).
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReadConsistency {
    /// Whatever one owner has; it may be briefly stale.
    One,
    /// No older than what the session has read or written.
    Session,
    /// No older than what was acknowledged before.
    Quorum,
}

/// How fresh one read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever one owner has.
    One,
    /// No older than this version, which the session has met; zero if it has met none.
    Session(WriteVersion),
    /// No older than what was acknowledged before.
    Quorum,
}

impl ReadConsistency {
    /// How fresh a read must be in a session that has met this version of its key.
    #[must_use]
    pub const fn of(self, met: WriteVersion) -> Freshness {
        match self {
            Self::One => Freshness::One,
            Self::Session => Freshness::Session(met),
            Self::Quorum => Freshness::Quorum,
        }
    }

    /// Its name in settings and summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Session => "session",
            Self::Quorum => "quorum",
        }
    }
}

/// What is asked.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Op {
    /// Read a key.
    Get,
    /// Write a key.
    Set,
    /// Delete a key.
    Delete,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Get, Self::Set, Self::Delete];

    /// Its name in summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Set => "SET",
            Self::Delete => "DEL",
        }
    }
}

/// Why an operation failed.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ErrorKind {
    /// Nothing listens there.
    Refused,
    /// The connection broke, or ended before the answer was whole.
    Closed,
    /// No answer in time.
    TimedOut,
    /// 503: the node cannot serve it now; nothing was written.
    Unavailable,
    /// 503 with the word `overloaded`: the node has more to do than it can; nothing was done, and at once is too soon.
    Overloaded,
    /// A write of which nobody knows whether it happened, or may happen yet: fewer owners than needed confirmed it in time (504),
    /// or it was sent and no answer came.
    Indeterminate,
    /// Any other status that has no place here.
    Status(u16),
    /// Bytes that are no HTTP answer, or one that lacks what it must have.
    Protocol,
}

impl ErrorKind {
    /// One word for each kind, in the order of their places.
    pub const LABELS: [&'static str; 8] =
        ["refused", "closed", "timed_out", "unavailable", "overloaded", "indeterminate", "status", "protocol"];

    /// Its place among them.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Refused => 0,
            Self::Closed => 1,
            Self::TimedOut => 2,
            Self::Unavailable => 3,
            Self::Overloaded => 4,
            Self::Indeterminate => 5,
            Self::Status(_) => 6,
            Self::Protocol => 7,
        }
    }

    /// Its name in summaries.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Refused => "connection refused".to_owned(),
            Self::Closed => "connection closed".to_owned(),
            Self::TimedOut => "timed out".to_owned(),
            Self::Unavailable => "unavailable".to_owned(),
            Self::Overloaded => "overloaded (503)".to_owned(),
            Self::Indeterminate => "outcome unknown".to_owned(),
            Self::Status(status) => format!("status {status}"),
            Self::Protocol => "protocol error".to_owned(),
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A value, from the entry node's own replica.
    HitLocal,
    /// A value, from another owner.
    HitRemote,
    /// No value.
    Miss,
    /// The write or deletion was acknowledged.
    Acknowledged,
    /// It failed.
    Error(ErrorKind),
}

/// A try that another one at another node followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedTry {
    /// Where.
    pub node: NodeIndex,
    /// What came of it.
    pub error: ErrorKind,
    /// As in [`Answer`].
    pub is_reply: bool,
}

/// The answer to one operation.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// The entry node that gave the final answer, or was tried last.
    pub node: NodeIndex,
    /// A node has said so. Without a reply, a node may have done what it was asked, and counted it, all the same.
    pub is_reply: bool,
    /// The first try, if this was the second.
    pub before: Option<FailedTry>,
    /// It took a second try, at another node.
    pub is_retried: bool,
    /// A first try gave no answer. If it was a write it may have happened, or may yet happen, whatever the second came to.
    pub doubtful: bool,
    /// The version of the value read, written or deleted.
    pub version: Option<WriteVersion>,
    /// The node whose replica answered, as it calls itself.
    pub served_by: Option<u64>,
    /// What the node said about an error, if it said anything.
    pub detail: Option<Box<str>>,
}

impl Answer {
    /// Whether a second node answered after a first had failed.
    #[must_use]
    pub const fn failed_over(&self) -> bool {
        self.is_retried && !matches!(self.outcome, Outcome::Error(_))
    }

    /// Why it failed; that the protocol was broken, if it did not.
    #[must_use]
    pub const fn error(&self) -> ErrorKind {
        if let Outcome::Error(kind) = self.outcome { kind } else { ErrorKind::Protocol }
    }

    /// What it is reported as if it did not succeed. A write that was sent and not answered has not failed: it may have happened.
    #[must_use]
    pub const fn failure(&self, op: Op) -> Option<ErrorKind> {
        let Outcome::Error(kind) = self.outcome else { return None };
        let is_open = self.doubtful || matches!(kind, ErrorKind::Closed | ErrorKind::TimedOut | ErrorKind::Protocol);
        Some(if is_open && !matches!(op, Op::Get) { ErrorKind::Indeterminate } else { kind })
    }
}

/// A way to the mesh, owned by one task. Cloning one gives another task its own; both stay on one thread.
pub trait Target: Clone + 'static {
    /// Reads a key at any node; a value goes into `value`, which is cleared first.
    fn get(&mut self, key: &[u8], fresh: Freshness, value: &mut Vec<u8>) -> impl Future<Output = Answer>;

    /// Reads a key at this node only, without fail-over.
    fn get_at(
        &mut self,
        node: NodeIndex,
        key: &[u8],
        fresh: Freshness,
        value: &mut Vec<u8>,
    ) -> impl Future<Output = Answer>;

    /// Writes a key at any node. The value lives for `ttl_ms` milliseconds; -1 is for ever, 0 as the node is configured.
    fn set(&mut self, key: &[u8], value: &[u8], ttl_ms: i64) -> impl Future<Output = Answer>;

    /// Deletes a key at any node.
    fn delete(&mut self, key: &[u8]) -> impl Future<Output = Answer>;

    /// From here on it is asked what the run measures. Who was not told so writes keys so that they are there, or reads them
    /// once more in the end.
    fn begin_load(&mut self) {}

    /// The last operation was judged; nothing was awaited since its answer. Gives why its trace is kept, if it is.
    fn judged(&mut self, ended: &Ended) -> Option<Kept> {
        let _ = ended;
        None
    }

    /// The last operation's trace, if it has one.
    fn trace(&self) -> Option<u128> {
        None
    }

    /// Where the last operation's time went.
    fn parts(&self) -> Parts {
        Parts::default()
    }

    /// The last operation's way in words.
    fn way(&self) -> Way {
        Way::default()
    }
}

/// Makes one thread's targets, on that thread.
pub trait Client: Send + 'static {
    /// What it makes.
    type Target: Target;

    /// Connects. Called once, on the thread's own runtime.
    fn connect(self) -> impl Future<Output = Result<Self::Target, String>>;
}
