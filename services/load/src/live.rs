//! What a thread has done so far, for those who watch from outside while it runs: counters and a coarse histogram,
//! written by one thread without locked instructions and read by another.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Eight buckets per power of two: within 12 %, which is enough for a progress line.
const BUCKETS: usize = 64 * 8;

/// One thread's counters. Only that thread may add.
#[derive(Debug)]
pub struct Live {
    counters: [AtomicU64; COUNTERS],
    buckets: Box<[AtomicU64]>,
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
    /// Values that nobody wrote to that key.
    Wrong,
    /// Operations that a second node answered.
    FailOvers,
    /// Reads of the final sweep.
    Swept,
    /// Writes sent so far, failed ones included.
    Sent,
}

const COUNTERS: usize = 7;

impl Default for Live {
    fn default() -> Self {
        Self { counters: Default::default(), buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Live {
    /// Counts one; the new count.
    pub fn add(&self, counter: Counter) -> u64 {
        bump(&self.counters[counter as usize])
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        // Acquire pairs with the release in `bump`, so that a writer's count is never behind what it had sent.
        self.counters[counter as usize].load(Ordering::Acquire)
    }

    /// Counts one latency.
    pub fn latency(&self, latency: Duration) {
        bump(&self.buckets[bucket(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX))]);
    }
}

/// A copy of all threads' counters, to be compared with an earlier one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    counters: [u64; COUNTERS],
    buckets: Vec<u64>,
}

impl Snapshot {
    /// The sum over all threads.
    #[must_use]
    pub fn of(threads: &[Live]) -> Self {
        let mut sum = Self { counters: [0; COUNTERS], buckets: vec![0; BUCKETS] };
        for live in threads {
            for (sum, counter) in sum.counters.iter_mut().zip(&live.counters) {
                *sum += counter.load(Ordering::Relaxed);
            }
            for (sum, bucket) in sum.buckets.iter_mut().zip(&live.buckets) {
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

    /// The latency that `percent` of the operations since `earlier` did not exceed, within 12 %.
    #[must_use]
    pub fn percentile_since(&self, earlier: &Self, percent: f64) -> Duration {
        let counts = || self.buckets.iter().zip(&earlier.buckets).map(|(now, then)| now - then);
        let total: u64 = counts().sum();
        let rank = ((total as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in counts().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_bound(index));
            }
        }
        Duration::ZERO
    }
}

/// A plain load and store: there is one writer, and a locked addition would cost five times as much.
fn bump(counter: &AtomicU64) -> u64 {
    let count = counter.load(Ordering::Relaxed) + 1;
    counter.store(count, Ordering::Release);
    count
}

const fn bucket(nanos: u64) -> usize {
    if nanos < 8 {
        return nanos as usize;
    }
    let exponent = 63 - nanos.leading_zeros() as usize;
    exponent * 8 + (nanos >> (exponent - 3)) as usize % 8
}

const fn upper_bound(bucket: usize) -> u64 {
    if bucket < 24 {
        return bucket as u64;
    }
    let (exponent, eighth) = (bucket / 8, bucket as u64 % 8);
    (1_u64 << (exponent - 3)).saturating_mul(9 + eighth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_falls_below_its_bound() {
        for nanos in [0, 1, 7, 8, 9, 15, 16, 1000, 123_456, 10_u64.pow(10), u64::MAX] {
            let bound = upper_bound(bucket(nanos));
            assert!(bound >= nanos || bound == u64::MAX, "{nanos} in {bound}");
            assert!(nanos < 8 || bound as f64 <= nanos as f64 * 1.13, "{nanos} in {bound}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_interval() {
        let threads = [Live::default(), Live::default()];
        threads[0].latency(Duration::from_secs(5));
        let earlier = Snapshot::of(&threads);
        for _ in 0..99 {
            threads[1].latency(Duration::from_millis(1));
        }
        threads[0].latency(Duration::from_millis(100));
        let now = Snapshot::of(&threads);
        assert!(now.percentile_since(&earlier, 99.0) < Duration::from_millis(2));
        assert!(now.percentile_since(&earlier, 100.0) >= Duration::from_millis(100));
        assert!(now.percentile_since(&earlier, 100.0) < Duration::from_millis(120));
        assert_eq!(now.percentile_since(&now, 99.0), Duration::ZERO);
        assert_eq!(threads[0].add(Counter::Ops) + threads[1].add(Counter::Ops), 2);
        assert_eq!(Snapshot::of(&threads).get(Counter::Ops), 2);
    }
}
