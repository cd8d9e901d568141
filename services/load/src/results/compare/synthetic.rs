//! Runs that are made up, whose percentiles are known.

use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution as _, Exp1, StandardNormal};

use crate::stats::Distribution;

/// A series of variance 1 in which each value resembles the one before it.
pub(super) fn autocorrelated(seed: u64, length: usize, correlation: f64) -> Vec<f64> {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut normal = || -> f64 { StandardNormal.sample(&mut dice) };
    let (mut value, fresh) = (normal(), (1.0 - correlation * correlation).sqrt());
    (0..length)
        .map(|_| {
            value = correlation * value + fresh * normal();
            value
        })
        .collect()
}

/// The response times of one operation by interval, `operations` in each: their level and how long their tail is wander slowly, and now
/// and then an interval stalls.
pub(super) fn intervals(seed: u64, length: usize, operations: usize, slower_tail: f64) -> Vec<Distribution> {
    let mut dice = SmallRng::seed_from_u64(seed ^ 0x5eed);
    let (levels, tails) = (autocorrelated(seed, length, 0.7), autocorrelated(seed + 1_000_000, length, 0.7));
    let interval = |at: usize| {
        let mut response = Distribution::default();
        let level_ms = (0.05 * levels[at]).exp();
        let tail = (0.10 * tails[at]).exp();
        for _ in 0..operations {
            let exponential: f64 = Exp1.sample(&mut dice);
            let normal: f64 = StandardNormal.sample(&mut dice);
            let mut ms = level_ms * ((0.2 * normal).exp() + 0.2 * tail * exponential);
            // The slowest twentieth, so that the median stays what it is.
            if exponential > 3.0 {
                ms *= slower_tail;
            }
            response.record_many((ms * 1e6) as u64, 1);
        }
        response
    };
    (0..length).map(interval).collect()
}
