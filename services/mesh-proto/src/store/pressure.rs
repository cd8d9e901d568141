//! What is accounted is not always what is resident: an allocator's page is of use for another size of value only when the last
//! of its own has gone. Where sizes are mixed or change, the process takes a third to twice as much as is accounted for. So the
//! store is told what is resident, and holds less for as long as that is too much.

/// From here on, in thousandths of the bound on bytes, resident memory must not rise any further: the promise is 1.2 times.
const FULL: u64 = 1100;

/// From here on the store holds less even if it does not rise.
const TOO_MUCH: u64 = 1200;

/// All of the bound.
const WHOLE: u64 = 1000;

/// What the store keeps, whatever else happens: while memory rises, and while it only stays. What an allocator has freed and not
/// given back is of use for the next values, so holding ever less would help nobody.
const LEAST_RISING: u64 = 250;
const LEAST_STAYING: u64 = 700;

/// The most that is taken at a time: what goes then goes while somebody writes.
const STEP_DOWN_MAX: u64 = 100;

/// What is given back at a time.
const STEP_UP: u64 = 2;

/// Which share of its bound a store may use.
#[derive(Debug)]
pub(super) struct Pressure {
    share: u64,
    /// What was resident the last time, in thousandths of the bound.
    last: u64,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { share: WHOLE, last: 0 }
    }
}

impl Pressure {
    /// So much is resident for the store. Gives the new share, if it changed.
    pub(super) fn handle_resident(&mut self, resident_bytes: u64, bytes_max: u64) -> Option<u64> {
        let resident = u128::from(resident_bytes) * u128::from(WHOLE) / u128::from(bytes_max.max(1));
        let resident = u64::try_from(resident).unwrap_or(u64::MAX);
        let (before, is_rising) = (self.share, resident > self.last);
        self.last = resident;
        let lower = |least: u64| {
            let step = (resident - FULL).clamp(1, STEP_DOWN_MAX);
            before.saturating_sub(step).max(least.min(before))
        };
        self.share = match (resident > FULL, is_rising) {
            (true, true) => lower(LEAST_RISING),
            (true, false) if resident > TOO_MUCH && before > LEAST_STAYING => lower(LEAST_STAYING),
            _ => (before + STEP_UP).min(WHOLE),
        };
        (self.share != before).then_some(self.share)
    }

    /// The part of `bytes` that may be used.
    pub(super) const fn allowed(share: u64, bytes: u64) -> u64 {
        // In this order, so that no bound overflows; at the whole it is exact.
        if share >= WHOLE { bytes } else { bytes / WHOLE * share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rising_above_the_bound_takes_and_staying_gives_back() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.handle_resident(1100, 1000), None, "full");
        assert_eq!(pressure.handle_resident(1110, 1000), Some(990), "rising");
        assert_eq!(pressure.handle_resident(1110, 1000), Some(992), "staying");
        assert_eq!(pressure.handle_resident(2000, 1000), Some(892), "never more than a step");
        assert_eq!(pressure.handle_resident(1300, 1000), Some(792), "falling, but still too much");
        assert_eq!(pressure.handle_resident(1300, 1000), Some(LEAST_STAYING));
        assert_eq!(pressure.handle_resident(1300, 1000), Some(LEAST_STAYING + STEP_UP));
        for resident in 1301..1400 {
            pressure.handle_resident(resident, 1000);
        }
        assert_eq!(pressure.share, LEAST_RISING);
        for _ in 0..1000 {
            pressure.handle_resident(0, u64::MAX);
        }
        assert_eq!(pressure.share, WHOLE);
    }

    #[test]
    fn the_whole_is_exact() {
        assert_eq!(Pressure::allowed(WHOLE, u64::MAX), u64::MAX);
        assert_eq!(Pressure::allowed(WHOLE, 1), 1);
        assert_eq!(Pressure::allowed(500, 10_000), 5000);
    }
}
