//! A set of slots, a bit each: what is said of all 4096 slots is said in 64 words.

use crate::{SLOTS, Slot};

const WORDS: usize = SLOTS / 64;

/// A set of slots. Iterates in rising order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSet([u64; WORDS]);

impl SlotSet {
    /// No slot.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Adds a slot.
    pub const fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    /// Takes a slot out.
    pub const fn remove(&mut self, slot: Slot) {
        self.0[slot.index() / 64] &= !(1 << (slot.index() % 64));
    }

    /// Whether the slot is in it.
    #[must_use]
    pub const fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64] >> (slot.index() % 64) & 1 == 1
    }

    /// How many slots are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no slot is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The slots that are in any of both.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.combined(other, |one, other| one | other)
    }

    /// The slots that are in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.combined(other, |one, other| one & other)
    }

    /// The slots that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.combined(other, |one, other| one & !other)
    }

    /// Its slots, rising.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let next = |left: &u64| Some(left & (left - 1)).filter(|left| *left != 0);
            let lefts = std::iter::successors(Some(*word).filter(|word| *word != 0), next);
            lefts.filter_map(move |left| Slot::new((at * 64 + left.trailing_zeros() as usize) as u16))
        })
    }

    /// The bits of 64 slots each.
    pub(crate) const fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    fn combined(&self, other: &Self, bits: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|at| bits(self.0[at], other.0[at])))
    }
}

impl From<Slot> for SlotSet {
    fn from(slot: Slot) -> Self {
        std::iter::once(slot).collect()
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::EMPTY;
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(step: usize) -> SlotSet {
        Slot::all().step_by(step).collect()
    }

    #[test]
    fn sets_are_what_was_put_in() {
        let thirds = every(3);
        assert!(Slot::all().all(|slot| thirds.contains(slot) == slot.index().is_multiple_of(3)));
        assert!(thirds.iter().eq(Slot::all().step_by(3)));
        assert_eq!((thirds.len(), thirds.is_empty()), (SLOTS.div_ceil(3), false));
        assert_eq!((SlotSet::EMPTY.len(), SlotSet::EMPTY.is_empty()), (0, true));
        let mut all = every(1);
        every(2).iter().for_each(|slot| all.remove(slot));
        assert!(all.iter().eq(Slot::all().skip(1).step_by(2)));
    }

    #[test]
    fn sets_combine_slot_by_slot() {
        let (two, three) = (every(2), every(3));
        for slot in Slot::all() {
            let (in_two, in_three) = (two.contains(slot), three.contains(slot));
            assert_eq!(two.or(&three).contains(slot), in_two || in_three);
            assert_eq!(two.and(&three).contains(slot), in_two && in_three);
            assert_eq!(two.without(&three).contains(slot), in_two && !in_three);
        }
    }
}
