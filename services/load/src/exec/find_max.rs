//! Which rates a search for the highest one tries: twice the rate before until one fails, then between the highest that met the
//! objectives and the lowest that did not. It knows no clock and no load.

/// The first rate, in operations per second.
pub(crate) const FIRST_RATE: f64 = 1_000.0;

/// The lowest and the highest rate.
const RATE_MIN: f64 = 1.0;
const RATE_MAX: f64 = 1e7;

/// The search ends once the rate that failed is higher than the one that did not by no more than this factor.
const BRACKET_MAX: f64 = 1.05;

/// A search. [`Search::rate`] says what to try next, and [`Search::judge`] is told how it went, in turns.
#[derive(Debug)]
pub(crate) struct Search {
    next: f64,
    met: Option<f64>,
    failed: Option<f64>,
    /// A rate that fails is tried once more: a moment's disturbance is not the mesh's limit.
    is_second_try: bool,
}

impl Search {
    pub(crate) const fn new(first: f64) -> Self {
        Self { next: first, met: None, failed: None, is_second_try: false }
    }

    /// The next rate; nothing once the highest is known well enough.
    pub(crate) fn rate(&self) -> Option<f64> {
        let is_over = is_narrow(self.met, self.failed) || self.failed.is_some_and(|failed| failed <= RATE_MIN);
        (!is_over).then_some(self.next)
    }

    /// How the rate went that was to be tried.
    pub(crate) fn judge(&mut self, is_met: bool) {
        if !is_met && !self.is_second_try {
            self.is_second_try = true;
            return;
        }
        self.is_second_try = false;
        *(if is_met { &mut self.met } else { &mut self.failed }) = Some(self.next);
        self.next = match (self.met, self.failed) {
            (Some(met), Some(failed)) => (met * failed).sqrt(),
            (Some(met), None) => (met * 2.0).min(RATE_MAX),
            (None, failed) => (failed.unwrap_or(self.next) / 2.0).max(RATE_MIN),
        };
    }
}

/// Whether the highest rate lies between these two, as close as it needs to be.
pub(crate) fn is_narrow(met: Option<f64>, failed: Option<f64>) -> bool {
    met.is_some_and(|met| met >= RATE_MAX || failed.is_some_and(|failed| failed <= met * BRACKET_MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a search comes to, and after how many steps, where `meets` says whether a step meets the objectives.
    fn search(mut meets: impl FnMut(f64) -> bool) -> (Search, usize) {
        let (mut search, mut steps) = (Search::new(FIRST_RATE), 0);
        while let Some(rate) = search.rate() {
            search.judge(meets(rate));
            steps += 1;
            assert!(steps < 60, "{search:?}");
        }
        (search, steps)
    }

    proptest! {
        #[test]
        fn a_knee_is_found_within_5_percent(exponent in 0.2_f64..6.9) {
            let knee = 10_f64.powf(exponent);
            let (search, steps) = search(|rate| rate <= knee);
            let found = search.met.unwrap();
            prop_assert!(found <= knee && knee <= found * BRACKET_MAX, "{search:?}");
            prop_assert!(steps <= 16 + 2 * 15, "{steps}");
        }

        #[test]
        fn one_disturbed_step_changes_nothing(exponent in 2.0_f64..6.0, disturbed in 0_usize..20) {
            let knee = 10_f64.powf(exponent);
            let mut step = 0;
            let (search, _) = search(|rate| {
                step += 1;
                rate <= knee && step != disturbed
            });
            let found = search.met.unwrap();
            prop_assert!(found <= knee && knee <= found * BRACKET_MAX, "{search:?}");
        }
    }

    #[test]
    fn the_ends_are_bounded() {
        let (nothing, steps) = search(|_| false);
        assert_eq!((nothing.met, nothing.failed, steps), (None, Some(RATE_MIN), 22));
        let (all, steps) = search(|_| true);
        assert_eq!((all.met, all.failed, steps), (Some(RATE_MAX), None, 15));
    }
}
