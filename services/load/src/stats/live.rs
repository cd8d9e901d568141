//! What a thread has done so far, for those who watch from outside while it runs: counters and a coarse histogram,
//! written by one thread without locked instructions and read by another.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::latency::OutcomeClass;
use crate::{ErrorKind, Op, Violation};

/// 32 buckets per power of two: within 3 %, which is enough for a progress line and for dashboards.
const PER_POWER: usize = 1 << PER_POWER_BITS;
const PER_POWER_BITS: usize = 5;
const BUCKETS: usize = 64 * PER_POWER;

/// One histogram per operation and outcome, one behind the other. Only what is counted costs cache.
const HISTOGRAMS: usize = Op::ALL.len() * OutcomeClass::ALL.len();

/// One thread's counters. Only that thread may add.
#[derive(Debug)]
pub struct Live {
    counters: [AtomicU64; COUNTERS],
    violations: [AtomicU64; Violation::ALL.len()],
    buckets: Box<[AtomicU64]>,
    /// Service times, one histogram per operation.
    service: Box<[AtomicU64]>,
    errors: [AtomicU64; ErrorKind::LABELS.len()],
    lag_max_ns: AtomicU64,
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

impl Default for Live {
    fn default() -> Self {
        Self {
            counters: Default::default(),
            violations: Default::default(),
            buckets: (0..HISTOGRAMS * BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            service: (0..Op::ALL.len() * BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            errors: Default::default(),
            lag_max_ns: AtomicU64::new(0),
        }
    }
}

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
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        bump(&self.buckets[first_bucket(op, outcome) + bucket(nanos)]);
    }

    /// Counts the time that one operation took since it was sent.
    pub fn service(&self, op: Op, service: Duration) {
        let nanos = u64::try_from(service.as_nanos()).unwrap_or(u64::MAX);
        bump(&self.service[op as usize * BUCKETS + bucket(nanos)]);
    }
}

/// A copy of all threads' counters, to be compared with an earlier one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    counters: [u64; COUNTERS],
    violations: [u64; Violation::ALL.len()],
    buckets: Vec<u64>,
    service: Vec<u64>,
    errors: [u64; ErrorKind::LABELS.len()],
}

impl Snapshot {
    /// The sum over all threads.
    #[must_use]
    pub fn of(threads: &[Live]) -> Self {
        let mut sum = Self {
            counters: [0; COUNTERS],
            violations: [0; Violation::ALL.len()],
            buckets: vec![0; HISTOGRAMS * BUCKETS],
            service: vec![0; Op::ALL.len() * BUCKETS],
            errors: [0; ErrorKind::LABELS.len()],
        };
        for live in threads {
            for (sum, counter) in sum.counters.iter_mut().zip(&live.counters) {
                *sum += counter.load(Ordering::Relaxed);
            }
            for (sum, violation) in sum.violations.iter_mut().zip(&live.violations) {
                *sum += violation.load(Ordering::Relaxed);
            }
            for (sum, bucket) in sum.buckets.iter_mut().zip(&live.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
            for (sum, error) in sum.errors.iter_mut().zip(&live.errors) {
                *sum += error.load(Ordering::Relaxed);
            }
            for (sum, bucket) in sum.service.iter_mut().zip(&live.service) {
                *sum += bucket.load(Ordering::Relaxed);
            }
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
        filled(&self.buckets[first_bucket(op, outcome)..][..BUCKETS])
    }

    /// The same of service times, over all outcomes.
    pub fn service_buckets(&self, op: Op) -> impl Iterator<Item = (u64, u64)> {
        filled(&self.service[op as usize * BUCKETS..][..BUCKETS])
    }

    /// The latency that `percent` of the operations since `earlier` did not exceed, within 3 %.
    #[must_use]
    pub fn percentile_since(&self, earlier: &Self, percent: f64) -> Duration {
        let mut counts = vec![0; BUCKETS];
        for (index, (now, then)) in self.buckets.iter().zip(&earlier.buckets).enumerate() {
            counts[index % BUCKETS] += now - then;
        }
        let total: u64 = counts.iter().sum();
        let rank = ((total as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in counts.into_iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_bound(index));
            }
        }
        Duration::ZERO
    }
}

fn filled(buckets: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    let counts = buckets.iter().enumerate().filter(|(_, count)| **count > 0);
    counts.map(|(index, count)| (upper_bound(index), *count))
}

/// A plain load and store: there is one writer, and a locked addition would cost five times as much.
fn bump(counter: &AtomicU64) -> u64 {
    let count = counter.load(Ordering::Relaxed) + 1;
    counter.store(count, Ordering::Relaxed);
    count
}

const fn first_bucket(op: Op, outcome: OutcomeClass) -> usize {
    (op as usize * OutcomeClass::ALL.len() + outcome as usize) * BUCKETS
}

const fn bucket(nanos: u64) -> usize {
    if nanos < PER_POWER as u64 {
        return nanos as usize;
    }
    let exponent = 63 - nanos.leading_zeros() as usize;
    exponent * PER_POWER + (nanos >> (exponent - PER_POWER_BITS)) as usize % PER_POWER
}

const fn upper_bound(bucket: usize) -> u64 {
    if bucket < PER_POWER * PER_POWER_BITS {
        return bucket as u64;
    }
    let (exponent, part) = (bucket / PER_POWER, (bucket % PER_POWER) as u64);
    (1_u64 << (exponent - PER_POWER_BITS)).saturating_mul(PER_POWER as u64 + part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_falls_below_its_bound() {
        for nanos in [0, 1, 31, 32, 33, 63, 64, 1000, 123_456, 10_u64.pow(10), u64::MAX] {
            let bound = upper_bound(bucket(nanos));
            assert!(bound >= nanos || bound == u64::MAX, "{nanos} in {bound}");
            assert!(nanos < 32 || bound as f64 <= nanos as f64 * 1.032, "{nanos} in {bound}");
        }
    }

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
        assert!(now.percentile_since(&earlier, 100.0) < Duration::from_millis(120));
        assert_eq!(now.percentile_since(&now, 99.0), Duration::ZERO);
        let gets: Vec<_> = now.buckets(Op::Get, OutcomeClass::Local).collect();
        assert_eq!(gets.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [99, 1]);
        assert!((1_000_000..1_032_000).contains(&gets[0].0), "{gets:?}");
        assert_eq!(now.buckets(Op::Set, OutcomeClass::Error).count(), 1);
        assert_eq!(now.buckets(Op::Get, OutcomeClass::Error).count(), 0);
        assert_eq!(threads[0].add(Counter::Ops) + threads[1].add(Counter::Ops), 2);
        assert_eq!(Snapshot::of(&threads).get(Counter::Ops), 2);
    }
}
