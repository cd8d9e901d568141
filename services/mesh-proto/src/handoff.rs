//! The seam for hinted handoff: where a write goes that one owner has missed. Until there is a queue
//! of hints, [`NoHints`] fills it.

use crate::{NodeId, Record};

/// Takes the writes that a peer has missed. A hint is never an acknowledgement.
pub trait HintSink: Send + Sync {
    /// `peer` has not confirmed this record; it may or may not have it.
    fn hint(&self, peer: NodeId, record: &Record);
}

/// Keeps no hints: the next anti-entropy round repairs what was missed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHints;

impl HintSink for NoHints {
    fn hint(&self, _peer: NodeId, _record: &Record) {}
}
