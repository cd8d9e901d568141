//! From one ring to the next: how a node enters it, what changes with it, and what the rings before leave to be done.
//!
//! Nobody decides that a ring is in force. Each node builds it from its member list, and two nodes serve each other only while
//! theirs are equal; that, and who is in sync, is all that the safety of a change rests on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use arrayvec::ArrayVec;
use mesh_proto::{Event, Incarnation, MemberState, Membership, Mutant, NodeId, Ring, RingHash, Slot, Sources, Stage};
use parking_lot::Mutex;

use crate::core::{Core, count};

/// How many rings before this one are remembered, to ask their owners for what the present ones do not have yet.
const FORMER_RINGS_MAX: usize = 2;

/// What rings before this one leave to be done.
#[derive(Default)]
pub(crate) struct RingChange {
    /// Held while a ring is built from the membership, so that an older one never replaces a newer.
    building: Mutex<()>,
    /// Whether this node is not in the ring yet.
    joining: AtomicBool,
    /// Whether a whole member list has come.
    has_list: AtomicBool,
    /// The newest first. Looked at only by reads that came to nothing.
    former: ArcSwap<Vec<Arc<Ring>>>,
    /// The other members that are leaving: as many as there are at most.
    leavers: Mutex<BTreeMap<NodeId, Leaver>>,
}

/// One member that is leaving.
#[derive(Clone, Copy)]
struct Leaver {
    /// By which claim of its own. A process that leaves a second time, or another one in its place, has another.
    incarnation: Incarnation,
    /// Under which ring all that it holds was taken over from it.
    taken: Option<RingHash>,
}

impl Core {
    /// Builds the ring from the membership. `distrust` says that the others believed this node dead.
    pub(crate) fn build_ring(&self, distrust: bool) {
        let _building = self.change.building.lock();
        let (members, joining, leaving, me) = {
            let membership = self.membership.lock();
            self.follow_leavers(&membership);
            let [joining, leaving] = [Stage::Joining, Stage::Leaving].map(|stage| membership.others_in(stage));
            (membership.ring_members(), joining, leaving, membership.me().clone())
        };
        let ring = self.config.rings.ring(&members, &joining, self.config.replicas);
        let leaving = leaving.iter().filter(|_| !Mutant::LeaversUnasked.is_planted());
        let holders = members.iter().chain(leaving).map(|(id, _)| *id);
        let holders: Vec<NodeId> = holders.filter(|id| *id != self.id).collect();
        let sources = Sources { ring: ring.hash(), holders: &holders };
        let alone = members.iter().all(|(id, _)| *id == self.id);
        {
            let mut plan = self.plan.lock();
            // What was compared before this node was in the ring was but a head start: it was not told of every write.
            let is_joining = me.stage == Stage::Joining;
            let entered = self.change.joining.swap(is_joining, Ordering::AcqRel) && !is_joining;
            if alone && !self.is_seed() {
                plan.handle_alone(&self.sync);
            } else if is_joining {
                let with_me = [&members[..], &[(me.id, me.weight)]].concat();
                let to_be = self.config.rings.ring(&with_me, &[], self.config.replicas);
                plan.handle_ring(self.id, &to_be, sources, distrust, &self.sync);
            } else {
                let entered = entered && !Mutant::EnteredAndTrusted.is_planted();
                plan.handle_ring(self.id, &ring, sources, distrust || entered, &self.sync);
            }
        }
        let event = Event::Ring { hash: ring.hash(), members: members.len(), slots_owned: ring.slots_owned(self.id) };
        let before = self.ring.swap(Arc::clone(&ring));
        if before.hash() != ring.hash() {
            let former = self.change.former.load();
            let rest = former.iter().filter(|former| former.hash() != ring.hash() && former.hash() != before.hash());
            let rest = rest.take(FORMER_RINGS_MAX - 1).cloned();
            self.change.former.store(Arc::new(std::iter::once(Arc::clone(&before)).chain(rest).collect()));
        }
        self.observer.event(&event);
        self.resync_wanted.notify_one();
    }

    /// Whether this node is not in the ring yet.
    pub(crate) fn is_joining(&self) -> bool {
        self.change.joining.load(Ordering::Acquire)
    }

    /// A whole member list has come.
    pub(crate) fn handle_list(&self) {
        // Relaxed: if this is not seen now it is in a moment, when somebody is asked again.
        self.change.has_list.store(true, Ordering::Relaxed);
        self.enter_small_ring();
    }

    /// Enters the ring.
    pub(crate) fn enter_ring(&self) {
        self.with_membership(|membership, now| membership.handle_stage(now, Stage::Syncing));
    }

    /// This node holds all that the others have shown it.
    pub(crate) fn handle_in_sync(&self) {
        if self.membership.lock().me().stage == Stage::Syncing {
            self.with_membership(Membership::handle_in_sync);
        }
    }

    /// Enters the ring at once if that has fewer members than a key is to have owners: then nobody has to make way, and every
    /// owner counts. It may have none, if all others are leaving: they wait for somebody to hand over to. Only once a whole
    /// member list has come, and not only some news, and somebody can reach this node.
    pub(crate) fn enter_small_ring(&self) {
        if !self.is_joining() || !self.reach.is_reachable() || !self.change.has_list.load(Ordering::Relaxed) {
            return;
        }
        let (in_ring, all) = {
            let membership = self.membership.lock();
            let count = |stage| membership.others_in(stage).len();
            let in_ring = count(Stage::Syncing) + count(Stage::Normal);
            (in_ring, in_ring + count(Stage::Joining) + count(Stage::Leaving))
        };
        if all > 0 && in_ring < self.config.replicas.get() {
            self.enter_ring();
        }
    }

    /// Who owned the slot before those that own it in `ring`. They may hold what these have not got yet.
    pub(crate) fn former_owners(&self, ring: &Ring, slot: Slot) -> ArrayVec<NodeId, 8> {
        let mut owners = ArrayVec::new();
        for former in self.change.former.load().iter() {
            for owner in former.owners(slot) {
                if *owner != self.id && !ring.owns(*owner, slot) && !owners.contains(owner) {
                    // Of more than eight the others are asked in vain at worst.
                    let _ = owners.try_push(*owner);
                }
            }
        }
        owners
    }

    /// Keeps the list of those that are leaving as the membership has it.
    fn follow_leavers(&self, membership: &Membership) {
        let claim = |id: NodeId| membership.member(id).filter(|claim| claim.stage == Stage::Leaving);
        let mut leavers = self.change.leavers.lock();
        leavers.retain(|id, leaver| {
            let stays = claim(*id).is_some_and(|claim| claim.state.is_present());
            if !stays && leaver.taken.is_none() && claim(*id).is_some_and(|claim| claim.state == MemberState::Left) {
                count(&self.counters.left_early);
            }
            stays
        });
        for (id, _) in membership.others_in(Stage::Leaving) {
            let Some(incarnation) = claim(id).map(|claim| claim.incarnation) else { continue };
            let leaver = leavers.entry(id).or_insert(Leaver { incarnation, taken: None });
            if leaver.incarnation != incarnation {
                *leaver = Leaver { incarnation, taken: None };
            }
        }
    }

    /// Whether all that `peer`, which is leaving by this claim, holds of this node's slots is here. If not it will be.
    pub(crate) fn has_taken_over(&self, peer: NodeId, incarnation: Incarnation) -> bool {
        // A new claim of a member that was leaving already changes no ring.
        self.follow_leavers(&self.membership.lock());
        let leaver = self.change.leavers.lock().get(&peer).copied();
        let is_known = |leaver: &Leaver| leaver.incarnation == incarnation;
        let is_done = leaver.filter(is_known).is_some_and(|leaver| leaver.taken == Some(self.ring_hash()));
        if !is_done {
            self.resync_wanted.notify_one();
        }
        is_done
    }

    /// All that `peer` held was taken over under this ring.
    pub(crate) fn handle_taken_over(&self, peer: NodeId, incarnation: Incarnation, ring: RingHash) {
        if let Some(leaver) = self.change.leavers.lock().get_mut(&peer)
            && leaver.incarnation == incarnation
        {
            leaver.taken = Some(ring);
        }
    }

    /// Those that are leaving and have something that may not be here yet.
    pub(crate) fn to_take_over(&self) -> Vec<(NodeId, Incarnation)> {
        let ring = self.ring_hash();
        let leavers = self.change.leavers.lock();
        let waiting = leavers.iter().filter(|(_, leaver)| leaver.taken != Some(ring));
        waiting.map(|(peer, leaver)| (*peer, leaver.incarnation)).collect()
    }
}
