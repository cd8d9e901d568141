//! A moment in two bytes, so that an entry has room for it: whole seconds of monotonic time, which come round every 18 hours.

use crate::Monotonic;

/// In seconds. Past this age a moment is made to look no older, lest it come round and look young.
const AGE_MAX: u16 = 1 << 14;

/// A second of the process's own time, modulo 65 536.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Second(u16);

impl Second {
    pub(super) fn of(moment: Monotonic) -> Self {
        // The low bits are the modulus.
        #[expect(clippy::cast_possible_truncation, reason = "it comes round on purpose")]
        Self(moment.since_start().as_secs() as u16)
    }

    pub(super) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub(super) const fn to_bits(self) -> u16 {
        self.0
    }

    /// Whether this second was over before the other began. Both are to be less than nine hours apart.
    pub(super) const fn is_before(self, other: Self) -> bool {
        other.0.wrapping_sub(self.0).cast_signed() > 0
    }

    /// The same, or as long ago as can still be told. To be renewed like this at least every four hours.
    pub(super) const fn kept(self, now: Self) -> Self {
        if now.0.wrapping_sub(self.0) > AGE_MAX { Self(now.0.wrapping_sub(AGE_MAX)) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> Second {
        Second::of(Monotonic::new(Duration::from_secs(secs)))
    }

    #[test]
    fn order_survives_coming_round() {
        for start in [0, 65_530, 65_536, 1_000_000] {
            assert!(at(start).is_before(at(start + 1)) && !at(start + 1).is_before(at(start)));
            assert!(!at(start).is_before(at(start)));
            assert!(at(start).is_before(at(start + 30_000)));
        }
    }

    #[test]
    fn what_is_kept_stays_old_for_ever() {
        let mut born = at(7);
        for now in (7..1_000_000).step_by(10_000) {
            born = born.kept(at(now));
            assert!(now == 7 || born.is_before(at(now)), "{now}");
        }
        assert_eq!(at(100).kept(at(100 + u64::from(AGE_MAX))), at(100));
    }
}
