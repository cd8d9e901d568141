//! The series of hinted handoff: what is queued for whom, and what became of it.

use mesh_proto::{HintStats, PeerHints};
use metrics::Counter;

use crate::{
    catalogue::{HINTS_DROPPED, HINTS_REPLAYED},
    peer_series::PeerSeries,
    registry::Registry,
};

/// Handles of the totals; what is queued stands with each peer's series.
pub(crate) struct HintHandles {
    replayed: Counter,
    dropped_overflow: Counter,
    dropped_age: Counter,
    dropped_not_owner: Counter,
    dropped_refused: Counter,
    dropped_full_sync: Counter,
}

impl HintHandles {
    pub(crate) fn new(registry: &Registry) -> Self {
        let dropped = |reason| registry.counter(&HINTS_DROPPED, &[("reason", reason)]);
        Self {
            replayed: registry.counter(&HINTS_REPLAYED, &[]),
            dropped_overflow: dropped("overflow"),
            dropped_age: dropped("age"),
            dropped_not_owner: dropped("not_owner"),
            dropped_refused: dropped("refused"),
            dropped_full_sync: dropped("full_sync"),
        }
    }

    pub(crate) fn set(&self, totals: &HintStats, by_peer: &[PeerHints], peers: &PeerSeries, registry: &Registry) {
        self.replayed.absolute(totals.replayed);
        self.dropped_overflow.absolute(totals.dropped_overflow);
        self.dropped_age.absolute(totals.dropped_age);
        self.dropped_not_owner.absolute(totals.dropped_not_owner);
        self.dropped_refused.absolute(totals.dropped_refused);
        self.dropped_full_sync.absolute(totals.dropped_full_sync);
        for hints in by_peer {
            peers.with(registry, hints.peer, |handles| handles.set_hints(hints));
        }
    }
}
