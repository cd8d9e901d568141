//! Which slots this node may speak for, and what it still has to learn from whom before it may.
//!
//! A node is *in sync* for a slot once it has compared its digest with everybody's who may hold records of it, and taken what it
//! lacked. Until then its silence about a key means nothing, and it says "unknown" rather than "absent".
//!
//! Everybody, and not only the slot's other owners: a change of the ring may replace so many owners at once that what some of the
//! former ones have acknowledged is with none of those that stay.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{Digest, KeyHash, Mutant, NodeId, Ring, RingHash, SLOTS, Slot, SlotSet, Version};

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
        // Acquire pairs with the release in `confirm`: a thread that sees the bit sees the records it stands for.
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

    fn set_all(&self, slots: &SlotSet, in_sync: bool) {
        for (word, bits) in self.words.iter().zip(slots.words()) {
            if in_sync {
                word.fetch_or(*bits, Ordering::Release)
            } else {
                word.fetch_and(!bits, Ordering::Release)
            };
        }
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
#[derive(Debug)]
pub struct RepairPlan {
    owned: SlotSet,
    /// Owned slots out of sync: those that some holder is awaited for.
    open: SlotSet,
    /// The open slots that still have to be compared with each holder.
    awaited: BTreeMap<NodeId, SlotSet>,
    /// The open slots that have been compared with it. A later holder has yet to be.
    confirmed: BTreeMap<NodeId, SlotSet>,
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

impl Default for RepairPlan {
    fn default() -> Self {
        Self {
            owned: SlotSet::EMPTY,
            open: SlotSet::EMPTY,
            awaited: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            ring: RingHash::default(),
            was_alone: false,
            suspected: HashMap::new(),
            settled: HashMap::new(),
        }
    }
}

impl RepairPlan {
    /// A new ring is in force, and `ring` says which slots are `me`'s: for a node that joins it is the ring to be. Slots that `me`
    /// owned before keep their state; new ones have to be compared with every holder. All have to with `distrust`, because the
    /// others believed this node dead, or it was not in the ring, and after it was alone.
    pub fn handle_ring(&mut self, me: NodeId, ring: &Ring, sources: Sources<'_>, distrust: bool, sync: &SlotSync) {
        let distrust = distrust || self.was_alone;
        self.was_alone = ring.members().len() == 1;
        self.ring = sources.ring;
        let owned = ring.slots_of(me).clone();
        let gone = self.owned.without(&owned);
        let (new, open) = if distrust {
            self.confirmed.clear();
            (owned.clone(), SlotSet::EMPTY)
        } else {
            (owned.without(&self.owned), owned.and(&self.open))
        };
        self.awaited.clear();
        for holder in sources.holders.iter().copied().filter(|holder| *holder != me) {
            let confirmed = self.confirmed.get(&holder).unwrap_or(&SlotSet::EMPTY);
            let missing = new.or(&open.without(confirmed));
            let is_asked = !Mutant::AsksOwnersOnly.is_planted();
            self.awaited.insert(holder, if is_asked { missing } else { missing.and(ring.slots_of(holder)) });
        }
        self.open = self.awaited.values().fold(SlotSet::EMPTY, |all, awaited| all.or(awaited));
        self.confirmed.values_mut().for_each(|confirmed| *confirmed = confirmed.and(&self.open));
        sync.set_all(&owned.without(&self.open), true);
        sync.set_all(&self.open.or(&gone), false);
        let in_ring = |peer: NodeId| ring.members().binary_search_by_key(&peer, |(id, _)| *id).is_ok();
        self.suspected.retain(|(peer, _), _| in_ring(*peer));
        self.settled.retain(|(peer, _), _| in_ring(*peer));
        self.owned = owned;
        self.publish(sync);
    }

    /// Nobody else is in the ring, but there ought to be: this node may speak for nothing, and has to compare everything
    /// once it has found the others.
    pub fn handle_alone(&mut self, sync: &SlotSync) {
        *self = Self { was_alone: true, ..Self::default() };
        sync.words.iter().for_each(|word| word.store(0, Ordering::Release));
        self.publish(sync);
    }

    /// The ring in force.
    #[must_use]
    pub const fn ring(&self) -> RingHash {
        self.ring
    }

    /// Whether this node owns the slot, or will once it has joined.
    #[must_use]
    pub const fn owns(&self, slot: Slot) -> bool {
        self.owned.contains(slot)
    }

    /// Slots that still have to be compared with `peer`.
    #[must_use]
    pub fn awaited_from(&self, peer: NodeId) -> SlotSet {
        self.awaited.get(&peer).unwrap_or(&SlotSet::EMPTY).clone()
    }

    /// Everything that `peer` had for these slots is here now, as it was found while `ring` was in force at both.
    pub fn handle_confirmed(&mut self, ring: RingHash, peer: NodeId, slots: &SlotSet, sync: &SlotSync) {
        if ring != self.ring {
            return;
        }
        let found = slots.and(&self.open);
        if found.is_empty() {
            return;
        }
        if let Some(awaited) = self.awaited.get_mut(&peer) {
            *awaited = awaited.without(&found);
        }
        let still_open = self.awaited.values().fold(SlotSet::EMPTY, |all, awaited| all.or(awaited));
        let done = self.open.without(&still_open);
        self.open = still_open;
        let confirmed = self.confirmed.entry(peer).or_insert(SlotSet::EMPTY);
        *confirmed = confirmed.or(&found);
        if !done.is_empty() {
            self.confirmed.values_mut().for_each(|confirmed| *confirmed = confirmed.without(&done));
            sync.set_all(&done, true);
            self.publish(sync);
        }
    }

    /// Takes one comparison with `peer`; says whether the slot should be pulled from it now.
    pub fn handle_digests(&mut self, peer: NodeId, slot: Slot, ours: Digest, theirs: Digest) -> bool {
        let place = (peer, slot);
        if ours == theirs {
            // Nearly always nothing differs, and there is nothing to look for.
            if !self.suspected.is_empty() {
                self.suspected.remove(&place);
            }
            if !self.settled.is_empty() {
                self.settled.remove(&place);
            }
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
        if Mutant::ComparesForEver.is_planted() {
            return;
        }
        self.settled.insert((peer, slot), (ours, theirs));
    }

    /// What could not be taken before may be taken now: this node's clock is another.
    pub fn handle_clock_set(&mut self) {
        self.settled.clear();
    }

    /// Slots out of sync that have been compared with `peer`.
    #[must_use]
    pub fn confirmed_by(&self, peer: NodeId) -> &SlotSet {
        self.confirmed.get(&peer).unwrap_or(&SlotSet::EMPTY)
    }

    /// Whether this node was the only one in the last ring: it will have to compare everything under the next.
    #[must_use]
    pub const fn was_alone(&self) -> bool {
        self.was_alone
    }

    /// How many owned slots are in sync, and how many are owned.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.owned.len() - self.open.len(), self.owned.len())
    }

    fn publish(&self, sync: &SlotSync) {
        sync.complete.store(self.open.is_empty() && !self.owned.is_empty(), Ordering::Release);
    }
}

/// The hashes, rising, of the keys of a slot that `theirs` has and `ours` lacks or has an older version of. Where keys share a
/// hash, the versions do not tell whose they are: then any version that is not in `ours` makes the hash wanted.
///
/// What `ours` lacks is left alone up to the version `evicted_until`: it may have been evicted.
#[must_use]
pub fn keys_to_pull(
    ours: &[(KeyHash, Version)],
    theirs: &[(KeyHash, Version)],
    evicted_until: Version,
) -> Vec<KeyHash> {
    let mut held: HashMap<KeyHash, Vec<Version>> = HashMap::with_capacity(ours.len());
    for (hash, version) in ours {
        held.entry(*hash).or_default().push(*version);
    }
    let mut offered: HashMap<KeyHash, usize> = HashMap::with_capacity(theirs.len());
    for (hash, _) in theirs {
        *offered.entry(*hash).or_default() += 1;
    }
    let is_wanted = |(hash, version): &&(KeyHash, Version)| match held.get(hash).map(Vec::as_slice) {
        None => *version > evicted_until,
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
        plan.handle_confirmed(plan.ring(), peer, &plan.awaited_from(peer), sync);
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
    fn a_later_owner_of_a_slot_out_of_sync_has_to_confirm_it_too() {
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
    fn a_leaving_member_has_to_confirm_until_it_has_left() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let (me, names) = (NodeId::from_name("a"), ["b", "c", "d", "e"].map(NodeId::from_name));
        handle_ring(&mut plan, me, &ring(&["a", "b", "c", "d", "e"], 3), false, &sync);
        ["b", "c", "d", "e"].iter().for_each(|peer| confirm_all(&mut plan, peer, &sync));
        assert!(sync.is_complete());
        let after = ring(&["a", "b", "c", "d"], 3);
        let ring = after.hash();
        plan.handle_ring(me, &after, Sources { ring, holders: &names }, false, &sync);
        let gained = plan.awaited_from(names[3]);
        assert!(!gained.is_empty() && gained.iter().all(|slot| !sync.is_in_sync(slot)));
        ["b", "c", "d"].iter().for_each(|peer| confirm_all(&mut plan, peer, &sync));
        assert_eq!(plan.awaited_from(names[3]), gained);
        plan.handle_ring(me, &after, Sources { ring, holders: &names[..3] }, false, &sync);
        assert!(sync.is_complete());
    }

    #[test]
    fn what_was_compared_under_another_ring_proves_nothing() {
        let (mut plan, sync) = (RepairPlan::default(), SlotSync::default());
        let (me, peer) = (NodeId::from_name("a"), NodeId::from_name("b"));
        handle_ring(&mut plan, me, &ring(&["a", "b", "c"], 3), false, &sync);
        let before = plan.ring();
        handle_ring(&mut plan, me, &ring(&["a", "b", "c", "d"], 3), false, &sync);
        let awaited = plan.awaited_from(peer);
        plan.handle_confirmed(before, peer, &awaited, &sync);
        assert_eq!(plan.awaited_from(peer), awaited);
    }

    #[test]
    fn only_what_is_missing_or_older_is_wanted() {
        let pair = |hash: u64, version: u128| (KeyHash::new(hash), Version::new(version));
        let ours = [pair(1, 5), pair(2, 5), pair(3, 5), pair(9, 9)];
        let theirs = [pair(4, 1), pair(3, 6), pair(2, 5), pair(1, 4)];
        assert_eq!(keys_to_pull(&ours, &theirs, Version::ZERO), [KeyHash::new(3), KeyHash::new(4)]);
        assert_eq!(keys_to_pull(&[], &theirs, Version::ZERO).len(), 4);
        assert!(keys_to_pull(&ours, &ours, Version::ZERO).is_empty());
        let evicted_until = |version| keys_to_pull(&ours, &theirs, Version::new(version));
        assert_eq!(evicted_until(1), [KeyHash::new(3)], "4 may have been evicted, 3 is held and older");
        assert_eq!(evicted_until(9), [KeyHash::new(3)]);
    }

    #[test]
    fn keys_that_share_a_hash_are_wanted_whenever_a_version_is_unknown() {
        let pair = |version: u128| (KeyHash::new(1), Version::new(version));
        assert_eq!(
            keys_to_pull(&[pair(5)], &[pair(5), pair(3)], Version::ZERO),
            [KeyHash::new(1)],
            "3 is another key's"
        );
        assert_eq!(
            keys_to_pull(&[pair(5), pair(3)], &[pair(4)], Version::ZERO),
            [KeyHash::new(1)],
            "4 may be newer than 3"
        );
        assert!(keys_to_pull(&[pair(5), pair(3)], &[pair(3), pair(5)], Version::ZERO).is_empty());
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
