//! A histogram that one thread counts in and another reads while it does: its buckets are those of the recorder's HdrHistograms, so
//! the difference of two copies is an interval's histogram, exact to three digits.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::latency::{HIGHEST_NS, LatencyHistogram};

/// Latencies are told apart by 512 ns below a millisecond: the unit of an HdrHistogram from 1 µs at three digits.
const UNIT_BITS: u32 = 9;

/// 1024 buckets per power of two.
const HALF_BITS: u32 = 10;
const HALF: usize = 1 << HALF_BITS;

/// Up to 2^36 ns, which is the first power of two above the longest. What is beyond counts as the longest.
const BUCKETS: usize = 18 * HALF;

/// Counts by latency. Only one thread may add. Before the first it takes no room.
#[derive(Debug, Default)]
pub(crate) struct Counts(OnceLock<Box<[AtomicU64]>>);

impl Counts {
    /// Counts one.
    pub(crate) fn add(&self, nanos: u64) {
        let buckets = self.0.get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect());
        bump(&buckets[bucket(nanos)]);
    }
}

/// A copy of such counts, or a sum of some.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted(Vec<u64>);

impl Counted {
    /// Adds all of a thread's.
    pub(crate) fn add(&mut self, counts: &Counts) {
        let Some(buckets) = counts.0.get() else { return };
        self.0.resize(BUCKETS, 0);
        for (sum, bucket) in self.0.iter_mut().zip(buckets) {
            // Relaxed: figures of their own.
            *sum += bucket.load(Ordering::Relaxed);
        }
    }

    /// Upper bound in nanoseconds and count of every bucket that is not empty, rising.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        counts.map(|(bucket, count)| (upper_bound(bucket), *count))
    }

    /// Adds what was counted since `earlier` to a distribution.
    pub(crate) fn add_since(&self, earlier: &Self, to: &mut LatencyHistogram) {
        for (bucket, now) in self.0.iter().enumerate() {
            let count = now - earlier.0.get(bucket).copied().unwrap_or_default();
            if count > 0 {
                to.record_many(upper_bound(bucket), count);
            }
        }
    }
}

/// A plain load and store: there is one writer, and a locked addition would cost five times as much.
pub(super) fn bump(counter: &AtomicU64) -> u64 {
    let count = counter.load(Ordering::Relaxed) + 1;
    counter.store(count, Ordering::Relaxed);
    count
}

const fn bucket(nanos: u64) -> usize {
    let units = nanos >> UNIT_BITS;
    // By how much a bucket is wider than a unit, as a power of two.
    let wider = 63 - HALF_BITS - (units | HALF as u64).leading_zeros();
    let place = wider as usize * HALF + (units >> wider) as usize;
    if place < BUCKETS { place } else { bucket(HIGHEST_NS) }
}

const fn upper_bound(bucket: usize) -> u64 {
    let wider = (bucket / HALF).saturating_sub(1);
    ((bucket - wider * HALF + 1) << (wider + UNIT_BITS as usize)) as u64 - 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn buckets_are_those_of_the_recorder() {
        let (counts, mut recorded) = (Counts::default(), LatencyHistogram::default());
        let mut nanos = 1_u64;
        while nanos < 10_u64.pow(14) {
            for near in [nanos - 1, nanos, nanos + 1, nanos + nanos / 3] {
                counts.add(near);
                recorded.record(Duration::from_nanos(near));
            }
            nanos *= 2;
        }
        let (mut sum, mut same) = (Counted::default(), LatencyHistogram::default());
        sum.add(&counts);
        sum.add_since(&Counted::default(), &mut same);
        assert!(
            same.buckets().eq(recorded.buckets()),
            "{:?}",
            same.buckets().zip(recorded.buckets()).find(|(a, b)| a != b)
        );
        assert!(sum.filled().eq(recorded.buckets()));
    }

    #[test]
    fn an_interval_is_the_difference_of_two_copies() {
        let (one, two) = (Counts::default(), Counts::default());
        one.add(5_000_000);
        let mut earlier = Counted::default();
        earlier.add(&one);
        two.add(5_000_000);
        two.add(7_000_000);
        let (mut now, mut interval) = (Counted::default(), LatencyHistogram::default());
        now.add(&one);
        now.add(&two);
        now.add_since(&earlier, &mut interval);
        let counts: Vec<_> = interval.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1]);
    }
}
