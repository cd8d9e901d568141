//! The change of a figure from one run to another, with the interval in which it lies at 99 % confidence.

use distrs::StudentsT;
use serde::Serialize;

use super::{blocks::block_length, percentiles::Estimate};

/// How sure an interval is. There are a dozen of them in a comparison, and one false alarm in twenty would be one in every other.
const CONFIDENCE: f64 = 0.99;

/// Histograms tell latencies apart by 512 ns below a millisecond, and by a thousandth above.
const RESOLUTION: f64 = 0.001;
const RESOLUTION_NS: f64 = 512.0;

/// The figure of the first run is `a`, that of the second is `b`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Change {
    /// Which figure, such as `get.p99`.
    pub(crate) figure: String,
    /// Its unit.
    pub(crate) unit: &'static str,
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// From `a` to `b`.
    pub(crate) percent: f64,
    /// The least and the most that it can be; nothing if there is no telling, as of a figure that a run has once.
    pub(crate) between_percent: Option<(f64, f64)>,
    /// It is more than chance, and more than histograms tell apart.
    pub(crate) is_significant: bool,
}

impl Change {
    /// Of a figure that each run has once; nothing if there is none in the first run.
    pub(super) fn once(figure: &str, unit: &'static str, a: f64, b: f64) -> Option<Self> {
        (a > 0.0).then(|| Self::new(figure, unit, a, b))
    }

    pub(super) fn new(figure: &str, unit: &'static str, a: f64, b: f64) -> Self {
        let percent = percent(b / a);
        Self { figure: figure.to_owned(), unit, a, b, percent, between_percent: None, is_significant: false }
    }

    /// Of a percentile. Student's t with as many degrees of freedom as there are independent blocks takes the place of the normal
    /// distribution: with few blocks the standard error itself is uncertain, and the bootstrap's own percentiles are too narrow.
    pub(super) fn percentile(figure: String, a: Estimate, b: Estimate) -> Self {
        let (low, high) = welch((a.error, a.blocks), (b.error, b.blocks));
        let change = (b.nanos / a.nanos).ln();
        let resolution = (1.0 + RESOLUTION).ln().max(RESOLUTION_NS / a.nanos.min(b.nanos));
        let (low, high) = (change + low, change + high);
        Self {
            figure,
            unit: "ms",
            a: a.nanos / 1e6,
            b: b.nanos / 1e6,
            percent: percent(change.exp()),
            between_percent: Some((percent(low.exp()), percent(high.exp()))),
            is_significant: low > resolution || high < -resolution,
        }
    }

    /// Of a rate, from that of each interval: Welch's t-test. Neighbouring intervals resemble each other, so it takes the means of
    /// as many batches of them as are independent.
    pub(super) fn rate(figure: &str, unit: &'static str, a: &[f64], b: &[f64]) -> Self {
        let (a, b) = (Batches::new(a), Batches::new(b));
        let (low, high) = welch((a.error, a.count), (b.error, b.count));
        let share = |rate: f64| percent((b.mean + rate) / a.mean);
        let (low, high) = (share(low), share(high));
        Self {
            between_percent: Some((low, high)),
            is_significant: low > RESOLUTION * 100.0 || high < -RESOLUTION * 100.0,
            ..Self::new(figure, unit, a.mean, b.mean)
        }
    }
}

fn percent(ratio: f64) -> f64 {
    (ratio - 1.0) * 100.0
}

/// How far off the difference of two means may be, given the standard error of each and the number of values behind it.
fn welch((a_error, a_count): (f64, f64), (b_error, b_count): (f64, f64)) -> (f64, f64) {
    let (a_variance, b_variance) = (a_error.powi(2), b_error.powi(2));
    let variance = a_variance + b_variance;
    if variance <= 0.0 {
        return (0.0, 0.0);
    }
    let freedom = |count: f64| (count - 1.0).max(1.0);
    let satterthwaite = a_variance.powi(2) / freedom(a_count) + b_variance.powi(2) / freedom(b_count);
    let t = StudentsT::ppf(1.0 - (1.0 - CONFIDENCE) / 2.0, variance.powi(2) / satterthwaite);
    let off = t * variance.sqrt();
    (-off, off)
}

/// Means of neighbours.
struct Batches {
    mean: f64,
    error: f64,
    count: f64,
}

impl Batches {
    fn new(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        // What is left over at the end of unequal batches would count for too much.
        let length = (block_length(values).ceil() as usize).min(values.len() / 4).max(1);
        let means: Vec<f64> =
            values.chunks_exact(length).map(|batch| batch.iter().sum::<f64>() / length as f64).collect();
        let count = means.len() as f64;
        let squares: f64 = means.iter().map(|batch| (batch - mean).powi(2)).sum();
        Self { mean, error: (squares / (count - 1.0).max(1.0) / count).sqrt(), count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::compare::synthetic::autocorrelated;

    #[test]
    fn a_rate_that_is_the_same_is_rarely_said_to_differ() {
        let (mut false_alarms, mut seen) = (0, 0);
        for seed in 0..400 {
            let rates: Vec<f64> = autocorrelated(seed, 240, 0.7).iter().map(|x| 1000.0 * (1.0 + 0.05 * x)).collect();
            let (a, b) = rates.split_at(120);
            let slower: Vec<f64> = b.iter().map(|rate| rate * 0.9).collect();
            false_alarms += u32::from(Change::rate("throughput", "ops/s", a, b).is_significant);
            seen += u32::from(Change::rate("throughput", "ops/s", a, &slower).is_significant);
        }
        assert!(false_alarms <= 12 && seen >= 380, "{false_alarms} false alarms, {seen} seen");
    }

    #[test]
    fn a_change_within_the_histograms_resolution_is_none() {
        let exact = |nanos| Estimate { nanos, error: 0.0, blocks: 100.0 };
        let is_significant = |a, b| Change::percentile(String::new(), exact(a), exact(b)).is_significant;
        assert!(!is_significant(50_000.0, 50_512.0) && is_significant(50_000.0, 51_024.0));
        assert!(!is_significant(5e7, 5.005e7) && is_significant(5e7, 5.01e7));
        let rate = Change::rate("throughput", "ops/s", &[100.0; 20], &[99.0; 20]);
        assert!(rate.is_significant && (rate.percent + 1.0).abs() < 1e-9, "{rate:?}");
    }
}
