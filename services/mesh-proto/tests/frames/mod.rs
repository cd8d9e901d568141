//! Arbitrary valid frames, for the tests of the codec.

use bytes::Bytes;
use mesh_proto::{
    Body, ControlReply, ControlRequest, Digest, DigestPage, Expiry, Frame, FrameBody, Hello, Incarnation, KeyHash,
    Member, MemberState, Micros, NodeId, ReadAnswer, Record, RecordLimits, RejectReason, RequestId, RingHash, SLOTS,
    Slot, SlotPage, Stage, TraceContext, Version, Weight, WriteAnswer,
};
use proptest::{collection::vec, option, prelude::*};

/// Any frame.
pub(crate) fn frame() -> impl Strategy<Value = Frame> {
    let trace = option::of(any::<[u8; 13]>().prop_map(|half| {
        let mut trace = [0; 26];
        trace[..13].copy_from_slice(&half);
        trace[13..].copy_from_slice(&half);
        TraceContext(trace)
    }));
    let waited = prop_oneof![Just(0), any::<u32>()];
    (any::<u32>(), any::<u64>(), trace, waited, body()).prop_map(|(request, ring, trace, waited, body)| Frame {
        request: RequestId(request),
        ring: RingHash::new(ring),
        trace,
        waited: Micros::new(waited),
        body,
    })
}

/// A frame that carries a value: a write, or an answer to a read.
pub(crate) fn frame_with_value() -> impl Strategy<Value = (Frame, Bytes)> {
    (key(), version(), expiry(), bytes(1..300), any::<bool>()).prop_map(|(key, version, expiry, value, is_write)| {
        let hash = KeyHash::of(&key);
        let body = if is_write {
            FrameBody::Write(Record { hash, key, version, expiry, body: Body::Value(value.clone()) })
        } else {
            let answer = ReadAnswer::Value { version, expiry, value: value.clone(), in_sync: true };
            FrameBody::ReadReply { hash, answer }
        };
        (Frame::new(RequestId(1), RingHash::new(2), body), value)
    })
}

fn body() -> impl Strategy<Value = FrameBody> {
    let hash = || any::<u64>().prop_map(KeyHash::new);
    prop_oneof![
        hello().prop_map(FrameBody::Hello),
        hello().prop_map(|hello| FrameBody::HelloReply(Ok(hello))),
        reject().prop_map(|reason| FrameBody::HelloReply(Err(reason))),
        key().prop_map(|key| FrameBody::Read { hash: KeyHash::of(&key), key }),
        (hash(), read_answer()).prop_map(|(hash, answer)| FrameBody::ReadReply { hash, answer }),
        record().prop_map(FrameBody::Write),
        (hash(), write_answer()).prop_map(|(hash, answer)| FrameBody::WriteReply { hash, answer }),
        control().prop_map(FrameBody::Control),
        control_reply().prop_map(FrameBody::ControlReply),
        page().prop_map(FrameBody::Page),
    ]
}

fn bytes(size: std::ops::Range<usize>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), size).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = Bytes> {
    bytes(0..80)
}

fn version() -> impl Strategy<Value = Version> {
    any::<u128>().prop_map(Version::new)
}

fn expiry() -> impl Strategy<Value = Expiry> {
    any::<u64>().prop_map(Expiry::new)
}

fn slot() -> impl Strategy<Value = Slot> {
    (0..4096_u16).prop_map(|number| Slot::new(number).unwrap())
}

fn record() -> impl Strategy<Value = Record> {
    let body = prop_oneof![bytes(0..300).prop_map(Body::Value), Just(Body::Tombstone), Just(Body::Expired)];
    (key(), version(), expiry(), body).prop_map(|(key, version, expiry, body)| Record {
        hash: KeyHash::of(&key),
        key,
        version,
        expiry,
        body,
    })
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![Just(Stage::Joining), Just(Stage::Syncing), Just(Stage::Normal), Just(Stage::Leaving)]
}

fn member() -> impl Strategy<Value = Member> {
    let state = prop_oneof![
        Just(MemberState::Alive),
        Just(MemberState::Suspect),
        Just(MemberState::Dead),
        Just(MemberState::Left)
    ];
    (any::<u64>(), "[a-z0-9.]{0,20}:[0-9]{1,5}", any::<u64>(), 1..=16_u8, state, stage()).prop_map(
        |(id, addr, incarnation, weight, state, stage)| Member {
            id: NodeId::new(id),
            addr,
            incarnation: Incarnation::new(incarnation),
            weight: Weight::new(weight).unwrap(),
            state,
            stage,
        },
    )
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    vec(member(), 0..6)
}

fn hello() -> impl Strategy<Value = Hello> {
    let limits = (any::<u64>(), any::<u64>())
        .prop_map(|(key_bytes_max, value_bytes_max)| RecordLimits { key_bytes_max, value_bytes_max });
    let names = ("[a-z0-9]{0,20}:[0-9]{1,5}", ".{0,20}");
    (any::<u16>(), any::<u64>(), names, any::<u64>(), any::<(u8, u8)>(), limits).prop_map(
        |(protocol, id, (addr, mesh), start, (replicas, concern), limits)| Hello {
            protocol,
            id: NodeId::new(id),
            addr,
            start,
            mesh,
            replicas,
            concern,
            limits,
        },
    )
}

fn reject() -> impl Strategy<Value = RejectReason> {
    prop_oneof![
        any::<u16>().prop_map(|theirs| RejectReason::Protocol { theirs }),
        ".{0,20}".prop_map(|addr| RejectReason::DuplicateId { addr }),
        ".{0,20}".prop_map(|name| RejectReason::Mesh { name }),
        Just(RejectReason::Itself),
        any::<(u8, u8)>().prop_map(|(replicas, concern)| RejectReason::Concern { replicas, concern }),
        Just(RejectReason::Identity),
    ]
}

fn read_answer() -> impl Strategy<Value = ReadAnswer> {
    prop_oneof![
        (version(), expiry(), bytes(0..300), any::<bool>())
            .prop_map(|(version, expiry, value, in_sync)| ReadAnswer::Value { version, expiry, value, in_sync }),
        version().prop_map(|version| ReadAnswer::Gone { version }),
        Just(ReadAnswer::Absent),
        Just(ReadAnswer::Unknown),
        members().prop_map(ReadAnswer::WrongRing),
    ]
}

fn write_answer() -> impl Strategy<Value = WriteAnswer> {
    prop_oneof![
        Just(WriteAnswer::Applied),
        Just(WriteAnswer::AppliedUnconfirmed),
        (version(), any::<bool>()).prop_map(|(newer, in_sync)| WriteAnswer::Stale { newer, in_sync }),
        version().prop_map(|newer| WriteAnswer::Collected { newer }),
        any::<u64>().prop_map(|ahead_ms| WriteAnswer::Drift { ahead_ms }),
        Just(WriteAnswer::TooLarge),
        members().prop_map(WriteAnswer::WrongRing),
    ]
}

fn control() -> impl Strategy<Value = ControlRequest> {
    let hash = || any::<u64>().prop_map(KeyHash::new);
    prop_oneof![
        members().prop_map(ControlRequest::Members),
        slot()
            .prop_map(|first| ControlRequest::Digests { first, count: u16::try_from(SLOTS - first.index()).unwrap() }),
        vec(slot(), 0..20).prop_map(|slots| ControlRequest::Versions { slots }),
        (slot(), option::of(hash()), any::<u32>()).prop_map(|(slot, after, bytes_max)| ControlRequest::Pull {
            slot,
            after,
            bytes_max
        }),
        any::<[u8; 16]>().prop_map(ControlRequest::KeepTrace),
        any::<u64>().prop_map(|id| ControlRequest::Forget { id: NodeId::new(id) }),
        (slot(), vec(hash(), 0..20), any::<u32>()).prop_map(|(slot, hashes, bytes_max)| ControlRequest::PullKeys {
            slot,
            hashes,
            bytes_max
        }),
        Just(ControlRequest::CompareWithMe),
        any::<u32>().prop_map(|n| ControlRequest::HandedOver { incarnation: Incarnation::new(n.into()) }),
        Just(ControlRequest::InSync),
        any::<u64>().prop_map(|start| ControlRequest::Reached { start }),
    ]
}

fn control_reply() -> impl Strategy<Value = ControlReply> {
    let entries = vec((any::<u64>().prop_map(KeyHash::new), version()), 0..10);
    let digests = (slot(), vec(any::<u64>().prop_map(Digest), 0..20)).prop_map(|(first, mut digests)| {
        digests.truncate(SLOTS - first.index());
        ControlReply::Digests(DigestPage { first, digests })
    });
    prop_oneof![
        members().prop_map(ControlReply::Members),
        digests,
        vec((slot(), entries), 0..5).prop_map(ControlReply::Versions),
        Just(ControlReply::Done),
        Just(ControlReply::Refused),
        vec(any::<u64>(), 0..=64).prop_map(ControlReply::InSync),
    ]
}

/// Records that share a key, since only keys of one slot may share a page.
fn page() -> impl Strategy<Value = SlotPage> {
    (record(), 0..5_usize, option::of(any::<u64>().prop_map(KeyHash::new))).prop_map(|(record, count, next)| SlotPage {
        slot: Slot::of(record.hash),
        records: vec![record; count],
        next,
    })
}
