//! A node's share of the ring, published by the node itself: its capacity in sixteen steps, slow to change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Monotonic;

const STEP_BYTES: u64 = 64 << 20;

/// A node's share relative to the others, 1 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Weight(u8);

impl Weight {
    /// The smallest share.
    pub const MIN: Self = Self(1);
    /// The largest share.
    pub const MAX: Self = Self(16);

    /// Quantises a store's capacity: one step per whole 64 MiB, at least 1 and at most 16.
    #[must_use]
    pub fn from_capacity(bytes: u64) -> Self {
        Self((bytes / STEP_BYTES).clamp(1, 16) as u8)
    }

    /// The weight with this number, or nothing outside 1 to 16.
    #[must_use]
    pub const fn new(raw: u8) -> Option<Self> {
        if raw >= 1 && raw <= 16 { Some(Self(raw)) } else { None }
    }

    /// 1 to 16.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Turns samples of a node's capacity into a published weight: it changes only after three equal samples that differ from
/// the published one, and at most once a minute.
#[derive(Debug)]
pub struct WeightSampler {
    published: Weight,
    published_at: Monotonic,
    /// The last sample, and how often it came in a row.
    candidate: Weight,
    agreed: u32,
}

impl WeightSampler {
    /// At most one change per this time.
    pub const CHANGE_INTERVAL: Duration = Duration::from_secs(60);

    /// How many equal samples in a row make a change.
    const AGREE_MIN: u32 = 3;

    /// Starts with `published` as the current weight, published at `now`.
    #[must_use]
    pub const fn new(published: Weight, now: Monotonic) -> Self {
        Self { published, published_at: now, candidate: published, agreed: 0 }
    }

    /// Takes a sample; returns the new weight if it is to be published now.
    pub fn handle_sample(&mut self, now: Monotonic, sample: Weight) -> Option<Weight> {
        if sample != self.candidate {
            self.candidate = sample;
            self.agreed = 0;
        }
        self.agreed = self.agreed.saturating_add(1);
        let differs = sample != self.published;
        let due = now.since(self.published_at) >= Self::CHANGE_INTERVAL;
        (differs && due && self.agreed >= Self::AGREE_MIN).then(|| {
            self.published = sample;
            self.published_at = now;
            sample
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::new(Duration::from_secs(seconds))
    }

    fn weight(raw: u8) -> Weight {
        Weight::new(raw).unwrap()
    }

    #[test]
    fn capacity_is_quantised_and_bounded() {
        let steps = [(0, 1), (1, 1), (STEP_BYTES * 2 - 1, 1), (STEP_BYTES * 2, 2), (STEP_BYTES * 16 - 1, 15)];
        for (bytes, expected) in steps {
            assert_eq!(Weight::from_capacity(bytes).get(), expected, "{bytes} bytes");
        }
        assert_eq!(Weight::from_capacity(STEP_BYTES * 16), Weight::MAX);
        assert_eq!(Weight::from_capacity(u64::MAX), Weight::MAX);
        assert_eq!((Weight::new(0), Weight::new(17)), (None, None));
        assert_eq!((Weight::new(1), Weight::new(16)), (Some(Weight::MIN), Some(Weight::MAX)));
    }

    #[test]
    fn three_equal_samples_in_a_row_make_a_change() {
        let mut sampler = WeightSampler::new(weight(4), at(0));
        for sample in [8, 8, 9, 8, 8, 4, 8, 8] {
            assert_eq!(sampler.handle_sample(at(100), weight(sample)), None);
        }
        assert_eq!(sampler.handle_sample(at(100), weight(8)), Some(weight(8)));
        assert_eq!(sampler.handle_sample(at(1000), weight(8)), None, "it is published already");
    }

    #[test]
    fn a_change_waits_for_the_interval_and_is_not_lost_meanwhile() {
        let mut sampler = WeightSampler::new(weight(4), at(0));
        for second in 0..60 {
            assert_eq!(sampler.handle_sample(at(second), weight(8)), None);
        }
        assert_eq!(sampler.handle_sample(at(60), weight(8)), Some(weight(8)));
        for second in 61..120 {
            assert_eq!(sampler.handle_sample(at(second), weight(4)), None);
        }
        assert_eq!(sampler.handle_sample(at(120), weight(4)), Some(weight(4)));
    }
}
