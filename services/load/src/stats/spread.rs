//! The middle of a few values, and how far off it may be, whatever they are distributed like.

use serde::Serialize;

/// A median with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Spread {
    /// Of how many values.
    pub of: usize,
    /// In their unit.
    pub median: f64,
    /// The ends of its interval of at least 95 % confidence, by order statistics; of fewer than six values the least of all.
    pub low: f64,
    /// The largest, or the upper end.
    pub high: f64,
}

impl Spread {
    /// With fewer values there is no interval of 95 % confidence.
    pub(crate) const SURE_FROM: usize = 6;

    /// Nothing of no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (count, last) = (values.len(), values.len().checked_sub(1)?);
        let median = (values[last / 2] + values[count / 2]) / 2.0;
        let outside = left_out(count);
        Some(Self { of: count, median, low: values[outside], high: values[last - outside] })
    }
}

/// How many of the least and of the largest of `count` values can be left out, so that the median of what they are drawn from lies
/// between the rest with 95 % confidence: each value lies below it with probability one half.
fn left_out(count: usize) -> usize {
    let mut term = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let (mut below, mut outside) = (term, 0);
    for left in 0..count / 2 {
        if below > 0.025 {
            break;
        }
        outside = left;
        term *= (count - left) as f64 / (left + 1) as f64;
        below += term;
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_give_a_median_and_its_interval() {
        let of = |count: usize| {
            let found = Spread::of((1..=count).map(|value| value as f64).collect());
            found.map(|found| (found.median, found.low, found.high))
        };
        assert_eq!((of(0), of(1), of(4)), (None, Some((1.0, 1.0, 1.0)), Some((2.5, 1.0, 4.0))));
        // As in the usual tables: of 6 all, of 10 the second to the ninth, of 20 the sixth to the fifteenth.
        assert_eq!((of(6), of(10)), (Some((3.5, 1.0, 6.0)), Some((5.5, 2.0, 9.0))));
        assert_eq!(of(20), Some((10.5, 6.0, 15.0)));
    }
}
