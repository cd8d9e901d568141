//! Which value goes when there is no room: S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023). A
//! new value enters a small queue, a tenth of all; who was read there by the time that its turn comes moves on to the main one, who
//! was not goes, and is remembered for a while: if it is written again, it enters the main queue. There it goes on to the end once
//! for each time that it was read. A look-up counts and moves nothing.
//!
//! Values move by being copied to the end of a queue. Memory is taken by segments, so room is made until a whole one is free.

use super::{
    super::{record::NewRecord, segments::At},
    QueueName, Shard,
};

/// After so many values in a row that were spared, more visits are needed to be spared: the wait for room has an end.
const SPARED_MAX: u32 = 256;

/// So many values are looked at before it is looked again for a segment that is worth compacting.
const STEPS: usize = 64;

/// The small queue's share is one in so many.
const SMALL_SHARE: u64 = 10;

/// Where holes are one byte in so many, segments are compacted rather than values evicted.
const HOLES_SHARE: u64 = 16;

/// Where nobody waits for room, memory is given back once one byte in so many is in holes.
const TIDY_SHARE: u64 = 32;

impl Shard {
    /// Whether so many bytes can be taken without anything having to go. Some are left to those who move.
    pub(super) fn fits(&self, growth: u64) -> bool {
        growth == 0 || self.bytes() + growth + self.reserve() <= self.share.bytes_max
    }

    /// What is left free so that a value that is spared finds room at the end of its queue.
    const fn reserve(&self) -> u64 {
        let segment = self.share.segment_bytes() as u64;
        if segment * 8 <= self.share.bytes_max { segment } else { 0 }
    }

    /// Bytes of memory that a record, which is not in the shard, takes more.
    pub(super) fn growth(&self, queue: QueueName, new: &NewRecord<'_>) -> u64 {
        self.segments.growth(queue, new.len()) as u64 + new.large_bytes() + self.index_growth(new.hash)
    }

    /// Makes room for a record, which is not in the shard and can be held. Values go first: losing one is a miss,
    /// losing a tombstone may let a deleted value come back.
    pub(super) fn make_room(&mut self, queue: QueueName, new: &NewRecord<'_>) {
        while new.is_live() && self.live_len() >= self.share.entries_max && self.look_at_oldest() {}
        while !self.fits(self.growth(queue, new)) {
            if self.compact(self.share.bytes_max / HOLES_SHARE, 8) {
                continue;
            }
            let fits = |shard: &Self| shard.fits(shard.growth(queue, new));
            if (0..STEPS).take_while(|_| !fits(self) && self.look_at_oldest()).count() > 0 {
                continue;
            }
            // Nothing is left that has a value.
            let is_held_by_reserve = self.bytes() + self.growth(queue, new) <= self.share.bytes_max;
            if is_held_by_reserve || !(self.drop_oldest_dead() || self.trim()) {
                return;
            }
        }
    }

    /// Copies what is left of the sparsest segment to the ends of its queue, if one byte in `least` of it is in holes, and all holes
    /// together are more than `holes_max` bytes.
    pub(super) fn compact(&mut self, holes_max: u64, least: usize) -> bool {
        let holes_max = usize::try_from(holes_max).unwrap_or(usize::MAX);
        let Some(segment) = self.segments.sparsest(holes_max, least) else { return false };
        for at in self.segments.all_in(segment) {
            let (queue, record) = (self.segments.queue(at), self.segments.at(at));
            let (len, visits) = (record.len(), record.visits());
            if self.bytes() + self.segments.growth(queue, len) as u64 > self.share.bytes_max {
                return false;
            }
            self.relocate(at, queue, visits);
        }
        true
    }

    /// Evicts the value whose turn it is, or spares it; whether there was one.
    fn look_at_oldest(&mut self) -> bool {
        let (small, main) = (self.segments.bytes(QueueName::Small), self.segments.bytes(QueueName::Main));
        let order = match small * SMALL_SHARE > small + main || main == 0 {
            true => [QueueName::Small, QueueName::Main],
            false => [QueueName::Main, QueueName::Small],
        };
        let Some(at) = order.into_iter().find_map(|queue| self.segments.first(queue)) else { return false };
        let (record, queue) = (self.segments.at(at), self.segments.queue(at));
        let (visits, len) = (record.visits(), record.len());
        let growth = self.segments.growth(QueueName::Main, len) as u64;
        if u32::from(visits) > self.spared / SPARED_MAX && self.bytes() + growth <= self.share.bytes_max {
            self.spared += 1;
            self.relocate(at, QueueName::Main, if queue == QueueName::Small { 0 } else { visits - 1 });
        } else {
            self.spared = 0;
            self.evict(at, queue);
        }
        true
    }

    fn evict(&mut self, at: At, queue: QueueName) {
        let record = self.segments.at(at);
        let (hash, version) = (record.hash(), record.version());
        self.counters.evictions += 1;
        self.counters.evicted_age_ms += self.newest.get().saturating_sub(version.unix_millis().get());
        let slot = self.slot_of(hash);
        self.collected[slot].handle_eviction(version);
        self.remove(at);
        if queue == QueueName::Small {
            self.ghost.handle_eviction(hash, self.live_len());
        }
    }

    fn relocate(&mut self, at: At, queue: QueueName, visits: u8) {
        let hash = self.segments.at(at).hash();
        let to = self.segments.relocate(at, queue, visits);
        let slot = self.slot_of(hash);
        if let Some(place) = self.slots[slot].entries.find_mut(super::spread(hash), |place| *place == at) {
            *place = to;
        }
    }

    /// Gives back memory that holds nothing; whether there was any.
    pub(super) fn trim(&mut self) -> bool {
        let before = self.bytes();
        self.segments.release_empty();
        self.ghost.clear();
        self.bytes() < before
    }

    /// Gives memory back where much of it is holes; whether there may be more to give.
    pub(in crate::store) fn tidy(&mut self) -> bool {
        self.compact(self.segments.live() as u64 / TIDY_SHARE, 16)
    }
}
