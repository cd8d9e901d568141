//! Who else there is: the newest claim about every other member, and the running suspicions. Merging claims is a join
//! of a semilattice (see [`crate::MemberUpdate::supersedes`]), so nodes that heard the same, in any order, believe the same.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use super::{Member, MemberState};
use crate::{Incarnation, Monotonic, NodeId};

/// Members in all, this node too. Beyond, the one that has been gone for the longest is forgotten.
pub(super) const MEMBERS_MAX: usize = 1024;

/// What a claim changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// Nothing: it was known, or something newer was.
    Known,
    /// It is now what is believed.
    News {
        /// What was believed before; nothing if the member is new.
        before: Option<Member>,
    },
}

/// The other members, sorted by id.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: BTreeMap<NodeId, RosterEntry>,
    /// When the suspects are declared dead. Apart from the members, so that the next deadline costs nothing to find.
    suspicions: BTreeMap<NodeId, Monotonic>,
    /// Those that were forgotten, with their last claims' incarnations: others may still spread them.
    forgotten: BTreeMap<NodeId, Incarnation>,
}

#[derive(Debug)]
struct RosterEntry {
    claim: Member,
    changed_at: Monotonic,
}

impl Roster {
    /// Joins one well-formed claim about another member; a suspicion runs until `suspicion` from now.
    pub(super) fn merge(&mut self, now: Monotonic, claim: &Member, suspicion: Duration) -> Merged {
        let held = self.members.get(&claim.id);
        let is_forgotten = self.forgotten.get(&claim.id).is_some_and(|last| claim.incarnation <= *last);
        if held.is_none() && is_forgotten && !claim.state.is_present() {
            return Merged::Known;
        }
        if held.is_some_and(|held| !claim.supersedes(&held.claim)) {
            return Merged::Known;
        }
        let from = held.map(|held| held.claim.state);
        let changed_at = held.filter(|held| held.claim.state == claim.state).map_or(now, |held| held.changed_at);
        if from.is_none() && !self.make_room(claim.state) {
            return Merged::Known;
        }
        if claim.state == MemberState::Suspect {
            self.suspicions.insert(claim.id, now + suspicion);
        } else {
            self.suspicions.remove(&claim.id);
        }
        self.forgotten.remove(&claim.id);
        let before = self.members.insert(claim.id, RosterEntry { claim: claim.clone(), changed_at });
        Merged::News { before: before.map(|entry| entry.claim) }
    }

    /// Forgets a member that is gone: it is not looked for any more, and a newcomer if it ever comes back. False if it is present or
    /// not known.
    pub(super) fn forget(&mut self, id: NodeId) -> bool {
        let Some(claim) = self.get(id).filter(|claim| !claim.state.is_present()) else { return false };
        self.forgotten.insert(id, claim.incarnation);
        self.members.remove(&id);
        if self.forgotten.len() > MEMBERS_MAX {
            self.forgotten.pop_first();
        }
        true
    }

    /// Those that have been gone for so long.
    pub(super) fn gone_for(&self, now: Monotonic, time: Duration) -> Vec<NodeId> {
        let is_gone = |entry: &RosterEntry| !entry.claim.state.is_present() && now.since(entry.changed_at) >= time;
        self.members.iter().filter(|(_, entry)| is_gone(entry)).map(|(id, _)| *id).collect()
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id).map(|entry| &entry.claim)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|entry| &entry.claim)
    }

    /// The others that are there, whatever stage they are in.
    pub(super) fn present(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.state.is_present())
    }

    /// Everybody in the order of ids, beginning after `id` and wrapping around.
    pub(super) fn after(&self, id: NodeId) -> impl Iterator<Item = &Member> {
        let later = self.members.range((Bound::Excluded(id), Bound::Unbounded));
        later.chain(self.members.range(..id)).map(|(_, entry)| &entry.claim)
    }

    /// The claims to make now, because nobody refuted the suspicion.
    pub(super) fn unrefuted(&self, now: Monotonic) -> Vec<Member> {
        let overdue = self.suspicions.iter().filter(|&(_, &until)| until <= now);
        let claims = overdue.filter_map(|(&id, _)| self.get(id));
        claims.map(|claim| Member { state: MemberState::Dead, ..claim.clone() }).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        self.suspicions.values().min().copied()
    }

    /// This node was not running for so long, so the suspects did not have that time to be heard.
    pub(super) fn extend_suspicions(&mut self, by: Duration) {
        self.suspicions.values_mut().for_each(|until| *until = *until + by);
    }

    /// Whether a newcomer fits, if need be in place of the longest gone. One that is gone itself displaces nobody:
    /// otherwise two nodes with full lists would remind each other of the forgotten for ever.
    fn make_room(&mut self, newcomer: MemberState) -> bool {
        if self.members.len() + 1 < MEMBERS_MAX {
            return true;
        }
        let gone = self.members.iter().filter(|(_, entry)| newcomer.is_present() && !entry.claim.state.is_present());
        let longest = gone.min_by_key(|(_, entry)| entry.changed_at).map(|(&id, _)| id);
        longest.is_some_and(|id| self.members.remove(&id).is_some())
    }
}
