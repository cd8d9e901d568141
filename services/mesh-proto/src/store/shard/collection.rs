//! Tombstones and stubs that nobody needs any more: taking them out, and what is remembered of them afterwards.

use super::{
    super::{Applied, ApplyOrigin, Digest, record::NewRecord, second::Second},
    Shard,
};
use crate::{Slot, UnixMillis, Version};

/// So many collections of a slot are remembered, to recognise the digest of an owner that has yet to make them.
const COLLECTIONS_KEPT: usize = 4;

/// What a slot remembers of its collections.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// The newest version that was collected. A key that is not held was not written up to it, or was deleted.
    floor: Version,
    /// What the last collections have taken out of the digest, the newest first.
    sums: [Digest; COLLECTIONS_KEPT],
}

impl Collected {
    /// From now on a key that is not held may have been evicted.
    pub(super) fn handle_eviction(&mut self, version: Version) {
        if version <= self.floor {
            self.floor = Version::ZERO;
        }
    }
}

impl Shard {
    /// What to say of a record, whose key is not held, if it is no newer than what was collected in its slot. A write that old
    /// has been overtaken, and is to be stamped again. A tombstone comes from an owner that has yet to collect it. A value that
    /// others still hold was evicted here.
    pub(super) fn refuse_collected(&self, new: &NewRecord<'_>, origin: ApplyOrigin) -> Option<Applied> {
        let floor = self.collected[self.slot_of(new.hash)].floor;
        match origin {
            _ if new.version > floor || floor == Version::ZERO => None,
            ApplyOrigin::Write => Some(Applied::Collected { newer: floor }),
            ApplyOrigin::Repair if new.is_live() => None,
            ApplyOrigin::Repair => Some(Applied::Skipped),
        }
    }

    /// See [`crate::Store::collect`].
    pub(in crate::store) fn collect(
        &mut self,
        slot: Slot,
        now: UnixMillis,
        ended_until: UnixMillis,
        born_before: Second,
    ) -> usize {
        let index = slot.index() >> self.shard_bits;
        if self.slots[index].dead == 0 {
            return 0;
        }
        let mut old = Vec::new();
        let (mut sum, mut floor) = (Digest::default(), self.collected[index].floor);
        for at in &self.slots[index].entries {
            let entry = self.segments.at(*at);
            if entry.ended(now).is_none_or(|ended| ended > ended_until) {
                continue;
            }
            // All or nothing: other owners are to recognise what is missing.
            if entry.is_live() || !entry.born().is_before(born_before) {
                return 0;
            }
            sum = sum.with(entry.hash(), entry.version());
            floor = floor.max(entry.version());
            old.push(*at);
        }
        old.iter().for_each(|at| self.remove(*at));
        if !old.is_empty() {
            let collected = &mut self.collected[index];
            collected.floor = floor;
            collected.sums.rotate_right(1);
            collected.sums[0] = sum;
            self.counters.tombstones_collected += old.len() as u64;
        }
        self.check();
        old.len()
    }

    /// See [`crate::Store::is_same_but_for_collected`].
    pub(in crate::store) fn is_same_but_for_collected(&self, slot: Slot, theirs: Digest, now: UnixMillis) -> bool {
        let index = slot.index() >> self.shard_bits;
        let slot = &self.slots[index];
        let mut without_theirs = slot.digest;
        let is_theirs = |collected: &Digest| {
            without_theirs = Digest(without_theirs.0.wrapping_add(collected.0));
            without_theirs == theirs
        };
        if self.collected[index].sums.iter().any(is_theirs) {
            return true;
        }
        let entries = slot.entries.iter().map(|at| self.segments.at(*at));
        let mut ended: Vec<_> =
            entries.filter_map(|entry| Some((entry.ended(now)?, entry.hash(), entry.version()))).collect();
        ended.sort_unstable();
        let mut rest = slot.digest;
        ended.into_iter().any(|(_, hash, version)| {
            rest = rest.without(hash, version);
            rest == theirs
        })
    }

    /// See [`crate::Store::forget_collected`].
    pub(in crate::store) fn forget_collected(&mut self) {
        self.collected.fill_with(Collected::default);
    }
}
