//! What a node counts, each counter once: the atomics that all threads add to, and the figures that are read from them. The
//! driver counts, telemetry shows; both know this crate, and not each other.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{HintStats, StoreStats};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of what is rare enough to be counted by all threads in one place.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The local store's counters and the node's own, since it started.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Stats {
            /// The local store.
            pub store: StoreStats,
            /// Hints for peers that have missed writes.
            pub hints: HintStats,
            /// Faults on request.
            pub faults: FaultStats,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The figures as they are now, beside those of the store and of the hints.
            #[must_use]
            pub fn stats(&self, store: StoreStats, hints: HintStats) -> Stats {
                // Relaxed: each figure stands alone.
                let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                Stats { store, hints, faults: FaultStats::default(), $($name: read(&self.$name),)* }
            }
        }
    };
}

counters! {
    /// Hedge legs sent.
    hedges,
    /// Hedge legs whose answer made the result.
    hedge_wins,
    /// Reads that went to another node.
    remote_reads,
    /// Write legs that failed or timed out: their owners may lack a write until repaired.
    missed_writes,
    /// Writes that were sent a second time.
    second_rounds,
    /// Sent more often, though all owners that answered were in sync and in one ring: there should be none.
    further_rounds,
    /// Writes that were carried by a later one of the same key.
    carried_writes,
    /// Requests answered with the member list because the rings differed.
    wrong_ring,
    /// Versions refused for being too far in the future.
    drift_refused,
    /// Records taken from peers by resync and repair.
    repaired,
    /// Records dropped because others own their slots now, and hold them.
    given_up,
    /// Peers that left before this node had taken over all that they held, because their drain had lasted too long.
    left_early,
    /// Handshakes and greetings refused.
    peers_refused,
    /// Connections closed for breaking the protocol.
    protocol_violations,
}

/// Faults on request at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultStats {
    /// Faults in force.
    pub active: u64,
    /// Faults laid since the start.
    pub laid: u64,
    /// Packets that they lost.
    pub packets_dropped: u64,
    /// Packets that they held back.
    pub packets_delayed: u64,
    /// Packets that they doubled.
    pub packets_duplicated: u64,
}
