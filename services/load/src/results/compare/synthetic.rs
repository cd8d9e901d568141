//! Runs that are made up, whose percentiles are known.

use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution as _, Exp1, StandardNormal};

use crate::stats::LatencyHistogram;

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

/// The response times of one operation by interval, `operations` in each: their level and how long their tail is wander slowly, by 5 %.
/// The same once more with a slowest twentieth that is slower by this factor, so that the median stays what it is.
pub(super) fn intervals(seed: u64, length: usize, operations: usize, slower: f64) -> [Vec<LatencyHistogram>; 2] {
    let mut dice = SmallRng::seed_from_u64(seed ^ 0x5eed);
    let (levels, tails) = (autocorrelated(seed, length, 0.7), autocorrelated(seed + 1_000_000, length, 0.7));
    let mut both = [vec![LatencyHistogram::default(); length], vec![LatencyHistogram::default(); length]];
    for at in 0..length {
        let (level_ms, tail) = ((0.05 * levels[at]).exp(), (0.05 * tails[at]).exp());
        for _ in 0..operations {
            let exponential: f64 = Exp1.sample(&mut dice);
            let normal: f64 = StandardNormal.sample(&mut dice);
            let ms = level_ms * ((0.2 * normal).exp() + 0.2 * tail * exponential);
            let slower_ms = if exponential > 3.0 { ms * slower } else { ms };
            for (responses, ms) in both.iter_mut().zip([ms, slower_ms]) {
                responses[at].record_many((ms * 1e6) as u64, 1);
            }
        }
    }
    both
}
