//! The last operation of one task: what is known of it for the moment in which it is judged. Written for every operation, so
//! it allocates nothing.

use std::time::Instant;

use load::{ErrorKind, NodeIndex};
use observability::ClientTrace;
use receive_timestamps::KernelTime;

/// What one try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TryResult {
    /// A response with this status.
    Status(u16),
    /// None.
    Failed(ErrorKind),
}

impl TryResult {
    /// In a word or two.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::Failed(kind) => kind.name(),
        }
    }
}

/// One try at one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Try {
    pub(crate) node: NodeIndex,
    pub(crate) result: TryResult,
    /// When it was sent; the first try was sent when the operation was.
    pub(crate) started: Option<Instant>,
}

/// What the last operation of a thread went through.
#[derive(Debug, Default)]
pub(crate) struct LastRequest {
    pub(crate) trace: Option<ClientTrace>,
    pub(crate) first: Option<Try>,
    pub(crate) second: Option<Try>,
    /// The node that answered has kept the trace.
    pub(crate) is_kept_there: bool,
    /// `Server-Timing` of the last response; empty if there was none.
    pub(crate) timing: Vec<u8>,
    /// When the kernel had received that response.
    pub(crate) received: KernelTime,
}

impl LastRequest {
    pub(crate) fn begin(&mut self, trace: Option<ClientTrace>) {
        self.trace = trace;
        self.first = None;
        self.second = None;
        self.is_kept_there = false;
        self.timing.clear();
        self.received = KernelTime::default();
    }

    pub(crate) fn tries(&self) -> impl Iterator<Item = &Try> {
        self.first.iter().chain(&self.second)
    }
}
