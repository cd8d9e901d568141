//! Which slots this node may speak for, and what it still has to learn from whom before it may.
//!
//! A node is *in sync* for a slot once it has compared its digest with everybody's who may hold records of it, and taken what it
//! lacked. Until then its silence about a key means nothing, and it says "unknown" rather than "absent".
//!
//! Everybody, and not only the slot's other owners: a change of the ring may replace so many owners at once that what some of the
//! former ones have acknowledged is with none of those that stay.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{Digest, KeyHash, Mutant, NodeId, Ring, RingHash, SLOTS, Slot, Version};

/// One bit per slot: whether this node may say "absent". Shared with the request path.
#[derive(Debug)]
pub struct SlotSync {
    words: [AtomicU64; SLOTS / 64],
    /// Whether any bit of an owned slot is clear, so that a node in sync pays one load to know it.
    complete: AtomicBool,
}

impl Default for SlotSync {
    fn default() -> Self {
        Self { words: std::array::from_fn(|_| AtomicU64::new(0)), complete: AtomicBool::new(false) }
    }
}

impl SlotSync {
    /// Whether this node may say "absent" for keys of this slot.
    #[must_use]
    pub fn is_in_sync(&self, slot: Slot) -> bool {
        // Acquire pairs with the release in `confirm`: whoever sees the bit sees the records it stands for.
        self.words[slot.index() / 64].load(Ordering::Acquire) >> (slot.index() % 64) & 1 == 1
    }

    /// The bits of 64 slots each, for a peer.
    #[must_use]
    pub fn words(&self) -> Vec<u64> {
        self.words.iter().map(|word| word.load(Ordering::Acquire)).collect()
    }

    /// Whether all owned slots are in sync.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    fn set(&self, slot: Slot, in_sync: bool) {
        let bit = 1 << (slot.index() % 64);
        let word = &self.words[slot.index() / 64];
        if in_sync {
            word.fetch_or(bit, Ordering::Release)
        } else {
            word.fetch_and(!bit, Ordering::Release)
        };
    }
}

/// Whom to compare with, and when that counts.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The ring in force, which both sides of a comparison must have.
    pub ring: RingHash,
    /// All others that may hold records: the members of the ring, and those that are leaving.
    pub holders: &'a [NodeId],
}

/// What has to be compared with whom. Driven by upkeep: tell it of each new ring and of each finished comparison.
#[derive(Debug, Default)]
pub struct RepairPlan {
    /// For each owned slot out of sync: the holders it has not been compared with.
    awaited: HashMap<Slot, Vec<NodeId>>,
    /// For each of these slots: the holders it has been compared with. Whoever becomes one later has yet to be.
    confirmed: HashMap<Slot, Vec<NodeId>>,
    /// Sorted.
    owned: Vec<Slot>,
    /// The ring in force. What was compared under another one proves nothing: its writes may have gone elsewhere.
    ring: RingHash,
    /// Whether this node was the only one in the ring: what it then held proves nothing about what others hold.
    was_alone: bool,
    /// Slots that differed from a peer at the last look. Under load digests always differ a little, because writes are in
    /// flight; only what differs twice in a row is repaired.
    suspected: HashMap<(NodeId, Slot), (Digest, Digest)>,
    /// Pairs of digests that a repair could not bring together, such as after an eviction; not tried again until one changes.
    settled: HashMap<(NodeId, Slot), (Digest, Digest)>,
}

impl RepairPlan {
    /// A new ring is in force, and `ring` says which slots are `me`'s: for a node that joins it is the ring to be. Slots that `me`
    /// owned before keep their state; new ones have to be compared with every holder. All have to with `distrust`, because the
    /// others believed this node dead, or it was not in the ring, and after it was alone.
    pub fn handle_ring(&mut self, me: NodeId, ring: &Ring, sources: Sources<'_>, distrust: bool, sync: &SlotSync) {
        let distrust = distrust || self.was_alone;
        self.was_alone = ring.members().len() == 1;
        self.ring = sources.ring;
        let owned: Vec<Slot> = Slot::all().filter(|slot| ring.owns(me, *slot)).collect();
        if distrust {
            self.awaited.clear();
            self.confirmed.clear();
        }
        let mut awaited = HashMap::new();
        for &slot in &owned {
            let is_asked = |holder: &NodeId| ring.owns(*holder, slot) || !Mutant::AsksOwnersOnly.is_planted();
            let others = sources.holders.iter().copied().filter(|holder| *holder != me && is_asked(holder));
            let was_owned = self.owned.binary_search(&slot).is_ok();
            let mut missing: Vec<NodeId> = match self.awaited.get(&slot) {
                _ if distrust || !was_owned => others.collect(),
                Some(_) => {
                    let confirmed = self.confirmed.get(&slot);
                    others.filter(|holder| !confirmed.is_some_and(|confirmed| confirmed.contains(holder))).collect()
                }
                None => Vec::new(),
            };
            missing.sort_unstable();
            sync.set(slot, missing.is_empty());
            if !missing.is_empty() {
                awaited.insert(slot, missing);
            }
        }
        for slot in self.owned.iter().filter(|slot| owned.binary_search(slot).is_err()) {
            sync.set(*slot, false);
        }
        let in_ring = |peer: NodeId| ring.members().binary_search_by_key(&peer, |(id, _)| *id).is_ok();
        self.suspected.retain(|(peer, _), _| in_ring(*peer));
        self.settled.retain(|(peer, _), _| in_ring(*peer));
        self.confirmed.retain(|slot, _| awaited.contains_key(slot));
        self.awaited = awaited;
        self.owned = owned;
        self.publish(sync);
    }

    /// Nobody else is in the ring, but there ought to be: this node may speak for nothing, and has to compare everything
    /// once it has found the others.
    pub fn handle_alone(&mut self, sync: &SlotSync) {
        *self = Self { was_alone: true, ..Self::default() };
        Slot::all().for_each(|slot| sync.set(slot, false));
        self.publish(sync);
    }

    /// The ring in force.
    #[must_use]
    pub const fn ring(&self) -> RingHash {
        self.ring
    }

    /// Whether this node owns the slot, or will once it has joined.
    #[must_use]
    pub fn owns(&self, slot: Slot) -> bool {
        self.owned.binary_search(&slot).is_ok()
    }

    /// Everybody that some slot still has to be compared with, sorted.
    #[must_use]
    pub fn awaited_peers(&self) -> Vec<NodeId> {
        let mut peers: Vec<NodeId> = self.awaited.values().flatten().copied().collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// A holder that has left is gone for good: nothing more can be had from it.
    pub fn handle_gone(&mut self, peer: NodeId, sync: &SlotSync) {
        for slot in self.awaited_from(peer) {
            self.handle_confirmed(self.ring, peer, slot, sync);
            // Should it come back it is to be compared with like anybody new.
            if let Some(confirmed) = self.confirmed.get_mut(&slot) {
                confirmed.retain(|confirmed| *confirmed != peer);
            }
        }
    }

    /// Slots that still have to be compared with `peer`.
    #[must_use]
    pub fn awaited_from(&self, peer: NodeId) -> Vec<Slot> {
        let mut slots: Vec<Slot> =
            self.awaited.iter().filter(|(_, peers)| peers.contains(&peer)).map(|(slot, _)| *slot).collect();
        slots.sort_unstable();
        slots
    }

    /// Everything that `peer` had for `slot` is here now, as it was found while `ring` was in force at both.
    pub fn handle_confirmed(&mut self, ring: RingHash, peer: NodeId, slot: Slot, sync: &SlotSync) {
        if ring != self.ring {
            return;
        }
        let Some(peers) = self.awaited.get_mut(&slot) else { return };
        peers.retain(|awaited| *awaited != peer);
        if !peers.is_empty() {
            self.confirmed.entry(slot).or_default().push(peer);
        } else {
            self.awaited.remove(&slot);
            self.confirmed.remove(&slot);
            sync.set(slot, true);
            self.publish(sync);
        }
    }

    /// Takes one comparison with `peer`; says whether the slot should be pulled from it now.
    pub fn handle_digests(&mut self, peer: NodeId, slot: Slot, ours: Digest, theirs: Digest) -> bool {
        let place = (peer, slot);
        if ours == theirs {
            self.suspected.remove(&place);
            self.settled.remove(&place);
            return false;
        }
        if self.settled.get(&place) == Some(&(ours, theirs)) {
            return false;
        }
        self.settled.remove(&place);
        self.suspected.insert(place, (ours, theirs)).is_some()
    }

    /// Whether the slot differed from `peer` at the last look, and would be pulled if it did so again.
    #[must_use]
    pub fn is_suspected(&self, peer: NodeId, slot: Slot) -> bool {
        self.suspected.contains_key(&(peer, slot))
    }

    /// A pull from `peer` is done and changed nothing: do not try again until a digest changes.
    pub fn handle_fruitless(&mut self, peer: NodeId, slot: Slot, ours: Digest, theirs: Digest) {
        self.suspected.remove(&(peer, slot));
        self.settled.insert((peer, slot), (ours, theirs));
    }

    /// What could not be taken before may be taken now: this node's clock is another.
    pub fn handle_clock_set(&mut self) {
        self.settled.clear();
    }

    /// Of one slot: the holders that it has yet to be compared with, and those that it was compared with since it was last in sync.
    #[must_use]
    pub fn holders_of(&self, slot: Slot) -> [&[NodeId]; 2] {
        [&self.awaited, &self.confirmed].map(|holders| holders.get(&slot).map_or(&[][..], Vec::as_slice))
    }

    /// Whether this node was the only one in the last ring: it will have to compare everything under the next.
    #[must_use]
    pub const fn was_alone(&self) -> bool {
        self.was_alone
    }

    /// How many owned slots are in sync, and how many are owned.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.owned.len() - self.awaited.len(), self.owned.len())
    }

    fn publish(&self, sync: &SlotSync) {
        sync.complete.store(self.awaited.is_empty() && !self.owned.is_empty(), Ordering::Release);
    }
}

/// The hashes, rising, of the keys of a slot that `theirs` has and `ours` lacks or has an older version of. Where keys share a
/// hash, the versions do not tell whose they are: then any version that is not in `ours` makes the hash wanted.
#[must_use]
pub fn keys_to_pull(ours: &[(KeyHash, Version)], theirs: &[(KeyHash, Version)]) -> Vec<KeyHash> {
    let mut held: HashMap<KeyHash, Vec<Version>> = HashMap::with_capacity(ours.len());
    for (hash, version) in ours {
        held.entry(*hash).or_default().push(*version);
    }
    let mut offered: HashMap<KeyHash, usize> = HashMap::with_capacity(theirs.len());
    for (hash, _) in theirs {
        *offered.entry(*hash).or_default() += 1;
    }
    let is_wanted = |(hash, version): &&(KeyHash, Version)| match held.get(hash).map(Vec::as_slice) {
        None => true,
        Some([ours]) if offered.get(hash) == Some(&1) => ours < version,
        Some(ours) => !ours.contains(version),
    };
    let mut wanted: Vec<KeyHash> = theirs.iter().filter(is_wanted).map(|(hash, _)| *hash).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

    use super::*;
    use crate::{ReplicationFactor, Weight};

    fn ring(names: &[&str], replicas: u64) -> Ring {
        let members: Vec<_> = names.iter().map(|name| (NodeId::from_name(name), Weight::MAX)).collect();
        Ring::new(&members, ReplicationFactor::new(replicas).unwrap())
    }

    /// As [`RepairPlan::handle_ring`], with all members as holders.
    fn handle_ring(plan: &mut RepairPlan, me: NodeId, ring: &Ring, distrust: bool, sync: &SlotSync) {
        let holders: Vec<NodeId> = ring.members().iter().map(|(id, _)| *id).collect();
        plan.handle_ring(me, ring, Sources { ring: ring.hash(), holders: &holders }, distrust, sync);
    }

    fn confirm_all(plan: &mut RepairPlan, peer: &str, sync: &SlotSync) {
        let peer = NodeId::from_name(peer);
        for slot in plan.awaited_from(peer) {
            plan.handle_confirmed(plan.ring(), peer, slot, sync);
        }
    }

    #[test]
    fn a_lone_node_is_in_sync_at_once() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        assert!(!sync.is_complete());
        handle_ring(&mut plan, NodeId::from_name("a"), &ring(&["a"], 3), false, &sync);
        assert!(sync.is_complete());
        assert!(Slot::all().all(|slot| sync.is_in_sync(slot)));
    }

    #[test]
    fn every_other_owner_has_to_confirm() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        handle_ring(&mut plan, NodeId::from_name("a"), &ring(&["a", "b", "c"], 3), false, &sync);
        confirm_all(&mut plan, "b", &sync);
        assert!(!sync.is_complete());
        assert_eq!(plan.progress(), (0, SLOTS));
        confirm_all(&mut plan, "c", &sync);
        assert!(sync.is_complete());
        assert_eq!(plan.progress(), (SLOTS, SLOTS));
    }

    #[test]
    fn an_owner_that_dies_need_not_confirm() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let me = NodeId::from_name("a");
        handle_ring(&mut plan, me, &ring(&["a", "b", "c"], 3), false, &sync);
        confirm_all(&mut plan, "b", &sync);
        handle_ring(&mut plan, me, &ring(&["a", "b"], 3), false, &sync);
        assert!(sync.is_complete());
    }

    /// A node that starts, or was alone, learns of the others one by one.
    #[test]
    fn whoever_becomes_an_owner_of_a_slot_out_of_sync_has_to_confirm_it_too() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let me = NodeId::from_name("a");
        plan.handle_alone(&sync);
        handle_ring(&mut plan, me, &ring(&["a", "b"], 2), false, &sync);
        handle_ring(&mut plan, me, &ring(&["a", "b", "c"], 2), false, &sync);
        confirm_all(&mut plan, "b", &sync);
        let with_c = Slot::all().find(|slot| {
            let ring = ring(&["a", "b", "c"], 2);
            ring.owns(me, *slot) && ring.owns(NodeId::from_name("c"), *slot)
        });
        assert!(!sync.is_in_sync(with_c.unwrap()), "only c knows what has been written there");
        confirm_all(&mut plan, "c", &sync);
        assert!(sync.is_complete());
    }

    #[test]
    fn company_after_being_alone_has_to_be_compared_with() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let me = NodeId::from_name("a");
        handle_ring(&mut plan, me, &ring(&["a"], 3), false, &sync);
        assert!(sync.is_complete());
        handle_ring(&mut plan, me, &ring(&["a", "b", "c"], 3), false, &sync);
        assert_eq!(plan.progress(), (0, SLOTS));
    }

    #[test]
    fn a_node_cut_off_from_all_others_speaks_for_nothing() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let (me, all) = (NodeId::from_name("a"), ring(&["a", "b"], 2));
        handle_ring(&mut plan, me, &all, false, &sync);
        confirm_all(&mut plan, "b", &sync);
        assert!(sync.is_complete());
        plan.handle_alone(&sync);
        assert!(!sync.is_complete());
        assert!(Slot::all().all(|slot| !sync.is_in_sync(slot)));
        handle_ring(&mut plan, me, &all, false, &sync);
        assert_eq!(plan.progress(), (0, SLOTS));
    }

    #[test]
    fn a_newcomer_does_not_unsettle_those_in_sync_but_new_slots_and_distrust_do() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let me = NodeId::from_name("a");
        handle_ring(&mut plan, me, &ring(&["a", "b"], 1), false, &sync);
        assert!(!sync.is_complete(), "with one replica, too, others may hold what is this node's now");
        confirm_all(&mut plan, "b", &sync);
        handle_ring(&mut plan, me, &ring(&["a", "b", "c"], 3), false, &sync);
        assert!(!sync.is_complete(), "slots that only b owned are new here");
        confirm_all(&mut plan, "b", &sync);
        confirm_all(&mut plan, "c", &sync);
        assert!(sync.is_complete());
        handle_ring(&mut plan, me, &ring(&["a", "b", "c"], 3), true, &sync);
        assert_eq!(plan.progress().0, 0);
    }

    #[test]
    fn a_slot_given_up_and_taken_back_is_new() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let me = NodeId::from_name("a");
        handle_ring(&mut plan, me, &ring(&["a"], 2), false, &sync);
        handle_ring(&mut plan, me, &ring(&["a", "b", "c", "d"], 2), false, &sync);
        let lost = Slot::all().find(|slot| !ring(&["a", "b", "c", "d"], 2).owns(me, *slot)).unwrap();
        assert!(!sync.is_in_sync(lost));
        handle_ring(&mut plan, me, &ring(&["a", "b"], 2), false, &sync);
        assert!(!sync.is_in_sync(lost));
        confirm_all(&mut plan, "b", &sync);
        assert!(sync.is_in_sync(lost));
    }

    #[test]
    fn who_leaves_has_to_confirm_until_it_is_gone() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let (me, names) = (NodeId::from_name("a"), ["b", "c", "d", "e"].map(NodeId::from_name));
        handle_ring(&mut plan, me, &ring(&["a", "b", "c", "d", "e"], 3), false, &sync);
        names.iter().for_each(|peer| plan.handle_gone(*peer, &sync));
        assert!(sync.is_complete());
        let after = ring(&["a", "b", "c", "d"], 3);
        plan.handle_ring(me, &after, Sources { ring: after.hash(), holders: &names }, false, &sync);
        let gained = plan.awaited_from(names[3]);
        assert!(!gained.is_empty() && gained.iter().all(|slot| !sync.is_in_sync(*slot)));
        ["b", "c", "d"].iter().for_each(|peer| confirm_all(&mut plan, peer, &sync));
        assert_eq!(plan.awaited_peers(), [names[3]]);
        plan.handle_gone(names[3], &sync);
        assert!(sync.is_complete());
    }

    #[test]
    fn what_was_compared_under_another_ring_proves_nothing() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let (me, peer) = (NodeId::from_name("a"), NodeId::from_name("b"));
        handle_ring(&mut plan, me, &ring(&["a", "b", "c"], 3), false, &sync);
        let before = plan.ring();
        handle_ring(&mut plan, me, &ring(&["a", "b", "c", "d"], 3), false, &sync);
        let slot = plan.awaited_from(peer)[0];
        plan.handle_confirmed(before, peer, slot, &sync);
        assert!(plan.awaited_from(peer).contains(&slot));
    }

    #[test]
    fn only_what_is_missing_or_older_is_wanted() {
        let pair = |hash: u64, version: u128| (KeyHash::new(hash), Version::new(version));
        let ours = [pair(1, 5), pair(2, 5), pair(3, 5), pair(9, 9)];
        let theirs = [pair(4, 1), pair(3, 6), pair(2, 5), pair(1, 4)];
        assert_eq!(keys_to_pull(&ours, &theirs), [KeyHash::new(3), KeyHash::new(4)]);
        assert_eq!(keys_to_pull(&[], &theirs).len(), 4);
        assert!(keys_to_pull(&ours, &ours).is_empty());
    }

    #[test]
    fn keys_that_share_a_hash_are_wanted_whenever_a_version_is_unknown() {
        let pair = |version: u128| (KeyHash::new(1), Version::new(version));
        assert_eq!(keys_to_pull(&[pair(5)], &[pair(5), pair(3)]), [KeyHash::new(1)], "3 is another key's");
        assert_eq!(keys_to_pull(&[pair(5), pair(3)], &[pair(4)]), [KeyHash::new(1)], "4 may be newer than 3");
        assert!(keys_to_pull(&[pair(5), pair(3)], &[pair(3), pair(5)]).is_empty());
    }

    #[test]
    fn only_what_differs_twice_is_pulled_and_a_fruitless_pull_is_not_repeated() {
        let mut plan = RepairPlan::default();
        let (peer, slot) = (NodeId::from_name("b"), Slot::new(7).unwrap());
        assert!(!plan.handle_digests(peer, slot, Digest(1), Digest(2)));
        assert!(plan.is_suspected(peer, slot));
        assert!(plan.handle_digests(peer, slot, Digest(3), Digest(2)));
        plan.handle_fruitless(peer, slot, Digest(3), Digest(2));
        assert!(!plan.is_suspected(peer, slot));
        assert!(!plan.handle_digests(peer, slot, Digest(3), Digest(2)));
        assert!(!plan.handle_digests(peer, slot, Digest(4), Digest(2)), "a change starts over");
        assert!(plan.handle_digests(peer, slot, Digest(4), Digest(2)));
        assert!(!plan.handle_digests(peer, slot, Digest(4), Digest(4)));
        assert!(!plan.handle_digests(peer, slot, Digest(4), Digest(5)));
    }
}
