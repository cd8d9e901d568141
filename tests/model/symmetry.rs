//! Nodes are alike: states that differ only in who is who are one.

use crate::state::{NODES, Nodes, State, Sync};

/// All ways to name three nodes anew.
pub const ORDERS: [[usize; NODES]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

impl State {
    /// The one that stands for all that are the same but for names.
    #[must_use]
    pub fn representative(&self) -> Self {
        let keys = self.nodes.map(|node| {
            (
                node.life,
                node.held,
                node.sync.in_sync,
                node.ring.count_ones(),
                node.clock,
                node.links.count_ones(),
                node.taken.iter().filter(|ring| **ring != 0).count(),
            )
        });
        let rises = |order: &&[usize; NODES]| {
            let mut placed = keys;
            order.iter().zip(keys).for_each(|(to, key)| placed[*to] = key);
            placed.is_sorted()
        };
        ORDERS.iter().filter(rises).map(|order| self.renamed(order)).min().unwrap_or(*self)
    }

    /// The same, with the node in each place moved to where `order` says.
    #[must_use]
    pub fn renamed(&self, order: &[usize; NODES]) -> Self {
        let mut renamed = *self;
        for (at, node) in self.nodes.iter().enumerate() {
            let mut node = *node;
            node.view.claims = moved(node.view.claims, order);
            node.comparisons = moved(node.comparisons, order);
            node.taken = moved(node.taken, order);
            let own = [&mut node.ring, &mut node.joining, &mut node.links, &mut node.tried, &mut node.drain_ring];
            for set in own.into_iter().chain([&mut node.drained]) {
                *set = set_of(*set, order);
            }
            node.comparisons.iter_mut().for_each(|comparison| comparison.ring = set_of(comparison.ring, order));
            node.taken.iter_mut().for_each(|ring| *ring = set_of(*ring, order));
            let Sync { ring, awaited, confirmed, .. } = &mut node.sync;
            [ring, awaited, confirmed].into_iter().for_each(|set| *set = set_of(*set, order));
            renamed.nodes[order[at]] = node;
        }
        for write in &mut renamed.writes {
            if write.attempt > 0 {
                write.coordinator = order[usize::from(write.coordinator)] as u8;
            }
            write.ring = set_of(write.ring, order);
            write.legs = moved(write.legs, order);
            write.late = moved(write.late, order);
            write.late.iter_mut().for_each(|late| late.ring = set_of(late.ring, order));
        }
        if renamed.read.ring != 0 {
            renamed.read.coordinator = order[usize::from(renamed.read.coordinator)] as u8;
            renamed.read.ring = set_of(renamed.read.ring, order);
            renamed.read.seen = moved(renamed.read.seen, order);
        }
        renamed.cut = set_of(self.cut, order);
        renamed.failed = set_of(self.failed, order);
        renamed
    }
}

/// What belongs to each node, once each is where `order` says.
pub fn moved<T: Copy>(of_all: [T; NODES], order: &[usize; NODES]) -> [T; NODES] {
    let mut moved = of_all;
    order.iter().zip(of_all).for_each(|(to, one)| moved[*to] = one);
    moved
}

/// A set of nodes under their new names.
pub fn set_of(nodes: Nodes, order: &[usize; NODES]) -> Nodes {
    (0..NODES).filter(|at| nodes >> at & 1 == 1).map(|at| 1 << order[at]).sum()
}
