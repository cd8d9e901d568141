//! The decisions of a cache mesh, pure: no sockets, no clock, no async, no telemetry.
//!
//! Every type here is told what time it is and is handed its random numbers, so a whole cluster can be replayed from a
//! seed. State machines take input through `handle_*` and are asked what to do next through `poll`. The crate `mesh`
//! gives them sockets and time.

mod id;
mod key;
mod time;

mod slot;
mod slot_set;
mod version;

mod record;
mod ring;
mod rings;

mod gossip;
mod membership;
mod weight;

mod attempt;
mod concern;
mod latency;
mod read;
mod write;

mod agreement;
mod handoff;
mod repair;
mod store;

mod codec;
mod frame;

mod event;
mod fault;
mod mutant;
mod stats;
mod trace;

pub use agreement::Agreement;
pub use attempt::LegFailure;
pub(crate) use attempt::RETRY_PAUSE;
pub use codec::{
    Decoder, WIRE_KEY_BYTES_MAX, WIRE_MEMBERS_MAX, WireError, encode_into, encode_read, encode_read_reply,
    encode_read_reply_head, encode_write, encode_write_head, encode_write_reply,
};
pub use concern::{ConcernError, ReplicationFactor, WriteConcern};
pub use event::{
    Event, LEGS_MAX, LegOutcome, LegQueues, LegRecord, OpOutcome, OpRecord, OperationKind, ServeOutcome, ServeRecord,
};
pub use fault::{
    CLOCK_OFFSET_MAX, Direction, FAULT_DELAY_MAX, FAULT_RULES_MAX, FAULT_TIME_MAX, FaultForm, FaultFormError,
    FaultOrder, FaultPeer, FaultRule, FaultRules, LinkFault, LinkForm, LinkOrder, Partition, TooManyFaults,
};
pub use frame::{
    ControlReply, ControlRequest, DigestPage, Frame, FrameBody, Hello, ReadAnswer, RecordLimits, RejectReason,
    ReplyHead, RequestId, SlotPage, WriteAnswer,
};
pub use gossip::{GossipBody, GossipMessage, MemberUpdate};
pub use handoff::{
    DiscardedHints, DroppedQueue, HINT_OVERHEAD_BYTES, HintDrop, HintLimits, HintStats, Hints, PeerHints,
};
pub use id::{Incarnation, NodeId};
pub use key::{KEY_BYTES_MAX, KeyHash, VALUE_BYTES_MAX};
pub use latency::{HedgeBudget, LatencyWindow, PeakEwma};
pub use membership::{Member, MemberState, Membership, MembershipConfig, MembershipOutput, Stage};
pub use mutant::Mutant;
pub use read::{Consistency, Read, ReadAttempts, ReadConfig, ReadOutcome, ReadStep};
pub use record::{Body, Expiry, Record};
pub use repair::{RepairPlan, SlotSync, Sources, keys_to_pull};
pub use ring::{Ring, RingHash};
pub use rings::Rings;
pub use slot::{SLOTS, Slot};
pub use slot_set::SlotSet;
pub use stats::{Counters, FaultStats, Stats};
pub use store::{Applied, ApplyOrigin, Digest, Found, Store, StoreConfig, StoreStats};
pub use time::{Micros, Monotonic, UnixMillis};
pub use trace::TraceContext;
pub use version::{DRIFT_MAX, DriftRefused, HybridClock, Version};
pub use weight::{Weight, WeightSampler};
pub use write::{Refusals, Round, Write, WriteConfig, WriteOutcome, WriteRounds, WriteStep};
