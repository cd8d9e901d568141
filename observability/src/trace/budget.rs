//! How many traces are kept: no more than is asked for, and fewer while the collector does not keep up. What is dropped in a queue is
//! dropped at random, and leaves traces with holes; what is not begun leaves none.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// Sampled traces are never fewer than this per second, or nobody would see that the collector is back.
const PER_S_MIN: u32 = 5;

/// Figures of the second that is running. All of them are hints: relaxed throughout.
pub(crate) struct Budget {
    per_s_max: u32,
    slow_min: Duration,
    /// Sampled traces in a second.
    per_s: AtomicU32,
    sampled: AtomicU32,
    /// Requests that take longer are kept, in nanoseconds.
    slow_ns: AtomicU64,
    slow: AtomicU32,
    /// Of those that have failed.
    pub(crate) failed: SampledShare,
    /// Of those that were hedged.
    pub(crate) hedged: SampledShare,
}

impl Budget {
    pub(crate) fn new(per_s_max: u32, slow_min: Duration) -> Self {
        Self {
            per_s_max,
            slow_min,
            per_s: AtomicU32::new(per_s_max),
            sampled: AtomicU32::new(0),
            slow_ns: AtomicU64::new(nanos(slow_min)),
            slow: AtomicU32::new(0),
            failed: SampledShare::new(),
            hedged: SampledShare::new(),
        }
    }

    /// Whether one more request may be sampled.
    pub(crate) fn samples(&self) -> bool {
        self.sampled.fetch_add(1, Ordering::Relaxed) < self.per_s.load(Ordering::Relaxed)
    }

    /// Whether a request is kept for having taken so long. The same in the course of a second.
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        nanos(took) > self.slow_ns.load(Ordering::Relaxed)
    }

    /// A request is kept for having been slow.
    pub(crate) fn count_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// A second is over, in which the collector has kept up or not. Where everything is slow, only what is slower still is kept.
    pub(crate) fn follow(&self, keeps_up: bool) {
        self.sampled.store(0, Ordering::Relaxed);
        let per_s = self.per_s.load(Ordering::Relaxed);
        let next = if keeps_up { per_s.saturating_add(per_s / 4 + 1) } else { per_s / 2 };
        self.per_s.store(next.clamp(PER_S_MIN.min(self.per_s_max), self.per_s_max), Ordering::Relaxed);
        let (slow, ns) = (self.slow.swap(0, Ordering::Relaxed), self.slow_ns.load(Ordering::Relaxed));
        if slow > self.per_s_max || (slow > 0 && !keeps_up) {
            self.slow_ns.store(ns.saturating_add(ns / 2), Ordering::Relaxed);
        } else if slow < self.per_s_max / 4 {
            self.slow_ns.store((ns - ns / 3).max(nanos(self.slow_min)), Ordering::Relaxed);
        }
        self.failed.follow(self.per_s_max, keeps_up);
        self.hedged.follow(self.per_s_max, keeps_up);
    }
}

/// Those whose trace ids are small: a part of a request knows without asking whether the whole is kept.
pub(crate) struct SampledShare {
    below: AtomicU64,
    kept: AtomicU32,
}

impl SampledShare {
    const fn new() -> Self {
        Self { below: AtomicU64::new(u64::MAX), kept: AtomicU32::new(0) }
    }

    /// Whether a request with this trace is one of them. The same in the course of a second.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is random")]
    pub(crate) fn takes(&self, trace: u128) -> bool {
        trace as u64 <= self.below.load(Ordering::Relaxed)
    }

    /// A request is kept for being one of them.
    pub(crate) fn count(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    fn follow(&self, per_s_max: u32, keeps_up: bool) {
        let (kept, below) = (self.kept.swap(0, Ordering::Relaxed), self.below.load(Ordering::Relaxed));
        if kept > per_s_max || (kept > 0 && !keeps_up) {
            self.below.store(below / 2, Ordering::Relaxed);
        } else if kept <= per_s_max / 4 {
            self.below.store(below.saturating_mul(2).saturating_add(1), Ordering::Relaxed);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sampled_of(budget: &Budget, requests: usize) -> usize {
        (0..requests).filter(|_| budget.samples()).count()
    }

    #[test]
    fn a_second_has_so_many_traces_and_fewer_while_the_collector_lags() {
        let budget = Budget::new(80, MS);
        assert_eq!(sampled_of(&budget, 1000), 80);
        assert_eq!(sampled_of(&budget, 1000), 0);
        let mut seen = Vec::new();
        for keeps_up in [true, false, false, false, false, false, false, true] {
            budget.follow(keeps_up);
            seen.push(sampled_of(&budget, 1000));
        }
        assert_eq!(seen, [80, 40, 20, 10, 5, 5, 5, 7]);
        (0..20).for_each(|_| budget.follow(true));
        assert_eq!(sampled_of(&budget, 1000), 80);
    }

    #[test]
    fn where_all_is_slow_the_slowest_are_kept_and_later_the_slow_again() {
        let budget = Budget::new(100, 50 * MS);
        assert!(budget.is_slow(51 * MS) && !budget.is_slow(50 * MS));
        (0..101).for_each(|_| budget.count_slow());
        budget.follow(true);
        assert!(budget.is_slow(76 * MS) && !budget.is_slow(75 * MS));
        budget.count_slow();
        budget.follow(false);
        assert!(!budget.is_slow(112 * MS), "the collector does not keep up");
        (0..5).for_each(|_| budget.follow(true));
        assert!(budget.is_slow(51 * MS) && !budget.is_slow(50 * MS));
    }

    #[test]
    fn of_many_a_share_is_kept() {
        let budget = Budget::new(10, MS);
        let kept = || (0..64_u128).filter(|at| budget.hedged.takes(at << 58)).count();
        let mut seen = vec![kept()];
        for hedged in [64, 32, 16, 8, 1, 1, 1, 1, 1] {
            (0..hedged).for_each(|_| budget.hedged.count());
            budget.follow(true);
            seen.push(kept());
        }
        assert_eq!(seen, [64, 32, 16, 8, 8, 16, 32, 64, 64, 64]);
        budget.failed.count();
        budget.follow(false);
        assert!(!budget.failed.takes(u128::from(u64::MAX)) && budget.hedged.takes(u128::from(u64::MAX)));
    }
}
