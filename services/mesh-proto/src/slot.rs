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
    #[expect(clippy::cast_possible_truncation, reason = "a shift by 52 leaves twelve bits")]
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
