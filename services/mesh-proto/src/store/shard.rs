//! One shard: everything that must change together when a key changes. Its methods run under the shard's lock, so
//! compare, store, digest, account and evict are one step to everybody else.

mod collection;
mod eviction;
mod pages;

use std::sync::Arc;

use hashbrown::HashTable;

use self::collection::Collected;
use super::{
    Applied, ApplyOrigin, Digest, Found,
    ghost::Ghost,
    limits::Share,
    record::{Kind, NewRecord, VISITS_MAX},
    second::Second,
    segments::{At, QueueName, Segments, SweepPosition},
};
use crate::{Body, DRIFT_MAX, KeyHash, Mutant, Record, Slot, UnixMillis};

/// Tables up to this many buckets are left as they are when they empty.
const TABLE_KEPT_MAX: usize = 32;

/// What the first entry of a slot's table makes it take.
const TABLE_BYTES_MIN: u64 = 64;

/// How long before its expiry a stub may come from others, whose clocks are ahead by no more than they may be.
const EARLY_MAX_MS: u64 = 2 * DRIFT_MAX.as_millis() as u64;

/// The keys of one slot: all that reading or replacing one needs, on one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct SlotIndex {
    entries: HashTable<At>,
    digest: Digest,
    /// Tombstones and stubs among them.
    dead: u32,
}

/// What a shard has counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
    pub(super) evicted_age_ms: u64,
    pub(super) expirations: u64,
    pub(super) tombstones_dropped: u64,
    pub(super) tombstones_collected: u64,
}

/// One shard of the store.
#[derive(Debug)]
pub(super) struct Shard {
    share: Share,
    /// A slot's number above this many bits says which of the shard's slots it is; the bits below say which shard.
    shard_bits: u32,
    slots: Box<[SlotIndex]>,
    /// What was collected in each slot.
    collected: Box<[Collected]>,
    segments: Segments,
    ghost: Ghost,
    /// What the slots' tables take.
    index_bytes: u64,
    /// Values spared since one was evicted.
    spared: u32,
    counters: Counters,
    /// When the newest write was made that it has been asked to take.
    newest: UnixMillis,
    /// Now.
    second: Second,
    /// The sweep goes on here.
    sweep_at: SweepPosition,
}

impl Shard {
    pub(super) fn new(share: Share, shard_bits: u32) -> Self {
        let slots = crate::SLOTS >> shard_bits;
        Self {
            share,
            shard_bits,
            slots: (0..slots).map(|_| SlotIndex::default()).collect(),
            collected: (0..slots).map(|_| Collected::default()).collect(),
            segments: Segments::new(share.segment_bytes()),
            ghost: Ghost::default(),
            index_bytes: 0,
            spared: 0,
            counters: Counters::default(),
            newest: UnixMillis::default(),
            second: Second::default(),
            sweep_at: SweepPosition::default(),
        }
    }

    pub(super) const fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) const fn live_len(&self) -> u64 {
        self.segments.len(QueueName::Small) + self.segments.len(QueueName::Main)
    }

    pub(super) const fn dead_len(&self) -> u64 {
        self.segments.len(QueueName::Dead)
    }

    /// Bytes of tombstones and stubs.
    pub(super) const fn dead_bytes(&self) -> u64 {
        self.segments.bytes(QueueName::Dead)
    }

    /// Bytes of memory that it takes.
    pub(super) const fn bytes(&self) -> u64 {
        self.segments.taken() + self.index_bytes + self.ghost.bytes()
    }

    /// Bytes of keys and values.
    pub(super) const fn payload_bytes(&self) -> u64 {
        self.segments.payload()
    }

    /// What time it is. To be told before every change.
    pub(super) const fn set_time(&mut self, second: Second) {
        self.second = second;
    }

    /// What the caller is to drop once the lock is gone. Asked for after every change.
    pub(super) fn take_freed(&mut self) -> Vec<Arc<[u8]>> {
        self.segments.take_freed()
    }

    /// Looks up and counts; an expired value becomes a stub.
    pub(super) fn get(&mut self, hash: KeyHash, key: &[u8], now: UnixMillis) -> Found {
        let Some(at) = self.find(hash, key) else {
            self.counters.misses += 1;
            return Found::Absent;
        };
        let found = self.found(at, now);
        let record = self.segments.at(at);
        if matches!(found, Found::Value { .. }) {
            self.counters.hits += 1;
            let visits = record.visits();
            if visits < VISITS_MAX {
                self.segments.handle_visit(at, visits + 1);
            }
        } else {
            self.counters.misses += 1;
            if record.is_live() {
                self.bury(at);
            }
        }
        found
    }

    /// Looks up and changes nothing.
    pub(super) fn peek(&self, hash: KeyHash, key: &[u8], now: UnixMillis) -> Found {
        self.find(hash, key).map_or(Found::Absent, |at| self.found(at, now))
    }

    fn found(&self, at: At, now: UnixMillis) -> Found {
        let record = self.segments.at(at);
        let (version, expiry) = (record.version(), record.expiry());
        if record.is_live() && !expiry.is_past(now) {
            Found::Value { version, expiry, value: self.segments.value(at) }
        } else {
            Found::Gone { version }
        }
    }

    /// Whether a record could be stored if the shard were empty.
    fn can_hold(&self, new: &NewRecord<'_>) -> bool {
        let bytes = new.large_bytes() + self.share.segment_bytes() as u64 + TABLE_BYTES_MIN;
        new.key.len() <= usize::from(u16::MAX)
            && bytes <= self.share.bytes_max
            && (self.share.entries_max > 0 || !new.is_live())
    }

    /// Compare-and-store.
    pub(super) fn apply(&mut self, new: &NewRecord<'_>, origin: ApplyOrigin) -> Applied {
        let held = self.find(new.hash, new.key);
        if let Some(at) = held {
            let newer = self.segments.at(at).version();
            let checked = origin == ApplyOrigin::Write || !Mutant::RepairUnchecked.is_planted();
            if newer >= new.version && checked {
                return if newer == new.version { Applied::Stored } else { Applied::Stale { newer } };
            }
        } else if let Some(applied) = self.refuse_collected(new, origin) {
            return applied;
        }
        if !self.can_hold(new) {
            return Applied::TooLarge;
        }
        let import_past = Mutant::ImportPastCapacity.is_planted();
        if origin == ApplyOrigin::Repair && held.is_none() && !self.has_room(new) && !import_past {
            return Applied::Skipped;
        }
        self.newest = self.newest.max(new.version.unix_millis());
        let (mut queue, mut visits) = (self.queue_for(new, origin), 0);
        if let Some(at) = held {
            let old = self.segments.at(at);
            if old.is_live() && new.is_live() {
                (queue, visits) = (self.segments.queue(at), old.visits() + 1);
                if self.segments.rewrite_growth(at, new).is_some_and(|growth| self.fits(growth)) {
                    self.replace(at, new, visits);
                    return Applied::Stored;
                }
            }
            self.remove(at);
        }
        if origin == ApplyOrigin::Write || !import_past {
            self.make_room(queue, new);
        }
        self.insert(queue, new, visits);
        Applied::Stored
    }

    /// Where a record goes that is not held. Repair is nobody's interest in a key that was evicted: what it brings goes where
    /// [`Self::has_room`] has looked for room.
    fn queue_for(&mut self, new: &NewRecord<'_>, origin: ApplyOrigin) -> QueueName {
        if !new.is_live() {
            QueueName::Dead
        } else if origin == ApplyOrigin::Write && self.ghost.take(new.hash, self.live_len()) {
            QueueName::Main
        } else {
            QueueName::Small
        }
    }

    /// Forgets a deletion and whatever it deletes: only a defect that tests plant does this.
    pub(super) fn apply_forgotten(&mut self, new: &NewRecord<'_>) -> Applied {
        match self.find(new.hash, new.key) {
            Some(at) if self.segments.at(at).version() < new.version => {
                self.remove(at);
                Applied::Stored
            }
            _ => Applied::Skipped,
        }
    }

    pub(super) fn digest(&self, slot: Slot) -> Digest {
        self.slots[slot.index() >> self.shard_bits].digest
    }

    /// Those of all its slots, in order.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.slots.iter().map(|slot| slot.digest)
    }

    /// Looks at up to `budget` records from where the last call stopped.
    pub(super) fn sweep(&mut self, now: UnixMillis, budget: usize) -> Swept {
        let mut swept = Swept::default();
        while swept.looked < budget {
            let Some(at) = self.segments.next_expiring(&mut self.sweep_at, now) else {
                self.sweep_at = SweepPosition::default();
                swept.at_end = true;
                break;
            };
            swept.looked += 1;
            let record = self.segments.at(at);
            if record.kind() == Kind::Stub && record.expiry().get() > now.get() + EARLY_MAX_MS {
                // It was made while the clock was ahead. Others have the value still.
                swept.changed += 1;
                self.remove(at);
            } else if !record.is_live() {
                let born = record.born();
                self.segments.set_born(at, born.kept(self.second));
            } else if record.expiry().is_past(now) {
                swept.changed += 1;
                self.bury(at);
            }
        }
        swept
    }

    /// Takes all entries of a slot out.
    pub(super) fn drop_slot(&mut self, slot: Slot) -> usize {
        let index = slot.index() >> self.shard_bits;
        let all: Vec<At> = self.slots[index].entries.iter().copied().collect();
        all.iter().for_each(|at| self.remove(*at));
        self.collected[index] = Collected::default();
        self.check();
        all.len()
    }

    /// Forgets every entry but not what was counted. What it held is given back for the caller to drop after the lock.
    pub(super) fn clear(&mut self) -> Self {
        let empty = Self { counters: self.counters, ..Self::new(self.share, self.shard_bits) };
        std::mem::replace(self, empty)
    }

    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<At> {
        let slot = &self.slots[self.slot_of(hash)];
        let is_it = |at: &At| self.segments.at(*at).hash() == hash && self.segments.is_key(*at, key);
        slot.entries.find(spread(hash), is_it).copied()
    }

    const fn slot_of(&self, hash: KeyHash) -> usize {
        Slot::of(hash).index() >> self.shard_bits
    }

    /// What one entry more makes a slot's table grow by.
    fn index_growth(&self, hash: KeyHash) -> u64 {
        let entries = &self.slots[self.slot_of(hash)].entries;
        if entries.len() < entries.capacity() { 0 } else { TABLE_BYTES_MIN.max(entries.allocation_size() as u64) }
    }

    /// Whether a record, which is not in the shard, fits without anything having to go.
    fn has_room(&self, new: &NewRecord<'_>) -> bool {
        let (held, held_max, queue) = match new.is_live() {
            true => (self.live_len(), self.share.entries_max, QueueName::Small),
            false => (self.dead_len(), self.share.tombstones_max, QueueName::Dead),
        };
        held < held_max && self.fits(self.growth(queue, new))
    }

    fn insert(&mut self, queue: QueueName, new: &NewRecord<'_>, visits: u8) {
        let at = self.segments.append(queue, new, visits, self.second);
        let slot = self.slot_of(new.hash);
        let slot = &mut self.slots[slot];
        if !is_left_out(new.kind) {
            slot.digest = slot.digest.with(new.hash, new.version);
        }
        slot.dead += u32::from(!new.is_live());
        self.index_bytes -= slot.entries.allocation_size() as u64;
        slot.entries.insert_unique(spread(new.hash), at, |at| spread(self.segments.at(*at).hash()));
        self.index_bytes += slot.entries.allocation_size() as u64;
        if !new.is_live() {
            self.cap_dead();
        }
        self.check();
    }

    /// Puts a newer live version of the same key in the place of the older one.
    fn replace(&mut self, at: At, new: &NewRecord<'_>, visits: u8) {
        let (slot, old) = (self.slot_of(new.hash), self.segments.at(at));
        let digest = &mut self.slots[slot].digest;
        *digest = digest.without(old.hash(), old.version()).with(new.hash, new.version);
        self.segments.rewrite(at, new, visits);
        self.check();
    }

    /// Takes an entry out.
    fn remove(&mut self, at: At) {
        let record = self.segments.at(at);
        let (hash, version, kind) = (record.hash(), record.version(), record.kind());
        let slot = self.slot_of(hash);
        let slot = &mut self.slots[slot];
        slot.dead -= u32::from(kind != Kind::Live);
        if !is_left_out(kind) {
            slot.digest = slot.digest.without(hash, version);
        }
        self.index_bytes -= slot.entries.allocation_size() as u64;
        if let Ok(found) = slot.entries.find_entry(spread(hash), |of_slot| *of_slot == at) {
            found.remove();
        }
        let (len, capacity) = (slot.entries.len(), slot.entries.capacity());
        if len == 0 {
            slot.entries = HashTable::new();
        } else if capacity > TABLE_KEPT_MAX && len < capacity / 8 {
            slot.entries.shrink_to(len * 2, |at| spread(self.segments.at(*at).hash()));
        }
        self.index_bytes += slot.entries.allocation_size() as u64;
        self.segments.remove(at);
        if self.segments.records() == 0 {
            self.trim();
        }
    }

    /// Makes a stub of an expired value.
    fn bury(&mut self, at: At) {
        self.counters.expirations += 1;
        let record = self.segments.at(at);
        let (hash, version, expiry) = (record.hash(), record.version(), record.expiry());
        let record = Record { hash, key: self.segments.key(at), version, expiry, body: Body::Expired };
        self.remove(at);
        let stub = NewRecord::new(&record, Kind::Stub, self.share.inline_max());
        self.make_room(QueueName::Dead, &stub);
        self.insert(QueueName::Dead, &stub, 0);
    }

    fn cap_dead(&mut self) {
        while self.dead_len() > self.share.tombstones_max && self.drop_oldest_dead() {}
    }

    fn drop_oldest_dead(&mut self) -> bool {
        let Some(at) = self.segments.first(QueueName::Dead) else { return false };
        self.counters.tombstones_dropped += 1;
        self.remove(at);
        true
    }

    /// What holds after every change, cheap enough to be checked always.
    fn check(&self) {
        assert!(self.bytes() <= self.share.bytes_max, "a shard is over its bytes");
        assert!(self.live_len() <= self.share.entries_max, "a shard is over its entries");
        assert!(self.dead_len() <= self.share.tombstones_max, "a shard is over its tombstones");
    }
}

/// What one step of a sweep did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Swept {
    pub(super) looked: usize,
    pub(super) changed: usize,
    /// Whether the next step starts over.
    pub(super) at_end: bool,
}

/// Whether digests know nothing of such an entry: of none, but for a defect that tests plant.
fn is_left_out(kind: Kind) -> bool {
    kind == Kind::Tombstone && Mutant::DigestsWithoutTombstones.is_planted()
}

/// The hash for a slot's table. Keys of one slot share the top twelve bits of their hash, and the table tells entries
/// apart by the top seven, so those are mixed with lower ones.
const fn spread(hash: KeyHash) -> u64 {
    hash.get() ^ (hash.get() << 12)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{Body, Expiry, Monotonic, Record, Version};

    #[test]
    fn tables_shrink_when_entries_go() {
        let many = 10_000;
        let share = Share { bytes_max: 1 << 30, entries_max: many, tombstones_max: many };
        let mut shard = Shard::new(share, 12);
        for n in 0..many {
            let key = Bytes::from(n.to_string());
            // All in slot 0, but with hashes of their own below.
            let hash = KeyHash::new(KeyHash::of(&key).get() >> 12);
            let version = Version::new(u128::from(n));
            let expiry = Expiry::new(if n < 10 { 0 } else { 1 });
            let record = Record { hash, key, version, expiry, body: Body::Value(Bytes::new()) };
            assert_eq!(shard.apply(&NewRecord::new(&record, Kind::Live, 1000), ApplyOrigin::Write), Applied::Stored);
        }
        assert!(shard.slots[0].entries.capacity() >= 10_000);
        let now = UnixMillis::new(10);
        let swept = shard.sweep(now, usize::MAX);
        assert_eq!((swept.changed, shard.segments.records()), (9990, 10_000));
        let later = Second::of(Monotonic::new(Duration::from_secs(1)));
        assert_eq!(shard.collect(Slot::of(KeyHash::new(0)), now, now, later), 9990);
        assert_eq!(shard.segments.records(), 10);
        assert!(shard.slots[0].entries.capacity() < 256, "{}", shard.slots[0].entries.capacity());
        assert_eq!(shard.versions(Slot::of(KeyHash::new(0))).len(), 10);
    }

    #[test]
    fn large_payloads_are_freed_after_the_lock() {
        let mut shard = Shard::new(Share { bytes_max: 1 << 20, entries_max: 1, tombstones_max: 2 }, 12);
        let mut apply = |version, bytes, kind| {
            let (key, body) = (Bytes::from_static(b"k"), Body::Value(Bytes::from(vec![0; bytes])));
            let version = Version::new(version);
            let record = Record { hash: KeyHash::new(1), key, version, expiry: Expiry::NEVER, body };
            shard.apply(&NewRecord::new(&record, kind, 1000), ApplyOrigin::Write);
            shard.take_freed().iter().map(|payload| payload.len()).collect::<Vec<_>>()
        };
        assert_eq!(apply(1, 100_000, Kind::Live), []);
        assert_eq!(apply(2, 200_000, Kind::Live), [100_001], "replaced");
        assert_eq!(apply(1, 100_000, Kind::Live), [], "stale");
        assert_eq!(apply(3, 0, Kind::Tombstone), [200_001], "deleted");
        assert_eq!(apply(4, 10, Kind::Live), []);
        assert_eq!(apply(5, 0, Kind::Tombstone), [], "a small one is freed at once");
    }

    /// Without this a slot's table would compare whole entries where it could tell them apart by seven bits.
    #[test]
    fn keys_of_one_slot_differ_where_the_table_looks_first() {
        let tags: std::collections::BTreeSet<u64> =
            (0..10_000).map(|n: u64| spread(KeyHash::new(KeyHash::of(&n.to_le_bytes()).get() >> 12)) >> 57).collect();
        assert_eq!(tags.len(), 128);
    }
}
