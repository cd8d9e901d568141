//! Who owns which slot: weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables",
//! 2005), worked out once per membership change into a table, so that a request only looks it up.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Mutant, NodeId, ReplicationFactor, SLOTS, Slot, SlotSet, Weight};

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
    /// Sorted by id, each once.
    members: Box<[(NodeId, Weight)]>,
    /// The owners of slot `s` are the `stride` elements from `s × stride` on.
    owners: Box<[NodeId]>,
    stride: usize,
    /// What each member owns, in their order.
    slots: Box<[SlotSet]>,
    /// Those about to enter it that count, sorted.
    joiners: Box<[(NodeId, Weight)]>,
    /// Which of them will own which slot as well, sorted. Empty unless somebody is joining.
    joining: Box<[(Slot, NodeId)]>,
    /// What claims are made of: those of the members in their order, then of who joins.
    logarithms: Box<[Arc<Logarithms>]>,
    hash: RingHash,
}

impl Ring {
    /// Builds the table. Members may come in any order; a node listed twice counts once, with its highest weight.
    #[must_use]
    pub fn new(members: &[(NodeId, Weight)], replicas: ReplicationFactor) -> Self {
        Self::build(sorted(members), replicas, |id| Arc::new(Logarithms::of(id)))
    }

    /// [`Self::new`] for sorted members whose logarithms are perhaps known.
    pub(crate) fn build(
        members: Vec<(NodeId, Weight)>,
        replicas: ReplicationFactor,
        logarithms: impl Fn(NodeId) -> Arc<Logarithms>,
    ) -> Self {
        let stride = replicas.get().min(members.len());
        let logarithms: Box<[_]> = members.iter().map(|(id, _)| logarithms(*id)).collect();
        let mut owners = Vec::with_capacity(SLOTS * stride);
        let mut slots = vec![SlotSet::EMPTY; members.len()];
        let mut ranked: Vec<(f64, usize)> = Vec::with_capacity(stride + 1);
        for slot in Slot::all() {
            ranked.clear();
            for (at, ((_, weight), logarithms)) in members.iter().zip(&logarithms).enumerate() {
                let claim = logarithms.claim(slot, *weight);
                // Best claim first. Members are sorted by id, so a tie goes to the lower id.
                let rank = ranked.iter().rposition(|(better, _)| *better >= claim).map_or(0, |last| last + 1);
                if rank < stride {
                    ranked.truncate(stride - 1);
                    ranked.insert(rank, (claim, at));
                }
            }
            for (_, at) in &ranked {
                owners.push(members[*at].0);
                slots[*at].insert(slot);
            }
        }
        let hash = Self::hash_of(&members, replicas);
        let (members, owners, slots) = (members.into(), owners.into(), slots.into());
        let (joiners, joining) = (Box::default(), Box::default());
        Self { members, owners, stride, slots, joiners, joining, logarithms, hash }
    }

    /// The same ring, with those that are about to enter it, of which the first [`Self::JOINING_MAX`] count. Each is looked at
    /// as if it entered alone. The hash stays: who joins only hears of writes, and decides nothing.
    #[must_use]
    pub fn joined_by(self, joining: &[(NodeId, Weight)], replicas: ReplicationFactor) -> Self {
        let joiners = self.joiners_of(joining);
        self.join(joiners, replicas, |id| Arc::new(Logarithms::of(id)))
    }

    /// [`Self::joined_by`] for those that count, whose logarithms are perhaps known.
    pub(crate) fn join(
        mut self,
        joiners: Vec<(NodeId, Weight)>,
        replicas: ReplicationFactor,
        logarithms: impl Fn(NodeId) -> Arc<Logarithms>,
    ) -> Self {
        let mut table = Vec::new();
        let mut known = self.logarithms[..self.members.len()].to_vec();
        for (id, weight) in &joiners {
            let logarithms = logarithms(*id);
            for slot in Slot::all() {
                let owners = self.owners(slot);
                let displaces = owners.last().is_none_or(|last| {
                    let claim = logarithms.claim(slot, *weight);
                    claim.total_cmp(&self.claim(slot, *last)).then(last.cmp(id)).is_gt()
                });
                if displaces || owners.len() < replicas.get() {
                    table.push((slot, *id));
                }
            }
            known.push(logarithms);
        }
        table.sort_unstable();
        self.joiners = joiners.into();
        self.joining = table.into();
        self.logarithms = known.into();
        self
    }

    /// Those of the joining that count.
    pub(crate) fn joiners_of(&self, joining: &[(NodeId, Weight)]) -> Vec<(NodeId, Weight)> {
        let first = joining.iter().take(Self::JOINING_MAX).copied();
        first.filter(|(id, _)| self.place(*id).is_none()).collect()
    }

    /// How many joining nodes hear of writes at a time. More may join; they find out by comparison what they missed.
    pub const JOINING_MAX: usize = 4;

    /// Those that will own the slot once they have entered the ring. Nearly always nobody, and then one look.
    pub fn joining(&self, slot: Slot) -> impl Iterator<Item = NodeId> + '_ {
        let first = if self.joining.is_empty() { 0 } else { self.joining.partition_point(|(at, _)| *at < slot) };
        self.joining[first..].iter().take_while(move |(at, _)| *at == slot).map(|(_, id)| *id)
    }

    /// The owners of a slot, best first: as many as there are replicas, or members if those are fewer.
    #[must_use]
    pub fn owners(&self, slot: Slot) -> &[NodeId] {
        let start = slot.index() * self.stride;
        &self.owners[start..start + self.stride]
    }

    /// Whether `node` is one of the slot's owners.
    #[must_use]
    pub fn owns(&self, node: NodeId, slot: Slot) -> bool {
        self.owners(slot).contains(&node)
    }

    /// The ring's identity.
    #[must_use]
    pub const fn hash(&self) -> RingHash {
        self.hash
    }

    /// xxh3 over the number of replicas and then id and weight of each member: a frozen specification.
    pub(crate) fn hash_of(members: &[(NodeId, Weight)], replicas: ReplicationFactor) -> RingHash {
        let mut bytes = Vec::with_capacity(8 + members.len() * 9);
        bytes.extend_from_slice(&(replicas.get() as u64).to_le_bytes());
        for (id, weight) in members {
            bytes.extend_from_slice(&id.get().to_le_bytes());
            bytes.push(weight.get());
        }
        RingHash(xxh3_64(&bytes))
    }

    /// The members, sorted by id.
    #[must_use]
    pub fn members(&self) -> &[(NodeId, Weight)] {
        &self.members
    }

    /// The slots that `node` owns, as any replica.
    #[must_use]
    pub fn slots_of(&self, node: NodeId) -> &SlotSet {
        self.place(node).map_or(&SlotSet::EMPTY, |at| &self.slots[at])
    }

    /// How many these are.
    #[must_use]
    pub fn slots_owned(&self, node: NodeId) -> usize {
        self.slots_of(node).len()
    }

    /// A node's logarithms, if it is a member or joins.
    pub(crate) fn logarithms(&self, node: NodeId) -> Option<&Arc<Logarithms>> {
        let mut known = self.members.iter().chain(&self.joiners);
        known.position(|(id, _)| *id == node).map(|at| &self.logarithms[at])
    }

    /// Whether it is the ring of these members, with these about to enter it.
    pub(crate) fn is_of(&self, hash: RingHash, members: &[(NodeId, Weight)], joiners: &[(NodeId, Weight)]) -> bool {
        self.hash == hash && *self.members == *members && *self.joiners == *joiners
    }

    fn place(&self, node: NodeId) -> Option<usize> {
        self.members.binary_search_by_key(&node, |(id, _)| *id).ok()
    }

    /// A member's claim.
    fn claim(&self, slot: Slot, member: NodeId) -> f64 {
        self.place(member).map_or(0.0, |at| self.logarithms[at].claim(slot, self.members[at].1))
    }
}

/// As a ring lists them: by id, each once.
pub(crate) fn sorted(members: &[(NodeId, Weight)]) -> Vec<(NodeId, Weight)> {
    let mut members = members.to_vec();
    members.sort_unstable_by_key(|(id, weight)| (*id, std::cmp::Reverse(*weight)));
    members.dedup_by_key(|(id, _)| *id);
    members
}

/// For each slot the logarithm of a number that only slot and node decide: nearly all that a ring takes to build.
#[derive(Debug)]
pub(crate) struct Logarithms {
    id: NodeId,
    of_slots: Box<[f64]>,
}

impl Logarithms {
    pub(crate) fn of(id: NodeId) -> Self {
        // `libm` is the same code on every platform, where the system's logarithm may differ in its last bit.
        Self { id, of_slots: Slot::all().map(|slot| libm::log(uniform(slot, id))).collect() }
    }

    /// The node's claim to a slot, `-w / ln(u)`: with it a node comes first in `w` out of all weights' sum of the slots, and a
    /// change of one node's weight moves no slot between two others.
    fn claim(&self, slot: Slot, weight: Weight) -> f64 {
        if Mutant::HashTimesWeight.is_planted() {
            return f64::from(weight.get()) * uniform(slot, self.id);
        }
        -f64::from(weight.get()) / self.of_slots[slot.index()]
    }
}

/// A number strictly between 0 and 1 that only slot and node decide: 53 bits of xxh3, a frozen specification.
fn uniform(slot: Slot, id: NodeId) -> f64 {
    let mut pair = [0; 10];
    pair[..8].copy_from_slice(&id.get().to_le_bytes());
    pair[8..].copy_from_slice(&slot.get().to_le_bytes());
    // The lowest bit is always set, so the result is neither 0 nor, by rounding, 1.
    let bits = (xxh3_64(&pair) >> 11) | 1;
    #[expect(clippy::cast_precision_loss, reason = "a double holds 53 bits exactly")]
    let bits = bits as f64;
    bits / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn ring(members: &[(u64, u8)], replicas: u64) -> Ring {
        let members: Vec<_> = members.iter().map(|(id, w)| (NodeId::new(*id), Weight::new(*w).unwrap())).collect();
        Ring::new(&members, ReplicationFactor::new(replicas).unwrap())
    }

    fn owners(ring: &Ring, slot: u16) -> Vec<u64> {
        ring.owners(Slot::new(slot).unwrap()).iter().map(|id| id.get()).collect()
    }

    /// If this fails, nodes of the old and of the new version disagree on owners: do not change the figures.
    #[test]
    fn the_table_and_its_hash_are_frozen() {
        let ring = ring(&[(1, 1), (2, 2), (3, 4), (u64::MAX, 16)], 3);
        assert_eq!(ring.hash().get(), 0x03a1_1b94_a20d_d854);
        assert_eq!(owners(&ring, 0), [3, u64::MAX, 2]);
        assert_eq!(owners(&ring, 1), [u64::MAX, 3, 1]);
        assert_eq!(owners(&ring, 2048), [u64::MAX, 2, 1]);
        assert_eq!(owners(&ring, 4095), [u64::MAX, 3, 2]);
        let all: Vec<u8> = ring.owners.iter().flat_map(|id| id.get().to_le_bytes()).collect();
        assert_eq!(xxh3_64(&all), 0x4861_88e5_56bb_beda, "the whole table");
        assert_eq!(uniform(Slot::new(7).unwrap(), NodeId::new(7)).to_bits(), 0x3fef_10c2_5d56_6a01);
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        let ring = ring(&[], 3);
        assert!(Slot::all().all(|slot| ring.owners(slot).is_empty()));
        assert_eq!(ring.slots_owned(NodeId::new(1)), 0);
    }

    #[test]
    fn fewer_members_than_replicas_all_own_everything() {
        let ring = ring(&[(1, 1), (2, 16)], 3);
        assert!(Slot::all().all(|slot| ring.owners(slot).len() == 2));
        assert_eq!((ring.slots_owned(NodeId::new(1)), ring.slots_owned(NodeId::new(2))), (SLOTS, SLOTS));
        assert_eq!(ring.slots_owned(NodeId::new(3)), 0, "not a member");
    }

    #[test]
    fn who_joins_hears_of_exactly_the_slots_it_will_own() {
        let now = ring(&[(1, 1), (2, 5), (3, 16), (4, 2)], 3);
        for (id, weight) in [(5, 1), (6, 16)] {
            let (id, weight) = (NodeId::new(id), Weight::new(weight).unwrap());
            let members = [now.members(), &[(id, weight)]].concat();
            let later = Ring::new(&members, ReplicationFactor::new(3).unwrap());
            let joined = now.clone().joined_by(&[(id, weight)], ReplicationFactor::new(3).unwrap());
            for slot in Slot::all() {
                assert_eq!(joined.joining(slot).collect::<Vec<_>>() == [id], later.owns(id, slot), "{slot:?}");
            }
            assert_eq!(joined.hash(), now.hash());
        }
        let few = ring(&[(1, 1)], 3).joined_by(&[(NodeId::new(2), Weight::MIN)], ReplicationFactor::new(3).unwrap());
        assert!(Slot::all().all(|slot| few.joining(slot).eq([NodeId::new(2)])));
        assert!(Slot::all().all(|slot| now.joining(slot).next().is_none()));
    }

    #[test]
    fn a_node_listed_twice_counts_once_with_its_highest_weight() {
        let once = ring(&[(1, 1), (2, 5)], 1);
        for twice in [ring(&[(2, 3), (1, 1), (2, 5)], 1), ring(&[(2, 5), (2, 3), (1, 1)], 1)] {
            assert_eq!(twice.members(), once.members());
            assert_eq!((twice.hash(), &twice.owners), (once.hash(), &once.owners));
        }
    }

    #[test]
    fn the_hash_tells_members_weights_and_replicas_apart() {
        let rings = [
            ring(&[], 1),
            ring(&[], 2),
            ring(&[(1, 1)], 1),
            ring(&[(1, 2)], 1),
            ring(&[(2, 1)], 1),
            ring(&[(1, 1), (2, 1)], 1),
            ring(&[(1, 1), (2, 1)], 2),
        ];
        let mut hashes: Vec<u64> = rings.iter().map(|ring| ring.hash().get()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), rings.len());
    }
}
