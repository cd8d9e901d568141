//! Frames to bytes. The request path has an encoder per kind that borrows what it sends, so that no `Frame` has to be
//! built only to be written.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;

use super::{
    WIRE_KEY_BYTES_MAX, WIRE_MEMBERS_MAX,
    layout::{self, body_tag, kind, read_tag, write_tag},
};
use crate::{
    Body, Expiry, Frame, FrameBody, KeyHash, Member, Micros, ReadAnswer, Record, ReplyHead, RequestId, RingHash,
    SlotPage, TraceContext, Version, WriteAnswer,
};

/// Appends the frame, with its length prefix, to `out`.
///
/// # Panics
/// If a key is longer than [`WIRE_KEY_BYTES_MAX`] or the frame than 4 GiB: both are refused long before.
pub fn encode_into(frame: &Frame, out: &mut BytesMut) {
    let Frame { request, ring, trace, waited, .. } = *frame;
    let header = |kind| Header { kind, request, ring, trace, waited };
    match &frame.body {
        FrameBody::Hello(hello) => postcard_frame(out, &header(kind::HELLO), hello),
        FrameBody::HelloReply(reply) => postcard_frame(out, &header(kind::HELLO_REPLY), reply),
        FrameBody::Read { hash, key } => read(out, &header(kind::READ), *hash, key),
        FrameBody::ReadReply { hash, answer } => read_reply(out, &header(kind::READ_REPLY), *hash, answer),
        FrameBody::Write(record) => write(out, &header(kind::WRITE), record),
        FrameBody::WriteReply { hash, answer } => write_reply(out, &header(kind::WRITE_REPLY), *hash, answer),
        FrameBody::Control(request) => postcard_frame(out, &header(kind::CONTROL), request),
        FrameBody::ControlReply(reply) => postcard_frame(out, &header(kind::CONTROL_REPLY), reply),
        FrameBody::Page(slot_page) => page(out, &header(kind::PAGE), slot_page),
    }
}

/// Appends a [`FrameBody::Read`].
///
/// # Panics
/// As [`encode_into`].
pub fn encode_read(
    out: &mut BytesMut,
    request: RequestId,
    ring: RingHash,
    trace: Option<TraceContext>,
    (hash, key): (KeyHash, &[u8]),
) {
    read(out, &Header::request(kind::READ, request, ring, trace), hash, key);
}

/// Appends a [`FrameBody::Write`].
///
/// # Panics
/// As [`encode_into`].
pub fn encode_write(
    out: &mut BytesMut,
    request: RequestId,
    ring: RingHash,
    trace: Option<TraceContext>,
    record: &Record,
) {
    write(out, &Header::request(kind::WRITE, request, ring, trace), record);
}

/// Appends a [`FrameBody::Write`] up to its value, which is the frame's end and is returned: a large one is sent from where it
/// lies. Nothing is left of a record that has no value.
///
/// # Panics
/// As [`encode_into`].
pub fn encode_write_head(
    out: &mut BytesMut,
    request: RequestId,
    ring: RingHash,
    trace: Option<TraceContext>,
    record: &Record,
) -> Bytes {
    let value = if let Body::Value(value) = &record.body { value.clone() } else { Bytes::new() };
    let header = Header::request(kind::WRITE, request, ring, trace);
    header.put_before(out, record_bytes(record) - value.len(), value.len());
    put_record_head(out, record);
    value
}

/// Appends a [`FrameBody::ReadReply`]; replies carry no trace.
///
/// # Panics
/// As [`encode_into`].
pub fn encode_read_reply(out: &mut BytesMut, head: &ReplyHead, hash: KeyHash, answer: &ReadAnswer) {
    read_reply(out, &Header::reply(kind::READ_REPLY, head), hash, answer);
}

/// Appends a [`FrameBody::ReadReply`] up to its value, as [`encode_write_head`] does.
///
/// # Panics
/// As [`encode_into`].
pub fn encode_read_reply_head(out: &mut BytesMut, head: &ReplyHead, hash: KeyHash, answer: &ReadAnswer) -> Bytes {
    let header = Header::reply(kind::READ_REPLY, head);
    match answer {
        ReadAnswer::Value { value, .. } => {
            header.put_before(out, READ_VALUE_HEAD_BYTES, value.len());
            put_read_value_head(out, hash, answer);
            value.clone()
        }
        _ => {
            read_reply(out, &header, hash, answer);
            Bytes::new()
        }
    }
}

/// Appends a [`FrameBody::WriteReply`]; replies carry no trace.
///
/// # Panics
/// As [`encode_into`].
pub fn encode_write_reply(out: &mut BytesMut, head: &ReplyHead, hash: KeyHash, answer: &WriteAnswer) {
    write_reply(out, &Header::reply(kind::WRITE_REPLY, head), hash, answer);
}

struct Header {
    kind: u8,
    request: RequestId,
    ring: RingHash,
    trace: Option<TraceContext>,
    waited: Micros,
}

impl Header {
    const fn request(kind: u8, request: RequestId, ring: RingHash, trace: Option<TraceContext>) -> Self {
        Self { kind, request, ring, trace, waited: Micros::new(0) }
    }

    const fn reply(kind: u8, head: &ReplyHead) -> Self {
        let ReplyHead { request, ring, waited } = *head;
        Self { kind, request, ring, trace: None, waited }
    }

    /// Makes room for the whole frame at once and writes everything before the body.
    fn put(&self, out: &mut BytesMut, body_bytes: usize) {
        self.put_before(out, body_bytes, 0);
    }

    /// As `put`, for a frame whose last `apart_bytes` are sent from elsewhere.
    fn put_before(&self, out: &mut BytesMut, body_bytes: usize, apart_bytes: usize) {
        let has_waited = self.waited > Micros::default();
        let trace_bytes = if self.trace.is_some() { layout::TRACE_BYTES } else { 0 };
        let waited_bytes = if has_waited { layout::WAITED_BYTES } else { 0 };
        let bytes = layout::HEADER_BYTES + trace_bytes + waited_bytes + body_bytes + apart_bytes;
        out.reserve(layout::LENGTH_BYTES + bytes - apart_bytes);
        let mut head = [0; layout::LENGTH_BYTES + layout::HEADER_BYTES];
        head[..4].copy_from_slice(&u32_length(bytes).to_le_bytes());
        head[4] = self.kind;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        head[5] = flag(self.trace.is_some(), layout::FLAG_TRACE) | flag(has_waited, layout::FLAG_WAITED);
        head[6..10].copy_from_slice(&self.request.0.to_le_bytes());
        head[10..].copy_from_slice(&self.ring.get().to_le_bytes());
        out.put_slice(&head);
        if let Some(trace) = &self.trace {
            out.put_slice(&trace.0);
        }
        if has_waited {
            out.put_u32_le(self.waited.get());
        }
    }
}

fn read(out: &mut BytesMut, header: &Header, hash: KeyHash, key: &[u8]) {
    header.put(out, 8 + 2 + key.len());
    out.put_u64_le(hash.get());
    out.put_u16_le(key_length(key));
    out.put_slice(key);
}

fn read_reply(out: &mut BytesMut, header: &Header, hash: KeyHash, answer: &ReadAnswer) {
    match answer {
        ReadAnswer::Value { value, .. } => {
            header.put(out, READ_VALUE_HEAD_BYTES + value.len());
            put_read_value_head(out, hash, answer);
            out.put_slice(value);
        }
        ReadAnswer::Gone { version } => {
            header.put(out, 8 + 1 + 16);
            put_tagged(out, hash, read_tag::GONE);
            out.put_u128_le(version.get());
        }
        ReadAnswer::Absent => {
            header.put(out, 8 + 1);
            put_tagged(out, hash, read_tag::ABSENT);
        }
        ReadAnswer::Unknown => {
            header.put(out, 8 + 1);
            put_tagged(out, hash, read_tag::UNKNOWN);
        }
        ReadAnswer::WrongRing(members) => put_wrong_ring(out, header, hash, read_tag::WRONG_RING, members),
    }
}

/// What stands before the value in an answer that has one.
const READ_VALUE_HEAD_BYTES: usize = 8 + 1 + 16 + 8 + layout::VALUE_HEAD_BYTES;

fn put_read_value_head(out: &mut BytesMut, hash: KeyHash, answer: &ReadAnswer) {
    let ReadAnswer::Value { version, expiry, value, in_sync } = answer else { return };
    put_tagged(out, hash, if *in_sync { read_tag::VALUE } else { read_tag::VALUE_UNCONFIRMED });
    out.put_u128_le(version.get());
    out.put_u64_le(expiry.get());
    put_value_head(out, hash, *version, *expiry, value);
}

fn write(out: &mut BytesMut, header: &Header, record: &Record) {
    header.put(out, record_bytes(record));
    put_record(out, record);
}

fn write_reply(out: &mut BytesMut, header: &Header, hash: KeyHash, answer: &WriteAnswer) {
    match answer {
        WriteAnswer::Applied => {
            header.put(out, 8 + 1);
            put_tagged(out, hash, write_tag::APPLIED);
        }
        WriteAnswer::AppliedUnconfirmed => {
            header.put(out, 8 + 1);
            put_tagged(out, hash, write_tag::APPLIED_UNCONFIRMED);
        }
        WriteAnswer::Stale { newer, in_sync } => {
            let tag = if *in_sync { write_tag::STALE } else { write_tag::STALE_UNCONFIRMED };
            put_newer(out, header, hash, tag, *newer);
        }
        WriteAnswer::Collected { newer } => put_newer(out, header, hash, write_tag::COLLECTED, *newer),
        WriteAnswer::Drift { ahead_ms } => {
            header.put(out, 8 + 1 + 8);
            put_tagged(out, hash, write_tag::DRIFT);
            out.put_u64_le(*ahead_ms);
        }
        WriteAnswer::TooLarge => {
            header.put(out, 8 + 1);
            put_tagged(out, hash, write_tag::TOO_LARGE);
        }
        WriteAnswer::WrongRing(members) => put_wrong_ring(out, header, hash, write_tag::WRONG_RING, members),
    }
}

fn put_newer(out: &mut BytesMut, header: &Header, hash: KeyHash, tag: u8, newer: Version) {
    header.put(out, 8 + 1 + 16);
    put_tagged(out, hash, tag);
    out.put_u128_le(newer.get());
}

fn page(out: &mut BytesMut, header: &Header, page: &SlotPage) {
    let next_bytes = if page.next.is_some() { 8 } else { 0 };
    let records_bytes: usize = page.records.iter().map(record_bytes).sum();
    header.put(out, 2 + 1 + next_bytes + 4 + records_bytes);
    out.put_u16_le(page.slot.get());
    out.put_u8(u8::from(page.next.is_some()));
    if let Some(next) = page.next {
        out.put_u64_le(next.get());
    }
    out.put_u32_le(u32_length(page.records.len()));
    for record in &page.records {
        put_record(out, record);
    }
}

fn postcard_frame<T: Serialize>(out: &mut BytesMut, header: &Header, body: &T) {
    let body = to_postcard(body);
    header.put(out, body.len());
    out.put_slice(&body);
}

fn put_wrong_ring(out: &mut BytesMut, header: &Header, hash: KeyHash, tag: u8, members: &[Member]) {
    // What a longer list leaves out reaches the peer through gossip.
    let members = to_postcard(&members[..members.len().min(WIRE_MEMBERS_MAX)]);
    header.put(out, 8 + 1 + members.len());
    put_tagged(out, hash, tag);
    out.put_slice(&members);
}

fn put_tagged(out: &mut BytesMut, hash: KeyHash, tag: u8) {
    out.put_u64_le(hash.get());
    out.put_u8(tag);
}

fn record_bytes(record: &Record) -> usize {
    let value_bytes = match &record.body {
        Body::Value(value) => layout::VALUE_HEAD_BYTES + value.len(),
        Body::Tombstone | Body::Expired => 0,
    };
    layout::RECORD_HEAD_BYTES + record.key.len() + value_bytes
}

fn put_record(out: &mut BytesMut, record: &Record) {
    put_record_head(out, record);
    if let Body::Value(value) = &record.body {
        out.put_slice(value);
    }
}

/// All but the value.
fn put_record_head(out: &mut BytesMut, record: &Record) {
    let mut head = [0; layout::RECORD_HEAD_BYTES];
    head[..8].copy_from_slice(&record.hash.get().to_le_bytes());
    head[8..10].copy_from_slice(&key_length(&record.key).to_le_bytes());
    head[10..26].copy_from_slice(&record.version.get().to_le_bytes());
    head[26..34].copy_from_slice(&record.expiry.get().to_le_bytes());
    head[34] = match &record.body {
        Body::Value(_) => body_tag::VALUE,
        Body::Tombstone => body_tag::TOMBSTONE,
        Body::Expired => body_tag::EXPIRED,
    };
    out.put_slice(&head);
    if let Body::Value(value) = &record.body {
        put_value_head(out, record.hash, record.version, record.expiry, value);
    }
    out.put_slice(&record.key);
}

fn put_value_head(out: &mut BytesMut, hash: KeyHash, version: Version, expiry: Expiry, value: &[u8]) {
    out.put_u32_le(layout::checksum(hash, version, expiry, value));
    out.put_u32_le(u32_length(value.len()));
}

fn key_length(key: &[u8]) -> u16 {
    assert!(key.len() <= WIRE_KEY_BYTES_MAX, "a key of {} bytes does not fit a frame", key.len());
    key.len() as u16
}

fn u32_length(length: usize) -> u32 {
    assert!(u32::try_from(length).is_ok(), "{length} bytes do not fit a frame");
    length as u32
}

#[expect(clippy::expect_used, reason = "writing to a vector cannot fail, and all our lists know their length")]
fn to_postcard<T: Serialize + ?Sized>(body: &T) -> Vec<u8> {
    postcard::to_stdvec(body).expect("postcard encodes to memory")
}
