//! Rings that were worked out, kept to be had again: members come back, a node needs several rings at each change, and nodes of
//! one process need the same ones.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    NodeId, ReplicationFactor, Ring, Weight,
    ring::{Logarithms, sorted},
};

/// Keeps the last few rings.
#[derive(Debug)]
pub struct Rings {
    count_max: usize,
    /// The one asked for last comes first. Locked while a ring is built: who wants the same one waits for it.
    kept: Mutex<Vec<Arc<Ring>>>,
}

impl Default for Rings {
    /// For one node: the ring before this one, and the same with and without who joins.
    fn default() -> Self {
        Self::new(4)
    }
}

impl Rings {
    /// Keeps so many: a ring is some 100 KB, and 32 KB for each node in it, once for all rings.
    #[must_use]
    pub const fn new(count_max: usize) -> Self {
        Self { count_max, kept: Mutex::new(Vec::new()) }
    }

    /// [`Ring::new`], [`Ring::joined_by`] those that join.
    pub fn ring(
        &self,
        members: &[(NodeId, Weight)],
        joining: &[(NodeId, Weight)],
        replicas: ReplicationFactor,
    ) -> Arc<Ring> {
        let members = sorted(members);
        let hash = Ring::hash_of(&members, replicas);
        let mut kept = self.kept.lock();
        let base = kept.iter().position(|ring| ring.is_of(hash, &members, &[]));
        let base = base.unwrap_or_else(|| {
            let ring = Ring::build(members.clone(), replicas, |id| known(&kept, id));
            kept.insert(0, Arc::new(ring));
            0
        });
        kept[..=base].rotate_right(1);
        let joiners = kept[0].joiners_of(joining);
        if !joiners.is_empty() {
            let joined = kept.iter().position(|ring| ring.is_of(hash, &members, &joiners));
            let joined = joined.unwrap_or_else(|| {
                let ring = Ring::clone(&kept[0]).join(joiners, replicas, |id| known(&kept, id));
                kept.insert(0, Arc::new(ring));
                0
            });
            kept[..=joined].rotate_right(1);
        }
        let ring = Arc::clone(&kept[0]);
        kept.truncate(self.count_max);
        ring
    }
}

/// A node's logarithms, from a ring that it was in.
fn known(kept: &[Arc<Ring>], id: NodeId) -> Arc<Logarithms> {
    let known = kept.iter().find_map(|ring| ring.logarithms(id));
    known.map_or_else(|| Arc::new(Logarithms::of(id)), Arc::clone)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::Slot;

    fn members(of: &[(u64, u8)]) -> Vec<(NodeId, Weight)> {
        of.iter().map(|(id, weight)| (NodeId::new(*id), Weight::new(*weight).unwrap())).collect()
    }

    #[test]
    fn a_kept_ring_is_the_ring_that_would_be_built() {
        let rings = Rings::new(3);
        let replicas = [2, 3].map(|replicas| ReplicationFactor::new(replicas).unwrap());
        let lists: [&[(u64, u8)]; 5] = [
            &[],
            &[(3, 1)],
            &[(1, 1), (2, 5), (7, 16)],
            &[(7, 16), (2, 5), (1, 1)],
            &[(1, 2), (2, 5), (7, 16), (9, 3)],
        ];
        for round in 0..40_usize {
            let replicas = replicas[round / 3 % 2];
            let (of, by) = (members(lists[round * 7 % 5]), members(lists[round * 3 % 4]));
            let (kept, built) = (rings.ring(&of, &by, replicas), Ring::new(&of, replicas).joined_by(&by, replicas));
            assert_eq!((kept.hash(), kept.members()), (built.hash(), built.members()));
            for slot in Slot::all() {
                assert_eq!(kept.owners(slot), built.owners(slot));
                assert!(kept.joining(slot).eq(built.joining(slot)), "{slot:?} of {of:?} and {by:?}");
            }
        }
        assert!(rings.kept.lock().len() <= 3);
    }

    #[test]
    fn a_ring_is_built_once() {
        let rings = Rings::default();
        let replicas = ReplicationFactor::new(3).unwrap();
        let (of, by) = (members(&[(1, 1), (2, 2)]), members(&[(3, 3)]));
        let first = [rings.ring(&of, &[], replicas), rings.ring(&of, &by, replicas)];
        let second = [rings.ring(&of, &[], replicas), rings.ring(&of, &by, replicas)];
        assert!(first.iter().zip(&second).all(|(first, second)| Arc::ptr_eq(first, second)));
        assert!(Arc::ptr_eq(
            first[0].logarithms(NodeId::new(1)).unwrap(),
            first[1].logarithms(NodeId::new(1)).unwrap()
        ));
    }
}
