//! Who is a member, the ring that follows from it, and what the rings before leave to be done.
//!
//! No vote decides that a ring is in force. Each node builds it from its member list, and two nodes serve each other only while
//! theirs are equal; that, and who is in sync, is all that the safety of a change rests on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use arrayvec::ArrayVec;
use mesh_proto::{
    Event, Incarnation, Member, MemberState, Membership, MembershipOutput, Monotonic, Mutant, NodeId, RepairPlan,
    ReplicationFactor, Ring, RingHash, Rings, Slot, SlotSync, Sources, Stage,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{Config, announced::Announced};

/// How many rings before this one are remembered, to ask their owners for what the present ones do not have yet.
const FORMER_RINGS_MAX: usize = 2;

/// The members and their ring.
pub(crate) struct RingRoster {
    id: NodeId,
    replicas: ReplicationFactor,
    rings: Arc<Rings>,
    /// Whether this node is meant to be the first of its mesh: it was told of no other.
    pub(crate) is_seed: bool,
    pub(crate) membership: Mutex<Membership>,
    /// Wakes upkeep when the membership's next deadline may have moved.
    pub(crate) moved: Notify,
    /// All members, for those that keep connections to them.
    pub(crate) members: Arc<Announced<Arc<Vec<Member>>>>,
    ring: ArcSwap<Ring>,
    /// Held while a ring is built from the membership, so that an older one never replaces a newer.
    building: Mutex<()>,
    /// Whether this node is not in the ring yet.
    joining: AtomicBool,
    /// Whether a whole member list has come.
    has_list: AtomicBool,
    /// The newest first. Read only by reads that came to nothing.
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

/// A ring was built. Until this is dropped no other one is, so that rings are reported in their order.
pub(crate) struct RingBuilt<'a> {
    pub(crate) event: Event,
    /// How many members have left before this node had taken over what they held.
    pub(crate) left_early: u64,
    _building: MutexGuard<'a, ()>,
}

impl RingRoster {
    /// This node alone.
    pub(crate) fn new(config: &Config, membership: Membership) -> Self {
        let me = membership.me().clone();
        Self {
            id: me.id,
            replicas: config.replicas,
            rings: config.rings.clone(),
            is_seed: config.seeds.iter().all(|seed| *seed == config.public_addr),
            ring: ArcSwap::new(config.rings.ring(&[(me.id, me.weight)], &[], config.replicas)),
            members: Announced::new(Arc::new(vec![me])),
            membership: Mutex::new(membership),
            moved: Notify::new(),
            building: Mutex::default(),
            joining: AtomicBool::new(false),
            has_list: AtomicBool::new(false),
            former: ArcSwap::default(),
            leavers: Mutex::default(),
        }
    }

    pub(crate) fn ring(&self) -> Guard<Arc<Ring>> {
        self.ring.load()
    }

    pub(crate) fn ring_hash(&self) -> RingHash {
        self.ring.load().hash()
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.membership.lock().members()
    }

    pub(crate) fn next_deadline(&self) -> Monotonic {
        self.membership.lock().next_deadline()
    }

    /// Runs `input` on the membership: what it asks for.
    pub(crate) fn run(&self, now: Monotonic, input: impl FnOnce(&mut Membership, Monotonic)) -> Vec<MembershipOutput> {
        let mut membership = self.membership.lock();
        input(&mut membership, now);
        std::iter::from_fn(|| membership.poll(now)).collect()
    }

    /// Builds the ring from the membership, and adapts what is to be in sync to it. `distrust` says that the others believed this node
    /// dead.
    pub(crate) fn build_ring(&self, plan: &Mutex<RepairPlan>, sync: &SlotSync, distrust: bool) -> RingBuilt<'_> {
        let building = self.building.lock();
        let (members, joining, leaving, me, left_early) = {
            let membership = self.membership.lock();
            let left_early = self.follow_leavers(&membership);
            let [joining, leaving] = [Stage::Joining, Stage::Leaving].map(|stage| membership.others_in(stage));
            (membership.ring_members(), joining, leaving, membership.me().clone(), left_early)
        };
        let ring = self.rings.ring(&members, &joining, self.replicas);
        let leaving = leaving.iter().filter(|_| !Mutant::LeaversUnasked.is_planted());
        let holders = members.iter().chain(leaving).map(|(id, _)| *id);
        let holders: Vec<NodeId> = holders.filter(|id| *id != self.id).collect();
        let sources = Sources { ring: ring.hash(), holders: &holders };
        let alone = members.iter().all(|(id, _)| *id == self.id);
        {
            let mut plan = plan.lock();
            // What was compared before this node was in the ring was but a head start: it was not told of every write.
            let is_joining = me.stage == Stage::Joining;
            let entered = self.joining.swap(is_joining, Ordering::AcqRel) && !is_joining;
            if alone && !self.is_seed {
                plan.handle_alone(sync);
            } else if is_joining {
                let with_me = [&members[..], &[(me.id, me.weight)]].concat();
                let to_be = self.rings.ring(&with_me, &[], self.replicas);
                plan.handle_ring(self.id, &to_be, sources, distrust, sync);
            } else {
                let entered = entered && !Mutant::EnteredAndTrusted.is_planted();
                plan.handle_ring(self.id, &ring, sources, distrust || entered, sync);
            }
        }
        let event = Event::Ring { hash: ring.hash(), members: members.len(), slots_owned: ring.slots_owned(self.id) };
        let before = self.ring.swap(Arc::clone(&ring));
        if before.hash() != ring.hash() {
            let former = self.former.load();
            let rest = former.iter().filter(|former| former.hash() != ring.hash() && former.hash() != before.hash());
            let rest = rest.take(FORMER_RINGS_MAX - 1).cloned();
            self.former.store(Arc::new(std::iter::once(Arc::clone(&before)).chain(rest).collect()));
        }
        RingBuilt { event, left_early, _building: building }
    }

    /// Whether this node is not in the ring yet.
    pub(crate) fn is_joining(&self) -> bool {
        self.joining.load(Ordering::Acquire)
    }

    /// A whole member list has come.
    pub(crate) fn handle_list(&self) {
        // Relaxed: if this is not seen now it is in a moment, when another member is asked again.
        self.has_list.store(true, Ordering::Relaxed);
    }

    /// Whether this node is to enter the ring at once, because that has fewer members than a key is to have owners: then no owner has to
    /// make way, and every owner counts. It may have none, if all others are leaving: they wait for a node to hand over to. Never
    /// before a whole member list has come, and not only some news.
    pub(crate) fn is_ring_small(&self) -> bool {
        if !self.is_joining() || !self.has_list.load(Ordering::Relaxed) {
            return false;
        }
        let membership = self.membership.lock();
        let count = |stage| membership.others_in(stage).len();
        let in_ring = count(Stage::Syncing) + count(Stage::Normal);
        let all = in_ring + count(Stage::Joining) + count(Stage::Leaving);
        all > 0 && in_ring < self.replicas.get()
    }

    /// Who owned the slot before those that own it in `ring`. They may hold what these have not got yet.
    pub(crate) fn former_owners(&self, ring: &Ring, slot: Slot) -> ArrayVec<NodeId, 8> {
        let mut owners = ArrayVec::new();
        for former in self.former.load().iter() {
            for owner in former.owners(slot) {
                if *owner != self.id && !ring.owns(*owner, slot) && !owners.contains(owner) {
                    // Of more than eight the others are asked in vain at worst.
                    let _ = owners.try_push(*owner);
                }
            }
        }
        owners
    }

    /// Keeps the list of those that are leaving as the membership has it. Gives how many have left too early.
    fn follow_leavers(&self, membership: &Membership) -> u64 {
        let claim = |id: NodeId| membership.member(id).filter(|claim| claim.stage == Stage::Leaving);
        let mut leavers = self.leavers.lock();
        let mut left_early = 0;
        leavers.retain(|id, leaver| {
            let stays = claim(*id).is_some_and(|claim| claim.state.is_present());
            if !stays && leaver.taken.is_none() && claim(*id).is_some_and(|claim| claim.state == MemberState::Left) {
                left_early += 1;
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
        left_early
    }

    /// Whether all that `peer`, which is leaving by this claim, holds of this node's slots is here, and how many others have left too early.
    pub(crate) fn has_taken_over(&self, peer: NodeId, incarnation: Incarnation) -> (bool, u64) {
        // A new claim of a member that was leaving already changes no ring.
        let left_early = self.follow_leavers(&self.membership.lock());
        let leaver = self.leavers.lock().get(&peer).copied();
        let is_known = |leaver: &Leaver| leaver.incarnation == incarnation;
        let is_done = leaver.filter(is_known).is_some_and(|leaver| leaver.taken == Some(self.ring_hash()));
        (is_done, left_early)
    }

    /// All that `peer` held was taken over under this ring.
    pub(crate) fn handle_taken_over(&self, peer: NodeId, incarnation: Incarnation, ring: RingHash) {
        if let Some(leaver) = self.leavers.lock().get_mut(&peer)
            && leaver.incarnation == incarnation
        {
            leaver.taken = Some(ring);
        }
    }

    /// Those that are leaving and have something that may not be here yet.
    pub(crate) fn to_take_over(&self) -> Vec<(NodeId, Incarnation)> {
        let ring = self.ring_hash();
        let leavers = self.leavers.lock();
        let waiting = leavers.iter().filter(|(_, leaver)| leaver.taken != Some(ring));
        waiting.map(|(peer, leaver)| (*peer, leaver.incarnation)).collect()
    }
}
