//! What one slot holds, as peers that compare with it or pull from it are told: the list of its versions, and its records in pages
//! bounded by bytes. Nothing here changes anything.

use super::{super::segments::At, Shard, is_left_out, spread};
use crate::{KeyHash, Record, Slot, Version};

/// What a page counts for a record beyond key and value: about what a frame adds.
const PAGE_RECORD_BYTES: usize = 48;

impl Shard {
    pub(in crate::store) fn versions(&self, slot: Slot) -> Vec<(KeyHash, Version)> {
        let entries = &self.slots[slot.index() >> self.shard_bits].entries;
        let listed = entries.iter().map(|at| self.segments.at(*at)).filter(|record| !is_left_out(record.kind()));
        listed.map(|record| (record.hash(), record.version())).collect()
    }

    /// See [`crate::Store::page`].
    pub(in crate::store) fn page(
        &self,
        slot: Slot,
        after: Option<KeyHash>,
        bytes_max: usize,
    ) -> (Vec<Record>, Option<KeyHash>) {
        let entries = &self.slots[slot.index() >> self.shard_bits].entries;
        let mut rest: Vec<(KeyHash, At)> = entries.iter().map(|at| (self.segments.at(*at).hash(), *at)).collect();
        rest.retain(|(hash, at)| after.is_none_or(|after| *hash > after) && !is_left_out(self.segments.at(*at).kind()));
        rest.sort_unstable();
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        for (hash, at) in rest {
            bytes += self.segments.payload_bytes(at) + PAGE_RECORD_BYTES;
            // The cursor is a hash, so keys that share one travel together.
            if let Some(last) = records.last().map(|record| record.hash).filter(|last| *last != hash)
                && bytes > bytes_max
            {
                return (records, Some(last));
            }
            records.push(self.segments.record(at));
        }
        (records, None)
    }

    /// See [`crate::Store::page_of`].
    pub(in crate::store) fn page_of(
        &self,
        slot: Slot,
        hashes: &[KeyHash],
        bytes_max: usize,
    ) -> (Vec<Record>, Option<KeyHash>) {
        let entries = &self.slots[slot.index() >> self.shard_bits].entries;
        let (mut records, mut bytes, mut last) = (Vec::new(), 0, None);
        for hash in hashes.iter().filter(|hash| Slot::of(**hash) == slot) {
            for at in entries.iter_hash(spread(*hash)).filter(|at| self.segments.at(**at).hash() == *hash) {
                bytes += self.segments.payload_bytes(*at) + PAGE_RECORD_BYTES;
                if bytes > bytes_max && last.is_some() {
                    // Keys that share this hash travel together, with the next page.
                    records.retain(|record: &Record| record.hash != *hash);
                    return (records, last);
                }
                records.push(self.segments.record(*at));
            }
            last = Some(*hash);
        }
        (records, None)
    }
}
