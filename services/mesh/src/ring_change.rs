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
    time::Duration,
};

use arc_swap::ArcSwap;
use arrayvec::ArrayVec;
use mesh_proto::{Event, Monotonic, Mutant, NodeId, Ring, RingHash, Slot, Sources};
use parking_lot::Mutex;

use crate::core::{Core, count};

/// How many rings before this one are remembered, to ask their owners for what the present ones do not have yet.
const FORMER_RINGS_MAX: usize = 2;

/// How many leaving members can be seen off at a time.
const FAREWELLS_MAX: usize = 64;

/// A member that wants to leave is remembered for so long after it has last asked, if there is no connection to it: it asks
/// again once all others have answered or been given up.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(3);

/// What rings before this one leave to be done.
#[derive(Default)]
pub(crate) struct RingChange {
    /// Held while a ring is built from the membership, so that an older one never replaces a newer.
    building: Mutex<()>,
    /// Whether this node is not in the ring yet.
    joining: AtomicBool,
    /// The newest first. Looked at only by reads that came to nothing.
    former: ArcSwap<Vec<Arc<Ring>>>,
    /// Members that want to leave.
    farewells: Mutex<BTreeMap<NodeId, Farewell>>,
}

/// One member that wants to leave.
struct Farewell {
    /// Under which ring all that it holds was taken over from it.
    taken: Option<RingHash>,
    /// When it last asked whether it may go.
    asked_at: Monotonic,
}

impl Core {
    /// Builds the ring from the membership. `distrust` says that the others believed this node dead.
    pub(crate) fn build_ring(&self, distrust: bool) {
        let _building = self.change.building.lock();
        let (members, joining, left, me) = {
            let membership = self.membership.lock();
            let joining = membership.joining_members();
            (membership.ring_members(), joining, membership.left_members(), membership.me().clone())
        };
        let ring = self.config.rings.ring(&members, &joining, self.config.replicas);
        let holders: Vec<NodeId> = members.iter().map(|(id, _)| *id).chain(left).filter(|id| *id != self.id).collect();
        let sources = Sources { ring: ring.hash(), holders: &holders };
        let alone = members.iter().all(|(id, _)| *id == self.id);
        {
            let mut plan = self.plan.lock();
            // What was compared before this node was in the ring was but a head start: it was not told of every write.
            let entered = self.change.joining.swap(me.joining, Ordering::AcqRel) && !me.joining;
            if alone && !self.is_seed() {
                plan.handle_alone(&self.sync);
            } else if me.joining {
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

    /// Enters the ring.
    pub(crate) fn enter_ring(&self) {
        self.with_membership(|membership, now| membership.handle_caught_up(now));
    }

    /// Enters the ring at once if that has fewer members than a key is to have owners: then nobody has to make way, and every
    /// owner counts. To be asked after a whole member list has come, not only some news.
    pub(crate) fn enter_small_ring(&self) {
        if !self.is_joining() {
            return;
        }
        let (others, known) = {
            let membership = self.membership.lock();
            let others = membership.ring_members().iter().filter(|(id, _)| *id != self.id).count();
            (others, others + membership.joining_members().len())
        };
        if known > 0 && others < self.config.replicas.get() {
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

    /// Whether all that `peer`, which is leaving, holds of this node's slots is here. If not it will be.
    pub(crate) fn has_taken_over(&self, peer: NodeId) -> bool {
        let ring = self.ring();
        if ring.members().iter().any(|(member, _)| *member == peer) {
            return false;
        }
        let asked_at = self.clock.now();
        let is_new = {
            let mut farewells = self.change.farewells.lock();
            let is_room = farewells.len() < FAREWELLS_MAX;
            match farewells.get_mut(&peer) {
                Some(farewell) => {
                    farewell.asked_at = asked_at;
                    if farewell.taken == Some(ring.hash()) {
                        return true;
                    }
                    farewell.taken = None;
                    false
                }
                None if is_room => {
                    farewells.insert(peer, Farewell { taken: None, asked_at });
                    true
                }
                None => false,
            }
        };
        if is_new {
            // A node that joins or starts anew has never known it as a member of the ring, and is not connected to it.
            self.members.send_replace(Arc::new(self.members()));
        }
        self.resync_wanted.notify_one();
        false
    }

    /// Whether `peer` waits to be seen off: that takes a connection to it.
    pub(crate) fn is_leaving(&self, peer: NodeId) -> bool {
        self.change.farewells.lock().get(&peer).is_some_and(|farewell| self.is_waiting(farewell))
    }

    fn is_waiting(&self, farewell: &Farewell) -> bool {
        self.clock.now().since(farewell.asked_at) < FAREWELL_PATIENCE
    }

    /// All that `peer` held was taken over under this ring.
    pub(crate) fn handle_taken_over(&self, peer: NodeId, ring: RingHash) {
        if let Some(farewell) = self.change.farewells.lock().get_mut(&peer) {
            farewell.taken = Some(ring);
        }
    }

    /// Members that wait to be seen off and are connected. Forgets those that have gone.
    pub(crate) fn farewells(&self, is_connected: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let ring = self.ring_hash();
        let mut farewells = self.change.farewells.lock();
        farewells.retain(|peer, farewell| {
            let stays = is_connected(*peer) || self.is_waiting(farewell);
            if !stays && farewell.taken.is_none() {
                count(&self.counters.left_early);
            }
            stays
        });
        let waiting = farewells.iter().filter(|(_, farewell)| farewell.taken != Some(ring));
        waiting.map(|(peer, _)| *peer).filter(|peer| is_connected(*peer)).collect()
    }
}
