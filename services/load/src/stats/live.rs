//! What a thread has done so far, for those who watch from outside while it runs: counters and histograms, written by one thread
//! without locked instructions and read by another.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{
    counts::{Counted, Counts, bump},
    latency::{LatencyHistogram, OutcomeClass},
    slowest::Split,
};
use crate::{ErrorKind, Op, Violation};

/// One histogram per operation and outcome, one behind the other.
const HISTOGRAMS: usize = Op::ALL.len() * OutcomeClass::ALL.len();

/// One thread's counters. Only that thread may add.
#[derive(Debug, Default)]
pub struct Live {
    counters: [AtomicU64; COUNTERS],
    violations: [AtomicU64; Violation::ALL.len()],
    response: [Counts; HISTOGRAMS],
    /// One histogram per operation.
    service: [Counts; Op::ALL.len()],
    errors: [AtomicU64; ErrorKind::LABELS.len()],
    lag_max_ns: AtomicU64,
    /// Where the time of the operations beyond the p99 went, in nanoseconds.
    tail_ns: [AtomicU64; Split::PARTS.len()],
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Keys written before the run.
    Prefilled,
    /// Operations that ended.
    Ops,
    /// Operations that failed.
    Errors,
    /// Operations that a second node answered.
    FailOvers,
    /// Tries beyond the first of each operation.
    ExtraTries,
    /// Reads of the final sweep.
    Swept,
    /// Reads older than an acknowledged write.
    Stale,
}

const COUNTERS: usize = 7;

impl Live {
    /// Counts one; the new count.
    pub fn add(&self, counter: Counter) -> u64 {
        bump(&self.counters[counter as usize])
    }

    /// Counts one violation.
    pub fn violation(&self, violation: Violation) {
        bump(&self.violations[violation as usize]);
    }

    /// Notes how long an operation waited to begin.
    pub fn lag(&self, lag: Duration) {
        let nanos = u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX);
        // One writer, so nothing is lost between load and store; relaxed: a figure of its own.
        if nanos > self.lag_max_ns.load(Ordering::Relaxed) {
            self.lag_max_ns.store(nanos, Ordering::Relaxed);
        }
    }

    /// The longest that an operation has waited to begin.
    #[must_use]
    pub fn lag_max(&self) -> Duration {
        Duration::from_nanos(self.lag_max_ns.load(Ordering::Relaxed))
    }

    /// Counts one failure.
    pub fn error(&self, kind: ErrorKind) {
        bump(&self.errors[kind.index()]);
    }

    /// Counts one latency.
    pub fn latency(&self, op: Op, outcome: OutcomeClass, latency: Duration) {
        self.response[histogram(op, outcome)].add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds where the time of an operation beyond the p99 went.
    pub(crate) fn tail(&self, split: &Split) {
        for (sum, part) in self.tail_ns.iter().zip(split.parts()) {
            let nanos = u64::try_from(part.as_nanos()).unwrap_or(u64::MAX);
            // One writer, so nothing is lost between load and store; relaxed: figures of their own.
            sum.store(sum.load(Ordering::Relaxed).saturating_add(nanos), Ordering::Relaxed);
        }
    }

    /// Counts the time that one operation took since it was sent.
    pub fn service(&self, op: Op, service: Duration) {
        self.service[op as usize].add(u64::try_from(service.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A copy of all threads' counters, to be compared with an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    counters: [u64; COUNTERS],
    violations: [u64; Violation::ALL.len()],
    response: [Counted; HISTOGRAMS],
    service: [Counted; Op::ALL.len()],
    errors: [u64; ErrorKind::LABELS.len()],
    lag_max_ns: u64,
    tail_ns: [u64; Split::PARTS.len()],
}

impl Snapshot {
    /// The sum over all threads.
    #[must_use]
    pub fn of(threads: &[Live]) -> Self {
        let mut sum = Self::default();
        for live in threads {
            for (sum, counter) in sum.counters.iter_mut().zip(&live.counters) {
                *sum += counter.load(Ordering::Relaxed);
            }
            for (sum, violation) in sum.violations.iter_mut().zip(&live.violations) {
                *sum += violation.load(Ordering::Relaxed);
            }
            sum.response.iter_mut().zip(&live.response).for_each(|(sum, counts)| sum.add(counts));
            for (sum, error) in sum.errors.iter_mut().zip(&live.errors) {
                *sum += error.load(Ordering::Relaxed);
            }
            for (sum, part) in sum.tail_ns.iter_mut().zip(&live.tail_ns) {
                *sum = sum.saturating_add(part.load(Ordering::Relaxed));
            }
            sum.lag_max_ns = sum.lag_max_ns.max(live.lag_max_ns.load(Ordering::Relaxed));
            sum.service.iter_mut().zip(&live.service).for_each(|(sum, counts)| sum.add(counts));
        }
        sum
    }

    /// One counter.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Failures by kind, in the order of [`ErrorKind::LABELS`].
    #[must_use]
    pub const fn errors(&self) -> [u64; ErrorKind::LABELS.len()] {
        self.errors
    }

    /// Violations of one kind.
    #[must_use]
    pub const fn violations(&self, violation: Violation) -> u64 {
        self.violations[violation as usize]
    }

    /// Values that must never be returned, of whatever kind.
    #[must_use]
    pub fn wrong_values(&self) -> u64 {
        let wrong = Violation::ALL.into_iter().filter(|violation| violation.is_wrong_value());
        wrong.map(|violation| self.violations(violation)).sum()
    }

    /// Upper bound in nanoseconds and count of every bucket of one operation and outcome that is not empty, rising.
    pub fn buckets(&self, op: Op, outcome: OutcomeClass) -> impl Iterator<Item = (u64, u64)> {
        self.response[histogram(op, outcome)].filled()
    }

    /// The same of service times, over all outcomes.
    pub fn service_buckets(&self, op: Op) -> impl Iterator<Item = (u64, u64)> {
        self.service[op as usize].filled()
    }

    /// Response times since `earlier`.
    pub(crate) fn response_since(&self, earlier: &Self, op: Op, outcome: OutcomeClass) -> LatencyHistogram {
        let (histogram, mut since) = (histogram(op, outcome), LatencyHistogram::default());
        self.response[histogram].add_since(&earlier.response[histogram], &mut since);
        since
    }

    /// Service times since `earlier`.
    pub(crate) fn service_since(&self, earlier: &Self, op: Op) -> LatencyHistogram {
        let mut since = LatencyHistogram::default();
        self.service[op as usize].add_since(&earlier.service[op as usize], &mut since);
        since
    }

    /// The longest that an operation has waited to begin.
    pub(crate) const fn lag_max(&self) -> Duration {
        Duration::from_nanos(self.lag_max_ns)
    }

    /// The parts of the time of the operations beyond the p99, by name, in percent of it since `earlier`; the largest first.
    pub(crate) fn tail_since(&self, earlier: &Self) -> Vec<(&'static str, f64)> {
        let parts: Vec<_> = self.tail_ns.iter().zip(&earlier.tail_ns).map(|(now, then)| now - then).collect();
        let whole: u64 = parts.iter().sum();
        let named = Split::PARTS.into_iter().zip(parts).filter(|(_, part)| *part > 0);
        let mut shares: Vec<_> = named.map(|(name, part)| (name, part as f64 * 100.0 / whole as f64)).collect();
        shares.sort_by(|one, other| other.1.total_cmp(&one.1));
        shares
    }

    /// The latency that `percent` of the operations since `earlier` did not exceed.
    #[must_use]
    pub fn percentile_since(&self, earlier: &Self, percent: f64) -> Duration {
        let mut all = LatencyHistogram::default();
        self.response.iter().zip(&earlier.response).for_each(|(now, then)| now.add_since(then, &mut all));
        all.percentile(percent)
    }
}

const fn histogram(op: Op, outcome: OutcomeClass) -> usize {
    op as usize * OutcomeClass::ALL.len() + outcome as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_interval() {
        let threads = [Live::default(), Live::default()];
        let local = |thread: &Live, ms| thread.latency(Op::Get, OutcomeClass::Local, Duration::from_millis(ms));
        local(&threads[0], 5000);
        let earlier = Snapshot::of(&threads);
        for _ in 0..99 {
            local(&threads[1], 1);
        }
        threads[0].latency(Op::Set, OutcomeClass::Error, Duration::from_millis(100));
        let now = Snapshot::of(&threads);
        assert!(now.percentile_since(&earlier, 99.0) < Duration::from_millis(2));
        assert!(now.percentile_since(&earlier, 100.0) >= Duration::from_millis(100));
        assert!(now.percentile_since(&earlier, 100.0) < Duration::from_micros(100_100));
        assert_eq!(now.percentile_since(&now, 99.0), Duration::ZERO);
        let gets: Vec<_> = now.buckets(Op::Get, OutcomeClass::Local).collect();
        assert_eq!(gets.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [99, 1]);
        assert!((1_000_000..1_001_000).contains(&gets[0].0), "{gets:?}");
        assert_eq!(now.buckets(Op::Set, OutcomeClass::Error).count(), 1);
        assert_eq!(now.buckets(Op::Get, OutcomeClass::Error).count(), 0);
        assert_eq!(threads[0].add(Counter::Ops) + threads[1].add(Counter::Ops), 2);
        assert_eq!(Snapshot::of(&threads).get(Counter::Ops), 2);
        let split = Split { lag: Duration::from_millis(3), mesh: Duration::from_millis(1), ..Split::default() };
        threads.iter().for_each(|thread| thread.tail(&split));
        assert_eq!(Snapshot::of(&threads).tail_since(&now), [("lag", 75.0), ("mesh", 25.0)]);
    }
}
