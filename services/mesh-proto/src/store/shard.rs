//! One shard: everything that must change together when a key changes. Its methods run under the shard's lock, so
//! compare, store, digest, account and evict are one step to everybody else.

mod collection;
mod pages;

use hashbrown::HashTable;

use self::collection::Collected;
use super::{
    Applied, ApplyOrigin, Digest, Found,
    limits::{self, Share},
    list::List,
    pressure::Pressure,
    second::Second,
    sieve::Sieve,
    slab::{Entry, Kind, Payload, Slab},
};
use crate::{DRIFT_MAX, KeyHash, Mutant, Slot, UnixMillis};

/// Tables up to this many buckets are left as they are when they empty.
const TABLE_KEPT_MAX: usize = 32;

/// Payloads of at least this many bytes are freed after the lock is gone: the allocator hands them back to the system, which
/// takes as long as a hundred look-ups.
const FREED_APART_BYTES_MIN: usize = 16 << 10;

/// How long before its expiry a stub may come from others, whose clocks are ahead by no more than they may be.
const EARLY_MAX_MS: u64 = 2 * DRIFT_MAX.as_millis() as u64;

/// The keys of one slot.
#[derive(Debug, Default)]
struct SlotIndex {
    entries: HashTable<u32>,
    digest: Digest,
    /// Tombstones and stubs among them.
    dead: u32,
    collected: Collected,
}

/// What a shard has counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
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
    slab: Slab,
    live: Sieve,
    /// Tombstones and stubs in the order they came.
    dead: List,
    bytes: u64,
    /// As `share.bytes_max`, or less while more is resident than is accounted for.
    bytes_allowed: u64,
    counters: Counters,
    /// Now.
    second: Second,
    /// The sweep looks at entries downwards from here: the entry that fills a gap comes from above and was seen.
    sweep_at: usize,
    /// Large payloads that nobody needs any more, until [`Shard::take_freed`].
    freed: Vec<Payload>,
}

impl Shard {
    pub(super) fn new(share: Share, shard_bits: u32) -> Self {
        let slots = (0..crate::SLOTS >> shard_bits).map(|_| SlotIndex::default()).collect();
        Self {
            share,
            shard_bits,
            slots,
            slab: Slab::default(),
            live: Sieve::EMPTY,
            dead: List::EMPTY,
            bytes: 0,
            bytes_allowed: share.bytes_max,
            counters: Counters::default(),
            second: Second::default(),
            sweep_at: usize::MAX,
            freed: Vec::new(),
        }
    }

    pub(super) const fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) const fn live_len(&self) -> u64 {
        self.live.len()
    }

    pub(super) const fn dead_len(&self) -> u64 {
        self.dead.len()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn bytes_allowed(&self) -> u64 {
        self.bytes_allowed
    }

    /// Sets which part of its share of bytes it may use. What is above goes with the next write.
    pub(super) const fn allow(&mut self, share: u64) {
        self.bytes_allowed = Pressure::allowed(share, self.share.bytes_max);
    }

    /// What time it is. To be told before every change.
    pub(super) const fn set_time(&mut self, second: Second) {
        self.second = second;
    }

    /// What the caller is to drop once the lock is gone. Asked for after every change.
    pub(super) fn take_freed(&mut self) -> Vec<Payload> {
        std::mem::take(&mut self.freed)
    }

    /// Looks up and counts; an expired value becomes a stub.
    pub(super) fn get(&mut self, hash: KeyHash, key: &[u8], now: UnixMillis) -> Found {
        let Some(at) = self.find(hash, key) else {
            self.counters.misses += 1;
            return Found::Absent;
        };
        let found = found(&self.slab[at], now);
        let entry = &mut self.slab[at];
        if matches!(found, Found::Value { .. }) {
            entry.visited = true;
            self.counters.hits += 1;
        } else {
            self.counters.misses += 1;
            if entry.is_live() {
                self.bury(at);
            }
        }
        found
    }

    /// Looks up and changes nothing.
    pub(super) fn peek(&self, hash: KeyHash, key: &[u8], now: UnixMillis) -> Found {
        self.find(hash, key).map_or(Found::Absent, |at| found(&self.slab[at], now))
    }

    /// Whether an entry could be stored if the shard were empty.
    pub(super) fn can_hold(&self, entry: &Entry) -> bool {
        charge(entry) <= self.share.bytes_max && (self.share.entries_max > 0 || !entry.is_live())
    }

    /// Compare-and-store.
    pub(super) fn apply(&mut self, mut entry: Entry, origin: ApplyOrigin) -> Applied {
        let held = self.find(entry.hash, entry.key());
        if let Some(at) = held {
            let newer = self.slab[at].version;
            let checked = origin == ApplyOrigin::Write || !Mutant::RepairUnchecked.is_planted();
            if newer >= entry.version && checked {
                let same = newer == entry.version;
                self.free(entry.into_payload());
                return if same { Applied::Stored } else { Applied::Stale { newer } };
            }
        }
        if held.is_none()
            && let Some(applied) = self.refuse_collected(&entry, origin)
        {
            self.free(entry.into_payload());
            return applied;
        }
        if !self.can_hold(&entry) {
            self.free(entry.into_payload());
            return Applied::TooLarge;
        }
        if origin == ApplyOrigin::Repair
            && held.is_none()
            && !self.has_room(&entry)
            && !Mutant::ImportPastCapacity.is_planted()
        {
            self.free(entry.into_payload());
            return Applied::Skipped;
        }
        if let Some(at) = held {
            let old = &self.slab[at];
            let in_place = old.is_live() && entry.is_live();
            entry.visited = in_place;
            if in_place && self.bytes - charge(old) + charge(&entry) <= self.bytes_allowed {
                self.replace(at, entry);
                return Applied::Stored;
            }
            self.remove(at);
        }
        if origin == ApplyOrigin::Write || !Mutant::ImportPastCapacity.is_planted() {
            self.make_room(&entry);
        }
        self.insert(entry);
        Applied::Stored
    }

    /// Forgets a deletion and whatever it deletes: only a defect that tests plant does this.
    pub(super) fn apply_forgotten(&mut self, entry: &Entry) -> Applied {
        match self.find(entry.hash, entry.key()) {
            Some(at) if self.slab[at].version < entry.version => {
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

    /// Looks at up to `budget` entries from where the last call stopped.
    pub(super) fn sweep(&mut self, now: UnixMillis, budget: usize) -> Swept {
        let mut swept = Swept::default();
        while swept.looked < budget {
            let Some(at) = self.sweep_at.min(self.slab.len()).checked_sub(1) else {
                break;
            };
            self.sweep_at = at;
            swept.looked += 1;
            #[expect(clippy::cast_possible_truncation, reason = "entries are numbered with 32 bits")]
            let at = at as u32;
            let entry = &mut self.slab[at];
            if entry.kind == Kind::Stub && entry.expiry.get() > now.get() + EARLY_MAX_MS {
                // It was made while the clock was ahead. Others have the value still.
                swept.changed += 1;
                self.remove(at);
            } else if !entry.is_live() {
                entry.born = entry.born.kept(self.second);
            } else if entry.expiry.is_past(now) {
                swept.changed += 1;
                self.bury(at);
            }
        }
        if self.sweep_at.min(self.slab.len()) == 0 {
            self.sweep_at = usize::MAX;
            swept.at_end = true;
        }
        swept
    }

    /// Takes all entries of a slot out.
    pub(super) fn drop_slot(&mut self, slot: Slot) -> usize {
        let index = slot.index() >> self.shard_bits;
        let mut dropped = 0;
        // One at a time, because each removal may give another entry a new number.
        while let Some(at) = self.slots[index].entries.iter().next().copied() {
            self.remove(at);
            dropped += 1;
        }
        self.slots[index].collected = Collected::default();
        self.check();
        dropped
    }

    /// Forgets every entry but not what was counted. What it held is given back for the caller to drop after the lock.
    pub(super) fn clear(&mut self) -> Self {
        let empty = Self {
            counters: self.counters,
            bytes_allowed: self.bytes_allowed,
            ..Self::new(self.share, self.shard_bits)
        };
        std::mem::replace(self, empty)
    }

    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<u32> {
        let slot = &self.slots[self.slot_of(hash)];
        let is_it = |at: &u32| self.slab[*at].hash == hash && self.slab[*at].key() == key;
        slot.entries.find(spread(hash), is_it).copied()
    }

    const fn slot_of(&self, hash: KeyHash) -> usize {
        Slot::of(hash).index() >> self.shard_bits
    }

    /// Whether `entry`, which is not in the shard, fits without anything having to go.
    fn has_room(&self, entry: &Entry) -> bool {
        let fits = self.bytes + charge(entry) <= self.bytes_allowed;
        let (held, held_max) = match entry.is_live() {
            true => (self.live.len(), self.share.entries_max),
            false => (self.dead.len(), self.share.tombstones_max),
        };
        fits && held < held_max
    }

    /// Makes room for `entry`, which is not in the shard and can be held. Live entries go first: losing one is a miss,
    /// losing a tombstone may let a deleted value come back.
    fn make_room(&mut self, entry: &Entry) {
        let is_live = entry.is_live();
        let full = |shard: &Self| {
            shard.bytes + charge(entry) > shard.bytes_allowed
                || (is_live && shard.live.len() >= shard.share.entries_max)
        };
        while full(self) {
            if let Some(victim) = self.live.victim(&mut self.slab) {
                self.counters.evictions += 1;
                let (slot, version) = (self.slot_of(self.slab[victim].hash), self.slab[victim].version);
                self.slots[slot].collected.handle_eviction(version);
                self.remove(victim);
            } else if !self.drop_oldest_dead() {
                break;
            }
        }
    }

    fn insert(&mut self, mut entry: Entry) {
        entry.born = self.second;
        let (hash, version, live, kind) = (entry.hash, entry.version, entry.is_live(), entry.kind);
        self.bytes += charge(&entry);
        let at = self.slab.push(entry);
        let slot = self.slot_of(hash);
        let slot = &mut self.slots[slot];
        if !is_left_out(kind) {
            slot.digest = slot.digest.with(hash, version);
        }
        let slab = &self.slab;
        slot.dead += u32::from(!live);
        slot.entries.insert_unique(spread(hash), at, |at| spread(slab[*at].hash));
        if live {
            self.live.insert(&mut self.slab, at);
        } else {
            self.dead.push_front(&mut self.slab, at);
            self.cap_dead();
        }
        self.check();
    }

    /// Puts a newer live version of the same key in the place of the older one.
    fn replace(&mut self, at: u32, mut entry: Entry) {
        let slot = self.slot_of(entry.hash);
        let old = &mut self.slab[at];
        let digest = &mut self.slots[slot].digest;
        *digest = digest.without(old.hash, old.version).with(entry.hash, entry.version);
        self.bytes = self.bytes - charge(old) + charge(&entry);
        entry.links = old.links;
        let old = std::mem::replace(old, entry);
        self.free(old.into_payload());
        self.check();
    }

    /// Takes an entry out. The last entry of the slab may get its number.
    fn remove(&mut self, at: u32) {
        if self.slab[at].is_live() {
            self.live.remove(&mut self.slab, at);
        } else {
            self.dead.unlink(&mut self.slab, at);
        }
        self.unindex(at);
        let Some(gone) = self.slab.swap_remove(at) else {
            return;
        };
        self.bytes -= charge(&gone);
        self.free(gone.into_payload());
        #[expect(clippy::cast_possible_truncation, reason = "entries are numbered with 32 bits")]
        let last = self.slab.len() as u32;
        if at == last {
            return;
        }
        let moved = &self.slab[at];
        let (hash, live) = (moved.hash, moved.is_live());
        let slot = self.slot_of(hash);
        if let Some(number) = self.slots[slot].entries.find_mut(spread(hash), |number| *number == last) {
            *number = at;
        }
        if live {
            self.live.handle_move(&mut self.slab, last, at);
        } else {
            self.dead.handle_move(&mut self.slab, at);
        }
    }

    fn unindex(&mut self, at: u32) {
        let (hash, version, kind) = (self.slab[at].hash, self.slab[at].version, self.slab[at].kind);
        let slot = self.slot_of(hash);
        let slot = &mut self.slots[slot];
        slot.dead -= u32::from(kind != Kind::Live);
        if !is_left_out(kind) {
            slot.digest = slot.digest.without(hash, version);
        }
        if let Ok(found) = slot.entries.find_entry(spread(hash), |number| *number == at) {
            found.remove();
        }
        let (len, capacity) = (slot.entries.len(), slot.entries.capacity());
        if capacity > TABLE_KEPT_MAX && len < capacity / 8 {
            let slab = &self.slab;
            slot.entries.shrink_to(len * 2, |number| spread(slab[*number].hash));
        }
    }

    /// Turns an expired value into its stub. The digest stays, as key and version do.
    fn bury(&mut self, at: u32) {
        self.live.remove(&mut self.slab, at);
        let entry = &mut self.slab[at];
        let before = charge(entry);
        let stripped = entry.strip();
        entry.born = self.second;
        let hash = entry.hash;
        self.bytes = self.bytes - before + charge(entry);
        self.free(stripped);
        self.counters.expirations += 1;
        let slot = self.slot_of(hash);
        self.slots[slot].dead += 1;
        self.dead.push_front(&mut self.slab, at);
        self.cap_dead();
        self.check();
    }

    /// Frees a payload: a small one now, a large one after the lock.
    fn free(&mut self, payload: Payload) {
        if payload.bytes() >= FREED_APART_BYTES_MIN {
            self.freed.push(payload);
        }
    }

    fn cap_dead(&mut self) {
        while self.dead.len() > self.share.tombstones_max && self.drop_oldest_dead() {}
    }

    fn drop_oldest_dead(&mut self) -> bool {
        if self.dead.len() == 0 {
            return false;
        }
        self.counters.tombstones_dropped += 1;
        self.remove(self.dead.back());
        true
    }

    /// What holds after every change, cheap enough to be checked always.
    fn check(&self) {
        assert!(self.bytes <= self.share.bytes_max, "a shard is over its bytes");
        assert!(self.live.len() <= self.share.entries_max, "a shard is over its entries");
        assert!(self.dead.len() <= self.share.tombstones_max, "a shard is over its tombstones");
        assert!(self.live.len() + self.dead.len() == self.slab.len() as u64, "an entry is on no list, or on two");
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

fn found(entry: &Entry, now: UnixMillis) -> Found {
    if entry.is_live() && !entry.expiry.is_past(now) {
        Found::Value { version: entry.version, expiry: entry.expiry, value: entry.value() }
    } else {
        Found::Gone { version: entry.version }
    }
}

fn charge(entry: &Entry) -> u64 {
    limits::charge(entry.payload_bytes())
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
    fn memory_shrinks_when_entries_go() {
        let many = 10_000;
        let share = Share { bytes_max: u64::MAX, entries_max: many, tombstones_max: many };
        let mut shard = Shard::new(share, 12);
        for n in 0..many {
            let key = Bytes::from(n.to_string());
            // All in slot 0, but with hashes of their own below.
            let hash = KeyHash::new(KeyHash::of(&key).get() >> 12);
            let version = Version::new(u128::from(n));
            let expiry = Expiry::new(if n < 10 { 0 } else { 1 });
            let record = Record { hash, key, version, expiry, body: Body::Value(Bytes::new()) };
            assert_eq!(shard.apply(Entry::new(&record, Kind::Live), ApplyOrigin::Write), Applied::Stored);
        }
        assert!(shard.slots[0].entries.capacity() >= 10_000);
        let now = UnixMillis::new(10);
        let swept = shard.sweep(now, usize::MAX);
        assert_eq!((swept.looked, swept.changed, shard.slab.len()), (10_000, 9990, 10_000));
        let later = Second::of(Monotonic::new(Duration::from_secs(1)));
        assert_eq!(shard.collect(Slot::of(KeyHash::new(0)), now, now, later), 9990);
        assert_eq!(shard.slab.len(), 10);
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
            shard.apply(Entry::new(&record, kind), ApplyOrigin::Write);
            shard.take_freed().iter().map(Payload::bytes).collect::<Vec<_>>()
        };
        assert_eq!(apply(1, 100_000, Kind::Live), []);
        assert_eq!(apply(2, 200_000, Kind::Live), [100_001], "replaced");
        assert_eq!(apply(1, 100_000, Kind::Live), [100_001], "stale");
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
