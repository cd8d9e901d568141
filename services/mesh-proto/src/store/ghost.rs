//! The keys that were evicted lately without having been read: one that is written again was evicted too early. After S3-FIFO
//! (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): a table in which a later key may take the place of
//! an earlier one, with 16 bits of its hash and when it was evicted.

use crate::KeyHash;

/// In hundredths of the number of entries: so many evictions are remembered.
const REMEMBERED_PERCENT: u64 = 90;

/// Times are counted in so many steps a table.
const STEPS: u64 = 64;

const LEN_MIN: usize = 64;

/// A table of evicted keys.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    /// Part of a hash, not zero, and a time.
    table: Box<[(u16, u16)]>,
    evictions: u64,
}

impl Ghost {
    /// Bytes of memory.
    pub(super) const fn bytes(&self) -> u64 {
        (self.table.len() * size_of::<(u16, u16)>()) as u64
    }

    /// A key was evicted; so many entries are left. What is remembered is forgotten where their number has changed much.
    pub(super) fn handle_eviction(&mut self, hash: KeyHash, entries: u64) {
        let fits = usize::try_from(entries).unwrap_or(usize::MAX).clamp(LEN_MIN, 1 << 31);
        if fits > self.table.len() * 2 || fits < self.table.len() / 8 {
            self.table = vec![(0, 0); fits.next_power_of_two()].into_boxed_slice();
        }
        self.evictions += 1;
        let (at, tag, now) = (self.place(hash), tag(hash), self.now());
        self.table[at] = (tag, now);
    }

    /// Whether a key was evicted lately, by how many entries there are. It is forgotten by that.
    pub(super) fn take(&mut self, hash: KeyHash, entries: u64) -> bool {
        if self.table.is_empty() {
            return false;
        }
        let (at, now, step) = (self.place(hash), self.now(), self.step());
        let (held, when) = self.table[at];
        let age = u64::from(now.wrapping_sub(when)) * step;
        let is_it = held == tag(hash) && age * 100 <= entries * REMEMBERED_PERCENT;
        if is_it {
            self.table[at] = (0, 0);
        }
        is_it
    }

    /// Forgets all, and the memory for it.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    const fn step(&self) -> u64 {
        let step = self.table.len() as u64 / STEPS;
        if step == 0 { 1 } else { step }
    }

    #[expect(clippy::cast_possible_truncation, reason = "it comes round on purpose")]
    const fn now(&self) -> u16 {
        (self.evictions / self.step()) as u16
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
    fn place(&self, hash: KeyHash) -> usize {
        hash.get() as usize & (self.table.len() - 1)
    }
}

/// Bits of a hash that are neither those of the slot nor those of the place; zero is nobody's.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
const fn tag(hash: KeyHash) -> u16 {
    (hash.get() >> 36) as u16 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> KeyHash {
        KeyHash::of(&n.to_le_bytes())
    }

    #[test]
    fn what_was_evicted_lately_is_known_once() {
        let mut ghost = Ghost::default();
        assert!(!ghost.take(hash(1), 1000));
        (0..1000).for_each(|n| ghost.handle_eviction(hash(n), 1000));
        assert_eq!(ghost.bytes(), 4096);
        assert!(ghost.take(hash(999), 1000) && !ghost.take(hash(999), 1000));
        let known = (0..1000).filter(|n| ghost.take(hash(*n), 1000)).count();
        assert!(
            (450..=900).contains(&known),
            "{known}: some have taken the place of others, and the first are too old"
        );
        let wrong = (5000..105_000).filter(|n| ghost.take(hash(*n), 1000)).count();
        assert!(wrong < 20, "{wrong}");
    }

    #[test]
    fn what_was_evicted_long_ago_is_forgotten() {
        let mut ghost = Ghost::default();
        ghost.handle_eviction(hash(0), 1000);
        (1..=1000).for_each(|_| ghost.handle_eviction(hash(1), 1000));
        assert!(!ghost.take(hash(0), 1000));
    }
}
