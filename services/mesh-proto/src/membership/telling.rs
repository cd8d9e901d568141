//! Whom a node tells what: its own claim with every message, news to a few at once.

use rand::seq::IndexedRandom;

use super::{Member, MemberState, Membership, MembershipOutput};
use crate::{GossipBody, GossipMessage, Monotonic, NodeId};

/// Random members that are told at once when something changes.
const PUSH_RANDOM: usize = 3;
/// Members next in the order of ids that are told at once too, so that news reaches everyone for certain.
const PUSH_NEXT_MAX: usize = 4;
/// News is pushed at most this often per interval, whatever happens: a bound on the work in a storm of changes.
const PUSHES_PER_INTERVAL_MAX: u32 = 50;

impl Membership {
    pub(super) fn push_soon(&mut self, now: Monotonic) {
        let earliest = now.max(self.push_after);
        self.push_at.get_or_insert(earliest);
    }

    /// Tells a few members at once. The next in the order of ids, up to the first living one, are told for certain: no
    /// news can miss anybody, and those it accuses hear it too, for it may be wrong. A few random ones make it fast.
    pub(super) fn push(&mut self, now: Monotonic) {
        self.push_at = None;
        self.push_after = now + self.config.interval / PUSHES_PER_INTERVAL_MAX;
        let mut targets: Vec<NodeId> = Vec::with_capacity(PUSH_NEXT_MAX + PUSH_RANDOM);
        for member in self.roster.after(self.me.id) {
            let accused = member.state == MemberState::Dead && self.news.is_fresh(member.id);
            if member.state.is_present() || accused {
                targets.push(member.id);
            }
            if member.state == MemberState::Alive || targets.len() == PUSH_NEXT_MAX {
                break;
            }
        }
        let others: Vec<_> = self.roster.present().map(|member| member.id).filter(|id| !targets.contains(id)).collect();
        targets.extend(others.choose_multiple(&mut self.rng, PUSH_RANDOM));
        for target in targets {
            self.send_to_member(target, GossipBody::Updates);
        }
    }

    pub(super) fn send_to_member(&mut self, to: NodeId, body: GossipBody) {
        if let Some(addr) = self.roster.get(to).map(|member| member.addr.clone()) {
            self.send(to, addr, body, None);
        }
    }

    /// Every message begins with this node's own claim, so that the receiver can answer; then comes what is or was
    /// believed of the receiver, if it would object; then the news.
    pub(super) fn send(&mut self, to: NodeId, addr: String, body: GossipBody, about_receiver: Option<Member>) {
        let believed = self.roster.get(to).filter(|held| held.state != MemberState::Alive);
        let mut updates = vec![self.me.clone()];
        updates.extend(about_receiver.or_else(|| believed.cloned()));
        let taken: usize = updates.iter().map(Member::encoded_bytes_max).sum();
        let room = (GossipMessage::BYTES_MAX - GossipMessage::HEADER_BYTES_MAX).saturating_sub(taken);
        self.news.fill(&mut updates, room, to, &self.roster);
        let message = GossipMessage { from: self.me.id, body, updates };
        self.outbox.push(MembershipOutput::Send { to, addr, message });
    }
}
