//! What nodes send each other on a stream: the frame and everything that it can say. How it looks in bytes is the
//! business of the codec.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Digest, Expiry, Incarnation, KeyHash, Member, Micros, NodeId, Record, RingHash, SLOTS, Slot, TraceContext, Version,
    WIRE_MEMBERS_MAX,
    codec::{capped_list, slot_versions},
};

/// Pairs a reply with its request on one stream. Zero for frames that are not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestId(pub u32);

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Pairs request and reply.
    pub request: RequestId,
    /// The sender's ring.
    pub ring: RingHash,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// Of a reply: how long the request had lain in the replier's queue; 0 if that is not known.
    pub waited: Micros,
    /// What it says.
    pub body: FrameBody,
}

impl Frame {
    /// A frame that belongs to no trace.
    #[must_use]
    pub const fn new(request: RequestId, ring: RingHash, body: FrameBody) -> Self {
        Self { request, ring, trace: None, waited: Micros::new(0), body }
    }
}

/// What stands before the body of a reply.
#[derive(Clone, Copy, Debug)]
pub struct ReplyHead {
    /// Which request it answers.
    pub request: RequestId,
    /// The sender's ring.
    pub ring: RingHash,
    /// How long the request had lain in the sender's queue; 0 if that is not known.
    pub waited: Micros,
}

/// The kinds of frame.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameBody {
    /// First frame of a dialler.
    Hello(Hello),
    /// First frame of an accepter.
    HelloReply(Result<Hello, RejectReason>),
    /// Read one key from this owner's replica.
    Read {
        /// The key's hash.
        hash: KeyHash,
        /// The key.
        key: Bytes,
    },
    /// Answer to `Read`.
    ReadReply {
        /// Echo of the key's hash.
        hash: KeyHash,
        /// The answer.
        answer: ReadAnswer,
    },
    /// Apply one record to this owner's replica.
    Write(Record),
    /// Answer to `Write`.
    WriteReply {
        /// Echo of the key's hash.
        hash: KeyHash,
        /// The answer.
        answer: WriteAnswer,
    },
    /// Low-rate request, in postcard.
    Control(ControlRequest),
    /// Answer to `Control`, in postcard.
    ControlReply(ControlReply),
    /// Answer to `ControlRequest::Pull` and `ControlRequest::PullKeys`.
    Page(SlotPage),
}

/// Who speaks, and how it is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`Hello::PROTOCOL`].
    pub protocol: u16,
    /// Must equal the id in the sender's certificate.
    pub id: NodeId,
    /// The sender's public address.
    pub addr: String,
    /// Random per process start.
    pub start: u64,
    /// CACHE_NAME: which mesh it belongs to.
    pub mesh: String,
    /// REPLICATION_FACTOR: all nodes of a mesh must agree.
    pub replicas: u8,
    /// WRITE_CONCERN: all nodes of a mesh must agree.
    pub concern: u8,
    /// KEY_BYTES_MAX and VALUE_BYTES_MAX: nothing larger is sent to it.
    pub limits: RecordLimits,
}

/// The largest record that a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordLimits {
    /// The longest key, in bytes.
    pub key_bytes_max: u64,
    /// The largest value, in bytes.
    pub value_bytes_max: u64,
}

impl RecordLimits {
    /// Whether a record is within them.
    #[must_use]
    pub fn admit(&self, record: &Record) -> bool {
        record.key.len() as u64 <= self.key_bytes_max && record.value_bytes() as u64 <= self.value_bytes_max
    }

    /// Whether all that `other` admits is within them.
    #[must_use]
    pub const fn cover(&self, other: Self) -> bool {
        self.key_bytes_max >= other.key_bytes_max && self.value_bytes_max >= other.value_bytes_max
    }
}

impl Hello {
    /// The version of the wire protocol.
    pub const PROTOCOL: u16 = 5;
}

/// Why an accepter turns a dialler away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum RejectReason {
    /// Another protocol version.
    #[error("peer speaks protocol {theirs}, this node speaks {}", Hello::PROTOCOL)]
    Protocol {
        /// The accepter's.
        theirs: u16,
    },
    /// The accepter belongs to another mesh, whose name this is.
    #[error("it belongs to mesh {name:?}: CACHE_NAME differs, or the address has changed hands")]
    Mesh {
        /// The accepter's.
        name: String,
    },
    /// The dialler's id belongs to a live node at another address.
    #[error("node id is already used by the live node at {addr}: give each node its own CACHE_PUBLIC or NODE_ID")]
    DuplicateId {
        /// Where that node is.
        addr: String,
    },
    /// The dialler is the accepter.
    #[error("that address is this node itself")]
    Itself,
    /// REPLICATION_FACTOR or WRITE_CONCERN differ.
    #[error("peer runs REPLICATION_FACTOR={replicas} WRITE_CONCERN={concern}: all nodes of a mesh must agree")]
    Concern {
        /// The accepter's.
        replicas: u8,
        /// The accepter's.
        concern: u8,
    },
    /// The id in the frame is not the one in the certificate.
    #[error("the node id in the greeting is not the one in the certificate")]
    Identity,
}

/// What an owner's replica says about a key.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadAnswer {
    /// A live value.
    Value {
        /// Which write.
        version: Version,
        /// When it expires.
        expiry: Expiry,
        /// The value; on the wire with a checksum.
        value: Bytes,
        /// Whether the owner is in sync for the slot; a value of one that is not may be older than it should be.
        in_sync: bool,
    },
    /// Deleted or expired.
    Gone {
        /// The version of the deletion, or of the value that expired.
        version: Version,
    },
    /// Not here, and this owner is in sync.
    Absent,
    /// Not here, but this owner is not in sync, so that means nothing.
    Unknown,
    /// The owner sees another ring; its member list, of which the wire carries the first [`WIRE_MEMBERS_MAX`].
    WrongRing(Vec<Member>),
}

/// What became of a write at one owner.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteAnswer {
    /// Applied.
    Applied,
    /// Applied by an owner that is still catching up: it cannot tell whether there was something newer.
    AppliedUnconfirmed,
    /// A newer version is there.
    Stale {
        /// That version.
        newer: Version,
        /// Whether the owner is in sync for the slot; one that is not may lack something newer still.
        in_sync: bool,
    },
    /// The key is not there, and deletions up to a newer version were collected in its slot: the key may be among them.
    Collected {
        /// The newest version that was collected.
        newer: Version,
    },
    /// The version is too far in the future of the owner's clock.
    Drift {
        /// How far, in milliseconds.
        ahead_ms: u64,
    },
    /// It does not fit the owner's store.
    TooLarge,
    /// The owner sees another ring; its member list, of which the wire carries the first [`WIRE_MEMBERS_MAX`].
    WrongRing(Vec<Member>),
}

impl WriteAnswer {
    /// Whether the owner has compared the write with what it holds: it has then found nothing wrong with its version.
    #[must_use]
    pub const fn is_compared(&self) -> bool {
        matches!(self, Self::Applied | Self::AppliedUnconfirmed | Self::Stale { .. } | Self::Collected { .. })
    }
}

/// Low-rate requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Here is whom I know; whom do you know? At most [`WIRE_MEMBERS_MAX`].
    Members(#[serde(deserialize_with = "capped_list::<_, _, WIRE_MEMBERS_MAX>")] Vec<Member>),
    /// The digests of the slots `first .. first + count`.
    Digests {
        /// First slot.
        first: Slot,
        /// How many.
        count: u16,
    },
    /// Key hashes and versions in these slots.
    Versions {
        /// The slots.
        #[serde(deserialize_with = "capped_list::<_, _, SLOTS>")]
        slots: Vec<Slot>,
    },
    /// Records of a slot, after a hash.
    Pull {
        /// The slot.
        slot: Slot,
        /// Where to go on.
        after: Option<KeyHash>,
        /// About how many bytes, at most 1 MiB.
        bytes_max: u32,
    },
    /// Keep the records of this trace.
    KeepTrace([u8; 16]),
    /// Records of a slot by the hashes of their keys, which rise. Answered with a page: `next` is the last hash that was
    /// looked at if there was no room for all of them.
    PullKeys {
        /// The slot.
        slot: Slot,
        /// At most [`ControlRequest::PULL_KEYS_MAX`].
        #[serde(deserialize_with = "capped_list::<_, _, { ControlRequest::PULL_KEYS_MAX }>")]
        hashes: Vec<KeyHash>,
        /// About how many bytes, at most 1 MiB.
        bytes_max: u32,
    },
    /// The asker has given up on hints for this node, which may lack any write: compare digests now.
    CompareWithMe,
    /// The asker is leaving: does this node hold all that the asker holds of the slots that this node owns now?
    HandedOver {
        /// Which claim of the asker says that it is leaving.
        incarnation: Incarnation,
    },
    /// Which slots this node owns and is in sync for.
    InSync,
    /// Has each of this node's threads a connection to the asker, as the process that it is now?
    Reached {
        /// The start that the asker greets with.
        start: u64,
    },
    /// An operator has ordered that this member, which is gone, be forgotten.
    Forget {
        /// Whom.
        id: NodeId,
    },
}

impl ControlRequest {
    /// The most keys that one request may pull by name.
    pub const PULL_KEYS_MAX: usize = 4096;
}

/// Answers to [`ControlRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ControlReply {
    /// To `Members`. At most [`WIRE_MEMBERS_MAX`].
    Members(#[serde(deserialize_with = "capped_list::<_, _, WIRE_MEMBERS_MAX>")] Vec<Member>),
    /// To `Digests`.
    Digests(DigestPage),
    /// To `Versions`: per slot.
    Versions(#[serde(with = "slot_versions")] Vec<(Slot, Vec<(KeyHash, Version)>)>),
    /// To `KeepTrace` and `CompareWithMe`, to `HandedOver` and `Reached` if it is so, and to anything that needs no data.
    Done,
    /// The request cannot be served, or not yet.
    Refused,
    /// To `InSync`: one bit per slot, the lowest bit of the first word being the first slot's.
    InSync(#[serde(deserialize_with = "capped_list::<_, _, { SLOTS / 64 }>")] Vec<u64>),
}

/// Digests of consecutive slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestPage {
    /// First slot.
    pub first: Slot,
    /// One per slot.
    #[serde(deserialize_with = "capped_list::<_, _, SLOTS>")]
    pub digests: Vec<Digest>,
}

/// Records of one slot.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotPage {
    /// The slot.
    pub slot: Slot,
    /// In the order of their hash.
    pub records: Vec<Record>,
    /// Where to go on, or nothing at the end.
    pub next: Option<KeyHash>,
}
