//! What this node may have evicted. Owners evict each for itself, so what one of them lacks is then no sign that it has missed a
//! write, and its "absent" says nothing about the others.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_proto::{Mutant, Version};
use parking_lot::Mutex;

use crate::replica::Replica;

/// Looks at the store's evictions, and remembers what was there before the last one.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    /// How many there were at the last look.
    seen: AtomicU64,
    /// Above all that was evicted by then. Locked by upkeep alone.
    until: Mutex<Version>,
}

impl Evicted {
    /// To be called before every comparison.
    pub(crate) fn look(&self, replica: &Replica) {
        let evictions = replica.store.stats().evictions;
        // Relaxed, here and below: a figure that lags behind changes no more than when keys are asked for.
        if self.seen.swap(evictions, Ordering::Relaxed) != evictions {
            // Above all that this node has met, and so above all that it has held.
            *self.until.lock() = replica.tick();
        }
    }

    /// What this node lacks up to this version may have been evicted; zero if it has evicted nothing.
    pub(crate) fn until(&self) -> Version {
        if Mutant::EvictedComesBack.is_planted() { Version::ZERO } else { *self.until.lock() }
    }

    /// Whether it has evicted anything.
    pub(crate) fn is_any(&self) -> bool {
        self.seen.load(Ordering::Relaxed) > 0
    }
}
