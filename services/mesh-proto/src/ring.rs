//! Who owns which slot: weighted rendezvous hashing, worked out once per membership change into a table.
use crate::{NodeId, ReplicationFactor, Slot, Weight};
use serde::{Deserialize, Serialize};

/// Identifies a ring's whole content: two nodes with equal ring hashes agree on every owner of every slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RingHash(u64);

impl RingHash {
    /// Wraps a hash that came off the wire.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
    /// The 64 bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A pure function of the sorted `(node, weight)` list.
#[derive(Clone, Debug)]
pub struct Ring {
    _todo: (),
}

impl Ring {
    /// Builds the table. Members may come in any order; a node listed twice counts once.
    #[must_use]
    pub fn new(_members: &[(NodeId, Weight)], _replicas: ReplicationFactor) -> Self {
        todo!()
    }
    /// The owners of a slot, best first: as many as there are replicas, or members if those are fewer.
    #[must_use]
    pub fn owners(&self, _slot: Slot) -> &[NodeId] {
        todo!()
    }
    /// Whether `node` is one of the slot's owners.
    #[must_use]
    pub fn owns(&self, node: NodeId, slot: Slot) -> bool {
        self.owners(slot).contains(&node)
    }
    /// The ring's identity.
    #[must_use]
    pub fn hash(&self) -> RingHash {
        todo!()
    }
    /// The members, sorted by id.
    #[must_use]
    pub fn members(&self) -> &[(NodeId, Weight)] {
        todo!()
    }
    /// How many slots `node` owns, as any replica.
    #[must_use]
    pub fn slots_owned(&self, _node: NodeId) -> usize {
        todo!()
    }
}
