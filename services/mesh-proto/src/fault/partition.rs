//! The ways in which a network breaks apart, as lists of one-way links that carry nothing.

use std::time::Duration;

use super::{Direction, FaultPeer, FaultRule, LinkFault};
use crate::{Monotonic, NodeId};

/// Links that are cut, and whether they come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partition {
    /// From whom to whom nothing gets through.
    pub links: Vec<(NodeId, NodeId)>,
    /// The period in whose first half they are cut; nothing is all the time.
    pub flap: Option<Duration>,
}

impl Partition {
    /// Nodes of different groups hear nothing of each other; nodes in no group are not concerned.
    #[must_use]
    pub fn symmetric(groups: &[&[NodeId]]) -> Self {
        let mut links = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|&(other, _)| other != index);
            for &other in others.flat_map(|(_, nodes)| *nodes) {
                links.extend(group.iter().map(|&node| (node, other)));
            }
        }
        Self { links, flap: None }
    }

    /// Asymmetric: what `from` send does not reach `to`; `to`→`from` is unaffected.
    #[must_use]
    pub fn one_way(from: &[NodeId], to: &[NodeId]) -> Self {
        let links = from.iter().flat_map(|&from| to.iter().map(move |&to| (from, to)));
        Self { links: links.filter(|(from, to)| from != to).collect(), flap: None }
    }

    /// `left` and `right` hear each other only through `bridge`, which both can reach.
    #[must_use]
    pub fn bridge(left: &[NodeId], bridge: &[NodeId], right: &[NodeId]) -> Self {
        let mut partition = Self::symmetric(&[left, right]);
        partition.links.retain(|(from, to)| !bridge.contains(from) && !bridge.contains(to));
        partition
    }

    /// The same, cut in the first half of each period and whole in the second.
    #[must_use]
    pub fn flapping(self, period: Duration) -> Self {
        Self { flap: Some(period), ..self }
    }

    /// The rules with which `node` does its part: what it does not send, and what it does not hear.
    pub fn rules_of(&self, node: NodeId, from: Monotonic, until: Monotonic) -> impl Iterator<Item = FaultRule> {
        let rule = move |peer, direction| FaultRule {
            peer: FaultPeer::Node(peer),
            direction,
            fault: LinkFault::CUT,
            from,
            until,
            flap: self.flap,
        };
        let out = self.links.iter().filter(move |(sender, _)| *sender == node);
        let into = self.links.iter().filter(move |(_, receiver)| *receiver == node);
        out.map(move |(_, to)| rule(*to, Direction::Out)).chain(into.map(move |(from, _)| rule(*from, Direction::In)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const A: NodeId = NodeId::new(1);
    const B: NodeId = NodeId::new(2);
    const C: NodeId = NodeId::new(3);

    fn links(partition: &Partition) -> BTreeSet<(NodeId, NodeId)> {
        partition.links.iter().copied().collect()
    }

    #[test]
    fn each_kind_cuts_its_links_and_no_others() {
        assert_eq!(links(&Partition::symmetric(&[&[A], &[B, C]])), [(A, B), (A, C), (B, A), (C, A)].into());
        assert_eq!(links(&Partition::one_way(&[A], &[A, B, C])), [(A, B), (A, C)].into());
        assert_eq!(links(&Partition::bridge(&[A], &[B], &[C])), [(A, C), (C, A)].into());
        assert_eq!(links(&Partition::bridge(&[A, B], &[B], &[B, C])), [(A, C), (C, A)].into());
    }

    #[test]
    fn both_ends_of_a_link_do_their_part() {
        let partition = Partition::one_way(&[A], &[B]).flapping(Duration::from_secs(1));
        let until = Monotonic::new(Duration::from_secs(9));
        let rules = |node| partition.rules_of(node, Monotonic::default(), until).collect::<Vec<_>>();
        let expected = |peer, direction| FaultRule {
            peer: FaultPeer::Node(peer),
            direction,
            fault: LinkFault::CUT,
            from: Monotonic::default(),
            until,
            flap: Some(Duration::from_secs(1)),
        };
        assert_eq!(rules(A), [expected(B, Direction::Out)]);
        assert_eq!(rules(B), [expected(A, Direction::In)]);
        assert_eq!(rules(C), []);
    }
}
