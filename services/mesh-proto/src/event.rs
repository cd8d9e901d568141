//! What the mesh tells about itself, in closed types: rare events, and one flight record per operation. Nothing here knows
//! how they are counted, logged or traced.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::{DroppedQueue, KeyHash, MemberState, Micros, Monotonic, NodeId, RingHash, TraceContext, Version};

/// Something rare happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A member's state changed in this node's view.
    Member {
        /// Whom.
        peer: NodeId,
        /// Its address.
        addr: String,
        /// Before; nothing if it is new.
        from: Option<MemberState>,
        /// Now.
        to: MemberState,
    },
    /// This node refuted a claim that it was suspect or dead.
    Refuted {
        /// What was claimed.
        claimed: MemberState,
    },
    /// A new ring is in force.
    Ring {
        /// Its hash.
        hash: RingHash,
        /// How many members.
        members: usize,
        /// How many slots this node owns.
        slots_owned: usize,
    },
    /// A probe of a gossip round was sent.
    ProbeSent {
        /// Who is probed.
        peer: NodeId,
        /// When the round began: its probes leave together.
        began: Monotonic,
    },
    /// A probe of a gossip round ended.
    GossipRound {
        /// Who was probed.
        peer: NodeId,
        /// When the round began: its probes leave together.
        began: Monotonic,
        /// How long it took, or nothing if there was no answer.
        rtt: Option<Duration>,
        /// Whether others had to be asked.
        indirect: bool,
    },
    /// A connection to a peer came up.
    PeerUp {
        /// Whom.
        peer: NodeId,
    },
    /// A member that was gone is forgotten: nothing is kept of it any more.
    Forgotten {
        /// Whom.
        peer: NodeId,
    },
    /// A connection to a peer broke.
    PeerDown {
        /// Whom.
        peer: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// A member that is heard could not be connected to for a while.
    PeerUnreachable {
        /// Whom.
        peer: NodeId,
        /// Where it says it is.
        addr: String,
        /// Why the last attempt failed, in words.
        reason: String,
    },
    /// A handshake or greeting failed.
    PeerRefused {
        /// The other side's address.
        addr: String,
        /// Why, in words.
        reason: String,
    },
    /// A peer sent what no honest peer sends; its connection was closed.
    ProtocolViolation {
        /// Whom.
        peer: NodeId,
        /// What.
        reason: String,
    },
    /// A version too far in the future was refused.
    DriftRefused {
        /// Who sent it; nothing if it came over HTTP.
        peer: Option<NodeId>,
        /// How far ahead.
        ahead: Duration,
    },
    /// This node's wall clock was set back: versions are made by it again.
    ClockSetBack,
    /// A resync or repair round ended.
    Repair {
        /// The peer it ran against.
        peer: NodeId,
        /// Slots that differed.
        slots: usize,
        /// Records taken.
        keys: usize,
        /// How long it took.
        took: Duration,
    },
    /// This node is in sync for all slots it owns.
    InSync {
        /// Since start or since it fell out of sync.
        after: Duration,
    },
    /// A write leg failed after the caller was answered, or before: its owner may lack the write.
    MissedWrite {
        /// The owner.
        peer: NodeId,
        /// The write.
        version: Version,
    },
    /// A queue of hints was given up; its peer is compared with as soon as it can be.
    HintsDropped(DroppedQueue),
    /// A fault was laid on this node on request.
    FaultBegan {
        /// What it does, in words.
        what: String,
        /// How long it is to last.
        time: Duration,
    },
    /// A fault on request is over, by itself or because it was healed.
    FaultEnded {
        /// What it did, in words.
        what: String,
        /// How long it lasted.
        lasted: Duration,
    },
    /// Hints were sent to a peer until none was left or it could not be reached any more.
    HintsReplayed {
        /// Whom.
        peer: NodeId,
        /// How many it has taken, or had something newer for.
        hints: u64,
        /// How long it took.
        took: Duration,
    },
}

/// An operation's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// GET.
    Get,
    /// SET.
    Set,
    /// DELETE.
    Delete,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpOutcome {
    /// Read from this node's replica.
    HitLocal,
    /// Read from another owner.
    HitRemote,
    /// Enough owners say there is none.
    Miss,
    /// A write was acknowledged.
    Acknowledged,
    /// Too few owners reachable; nothing was written.
    Refused,
    /// Too few owners could answer a read.
    Unavailable,
    /// The time was up, or the outcome of a write is unknown.
    Indeterminate,
    /// Its caller went away before it ended. A write may or may not have been made.
    Abandoned,
}

/// How one leg of an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LegOutcome {
    /// Its answer made the result.
    Won,
    /// Answered, but was not needed.
    Lost,
    /// Given up before it answered.
    Cancelled,
    /// Did not answer in time.
    TimedOut,
    /// Could not be sent, or the connection broke, or the peer refused.
    Failed,
    /// Still in flight when the operation ended.
    Pending,
}

/// The most legs that one flight record holds.
pub const LEGS_MAX: usize = 8;

/// How long what a leg sent and got lay in queues, from when a host received it to when its thread looked; 0 where that is not known.
/// What was read at once counts from the first of it, so these are upper bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegQueues {
    /// The request, at the peer.
    pub peer: Micros,
    /// The answer, here.
    pub own: Micros,
}

/// One leg of an operation. Times are since the operation's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LegRecord {
    /// Who was asked.
    pub peer: NodeId,
    /// Whether it was a hedge.
    pub hedged: bool,
    /// How it ended.
    pub outcome: LegOutcome,
    /// When it was sent.
    pub started: Duration,
    /// When it answered or failed; the operation's own duration if it is still pending.
    pub ended: Duration,
    /// What of the time between was spent in queues.
    pub queues: LegQueues,
}

impl LegRecord {
    /// A leg that was sent at this time, and is in flight.
    pub(crate) const fn sent(peer: NodeId, at: Duration) -> Self {
        let queues = LegQueues { peer: Micros::new(0), own: Micros::new(0) };
        Self { peer, hedged: false, outcome: LegOutcome::Pending, started: at, ended: at, queues }
    }

    /// The queues, at most as long as the leg in all: the own one and the peer's.
    #[must_use]
    pub fn queued(&self) -> (Duration, Duration) {
        let took = self.ended.saturating_sub(self.started);
        let own = took.min(self.queues.own.into());
        (own, (took - own).min(self.queues.peer.into()))
    }
}

/// The flight record of one operation: what the request path pays for telemetry.
#[derive(Clone, Debug, PartialEq)]
pub struct OpRecord {
    /// What was done.
    pub op: OperationKind,
    /// How it ended.
    pub outcome: OpOutcome,
    /// From first to last byte of the mesh's part.
    pub took: Duration,
    /// When it began.
    pub started: Monotonic,
    /// The key's hash, which also says the slot. The key itself is nobody's business but the caller's.
    pub hash: KeyHash,
    /// What was read or written; nothing if it is not known.
    pub version: Option<Version>,
    /// The caller's trace.
    pub trace: Option<TraceContext>,
    /// The legs, one per owner asked. If there were several attempts, a leg reaches from the first to the last.
    pub legs: ArrayVec<LegRecord, LEGS_MAX>,
}

/// What a replica answered a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServeOutcome {
    /// A value.
    Hit,
    /// A tombstone or a stub.
    Gone,
    /// Nothing, for certain.
    Absent,
    /// Nothing, but this replica is not in sync.
    Unknown,
    /// The write was applied.
    Applied,
    /// A newer version is there.
    Stale,
    /// The write was refused for its version or its size.
    Refused,
    /// The peer sees another ring.
    WrongRing,
}

/// The flight record of one leg, as the peer that served it saw it. Made only for legs that carry a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeRecord {
    /// Who asked.
    pub peer: NodeId,
    /// The leg's context.
    pub trace: TraceContext,
    /// Whether it was a write.
    pub is_write: bool,
    /// What was answered.
    pub outcome: ServeOutcome,
    /// The key's hash.
    pub hash: KeyHash,
    /// What was read or written; nothing if it is not known.
    pub version: Option<Version>,
    /// When it was begun.
    pub started: Monotonic,
    /// How long it took, without the time on the wire.
    pub took: Duration,
    /// How long the request had lain in this host's queue before, at least.
    pub waited: Micros,
}
