//! Writes that may explain a value, or its absence, without being the newest acknowledged one: a list per key, in memory that
//! many keys share.

use std::time::Duration;

use crate::{Stamp, WriteVersion};

/// Entries of one list of lists: 256 KiB. What does not fit makes its key lenient.
const OPEN_MAX: usize = 4096;

/// Entries of one key. Scanned from end to end, so it stays short.
const OPEN_PER_KEY_MAX: usize = 64;

/// No entry.
const NONE: u32 = u32::MAX;

/// A write's thread and number, as small as they go: eight bits and 56.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Mark {
    pub(super) const fn of(stamp: Stamp) -> Self {
        Self((stamp.writer.thread as u64) << 56 | (stamp.seq & (u64::MAX >> 8)))
    }

    /// Thread and number.
    pub(super) const fn parts(self) -> (u8, u64) {
        ((self.0 >> 56) as u8, self.0 & (u64::MAX >> 8))
    }
}

/// What is known about a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteStatus {
    /// It has not ended.
    InFlight,
    /// Nobody knows, for ever.
    Unknown,
    /// It was acknowledged, when the key was at this generation.
    Acknowledged {
        /// Its version.
        version: WriteVersion,
        /// The generation.
        generation: u8,
    },
}

/// One write.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenWrite {
    pub(super) mark: Mark,
    pub(super) began_ns: u64,
    /// For how long it lives; 0 is for ever.
    pub(super) ttl_ms: u32,
    pub(super) deletes: bool,
    pub(super) fate: WriteStatus,
    pub(super) next: u32,
}

impl OpenWrite {
    pub(super) fn set(stamp: Stamp, began: Duration, ttl: Option<Duration>) -> Self {
        let ttl_ms = ttl.map_or(0, |ttl| u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1));
        Self {
            mark: Mark::of(stamp),
            began_ns: nanos(began),
            ttl_ms,
            deletes: false,
            fate: WriteStatus::InFlight,
            next: NONE,
        }
    }

    pub(super) fn delete(stamp: Stamp, began: Duration) -> Self {
        Self { deletes: true, ..Self::set(stamp, began, None) }
    }
}

/// Nanoseconds since the history's start; 584 years of them fit.
pub(super) fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

/// One key's list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListHead(u32);

impl Default for ListHead {
    fn default() -> Self {
        Self(NONE)
    }
}

impl ListHead {
    pub(super) const fn is_empty(self) -> bool {
        self.0 == NONE
    }
}

/// The entries of many keys' lists.
#[derive(Debug)]
pub(super) struct OpenWrites {
    entries: Vec<OpenWrite>,
    free: u32,
}

impl Default for OpenWrites {
    fn default() -> Self {
        Self { entries: Vec::with_capacity(64), free: NONE }
    }
}

impl OpenWrites {
    /// Adds a write to a key's list; false if there is no room.
    pub(super) fn push(&mut self, head: &mut ListHead, write: OpenWrite) -> bool {
        if self.of(*head).count() >= OPEN_PER_KEY_MAX {
            return false;
        }
        let write = OpenWrite { next: head.0, ..write };
        let index = self.free;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            self.free = entry.next;
            *entry = write;
            head.0 = index;
        } else if self.entries.len() < OPEN_MAX {
            head.0 = self.entries.len() as u32;
            self.entries.push(write);
        } else {
            return false;
        }
        true
    }

    /// A key's writes, the newest first.
    pub(super) fn of(&self, head: ListHead) -> impl Iterator<Item = &OpenWrite> {
        let mut next = head.0;
        std::iter::from_fn(move || {
            let entry = self.entries.get(next as usize)?;
            next = entry.next;
            Some(entry)
        })
    }

    /// One of a key's writes.
    pub(super) fn find(&mut self, head: ListHead, mark: Mark) -> Option<&mut OpenWrite> {
        let mut index = head.0;
        while self.entries.get(index as usize)?.mark != mark {
            index = self.entries[index as usize].next;
        }
        self.entries.get_mut(index as usize)
    }

    /// Those of a key's acknowledged writes whose version is `chosen` concern operations that are in flight at this generation, too.
    pub(super) fn renew(&mut self, head: ListHead, now: u8, chosen: impl Fn(WriteVersion) -> bool) {
        let mut index = head.0;
        while let Some(entry) = self.entries.get_mut(index as usize) {
            if let WriteStatus::Acknowledged { version, generation } = &mut entry.fate
                && chosen(*version)
            {
                *generation = now;
            }
            index = entry.next;
        }
    }

    /// Drops those of a key's writes that are not to be kept.
    pub(super) fn retain(&mut self, head: &mut ListHead, keep: impl Fn(&OpenWrite) -> bool) {
        let (mut last, mut index) = (NONE, head.0);
        while let Some(entry) = self.entries.get(index as usize) {
            let next = entry.next;
            if keep(entry) {
                last = index;
            } else {
                match self.entries.get_mut(last as usize) {
                    Some(before) => before.next = next,
                    None => head.0 = next,
                }
                self.entries[index as usize].next = self.free;
                self.free = index;
            }
            index = next;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Writer;

    fn write(seq: u64) -> OpenWrite {
        OpenWrite::delete(Stamp { writer: Writer { run: 1, thread: 200 }, seq }, Duration::ZERO)
    }

    fn seqs(all: &OpenWrites, head: ListHead) -> Vec<u64> {
        all.of(head).map(|write| write.mark.parts().1).collect()
    }

    #[test]
    fn lists_share_memory_and_give_it_back() {
        let mut all = OpenWrites::default();
        let (mut one, mut other) = (ListHead::default(), ListHead::default());
        for seq in 1..=4 {
            assert!(all.push(&mut one, write(seq)) && all.push(&mut other, write(10 + seq)));
        }
        all.retain(&mut one, |write| write.mark.parts().1 % 2 == 0);
        assert_eq!((seqs(&all, one), seqs(&all, other)), (vec![4, 2], vec![14, 13, 12, 11]));
        assert!(all.find(one, write(3).mark).is_none() && all.find(one, write(2).mark).is_some());
        assert!(all.push(&mut other, write(15)) && all.push(&mut one, write(6)));
        assert_eq!(all.entries.len(), 8, "what was dropped is used again");
        all.retain(&mut one, |_| false);
        assert!(one.is_empty() && seqs(&all, other) == [15, 14, 13, 12, 11]);
        assert_eq!(write(7).mark.parts(), (200, 7));
    }

    #[test]
    fn a_list_has_an_end_and_so_has_the_memory() {
        let mut all = OpenWrites::default();
        let mut heads = vec![ListHead::default(); OPEN_MAX / OPEN_PER_KEY_MAX + 1];
        let (last, full) = heads.split_last_mut().unwrap();
        for head in full {
            (0..OPEN_PER_KEY_MAX as u64).for_each(|seq| assert!(all.push(head, write(seq))));
            assert!(!all.push(head, write(99)));
        }
        assert!(!all.push(last, write(1)));
        all.retain(&mut heads[0], |write| write.mark.parts().1 != 5);
        assert!(all.push(&mut heads[0], write(99)));
    }
}
