//! The bounded, versioned, in-memory store: 64 shards, compare-and-store in one critical section.
use crate::{KeyHash, Record, Slot, UnixMillis, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The store's bounds.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Bytes of keys, values and book-keeping together; beyond it entries are evicted.
    pub bytes_max: u64,
    /// Number of live entries; beyond it entries are evicted.
    pub entries_max: u64,
    /// Number of tombstones and expired-entry stubs together; beyond it the oldest go.
    pub tombstones_max: u64,
    /// How long a tombstone or stub is kept after its version or expiry, measured on the wall clock, so that all owners
    /// drop it alike. A record past it is not let in again.
    pub tombstone_horizon: Duration,
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A live value.
    Value {
        /// Which write.
        version: Version,
        /// When it expires.
        expiry: crate::Expiry,
        /// The value's bytes.
        value: Bytes,
    },
    /// It was deleted or has expired.
    Gone {
        /// The version of the deletion, or of the value that expired.
        version: Version,
    },
    /// Never heard of it, or evicted.
    Absent,
}

/// Why a record is offered to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyOrigin {
    /// A client's write: makes room by evicting.
    Write,
    /// A repair: taken only if there is room, so that repair never evicts what is in use.
    Repair,
}

/// What became of an offered record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Stored, or this very version was there already.
    Stored,
    /// A newer version is there; nothing was changed.
    Stale {
        /// That version.
        newer: Version,
    },
    /// A repair found no room, or the record is past the tombstone horizon; nothing was changed.
    Skipped,
    /// The record alone is larger than a shard's share of `bytes_max`; nothing was changed.
    TooLarge,
}

/// An order-independent digest of the `(key, version)` pairs in one slot; zero when it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub u64);

/// Counters and sizes over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Look-ups that found a live value.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Live entries dropped to make room.
    pub evictions: u64,
    /// Entries that reached their expiry.
    pub expirations: u64,
    /// Live entries now.
    pub entries: u64,
    /// Bytes accounted now, book-keeping included.
    pub bytes: u64,
    /// Tombstones and expired-entry stubs now.
    pub tombstones: u64,
    /// Tombstones and stubs dropped because there were too many.
    pub tombstones_dropped: u64,
    /// The bound on bytes.
    pub bytes_max: u64,
    /// The bound on entries.
    pub entries_max: u64,
    /// Number of shards.
    pub shards: u64,
}

/// The store. Shared by all threads; each call takes one shard's lock for well under a microsecond.
#[derive(Debug)]
pub struct Store {
    _todo: (),
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(_config: &StoreConfig) -> Self {
        todo!()
    }
    /// Looks up a key and counts a hit or a miss. An expired value is turned into a stub on the way.
    pub fn get(&self, _hash: KeyHash, _key: &[u8], _now: UnixMillis) -> Found {
        todo!()
    }
    /// As [`Store::get`] but counts nothing and moves nothing: for repair and for checks.
    pub fn peek(&self, _hash: KeyHash, _key: &[u8], _now: UnixMillis) -> Found {
        todo!()
    }
    /// Compare-and-store: the record is taken only if its version is higher than what is there.
    pub fn apply(&self, _record: &Record, _origin: ApplyOrigin, _now: UnixMillis) -> Applied {
        todo!()
    }
    /// The slot's digest: kept on every write, never computed by a scan. It depends on key hashes and versions only.
    #[must_use]
    pub fn digest(&self, _slot: Slot) -> Digest {
        todo!()
    }
    /// Key hash and version of everything in the slot: entries, tombstones and stubs.
    #[must_use]
    pub fn versions(&self, _slot: Slot) -> Vec<(KeyHash, Version)> {
        todo!()
    }
    /// Records of the slot in the order of their hash, after `after`, until about `bytes_max` bytes; and where to go on,
    /// or nothing at the end. A stub is given as the expired value's version and expiry with an empty value.
    #[must_use]
    pub fn page(&self, _slot: Slot, _after: Option<KeyHash>, _bytes_max: usize) -> (Vec<Record>, Option<KeyHash>) {
        todo!()
    }
    /// Turns expired values into stubs and drops tombstones and stubs past the horizon, looking at up to `budget` entries;
    /// goes on next time where it stopped. Returns how many it changed.
    pub fn sweep(&self, _now: UnixMillis, _budget: usize) -> usize {
        todo!()
    }
    /// Forgets everything.
    pub fn clear(&self) {
        todo!()
    }
    /// Sums over the shards.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        todo!()
    }
}
