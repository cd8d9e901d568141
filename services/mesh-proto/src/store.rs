//! The bounded, versioned, in-memory store. Up to 64 shards, each one lock over entries, tombstones, eviction order, bytes and
//! digests, so that compare-and-store is one critical section. A slot lies in one shard and has a table of its own, so
//! that listing a slot for repair looks at nothing else.

mod ghost;
mod limits;
mod memory;
mod record;
mod second;
mod segments;
mod shard;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use self::{
    limits::{Share, shard_count},
    record::{Kind, NewRecord},
    second::Second,
    shard::Shard,
};
use crate::{Body, Expiry, KeyHash, Monotonic, Mutant, Record, SLOTS, Slot, UnixMillis, Version};

/// How many entries a sweep looks at before it lets go of a shard's lock for a moment.
const SWEEP_STEP: usize = 256;

/// How many segments of a shard are compacted at a time, when there is no need for room.
const TIDY_STEPS: usize = 8;

/// The store's bounds. Each is divided over the shards, and every shard keeps within its share, so the sum is never
/// above the bound; since keys spread unevenly, eviction begins a little before it is reached. Tiny bounds are divided
/// over fewer shards: 1000 entries over four.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Bytes of keys, values and book-keeping together; beyond it entries are evicted.
    pub bytes_max: u64,
    /// Number of live entries; beyond it entries are evicted.
    pub entries_max: u64,
    /// Number of tombstones and expired-entry stubs together; beyond it the oldest go.
    pub tombstones_max: u64,
    /// How long a tombstone or stub is kept at least after it came, whatever has been agreed on: see [`crate::Agreement`].
    pub tombstone_age_min: Duration,
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A live value.
    Value {
        /// Which write.
        version: Version,
        /// When it expires.
        expiry: Expiry,
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
    /// A repair: a key that is not held is taken only if there is room, so that repair never evicts what is in use. A newer
    /// version of what is held is taken as a write would be: otherwise a full store would stay stale for ever.
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
    /// The key is not held, and deletions up to a newer version were collected in its slot; nothing was changed.
    Collected {
        /// The newest version that was collected.
        newer: Version,
    },
    /// A repair found no room, or offered a tombstone that was collected here; nothing was changed.
    Skipped,
    /// The record alone is larger than a shard's share of `bytes_max`; nothing was changed.
    TooLarge,
}

/// An order-independent digest of the `(key, version)` pairs in one slot; zero when it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest with one more pair: a wrapping sum of the pairs' xxh3 hashes, a frozen specification.
    #[must_use]
    pub fn with(self, hash: KeyHash, version: Version) -> Self {
        Self(self.0.wrapping_add(pair_hash(hash, version)))
    }

    /// The digest with one pair less, which must be in it.
    #[must_use]
    pub fn without(self, hash: KeyHash, version: Version) -> Self {
        Self(self.0.wrapping_sub(pair_hash(hash, version)))
    }
}

/// Counters and sizes over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Look-ups that found a live value.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Live entries dropped to make room.
    pub evictions: u64,
    /// How much older than the newest write these were, all together, in milliseconds.
    pub evicted_age_ms: u64,
    /// Entries that reached their expiry.
    pub expirations: u64,
    /// Live entries now.
    pub entries: u64,
    /// Bytes of memory that it takes now, whatever for.
    pub bytes: u64,
    /// Bytes of the keys and values that it holds.
    pub payload_bytes: u64,
    /// Tombstones and expired-entry stubs now.
    pub tombstones: u64,
    /// Bytes of these.
    pub tombstone_bytes: u64,
    /// Tombstones and stubs dropped because there were too many.
    pub tombstones_dropped: u64,
    /// Tombstones and stubs dropped because nobody needed them any more.
    pub tombstones_collected: u64,
    /// The bound on bytes.
    pub bytes_max: u64,
    /// The bound on entries.
    pub entries_max: u64,
    /// Number of shards.
    pub shards: u64,
}

/// The store. Shared by all threads; each call takes one shard's lock for well under a microsecond.
pub struct Store {
    shards: Box<[Padded]>,
    config: StoreConfig,
    /// A record of more bytes than this is copied before its shard's lock is taken.
    inline_max: usize,
    /// Whole seconds of the process's own time.
    second: AtomicU64,
    /// The shard where the next sweep goes on. A lock of its own, so that there is one sweep at a time.
    sweep_shard: Mutex<usize>,
}

/// A shard on cache lines of its own: two, because processors fetch lines in pairs.
#[repr(align(128))]
struct Padded(Mutex<Shard>);

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(config: &StoreConfig) -> Self {
        let count = shard_count(config);
        let shard = |index| Shard::new(Share::new(config, index, count), count.trailing_zeros());
        let shards = (0..count).map(|index| Padded(Mutex::new(shard(index)))).collect();
        Self {
            shards,
            config: config.clone(),
            // The last share is the least.
            inline_max: Share::new(config, count - 1, count).inline_max(),
            second: AtomicU64::new(0),
            sweep_shard: Mutex::new(0),
        }
    }

    /// Looks up a key and counts a hit or a miss. An expired value is turned into a stub on the way.
    pub fn get(&self, hash: KeyHash, key: &[u8], now: UnixMillis) -> Found {
        self.change(Slot::of(hash), |shard| shard.get(hash, key, now))
    }

    /// As [`Store::get`] but counts nothing and moves nothing: for repair and for checks.
    pub fn peek(&self, hash: KeyHash, key: &[u8], now: UnixMillis) -> Found {
        self.shard(Slot::of(hash)).lock().peek(hash, key, now)
    }

    /// Compare-and-store: the record is taken only if its version is higher than what is there. What is kept is copied,
    /// so the record's own bytes are free to go. A value that has expired is taken as its stub. For a key that is not held, what is
    /// no newer than the newest tombstone collected in its slot is refused.
    pub fn apply(&self, record: &Record, origin: ApplyOrigin, now: UnixMillis) -> Applied {
        // What is large is copied before the lock is taken, and in vain only for the few records that turn out to be stale.
        let new = NewRecord::new(record, kind_of(record, now), self.inline_max);
        let forgotten = new.kind == Kind::Tombstone && Mutant::NoTombstone.is_planted();
        self.change(Slot::of(record.hash), |shard| match forgotten {
            true => shard.apply_forgotten(&new),
            false => shard.apply(&new, origin),
        })
    }

    /// The slot's digest: kept on every write, never computed by a scan. It depends on key hashes and versions only.
    #[must_use]
    pub fn digest(&self, slot: Slot) -> Digest {
        self.shard(slot).lock().digest(slot)
    }

    /// All slots' digests, in order.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        let mut digests = vec![Digest::default(); SLOTS];
        for (index, shard) in self.shards.iter().enumerate() {
            let of_shard = digests.iter_mut().skip(index).step_by(self.shards.len());
            of_shard.zip(shard.0.lock().digests()).for_each(|(digest, of_slot)| *digest = of_slot);
        }
        digests
    }

    /// Key hash and version of everything in the slot, in no order: entries, tombstones and stubs.
    #[must_use]
    pub fn versions(&self, slot: Slot) -> Vec<(KeyHash, Version)> {
        self.shard(slot).lock().versions(slot)
    }

    /// Records of the slot in the order of their hash, after `after`, until about `bytes_max` bytes; and where to go on,
    /// or nothing at the end.
    ///
    /// A page holds at least one record if there is one, and keys that share a hash are on one page.
    #[must_use]
    pub fn page(&self, slot: Slot, after: Option<KeyHash>, bytes_max: usize) -> (Vec<Record>, Option<KeyHash>) {
        self.shard(slot).lock().page(slot, after, bytes_max)
    }

    /// Records of the slot with these key hashes, which rise, until about `bytes_max` bytes; and the last hash that was looked
    /// at if there are more. Hashes that are not there are passed over.
    #[must_use]
    pub fn page_of(&self, slot: Slot, hashes: &[KeyHash], bytes_max: usize) -> (Vec<Record>, Option<KeyHash>) {
        self.shard(slot).lock().page_of(slot, hashes, bytes_max)
    }

    /// What time it is by the process's own clock. To be told several times a second: what becomes a tombstone until the next
    /// time is taken to have done so now.
    pub fn handle_time(&self, now: Monotonic) {
        // Relaxed: an entry that is taken to be a moment older than it is is allowed for by the collector.
        self.second.store(now.since_start().as_secs(), Ordering::Relaxed);
    }

    /// Drops the tombstones and stubs of a slot that stand for what ended by `ended_until`, if all of them were here
    /// before `born_before`; none otherwise, because other owners have to recognise what is missing. Returns how many.
    pub fn collect(&self, slot: Slot, now: UnixMillis, ended_until: UnixMillis, born_before: Monotonic) -> usize {
        self.change(slot, |shard| shard.collect(slot, now, ended_until, Second::of(born_before)))
    }

    /// Whether a digest that differs from the slot's is that of the same content but for tombstones and stubs that only one side
    /// has collected so far. Takes a look at all of the slot.
    #[must_use]
    pub fn is_same_but_for_collected(&self, slot: Slot, theirs: Digest, now: UnixMillis) -> bool {
        self.shard(slot).lock().is_same_but_for_collected(slot, theirs, now)
    }

    /// Forgets what was collected, as the next who offers it may not know: from now on it is taken like anything else.
    pub fn forget_collected(&self) {
        for shard in &self.shards {
            shard.0.lock().forget_collected();
        }
    }

    /// Turns expired values into stubs, looking at up to `budget` entries; goes on next time where it stopped. Returns how
    /// many it changed.
    pub fn sweep(&self, now: UnixMillis, budget: usize) -> usize {
        let mut index = self.sweep_shard.lock();
        let (mut left, mut changed, mut ends) = (budget, 0, 0);
        // The shard it starts in may be half done, so its end comes twice in a full round.
        while left > 0 && ends <= self.shards.len() {
            let step = left.min(SWEEP_STEP);
            let swept = self.changed_in(&self.shards[*index].0, |shard| shard.sweep(now, step));
            left -= swept.looked;
            changed += swept.changed;
            if swept.at_end {
                ends += 1;
                *index = (*index + 1) % self.shards.len();
            }
        }
        changed
    }

    /// Forgets what is in a slot that is others' business now; how many entries that was.
    pub fn drop_slot(&self, slot: Slot) -> usize {
        self.change(slot, |shard| shard.drop_slot(slot))
    }

    /// Gives back memory that holds nothing: most of what expired, was deleted or overwritten leaves some of it. To be called a few
    /// times a second.
    pub fn tidy(&self) {
        for shard in &self.shards {
            // One segment at a time under a lock.
            for _ in 0..TIDY_STEPS {
                if !self.changed_in(&shard.0, Shard::tidy) {
                    break;
                }
            }
        }
    }

    /// Forgets everything but the counters, which only ever rise.
    pub fn clear(&self) {
        for shard in &self.shards {
            let held = shard.0.lock().clear();
            drop(held);
        }
    }

    /// Sums over the shards.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats {
            bytes_max: self.config.bytes_max,
            entries_max: self.config.entries_max,
            shards: self.shards.len() as u64,
            ..StoreStats::default()
        };
        for shard in &self.shards {
            let shard = shard.0.lock();
            let counters = shard.counters();
            stats.hits += counters.hits;
            stats.misses += counters.misses;
            stats.evictions += counters.evictions;
            stats.evicted_age_ms += counters.evicted_age_ms;
            stats.expirations += counters.expirations;
            stats.tombstones_dropped += counters.tombstones_dropped;
            stats.tombstones_collected += counters.tombstones_collected;
            stats.entries += shard.live_len();
            stats.bytes += shard.bytes();
            stats.payload_bytes += shard.payload_bytes();
            stats.tombstones += shard.dead_len();
            stats.tombstone_bytes += shard.dead_bytes();
        }
        stats
    }

    fn change<T>(&self, slot: Slot, change: impl FnOnce(&mut Shard) -> T) -> T {
        self.changed_in(self.shard(slot), change)
    }

    /// Changes a shard, and frees what that leaves behind after its lock is gone.
    fn changed_in<T>(&self, shard: &Mutex<Shard>, change: impl FnOnce(&mut Shard) -> T) -> T {
        // Relaxed: see `handle_time`.
        let second = Second::of(Monotonic::new(Duration::from_secs(self.second.load(Ordering::Relaxed))));
        let mut shard = shard.lock();
        shard.set_time(second);
        let result = change(&mut shard);
        let freed = shard.take_freed();
        drop(shard);
        drop(freed);
        result
    }

    /// The number of shards is a power of two, so the slot's low bits choose one.
    fn shard(&self, slot: Slot) -> &Mutex<Shard> {
        &self.shards[slot.index() & (self.shards.len() - 1)].0
    }
}

impl fmt::Debug for Store {
    /// Sizes and counters: the content may be gigabytes, and other people's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.stats()).finish()
    }
}

/// What a record is to this store at `now`.
fn kind_of(record: &Record, now: UnixMillis) -> Kind {
    match &record.body {
        Body::Tombstone => Kind::Tombstone,
        Body::Expired => Kind::Stub,
        Body::Value(_) if record.expiry.is_past(now) => Kind::Stub,
        Body::Value(_) => Kind::Live,
    }
}

fn pair_hash(hash: KeyHash, version: Version) -> u64 {
    let mut pair = [0; 24];
    pair[..8].copy_from_slice(&hash.get().to_le_bytes());
    pair[8..].copy_from_slice(&version.get().to_le_bytes());
    xxh3_64(&pair)
}

#[cfg(test)]
mod tests;
