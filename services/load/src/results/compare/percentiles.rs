//! Percentiles of one operation over some of a run's intervals, and how far they may be off by chance: a stationary block bootstrap
//! (Politis and Romano 1994) over intervals, whose histograms are merged by counts. Operations of one interval share its fate, so what
//! counts is the number of intervals that are independent of each other, not that of operations.

use std::collections::BTreeSet;

use rand::{Rng, rngs::SmallRng};

use super::blocks::block_length;
use crate::stats::LatencyHistogram;

/// How often the intervals are drawn anew.
const RESAMPLES: usize = 400;

/// Fewer operations than this beyond a percentile say nothing of it.
const BEYOND_MIN: f64 = 10.0;

/// One operation's response times by interval.
#[derive(Debug)]
pub(super) struct ByInterval {
    /// The upper bounds of all buckets that are used, in nanoseconds, rising.
    bounds: Vec<u64>,
    /// For each of them, how many operations of each interval did not take longer.
    counts: Vec<Vec<f64>>,
    intervals: usize,
}

/// A percentile, and the standard error of its logarithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    pub(super) nanos: f64,
    pub(super) error: f64,
    /// How many independent blocks that rests on.
    pub(super) blocks: f64,
}

impl ByInterval {
    pub(super) fn new(intervals: &[&LatencyHistogram]) -> Self {
        let bounds: BTreeSet<u64> = intervals.iter().flat_map(|one| one.buckets().map(|(bound, _)| bound)).collect();
        let bounds: Vec<u64> = bounds.into_iter().collect();
        let mut counts = vec![vec![0.0; intervals.len()]; bounds.len()];
        for (interval, response) in intervals.iter().enumerate() {
            let (mut sum, mut buckets) = (0.0, response.buckets().peekable());
            for (bound, counts) in bounds.iter().zip(&mut counts) {
                if let Some((_, count)) = buckets.next_if(|(upper, _)| upper == bound) {
                    sum += count as f64;
                }
                counts[interval] = sum;
            }
        }
        Self { bounds, counts, intervals: intervals.len() }
    }

    /// How many operations.
    pub(super) fn total(&self) -> f64 {
        self.counts.last().map_or(0.0, |counts| counts.iter().sum())
    }

    /// What the share `quantile` of all operations did not exceed; nothing if too few did.
    pub(super) fn estimate(&self, quantile: f64, dice: &mut SmallRng) -> Option<Estimate> {
        if self.total() * (1.0 - quantile) < BEYOND_MIN {
            return None;
        }
        let at = self.bucket(quantile, &vec![1.0; self.intervals]);
        // Whether more operations than usual were slower, interval by interval: what moves the percentile.
        let last = self.counts.last()?;
        let slower = |(below, all): (&f64, &f64)| (all - below) - (1.0 - quantile) * all;
        let length = block_length(&self.counts[at].iter().zip(last).map(slower).collect::<Vec<_>>());
        let mut weights = vec![0.0; self.intervals];
        let logarithms: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                draw(&mut weights, length, dice);
                (self.bounds[self.bucket(quantile, &weights)] as f64).ln()
            })
            .collect();
        let mean = logarithms.iter().sum::<f64>() / RESAMPLES as f64;
        let squares: f64 = logarithms.iter().map(|logarithm| (logarithm - mean).powi(2)).sum();
        let error = (squares / (RESAMPLES - 1) as f64).sqrt();
        Some(Estimate { nanos: self.bounds[at] as f64, error, blocks: self.intervals as f64 / length })
    }

    /// The bucket in which the quantile lies if each interval counts by its weight.
    fn bucket(&self, quantile: f64, weights: &[f64]) -> usize {
        let sum = |counts: &Vec<f64>| counts.iter().zip(weights).map(|(count, weight)| count * weight).sum::<f64>();
        let rank = (quantile * self.counts.last().map_or(0.0, sum)).ceil().max(1.0);
        self.counts.partition_point(|counts| sum(counts) < rank).min(self.bounds.len() - 1)
    }
}

/// Draws as many intervals as there are, in blocks of this length on the average that begin anywhere; after the last comes the first.
fn draw(weights: &mut [f64], length: f64, dice: &mut SmallRng) {
    weights.fill(0.0);
    let (intervals, begins) = (weights.len(), 1.0 / length);
    let mut at = dice.random_range(0..intervals);
    for _ in 0..intervals {
        weights[at] += 1.0;
        at = if dice.random_bool(begins) { dice.random_range(0..intervals) } else { (at + 1) % intervals };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_merged_histogram() {
        let mut parts = [LatencyHistogram::default(), LatencyHistogram::default(), LatencyHistogram::default()];
        for nanos in 1..=30_000_u64 {
            parts[(nanos % 3) as usize].record_many(nanos * 1000, 1);
        }
        let mut merged = LatencyHistogram::default();
        parts.iter().for_each(|part| merged.merge(part));
        let by_interval = ByInterval::new(&parts.iter().collect::<Vec<_>>());
        for (quantile, percent) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (0.999, 99.9)] {
            let found = by_interval.estimate(quantile, &mut SmallRng::seed_from_u64(1)).unwrap();
            let expected = merged.percentile(percent).as_nanos() as f64;
            assert!((found.nanos / expected - 1.0).abs() < 1e-9, "{percent}: {found:?}, {expected}");
        }
        assert_eq!(by_interval.estimate(0.9999, &mut SmallRng::seed_from_u64(1)), None, "three are beyond it");
    }
}
