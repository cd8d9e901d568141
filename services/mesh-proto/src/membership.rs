//! SWIM membership (Das, Gupta, Motivala 2002) with suspicion, refutation by incarnation, and probing of the dead.
use crate::{Event, GossipMessage, Incarnation, MemberUpdate, Monotonic, NodeId, Weight};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is believed about a member. Within one incarnation a later variant overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It has not answered lately; still in the ring.
    Suspect,
    /// It has not refuted the suspicion in time; not in the ring, but probed for ever.
    Dead,
    /// It said good-bye; not in the ring.
    Left,
}

impl MemberState {
    /// Whether a member in this state is in the ring.
    #[must_use]
    pub const fn in_ring(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

/// A member as this node sees it.
pub type Member = MemberUpdate;

/// The protocol's constants.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// One probe round per this time (GOSSIP_INTERVAL_MS).
    pub interval: Duration,
    /// From suspect to dead (SUSPICION_AFTER_MS).
    pub suspicion: Duration,
    /// How many members are asked for an indirect probe.
    pub indirect_probes: usize,
    /// Where to look for a mesh while none is known, and for ever after.
    pub seeds: Vec<String>,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum MembershipOutput {
    /// Send a datagram; if there is no connection, try to make one and drop the message.
    Send {
        /// To whom.
        to: NodeId,
        /// Where it is.
        addr: String,
        /// What.
        message: GossipMessage,
    },
    /// Connect to this address and exchange member lists: a seed, or a member believed dead.
    Join {
        /// `host:port`.
        addr: String,
    },
    /// The set of ring members or a weight has changed: build a new ring.
    RingChanged,
    /// Somebody believed this node dead, so it may have missed writes; a higher incarnation is already on its way.
    Refuted,
    /// Tell whoever watches.
    Event(Event),
}

/// The membership state machine. Feed it with `handle_*`, then call [`Membership::poll`] until it returns nothing, and
/// again at [`Membership::next_deadline`].
#[derive(Debug)]
pub struct Membership {
    _todo: (),
}

impl Membership {
    /// Starts alone: `me` is this node's own claim, always in its own ring.
    #[must_use]
    pub fn new(_config: MembershipConfig, _me: Member, _now: Monotonic, _seed: u64) -> Self {
        todo!()
    }
    /// A datagram arrived from the authenticated peer `from`.
    pub fn handle_message(&mut self, _now: Monotonic, _from: NodeId, _message: GossipMessage) {
        todo!()
    }
    /// A whole member list arrived, from a join or with a reply to a request that named another ring.
    pub fn handle_members(&mut self, _now: Monotonic, _members: &[Member]) {
        todo!()
    }
    /// This node's weight has changed: publish it.
    pub fn handle_weight(&mut self, _now: Monotonic, _weight: Weight) {
        todo!()
    }
    /// This node is about to stop: tell everyone.
    pub fn handle_leave(&mut self, _now: Monotonic) {
        todo!()
    }
    /// The next thing to do, or nothing until [`Self::next_deadline`].
    pub fn poll(&mut self, _now: Monotonic) -> Option<MembershipOutput> {
        todo!()
    }
    /// When to poll again if nothing arrives before.
    #[must_use]
    pub fn next_deadline(&self) -> Monotonic {
        todo!()
    }
    /// All members including this node, sorted by id, the dead and the left too.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        todo!()
    }
    /// One member.
    #[must_use]
    pub fn member(&self, _id: NodeId) -> Option<&Member> {
        todo!()
    }
    /// Those that are in the ring, with their weights, sorted by id.
    #[must_use]
    pub fn ring_members(&self) -> Vec<(NodeId, Weight)> {
        todo!()
    }
    /// This node's current incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        todo!()
    }
}
