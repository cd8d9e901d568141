//! What this node may have evicted. Owners evict each for itself, so what one of them lacks is then no sign that it has missed a
//! write, and its "absent" says nothing about the others.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use mesh_proto::{Mutant, Slot, Version};
use parking_lot::Mutex;

use crate::replica::Replica;

/// Looks at the store's evictions, and remembers what was there before the last one.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    /// How many there were at the last look.
    seen: AtomicU64,
    /// Above all that was evicted by then. Locked by upkeep alone.
    until: Mutex<Version>,
    /// The last slot whose turn it was to be compared. Locked by upkeep alone.
    last: Mutex<Option<Slot>>,
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

    /// The next `most` of these slots, after those of the last turn.
    pub(crate) fn take_turn<T>(&self, slots: BTreeMap<Slot, T>, most: usize) -> BTreeMap<Slot, T> {
        let mut last = self.last.lock();
        let (after, before): (Vec<_>, Vec<_>) =
            slots.into_iter().partition(|(slot, _)| last.is_none_or(|last| *slot > last));
        let taken: Vec<_> = after.into_iter().chain(before).take(most).collect();
        *last = taken.last().map(|(slot, _)| *slot);
        taken.into_iter().collect()
    }

    /// Whether it has evicted anything.
    pub(crate) fn is_any(&self) -> bool {
        self.seen.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_slots_have_their_turn() {
        let evicted = Evicted::default();
        let of = |numbers: &[u16]| numbers.iter().filter_map(|number| Some((Slot::new(*number)?, ()))).collect();
        let turn = |numbers: &[u16]| {
            let taken = evicted.take_turn(of(numbers), 3);
            taken.into_keys().map(Slot::get).collect::<Vec<_>>()
        };
        let all = [1, 5, 6, 7, 9, 4095];
        assert_eq!([turn(&all), turn(&all), turn(&all)], [vec![1, 5, 6], vec![7, 9, 4095], vec![1, 5, 6]]);
        // They change all the time.
        assert_eq!(turn(&[2, 6, 8]), [2, 6, 8]);
        assert_eq!(turn(&[3, 4, 6, 7]), [3, 4, 6], "after 8 comes the first");
    }
}
