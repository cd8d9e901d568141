//! What a peer can make the decoder allocate: a small multiple of what it really sends, whatever it claims.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use bytes::{BufMut as _, Bytes, BytesMut};
use mesh_proto::{
    Body, ControlReply, Decoder, Expiry, Frame, FrameBody, KeyHash, Record, RequestId, RingHash, Slot, SlotPage,
    Version, encode_into,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const FRAME_BYTES_MAX: usize = 4 << 20;

/// How much decoding `wire` allocates at its peak, beyond the receive buffer.
fn peak_bytes(wire: &[u8]) -> usize {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    decoder.buffer().extend_from_slice(wire);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let frame = decoder.next_frame();
    let peak = ALLOCATOR.peak_usage() - before;
    drop(frame);
    peak
}

fn raw(kind: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32_le(u32::try_from(14 + body.len()).unwrap());
    out.put_u8(kind);
    out.put_bytes(0, 13);
    out.put_slice(body);
    out
}

fn encoded(body: FrameBody) -> BytesMut {
    let mut out = BytesMut::new();
    encode_into(&Frame::new(RequestId(1), RingHash::new(2), body), &mut out);
    out
}

/// One test, since the peak is the whole process's.
#[test]
fn a_peer_cannot_make_the_decoder_allocate_much_more_than_it_sends() {
    // A prefix alone that announces the largest frame.
    let announced = u32::try_from(FRAME_BYTES_MAX).unwrap().to_le_bytes();
    assert!(peak_bytes(&announced) < 1024);

    // Counts of four billion with next to nothing behind them: a page, and the four lists in postcard.
    let huge = [255, 255, 255, 255, 15];
    let claims = [
        raw(10, &[0, 0, 0, 255, 255, 255, 255]),
        raw(8, &[&[0], &huge[..]].concat()),
        raw(8, &[&[2], &huge[..]].concat()),
        raw(9, &[&[1, 0], &huge[..]].concat()),
        raw(9, &[&[2], &huge[..]].concat()),
        raw(9, &[&[2, 1, 0], &huge[..]].concat()),
    ];
    for claim in &claims {
        assert!(peak_bytes(claim) < 1024, "{} bytes for {claim:?}", peak_bytes(claim));
    }

    // As many list elements as fit a frame, each as short as can be: members, slots, digests, slots with versions.
    let zeros = vec![0; 1 << 20];
    for head in [&[8, 0][..], &[8, 2], &[9, 1, 0], &[9, 2]] {
        let wire = raw(head[0], &[&head[1..], &[255, 255, 63], &zeros].concat());
        assert!(peak_bytes(&wire) < wire.len(), "{} bytes for {head:?}", peak_bytes(&wire));
    }

    // Honest frames full of the shortest records and versions.
    let hash = KeyHash::of(b"");
    let (key, version, expiry) = (Bytes::new(), Version::new(1), Expiry::NEVER);
    let tombstone = Record { hash, key, version, expiry, body: Body::Tombstone };
    let page = SlotPage { slot: Slot::of(hash), records: vec![tombstone; 30_000], next: None };
    let versions = ControlReply::Versions(vec![(Slot::of(hash), vec![(hash, version); 40_000])]);
    for body in [FrameBody::Page(page), FrameBody::ControlReply(versions)] {
        let wire = encoded(body);
        let peak = peak_bytes(&wire);
        assert!(wire.len() / 2 < peak && peak < 5 * wire.len(), "{peak} bytes for {} on the wire", wire.len());
    }
}
