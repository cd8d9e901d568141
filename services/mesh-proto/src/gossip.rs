//! What nodes say to each other about each other, small enough for one datagram.
use crate::{Incarnation, MemberState, NodeId, Weight};
use serde::{Deserialize, Serialize};

/// One claim about one member; the newest wins (by incarnation, then by the graver state).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberUpdate {
    /// Whom the claim is about.
    pub id: NodeId,
    /// Where it is reached, `host:port` over UDP.
    pub addr: String,
    /// Which claim this is.
    pub incarnation: Incarnation,
    /// The share of the ring it asks for.
    pub weight: Weight,
    /// What is claimed.
    pub state: MemberState,
}

/// One datagram of the SWIM protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipMessage {
    /// Who sent it.
    pub from: NodeId,
    /// What it asks or answers.
    pub body: GossipBody,
    /// Piggy-backed claims, most urgent first.
    pub updates: Vec<MemberUpdate>,
}

/// The kinds of probe messages (SWIM, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GossipBody {
    /// Are you there?
    Ping {
        /// Echoed in the answer.
        seq: u32,
    },
    /// I am, in answer to a `Ping`, or `subject` is, in answer to a `PingRequest`.
    Ack {
        /// From the `Ping` or `PingRequest`.
        seq: u32,
        /// Who was reached.
        subject: NodeId,
    },
    /// Please ping `target` for me.
    PingRequest {
        /// Echoed in the answer.
        seq: u32,
        /// Whom to ping.
        target: NodeId,
    },
    /// Nothing but the updates.
    Updates,
}

impl GossipMessage {
    /// A message never encodes to more than this many bytes, so that it fits a datagram on any path.
    pub const BYTES_MAX: usize = 1100;
    /// Encodes with postcard, dropping the last updates if they do not fit in [`Self::BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }
    /// Decodes; any malformed, oversized or trailing input is nothing.
    #[must_use]
    pub fn decode(_bytes: &[u8]) -> Option<Self> {
        todo!()
    }
}
