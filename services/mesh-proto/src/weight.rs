//! A node's share of the ring, published by the node itself: its capacity in sixteen steps, slow to change.
use crate::Monotonic;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A node's share relative to the others, 1 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Weight(u8);

impl Weight {
    /// The smallest share.
    pub const MIN: Self = Self(1);
    /// The largest share.
    pub const MAX: Self = Self(16);
    /// Quantises a store's capacity: one step per 64 MiB, at least 1 and at most 16.
    #[must_use]
    pub fn from_capacity(_bytes: u64) -> Self {
        todo!()
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
    _todo: (),
}

impl WeightSampler {
    /// At most one change per this time.
    pub const CHANGE_INTERVAL: Duration = Duration::from_secs(60);
    /// Starts with `published` as the current weight.
    #[must_use]
    pub fn new(_published: Weight, _now: Monotonic) -> Self {
        todo!()
    }
    /// Takes a sample; returns the new weight if it is to be published now.
    pub fn handle_sample(&mut self, _now: Monotonic, _sample: Weight) -> Option<Weight> {
        todo!()
    }
}
