//! The codec, against arbitrary frames and arbitrary damage.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod frames;

use bytes::{BufMut as _, Bytes, BytesMut};
use mesh_proto::{
    Body, ControlReply, ControlRequest, Decoder, Expiry, Frame, FrameBody, Incarnation, KeyHash, Member, MemberState,
    Micros, NodeId, ReadAnswer, Record, ReplyHead, RequestId, RingHash, Slot, SlotPage, Stage, TraceContext, Version,
    WIRE_MEMBERS_MAX, Weight, WireError, WriteAnswer, encode_into, encode_read, encode_read_reply,
    encode_read_reply_head, encode_write, encode_write_head, encode_write_reply,
};
use proptest::{collection::vec, prelude::*};

const LIMIT: usize = 64 * 1024;
const REQUEST: RequestId = RequestId(7);
const RING: RingHash = RingHash::new(9);

fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    encode_into(frame, &mut out);
    out
}

fn plain(body: FrameBody) -> Frame {
    Frame::new(REQUEST, RING, body)
}

/// Everything in `bytes`, or the first error.
fn decode_all(bytes: &[u8]) -> Result<Vec<Frame>, WireError> {
    let mut decoder = Decoder::new(LIMIT);
    decoder.buffer().extend_from_slice(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

/// A frame of this kind, with this body, in raw bytes.
fn raw(kind: u8, flags: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32_le(u32::try_from(14 + body.len()).unwrap());
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32_le(REQUEST.0);
    out.put_u64_le(RING.get());
    out.put_slice(body);
    out
}

fn record(key: &[u8], value: &[u8]) -> Record {
    Record {
        hash: KeyHash::of(key),
        key: Bytes::copy_from_slice(key),
        version: Version::new(5),
        expiry: Expiry::NEVER,
        body: Body::Value(Bytes::copy_from_slice(value)),
    }
}

fn member(id: u64) -> Member {
    Member {
        id: NodeId::new(id),
        addr: "node1:5011".to_owned(),
        incarnation: Incarnation::new(1),
        weight: Weight::MAX,
        state: MemberState::Alive,
        stage: Stage::Normal,
    }
}

fn is_malformed<T>(result: Result<T, WireError>) -> bool {
    matches!(result, Err(WireError::Malformed(_)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn frames_survive_any_chunking(sent in vec(frames::frame(), 1..5), cuts in vec(1..200_usize, 0..40)) {
        let mut wire = BytesMut::new();
        for frame in &sent {
            encode_into(frame, &mut wire);
        }
        let mut decoder = Decoder::new(LIMIT);
        let mut received = Vec::new();
        let mut rest = &wire[..];
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let (chunk, tail) = rest.split_at(cuts.next().unwrap_or(LIMIT).min(rest.len()));
            rest = tail;
            decoder.buffer().extend_from_slice(chunk);
            while let Some(frame) = decoder.next_frame().unwrap() {
                received.push(frame);
            }
        }
        prop_assert_eq!(received, sent);
        prop_assert!(decoder.buffer().is_empty());
    }

    #[test]
    fn a_frame_cut_anywhere_waits_and_is_never_wrong(frame in frames::frame()) {
        let wire = encoded(&frame);
        for cut in 0..wire.len() {
            let mut decoder = Decoder::new(LIMIT);
            decoder.buffer().extend_from_slice(&wire[..cut]);
            prop_assert_eq!(decoder.next_frame(), Ok(None), "cut at {}", cut);
            decoder.buffer().extend_from_slice(&wire[cut..]);
            prop_assert_eq!(decoder.next_frame(), Ok(Some(frame.clone())), "cut at {}", cut);
        }
    }

    /// As above, but the length prefix claims that the frame is whole.
    #[test]
    fn a_body_cut_short_or_made_longer_is_malformed(frame in frames::frame(), extra in any::<u8>()) {
        let wire = encoded(&frame);
        for length in 0..wire.len() - 4 {
            let mut short = BytesMut::from(&wire[..4 + length]);
            short[..4].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            prop_assert!(is_malformed(decode_all(&short)), "{} bytes of {}", length, wire.len());
        }
        let mut long = wire;
        long.put_u8(extra);
        let length = u32::try_from(long.len() - 4).unwrap();
        long[..4].copy_from_slice(&length.to_le_bytes());
        prop_assert!(is_malformed(decode_all(&long)));
    }

    #[test]
    fn one_flipped_bit_in_a_value_is_caught((frame, value) in frames::frame_with_value(), at in any::<prop::sample::Index>()) {
        let mut wire = encoded(&frame);
        // The value is the last field of both kinds of frame.
        let bit = at.index(value.len() * 8);
        let start = wire.len() - value.len();
        wire[start + bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(decode_all(&wire), Err(WireError::Checksum));
    }

    /// Damage elsewhere may go unnoticed (QUIC's own integrity is for that), but never in what a value answers for.
    #[test]
    fn a_flipped_bit_never_gives_a_value_another_identity((frame, _) in frames::frame_with_value(), at in any::<prop::sample::Index>()) {
        let mut wire = encoded(&frame);
        let bit = at.index((wire.len() - 18) * 8);
        wire[18 + bit / 8] ^= 1 << (bit % 8);
        if let Ok(received) = decode_all(&wire) {
            let has_value = |frame: &Frame| match &frame.body {
                FrameBody::Write(record) => matches!(record.body, Body::Value(_)),
                FrameBody::ReadReply { answer, .. } => matches!(answer, ReadAnswer::Value { .. }),
                _ => false,
            };
            prop_assert!(!received.iter().any(has_value));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode_all(&bytes);
    }

    /// With a valid header, so that bodies are reached.
    #[test]
    fn random_bodies_never_panic_and_decode_to_what_encodes_back(kind in 0..12_u8, body in vec(any::<u8>(), 0..60)) {
        if let Ok(received) = decode_all(&raw(kind, 0, &body)) {
            for frame in received {
                prop_assert_eq!(decode_all(&encoded(&frame)), Ok(vec![frame]));
            }
        }
    }

    #[test]
    fn damaged_frames_never_panic(frame in frames::frame(), flips in vec(any::<(prop::sample::Index, u8)>(), 1..6)) {
        let mut wire = encoded(&frame);
        for (at, mask) in flips {
            let at = at.index(wire.len());
            wire[at] ^= mask;
        }
        let _ = decode_all(&wire);
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
    let mut decoder = Decoder::new(100);
    decoder.buffer().put_u32_le(101);
    assert_eq!(decoder.next_frame(), Err(WireError::TooLong { bytes: 101, limit: 100 }));

    let frame = plain(FrameBody::Write(record(b"key", &[1; 40])));
    let wire = encoded(&frame);
    let mut exact = Decoder::new(wire.len() - 4);
    exact.buffer().extend_from_slice(&wire);
    assert_eq!(exact.next_frame(), Ok(Some(frame)), "the limit itself is allowed");
    let mut below = Decoder::new(wire.len() - 5);
    below.buffer().extend_from_slice(&wire);
    assert!(matches!(below.next_frame(), Err(WireError::TooLong { .. })));
}

#[test]
fn borrowed_encoders_write_what_encode_into_writes() {
    let hash = KeyHash::of(b"key");
    let trace = Some(TraceContext([3; 26]));
    let write = record(b"key", b"value");
    let read_answer = ReadAnswer::Value {
        version: Version::new(5),
        expiry: Expiry::NEVER,
        value: Bytes::from("value"),
        in_sync: true,
    };
    let mut out = BytesMut::new();
    encode_read(&mut out, REQUEST, RING, trace, (hash, b"key"));
    encode_write(&mut out, REQUEST, RING, trace, &write);
    let waited = Micros::new(1234);
    let head = ReplyHead { request: REQUEST, ring: RING, waited };
    encode_read_reply(&mut out, &head, hash, &read_answer);
    let head = ReplyHead { waited: Micros::default(), ..head };
    encode_write_reply(&mut out, &head, hash, &WriteAnswer::Applied);
    let traced = |body| Frame { trace, ..plain(body) };
    let expected = vec![
        traced(FrameBody::Read { hash, key: Bytes::from("key") }),
        traced(FrameBody::Write(write)),
        Frame { waited, ..plain(FrameBody::ReadReply { hash, answer: read_answer }) },
        plain(FrameBody::WriteReply { hash, answer: WriteAnswer::Applied }),
    ];
    assert_eq!(decode_all(&out), Ok(expected));
}

#[test]
fn a_head_and_its_value_make_the_frame() {
    let hash = KeyHash::of(b"key");
    let trace = Some(TraceContext([3; 26]));
    let write = record(b"key", &[7; 1000]);
    let tombstone = Record { body: Body::Tombstone, ..write.clone() };
    let (version, expiry, value) = (Version::new(5), Expiry::NEVER, Bytes::from("value"));
    let found = ReadAnswer::Value { version, expiry, value, in_sync: true };
    for record in [&write, &tombstone] {
        let (mut whole, mut head) = (BytesMut::new(), BytesMut::new());
        encode_write(&mut whole, REQUEST, RING, trace, record);
        let value = encode_write_head(&mut head, REQUEST, RING, trace, record);
        assert_eq!([&head[..], &value].concat(), whole);
        assert_eq!(value.len(), record.value_bytes());
    }
    for answer in [&found, &ReadAnswer::Absent] {
        let (mut whole, mut head) = (BytesMut::new(), BytesMut::new());
        let reply = ReplyHead { request: REQUEST, ring: RING, waited: Micros::new(1) };
        encode_read_reply(&mut whole, &reply, hash, answer);
        let value = encode_read_reply_head(&mut head, &reply, hash, answer);
        assert_eq!([&head[..], &value].concat(), whole);
    }
}

#[test]
fn a_decoder_knows_what_is_coming() {
    let wire = encoded(&plain(FrameBody::Write(record(b"key", &[1; 1000]))));
    let mut decoder = Decoder::new(LIMIT);
    for (at, byte) in wire.iter().enumerate() {
        let (request, missing) = (decoder.next_request(), decoder.missing_bytes());
        assert_eq!(request, (at >= 10).then_some(REQUEST), "after {at} bytes");
        assert_eq!(missing, if at < 4 { 0 } else { wire.len() - at });
        decoder.buffer().put_u8(*byte);
    }
    assert_eq!(decoder.missing_bytes(), 0);
    let mut absurd = Decoder::new(100);
    absurd.buffer().put_u32_le(u32::MAX);
    assert_eq!(absurd.missing_bytes(), 0, "nobody makes room for it");
}

#[test]
fn keys_and_values_are_views_into_the_receive_buffer() {
    let mut decoder = Decoder::new(LIMIT);
    let wire = encoded(&plain(FrameBody::Write(record(b"a key", b"a value"))));
    decoder.buffer().extend_from_slice(&wire);
    let buffer = decoder.buffer().as_ptr_range();
    let Some(Frame { body: FrameBody::Write(record), .. }) = decoder.next_frame().unwrap() else { panic!("a write") };
    let Body::Value(value) = record.body else { panic!("a value") };
    assert!(buffer.contains(&record.key.as_ptr()) && buffer.contains(&value.as_ptr()));
}

#[test]
fn unknown_kinds_and_flags_are_malformed() {
    let read = encoded(&plain(FrameBody::Read { hash: KeyHash::of(b"key"), key: Bytes::from("key") }));
    let body = &read[4 + 14..];
    assert_eq!(decode_all(&raw(3, 0, body)).map(|frames| frames.len()), Ok(1));
    for (kind, flags) in [(0, 0), (7, 0), (11, 0), (255, 0), (3, 2), (3, 0x80)] {
        assert!(is_malformed(decode_all(&raw(kind, flags, body))), "kind {kind}, flags {flags}");
    }
}

#[test]
fn a_key_under_another_hash_is_malformed() {
    let mut write = record(b"key", b"value");
    write.hash = KeyHash::of(b"other");
    let page = SlotPage { slot: Slot::of(write.hash), records: vec![write.clone()], next: None };
    let read = FrameBody::Read { hash: write.hash, key: write.key.clone() };
    for body in [read, FrameBody::Write(write), FrameBody::Page(page)] {
        assert!(is_malformed(decode_all(&encoded(&plain(body)))));
    }
}

#[test]
fn a_record_of_another_slot_does_not_belong_on_a_page() {
    let record = record(b"key", b"value");
    let other = Slot::all().find(|slot| *slot != Slot::of(record.hash)).unwrap();
    let page = SlotPage { slot: other, records: vec![record], next: None };
    assert!(is_malformed(decode_all(&encoded(&plain(FrameBody::Page(page))))));
}

#[test]
fn claimed_counts_are_checked_against_what_is_there() {
    // A page of slot 0 without `next` that claims four billion records.
    assert!(is_malformed(decode_all(&raw(10, 0, &[0, 0, 0, 255, 255, 255, 255]))));
    // A slot that does not exist.
    assert!(is_malformed(decode_all(&raw(10, 0, &[0, 16, 0, 0, 0, 0, 0]))));
    assert!(decode_all(&raw(10, 0, &[255, 15, 0, 0, 0, 0, 0])).is_ok());
    // A list of members whose postcard length is 2^32 - 1.
    assert!(is_malformed(decode_all(&raw(8, 0, &[0, 255, 255, 255, 255, 15]))));
}

#[test]
fn slots_past_the_last_are_malformed() {
    let last = Slot::new(4095).unwrap();
    let request = |count| plain(FrameBody::Control(ControlRequest::Digests { first: last, count }));
    assert!(decode_all(&encoded(&request(1))).is_ok());
    assert!(is_malformed(decode_all(&encoded(&request(2)))));
    // `Versions` with the single slot 4096, then with 4095, as postcard writes them.
    assert!(is_malformed(decode_all(&raw(8, 0, &[2, 1, 0x80, 0x20]))));
    assert!(decode_all(&raw(8, 0, &[2, 1, 0xff, 0x1f])).is_ok());
}

#[test]
fn weights_outside_one_to_sixteen_are_malformed() {
    let wire = encoded(&plain(FrameBody::ControlReply(ControlReply::Members(vec![member(1)]))));
    assert!(decode_all(&wire).is_ok());
    // The last three bytes are weight, state and whether it is joining.
    for weight in [0, 17, 255] {
        let mut wire = wire.clone();
        let at = wire.len() - 3;
        wire[at] = weight;
        assert!(is_malformed(decode_all(&wire)), "weight {weight}");
    }
}

#[test]
fn member_lists_are_capped() {
    let members = |count: usize| (0..count as u64).map(member).collect::<Vec<_>>();
    let control = |count| encoded(&plain(FrameBody::Control(ControlRequest::Members(members(count)))));
    assert!(decode_all(&control(WIRE_MEMBERS_MAX)).is_ok());
    assert!(is_malformed(decode_all(&control(WIRE_MEMBERS_MAX + 1))));

    let hash = KeyHash::new(1);
    let reply = plain(FrameBody::WriteReply { hash, answer: WriteAnswer::WrongRing(members(WIRE_MEMBERS_MAX + 1)) });
    let cut = plain(FrameBody::WriteReply { hash, answer: WriteAnswer::WrongRing(members(WIRE_MEMBERS_MAX)) });
    assert_eq!(decode_all(&encoded(&reply)), Ok(vec![cut]), "an answer carries as many as fit");
}

#[test]
fn addresses_are_capped() {
    let with_addr = |bytes| Member { addr: "a".repeat(bytes), ..member(1) };
    let wire = |bytes| encoded(&plain(FrameBody::Control(ControlRequest::Members(vec![with_addr(bytes)]))));
    assert!(decode_all(&wire(261)).is_ok());
    assert!(is_malformed(decode_all(&wire(262))));
}
