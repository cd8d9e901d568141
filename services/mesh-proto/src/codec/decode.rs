//! Bytes to frames, trusting nothing: every length, count, tag, hash and checksum is checked before it is used, and
//! nothing may follow the last field.

use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    WIRE_MEMBERS_MAX, WireError, capped_list,
    cursor::Cursor,
    layout::{self, body_tag, kind, read_tag, write_tag},
};
use crate::{
    Body, ControlReply, ControlRequest, Expiry, Frame, FrameBody, Hello, KeyHash, Member, Micros, ReadAnswer, Record,
    RejectReason, RequestId, RingHash, SLOTS, Slot, SlotPage, TraceContext, Version, Weight, WriteAnswer,
};

/// Decodes one frame, given without its length prefix.
pub(super) fn frame(bytes: Bytes) -> Result<Frame, WireError> {
    let mut cursor = Cursor::new(bytes);
    let head: [u8; layout::HEADER_BYTES] = cursor.array()?;
    let [kind, flags, r0, r1, r2, r3, ring @ ..] = head;
    if flags & !layout::FLAGS_KNOWN != 0 {
        return Err(WireError::Malformed("unknown flag"));
    }
    let trace = if flags & layout::FLAG_TRACE == 0 { None } else { Some(TraceContext(cursor.array()?)) };
    let waited = match flags & layout::FLAG_WAITED {
        0 => 0,
        _ => match cursor.u32()? {
            0 => return Err(WireError::Malformed("a wait of nothing")),
            waited => waited,
        },
    };
    let body = body(kind, &mut cursor)?;
    cursor.finish()?;
    let request = RequestId(u32::from_le_bytes([r0, r1, r2, r3]));
    Ok(Frame { request, ring: RingHash::new(u64::from_le_bytes(ring)), trace, waited: Micros::new(waited), body })
}

fn body(kind: u8, cursor: &mut Cursor) -> Result<FrameBody, WireError> {
    Ok(match kind {
        kind::HELLO => FrameBody::Hello(checked_hello(from_postcard(cursor)?)?),
        kind::HELLO_REPLY => FrameBody::HelloReply(match from_postcard::<Result<Hello, RejectReason>>(cursor)? {
            Ok(hello) => Ok(checked_hello(hello)?),
            Err(reason) => Err(reason),
        }),
        kind::READ => read(cursor)?,
        kind::READ_REPLY => read_reply(cursor)?,
        kind::WRITE => FrameBody::Write(record(cursor)?),
        kind::WRITE_REPLY => write_reply(cursor)?,
        kind::CONTROL => FrameBody::Control(control(cursor)?),
        kind::CONTROL_REPLY => FrameBody::ControlReply(control_reply(cursor)?),
        kind::PAGE => FrameBody::Page(page(cursor)?),
        _ => return Err(WireError::Malformed("unknown kind")),
    })
}

fn read(cursor: &mut Cursor) -> Result<FrameBody, WireError> {
    let hash = KeyHash::new(cursor.u64()?);
    let key_bytes = usize::from(cursor.u16()?);
    let key = checked_key(hash, cursor.take(key_bytes)?)?;
    Ok(FrameBody::Read { hash, key })
}

fn read_reply(cursor: &mut Cursor) -> Result<FrameBody, WireError> {
    let hash = KeyHash::new(cursor.u64()?);
    let answer = match cursor.u8()? {
        tag @ (read_tag::VALUE | read_tag::VALUE_UNCONFIRMED) => {
            let version = Version::new(cursor.u128()?);
            let expiry = Expiry::new(cursor.u64()?);
            let head = ValueHead::read(cursor)?;
            let value = head.value(cursor, hash, version, expiry)?;
            ReadAnswer::Value { version, expiry, value, in_sync: tag == read_tag::VALUE }
        }
        read_tag::GONE => ReadAnswer::Gone { version: Version::new(cursor.u128()?) },
        read_tag::ABSENT => ReadAnswer::Absent,
        read_tag::UNKNOWN => ReadAnswer::Unknown,
        read_tag::WRONG_RING => ReadAnswer::WrongRing(members(cursor)?),
        _ => return Err(WireError::Malformed("unknown answer to a read")),
    };
    Ok(FrameBody::ReadReply { hash, answer })
}

fn write_reply(cursor: &mut Cursor) -> Result<FrameBody, WireError> {
    let hash = KeyHash::new(cursor.u64()?);
    let answer = match cursor.u8()? {
        write_tag::APPLIED => WriteAnswer::Applied,
        write_tag::APPLIED_UNCONFIRMED => WriteAnswer::AppliedUnconfirmed,
        tag @ (write_tag::STALE | write_tag::STALE_UNCONFIRMED) => {
            WriteAnswer::Stale { newer: Version::new(cursor.u128()?), in_sync: tag == write_tag::STALE }
        }
        write_tag::COLLECTED => WriteAnswer::Collected { newer: Version::new(cursor.u128()?) },
        write_tag::DRIFT => WriteAnswer::Drift { ahead_ms: cursor.u64()? },
        write_tag::TOO_LARGE => WriteAnswer::TooLarge,
        write_tag::WRONG_RING => WriteAnswer::WrongRing(members(cursor)?),
        _ => return Err(WireError::Malformed("unknown answer to a write")),
    };
    Ok(FrameBody::WriteReply { hash, answer })
}

fn record(cursor: &mut Cursor) -> Result<Record, WireError> {
    // One bounds check for all fixed fields: this is the hottest of the decoders.
    let head: [u8; layout::RECORD_HEAD_BYTES] = cursor.array()?;
    let (hash, rest) = split(&head);
    let (key_bytes, rest) = split(rest);
    let (version, rest) = split(rest);
    let (expiry, tag) = split(rest);
    let hash = KeyHash::new(u64::from_le_bytes(hash));
    let version = Version::new(u128::from_le_bytes(version));
    let expiry = Expiry::new(u64::from_le_bytes(expiry));
    let value_head = match tag {
        [body_tag::TOMBSTONE | body_tag::EXPIRED] => None,
        [body_tag::VALUE] => Some(ValueHead::read(cursor)?),
        _ => return Err(WireError::Malformed("neither a value nor a tombstone nor expired")),
    };
    let key = checked_key(hash, cursor.take(usize::from(u16::from_le_bytes(key_bytes)))?)?;
    let body = match value_head {
        Some(head) => Body::Value(head.value(cursor, hash, version, expiry)?),
        None if tag == [body_tag::EXPIRED] => Body::Expired,
        None => Body::Tombstone,
    };
    Ok(Record { hash, key, version, expiry, body })
}

fn page(cursor: &mut Cursor) -> Result<SlotPage, WireError> {
    let slot = Slot::new(cursor.u16()?).ok_or(WireError::Malformed("no such slot"))?;
    let next = match cursor.u8()? {
        0 => None,
        1 => Some(KeyHash::new(cursor.u64()?)),
        _ => return Err(WireError::Malformed("neither the end of a slot nor more of it")),
    };
    let count = usize::try_from(cursor.u32()?).unwrap_or(usize::MAX);
    if count > cursor.remaining() / layout::RECORD_HEAD_BYTES {
        return Err(WireError::Malformed("more records than bytes"));
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let record = record(cursor)?;
        if Slot::of(record.hash) != slot {
            return Err(WireError::Malformed("a record of another slot"));
        }
        records.push(record);
    }
    Ok(SlotPage { slot, records, next })
}

/// The first `N` bytes, and the rest. `N` is always a constant below the length of `bytes`, so the check folds away.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (head, rest) = bytes.split_at(N);
    let mut array = [0; N];
    array.copy_from_slice(head);
    (array, rest)
}

struct ValueHead {
    checksum: u32,
    value_bytes: usize,
}

impl ValueHead {
    fn read(cursor: &mut Cursor) -> Result<Self, WireError> {
        let checksum = cursor.u32()?;
        let value_bytes = usize::try_from(cursor.u32()?).unwrap_or(usize::MAX);
        Ok(Self { checksum, value_bytes })
    }

    fn value(self, cursor: &mut Cursor, hash: KeyHash, version: Version, expiry: Expiry) -> Result<Bytes, WireError> {
        let value = cursor.take(self.value_bytes)?;
        if layout::checksum(hash, version, expiry, &value) != self.checksum {
            return Err(WireError::Checksum);
        }
        Ok(value)
    }
}

fn checked_key(hash: KeyHash, key: Bytes) -> Result<Bytes, WireError> {
    if KeyHash::of(&key) == hash { Ok(key) } else { Err(WireError::Malformed("the hash is not the key's")) }
}

fn control(cursor: &mut Cursor) -> Result<ControlRequest, WireError> {
    let request: ControlRequest = from_postcard(cursor)?;
    match &request {
        ControlRequest::Members(members) => check_members(members)?,
        ControlRequest::Digests { first, count } => check_slots(*first, usize::from(*count))?,
        ControlRequest::Versions { .. }
        | ControlRequest::Pull { .. }
        | ControlRequest::PullKeys { .. }
        | ControlRequest::CompareWithMe
        | ControlRequest::KeepTrace(_)
        | ControlRequest::Forget { .. }
        | ControlRequest::HandedOver { .. }
        | ControlRequest::InSync
        | ControlRequest::Reached { .. } => {}
    }
    Ok(request)
}

fn control_reply(cursor: &mut Cursor) -> Result<ControlReply, WireError> {
    let reply: ControlReply = from_postcard(cursor)?;
    match &reply {
        ControlReply::Members(members) => check_members(members)?,
        ControlReply::Digests(page) => check_slots(page.first, page.digests.len())?,
        ControlReply::Versions(_) | ControlReply::Done | ControlReply::Refused | ControlReply::InSync(_) => {}
    }
    Ok(reply)
}

fn members(cursor: &mut Cursor) -> Result<Vec<Member>, WireError> {
    #[derive(Deserialize)]
    struct MemberList(#[serde(deserialize_with = "capped_list::<_, _, WIRE_MEMBERS_MAX>")] Vec<Member>);

    let MemberList(members) = from_postcard(cursor)?;
    check_members(&members)?;
    Ok(members)
}

fn check_members(members: &[Member]) -> Result<(), WireError> {
    for member in members {
        check_addr(&member.addr)?;
        if Weight::new(member.weight.get()).is_none() {
            return Err(WireError::Malformed("no such weight"));
        }
    }
    Ok(())
}

fn checked_hello(hello: Hello) -> Result<Hello, WireError> {
    check_addr(&hello.addr)?;
    Ok(hello)
}

fn check_addr(addr: &str) -> Result<(), WireError> {
    if addr.len() > layout::ADDR_BYTES_MAX { Err(WireError::Malformed("address too long")) } else { Ok(()) }
}

fn check_slots(first: Slot, count: usize) -> Result<(), WireError> {
    if first.index() + count > SLOTS { Err(WireError::Malformed("slots past the last")) } else { Ok(()) }
}

fn from_postcard<T: DeserializeOwned>(cursor: &mut Cursor) -> Result<T, WireError> {
    let bytes = cursor.take_rest();
    let (body, rest) = postcard::take_from_bytes(&bytes).map_err(|_| WireError::Malformed("not a control message"))?;
    if rest.is_empty() { Ok(body) } else { Err(WireError::Malformed("longer than its fields")) }
}
