//! How a record lies in a segment: a head of 32 bytes, the expiry if it has one, then key and value, or the number of the
//! allocation in which a large one's are.

use std::sync::Arc;

use bytes::Bytes;

use super::{limits::allocated, second::Second};
use crate::{Body, Expiry, KeyHash, Record, UnixMillis, Version};

/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 4;

const HEAD: usize = 32;
const EXPIRY: usize = 8;
const NUMBER: usize = 4;

const KIND: u8 = 0b11;
const EXPIRES: u8 = 1 << 2;
const LARGE: u8 = 1 << 3;
const VISITS_SHIFT: u8 = 4;

/// How often a record that was visited more often is taken to have been.
pub(super) const VISITS_MAX: u8 = 7;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A value, maybe expired but not noticed yet.
    Live,
    /// A deletion.
    Tombstone,
    /// A value that has expired, without the value.
    Stub,
    /// Nothing any more.
    Hole,
}

impl Kind {
    const fn of(flags: u8) -> Self {
        match flags & KIND {
            0 => Self::Live,
            1 => Self::Tombstone,
            2 => Self::Stub,
            _ => Self::Hole,
        }
    }
}

/// A record to be put into a segment.
#[derive(Debug)]
pub(super) struct NewRecord<'a> {
    pub(super) hash: KeyHash,
    pub(super) version: Version,
    pub(super) expiry: Expiry,
    pub(super) kind: Kind,
    pub(super) key: &'a [u8],
    value: &'a [u8],
    /// Key and value again, where they are too large for a segment.
    pub(super) large: Option<Arc<[u8]>>,
}

impl<'a> NewRecord<'a> {
    /// What is to be kept of a record. Key and value together are put into an allocation of their own above `inline_max` bytes.
    pub(super) fn new(record: &'a Record, kind: Kind, inline_max: usize) -> Self {
        let (value, expiry) = match (&record.body, kind) {
            (Body::Value(value), Kind::Live) => (value.as_ref(), record.expiry),
            (Body::Tombstone, _) => (&[][..], Expiry::NEVER),
            (Body::Value(_) | Body::Expired, _) => (&[][..], record.expiry),
        };
        let key = record.key.as_ref();
        let large = (key.len() + value.len() > inline_max).then(|| join(key, value));
        Self { hash: record.hash, version: record.version, expiry, kind, key, value, large }
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.kind, Kind::Live)
    }

    /// Bytes of key and value together.
    pub(super) const fn payload_bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    /// Bytes of the allocation of its own, if it is large.
    pub(super) fn large_bytes(&self) -> u64 {
        self.large.as_ref().map_or(0, |payload| allocated(payload.len()))
    }

    /// What it takes in a segment.
    pub(super) const fn len(&self) -> usize {
        let payload = if self.large.is_some() { NUMBER } else { self.payload_bytes() };
        let expiry = if self.expires() { EXPIRY } else { 0 };
        (HEAD + expiry + payload).next_multiple_of(ALIGN)
    }

    const fn expires(&self) -> bool {
        self.expiry.get() != Expiry::NEVER.get()
    }

    /// Writes all [`NewRecord::len`] bytes of `out`; `number` is where the allocation of a large one is.
    pub(super) fn write(&self, number: u32, visits: u8, born: Second, out: &mut [u8]) {
        let flags = self.kind as u8
            | if self.expires() { EXPIRES } else { 0 }
            | if self.large.is_some() { LARGE } else { 0 }
            | visits.min(VISITS_MAX) << VISITS_SHIFT;
        let mut rest = out;
        put(&mut rest, &[flags, 0]);
        put(&mut rest, &born.to_bits().to_le_bytes());
        put(&mut rest, &len16(self.key.len()));
        put(&mut rest, &len16(if self.large.is_some() { 0 } else { self.value.len() }));
        put(&mut rest, &self.version.get().to_le_bytes());
        put(&mut rest, &self.hash.get().to_le_bytes());
        if self.expires() {
            put(&mut rest, &self.expiry.get().to_le_bytes());
        }
        if self.large.is_some() {
            put(&mut rest, &number.to_le_bytes());
        } else {
            put(&mut rest, self.key);
            put(&mut rest, self.value);
        }
        rest.fill(0);
    }
}

/// Writes bytes to where `rest` begins, which then begins behind them.
fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    let (here, behind) = std::mem::take(rest).split_at_mut(bytes.len());
    here.copy_from_slice(bytes);
    *rest = behind;
}

/// A length that is known to fit: keys have at most 64 KiB less one, and what lies in a segment is less than that.
fn len16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes()
}

/// A record as it lies in a segment, from its first byte on.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    head: &'a [u8; HEAD],
    rest: &'a [u8],
}

impl<'a> Stored<'a> {
    /// The record at the start of `bytes`, which go on to the end of what is written in its segment.
    pub(super) fn at_start_of(bytes: &'a [u8]) -> Self {
        let (head, rest) = bytes.split_first_chunk().unwrap_or((&[0; HEAD], &[]));
        Self { head, rest }
    }

    const fn flags(self) -> u8 {
        self.head[0]
    }

    pub(super) const fn kind(self) -> Kind {
        Kind::of(self.flags())
    }

    pub(super) const fn is_live(self) -> bool {
        matches!(self.kind(), Kind::Live)
    }

    pub(super) const fn visits(self) -> u8 {
        self.flags() >> VISITS_SHIFT
    }

    /// When it became a tombstone or a stub here; meaningless for a live one.
    pub(super) const fn born(self) -> Second {
        Second::from_bits(u16::from_le_bytes([self.head[2], self.head[3]]))
    }

    pub(super) fn version(self) -> Version {
        Version::new(u128::from_le_bytes(self.field::<16>(8)))
    }

    pub(super) fn hash(self) -> KeyHash {
        KeyHash::new(u64::from_le_bytes(self.field::<8>(24)))
    }

    fn field<const N: usize>(self, at: usize) -> [u8; N] {
        self.head[at..].first_chunk().copied().unwrap_or([0; N])
    }

    const fn expires(self) -> bool {
        self.flags() & EXPIRES != 0
    }

    pub(super) fn expiry(self) -> Expiry {
        match self.rest.first_chunk().filter(|_| self.expires()) {
            Some(expiry) => Expiry::new(u64::from_le_bytes(*expiry)),
            None => Expiry::NEVER,
        }
    }

    /// The number of the allocation that has key and value, if they are large.
    pub(super) fn large(self) -> Option<u32> {
        let number = self.payload().first_chunk().filter(|_| self.flags() & LARGE != 0);
        number.map(|number| u32::from_le_bytes(*number))
    }

    pub(super) const fn key_len(self) -> usize {
        u16::from_le_bytes([self.head[4], self.head[5]]) as usize
    }

    const fn value_len(self) -> usize {
        u16::from_le_bytes([self.head[6], self.head[7]]) as usize
    }

    /// What comes after head and expiry.
    fn payload(self) -> &'a [u8] {
        self.rest.get(if self.expires() { EXPIRY } else { 0 }..).unwrap_or_default()
    }

    /// Key and value, unless they are large.
    pub(super) fn inline(self) -> &'a [u8] {
        &self.payload()[..self.key_len() + self.value_len()]
    }

    /// What it takes in its segment.
    pub(super) const fn len(self) -> usize {
        let payload = if self.flags() & LARGE != 0 { NUMBER } else { self.key_len() + self.value_len() };
        (HEAD + if self.expires() { EXPIRY } else { 0 } + payload).next_multiple_of(ALIGN)
    }

    /// When what it stood for ended, on the wall clock and so the same for all owners: with its deletion or its expiry.
    /// Nothing as long as it can be read.
    pub(super) fn ended(self, now: UnixMillis) -> Option<UnixMillis> {
        match self.kind() {
            Kind::Tombstone => Some(self.version().unix_millis()),
            Kind::Live if !self.expiry().is_past(now) => None,
            Kind::Live | Kind::Stub | Kind::Hole => Some(UnixMillis::new(self.expiry().get())),
        }
    }
}

/// Sets what may change of a record that stays where it is.
pub(super) fn set_visits(record: &mut [u8], visits: u8) {
    if let Some(flags) = record.first_mut() {
        *flags = *flags & !(VISITS_MAX << VISITS_SHIFT) | visits.min(VISITS_MAX) << VISITS_SHIFT;
    }
}

/// See [`set_visits`].
pub(super) fn set_born(record: &mut [u8], born: Second) {
    record[2..4].copy_from_slice(&born.to_bits().to_le_bytes());
}

/// See [`set_visits`].
pub(super) fn make_hole(record: &mut [u8]) {
    if let Some(flags) = record.first_mut() {
        *flags |= KIND;
    }
}

/// Key and value in one new allocation.
fn join(key: &[u8], value: &[u8]) -> Arc<[u8]> {
    // Zeroing first costs less than a second allocation and copy, and needs no unsafe code.
    let mut payload: Arc<[u8]> = std::iter::repeat_n(0, key.len() + value.len()).collect();
    // Nobody else has it yet, so nothing is cloned here.
    let bytes = Arc::make_mut(&mut payload);
    bytes[..key.len()].copy_from_slice(key);
    bytes[key.len()..].copy_from_slice(value);
    payload
}

/// The value in a large payload, without copying it.
pub(super) fn shared_value(payload: &Arc<[u8]>, key_len: usize) -> Bytes {
    Bytes::from_owner(SharedValue { payload: Arc::clone(payload), start: key_len })
}

/// The value's part of a payload.
struct SharedValue {
    payload: Arc<[u8]>,
    start: usize,
}

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        &self.payload[self.start..]
    }
}
