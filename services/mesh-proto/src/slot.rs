//! The 4096 slots: the unit of ownership, of digests and of repair.

use serde::{Deserialize, Serialize};

use crate::KeyHash;

/// How many slots the key space is cut into.
pub const SLOTS: usize = 4096;

const SLOT_BITS: u32 = SLOTS.trailing_zeros();

/// One slot, below [`SLOTS`]: the top twelve bits of a key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Slot(u16);

impl TryFrom<u16> for Slot {
    type Error = &'static str;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("a slot number below 4096")
    }
}

impl Slot {
    /// The slot that a key falls into.
    #[must_use]
    pub const fn of(hash: KeyHash) -> Self {
        Self((hash.get() >> (u64::BITS - SLOT_BITS)) as u16)
    }

    /// The slot with this number, or nothing if there is none.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if (number as usize) < SLOTS { Some(Self(number)) } else { None }
    }

    /// The number, for indexing tables of [`SLOTS`] elements.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The number, for the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// All slots in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).filter_map(|number| u16::try_from(number).ok().map(Self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_twelve_bits_choose_the_slot() {
        let cases = [(0, 0), ((1 << 52) - 1, 0), (1 << 52, 1), (0x8000 << 48, 2048), (u64::MAX, 4095)];
        for (hash, slot) in cases {
            assert_eq!(Slot::of(KeyHash::new(hash)).get(), slot, "{hash:016x}");
        }
    }

    #[test]
    fn numbers_end_at_the_last_slot() {
        assert_eq!(Slot::new(4095).map(Slot::index), Some(SLOTS - 1));
        assert_eq!(Slot::new(4096), None);
        assert!(Slot::all().map(Slot::index).eq(0..SLOTS));
    }
}
