//! Where a shard's entries lie: densely, in small chunks. Growing never copies, shrinking gives chunks back, and there is
//! no slack for a doubling, so what the store accounts for is what it takes.

use std::{
    ops::{Index, IndexMut},
    sync::Arc,
};

use bytes::Bytes;

use super::second::Second;
use crate::{Body, Expiry, KeyHash, Record, UnixMillis, Version};

/// No entry.
pub(super) const NIL: u32 = u32::MAX;

/// Entries per chunk: one memory page.
const CHUNK: usize = 64;

/// Up to this many bytes a value is copied out, which is cheaper than sharing it and does not keep an evicted one alive.
const VALUE_COPY_MAX: usize = 1024;

/// Up to this many bytes a payload is put together on the stack.
const PAYLOAD_ON_STACK_MAX: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A value, maybe expired but not noticed yet.
    Live,
    /// A deletion.
    Tombstone,
    /// A value that has expired, without the value.
    Stub,
}

/// An entry's neighbours in the list it is on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// Towards the newest.
    pub(super) prev: u32,
    /// Towards the oldest.
    pub(super) next: u32,
}

/// One key's state.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) version: Version,
    /// Key and value in one allocation, the key first.
    payload: Arc<[u8]>,
    pub(super) hash: KeyHash,
    pub(super) expiry: Expiry,
    key_len: u32,
    pub(super) links: Links,
    pub(super) kind: Kind,
    /// Whether it was read or overwritten since the eviction hand last passed.
    pub(super) visited: bool,
    /// When it became a tombstone or a stub here; meaningless for a live entry.
    pub(super) born: Second,
}

const _: () = assert!(size_of::<Entry>() == 64, "an entry fills exactly one cache line");

impl Entry {
    /// Copies what is to be kept out of a record, whose own bytes are views of a network buffer.
    pub(super) fn new(record: &Record, kind: Kind) -> Self {
        let (value, expiry) = match (&record.body, kind) {
            (Body::Value(value), Kind::Live) => (value.as_ref(), record.expiry),
            (Body::Value(_) | Body::Expired, _) => (&[][..], record.expiry),
            (Body::Tombstone, _) => (&[][..], Expiry::NEVER),
        };
        Self {
            version: record.version,
            payload: join(&record.key, value),
            hash: record.hash,
            expiry,
            key_len: u32::try_from(record.key.len()).unwrap_or(u32::MAX),
            links: Links { prev: NIL, next: NIL },
            kind,
            visited: false,
            born: Second::default(),
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.payload[..self.key_len as usize]
    }

    /// Key and value together.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.kind, Kind::Live)
    }

    /// When what it stood for ended, on the wall clock and so the same for all owners: with its deletion or its expiry.
    /// Nothing as long as it can be read.
    pub(super) fn ended(&self, now: UnixMillis) -> Option<UnixMillis> {
        match self.kind {
            Kind::Tombstone => Some(self.version.unix_millis()),
            Kind::Live if !self.expiry.is_past(now) => None,
            Kind::Live | Kind::Stub => Some(UnixMillis::new(self.expiry.get())),
        }
    }

    /// The value, without copying a large one.
    pub(super) fn value(&self) -> Bytes {
        let value = &self.payload[self.key_len as usize..];
        if value.len() <= VALUE_COPY_MAX {
            Bytes::copy_from_slice(value)
        } else {
            Bytes::from_owner(SharedValue { payload: Arc::clone(&self.payload), start: self.key_len as usize })
        }
    }

    /// Makes a stub of an expired entry. The payload it had is given back for whoever frees it.
    pub(super) fn strip(&mut self) -> Payload {
        let key = Arc::from(self.key());
        self.kind = Kind::Stub;
        Payload(std::mem::replace(&mut self.payload, key))
    }

    pub(super) fn into_payload(self) -> Payload {
        Payload(self.payload)
    }

    /// The record that makes another store equal to this one.
    pub(super) fn record(&self) -> Record {
        let body = match self.kind {
            Kind::Live => Body::Value(self.value()),
            Kind::Tombstone => Body::Tombstone,
            Kind::Stub => Body::Expired,
        };
        let key = Bytes::copy_from_slice(self.key());
        Record { hash: self.hash, key, version: self.version, expiry: self.expiry, body }
    }
}

/// What an entry that is gone has left to be freed.
#[derive(Debug)]
pub(super) struct Payload(Arc<[u8]>);

impl Payload {
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Key and value in one new allocation.
fn join(key: &[u8], value: &[u8]) -> Arc<[u8]> {
    let len = key.len() + value.len();
    if len <= PAYLOAD_ON_STACK_MAX {
        let mut payload = [0; PAYLOAD_ON_STACK_MAX];
        payload[..key.len()].copy_from_slice(key);
        payload[key.len()..len].copy_from_slice(value);
        return Arc::from(&payload[..len]);
    }
    // Zeroing first costs less than a second allocation and copy, and needs no unsafe code.
    let mut payload: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
    // Nobody else has it yet, so nothing is cloned here.
    let bytes = Arc::make_mut(&mut payload);
    bytes[..key.len()].copy_from_slice(key);
    bytes[key.len()..].copy_from_slice(value);
    payload
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

/// Entries, numbered from 0 without gaps.
#[derive(Debug, Default)]
pub(super) struct Slab {
    /// All full but the last one that holds anything, and at most one empty one behind it.
    chunks: Vec<Vec<Entry>>,
    len: usize,
}

impl Slab {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Appends an entry and returns its number.
    #[expect(clippy::cast_possible_truncation, reason = "a share's counts are capped below 32 bits")]
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        let at = self.len;
        if at / CHUNK == self.chunks.len() {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[at / CHUNK].push(entry);
        self.len += 1;
        at as u32
    }

    /// Takes an entry out. If it was not the last one, the last one gets its number.
    pub(super) fn swap_remove(&mut self, at: u32) -> Option<Entry> {
        let last = self.len.checked_sub(1)?;
        let tail = self.chunks.get_mut(last / CHUNK)?.pop()?;
        self.len = last;
        // One empty chunk stays, lest a store at a chunk's edge allocates on every write.
        self.chunks.truncate(last / CHUNK + 2);
        if at as usize == last { Some(tail) } else { Some(std::mem::replace(&mut self[at], tail)) }
    }
}

impl Index<u32> for Slab {
    type Output = Entry;

    fn index(&self, at: u32) -> &Entry {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }
}

impl IndexMut<u32> for Slab {
    fn index_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// An entry that is told from others by its version.
    pub(in crate::store) fn entry(number: u64, value: &[u8]) -> Entry {
        let key = Bytes::from(number.to_string());
        let record = Record {
            hash: KeyHash::of(&key),
            key,
            version: Version::new(u128::from(number)),
            expiry: Expiry::NEVER,
            body: Body::Value(Bytes::copy_from_slice(value)),
        };
        Entry::new(&record, Kind::Live)
    }

    #[test]
    fn payloads_are_joined_alike_on_the_stack_and_on_the_heap() {
        for value_len in [0, 1, 510, 511, 512, 513, 1023, 1024, 1025, 100_000] {
            let value: Vec<u8> = (0..value_len).map(|i| (i % 251) as u8).collect();
            let entry = entry(7, &value);
            assert_eq!(entry.key(), b"7");
            assert_eq!(entry.value(), value);
            assert_eq!(entry.payload_bytes(), 1 + value_len);
        }
    }

    #[test]
    fn only_values_over_the_copy_limit_share_the_allocation() {
        for (value_len, owners) in [(VALUE_COPY_MAX, 1), (VALUE_COPY_MAX + 1, 2)] {
            let entry = entry(7, &vec![9; value_len]);
            let value = entry.value();
            assert_eq!(Arc::strong_count(&entry.payload), owners);
            drop(entry);
            assert_eq!(value, vec![9; value_len], "a value outlives its entry");
        }
    }

    #[test]
    fn a_stripped_entry_keeps_its_key_only() {
        let mut entry = entry(42, &[1; 100]);
        entry.strip();
        assert_eq!((entry.key(), entry.payload_bytes(), entry.kind), (&b"42"[..], 2, Kind::Stub));
    }

    #[test]
    fn removal_fills_the_gap_with_the_last_one_and_gives_memory_back() {
        let mut slab = Slab::default();
        for number in 0..1000 {
            assert_eq!(u64::from(slab.push(entry(number, b""))), number);
        }
        assert_eq!(slab.swap_remove(10).unwrap().version.get(), 10);
        assert_eq!(slab[10].version.get(), 999);
        assert_eq!(slab.swap_remove(998).unwrap().version.get(), 998, "the last one itself");
        assert_eq!(slab.len(), 998);
        while slab.len() > 0 {
            let first = slab[0].version;
            assert_eq!(slab.swap_remove(0).unwrap().version, first);
            assert!(slab.chunks.len() <= slab.len() / CHUNK + 2);
        }
        assert!(slab.swap_remove(0).is_none());
    }
}
