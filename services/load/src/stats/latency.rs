//! Latencies: one HDR histogram per phase, operation, outcome and entry node, kept per thread and merged by counts.
//! A percentile is only ever taken from a merged histogram; percentiles are never averaged.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use borsh::{BorshDeserialize, BorshSerialize};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer as _, V2Serializer},
};

use crate::{NodeIndex, Op, Outcome, Phase};

/// From 1 µs to 60 s, three significant digits.
const LOWEST_NS: u64 = 1_000;
pub(super) const HIGHEST_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

/// What an outcome is counted as.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum OutcomeClass {
    /// A hit in the entry node's own replica.
    Local,
    /// A hit at another owner.
    Remote,
    /// No value.
    Miss,
    /// An acknowledged write.
    Acknowledged,
    /// A failure; it keeps its latency.
    Error,
}

impl OutcomeClass {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Local, Self::Remote, Self::Miss, Self::Acknowledged, Self::Error];

    /// The class of an outcome.
    #[must_use]
    pub const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::HitLocal => Self::Local,
            Outcome::HitRemote => Self::Remote,
            Outcome::Miss => Self::Miss,
            Outcome::Acknowledged => Self::Acknowledged,
            Outcome::Error(_) => Self::Error,
        }
    }

    /// Its name in summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "HIT_LOCAL",
            Self::Remote => "HIT_REMOTE",
            Self::Miss => "MISS",
            Self::Acknowledged => "OK",
            Self::Error => "ERROR",
        }
    }
}

/// What one latency belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    /// The part of the run.
    pub phase: Phase,
    /// What was asked.
    pub op: Op,
    /// How it ended.
    pub outcome: OutcomeClass,
    /// Through which node.
    pub node: NodeIndex,
}

/// All latencies of one thread, or of all threads once merged.
#[derive(BorshDeserialize, BorshSerialize, Debug)]
pub(crate) struct Latencies {
    nodes: usize,
    /// Indexed by series; most are never used, and one takes 70 KB.
    histograms: Vec<Option<LatencyHistogram>>,
}

impl Latencies {
    /// None yet, for `nodes` entry nodes.
    #[must_use]
    pub(crate) fn new(nodes: usize) -> Self {
        let series = Phase::ALL.len() * Op::ALL.len() * OutcomeClass::ALL.len() * nodes;
        Self { nodes, histograms: (0..series).map(|_| None).collect() }
    }

    /// Adds one. Beyond 60 s it counts as 60 s.
    pub(crate) fn record(&mut self, series: Series, latency: Duration) {
        let index = self.index(series);
        self.histograms[index].get_or_insert_default().record(latency);
    }

    /// Adds all of another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.histograms.iter_mut().zip(&other.histograms) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_default().merge(theirs);
            }
        }
    }

    /// The distribution over all series that `wanted` picks.
    #[must_use]
    pub(crate) fn select(&self, wanted: impl Fn(Series) -> bool) -> LatencyHistogram {
        let mut all = LatencyHistogram::default();
        for phase in Phase::ALL {
            for op in Op::ALL {
                for outcome in OutcomeClass::ALL {
                    for node in (0..self.nodes).map(NodeIndex) {
                        let series = Series { phase, op, outcome, node };
                        let histogram = self.histograms[self.index(series)].as_ref();
                        if let Some(histogram) = histogram.filter(|_| wanted(series)) {
                            all.merge(histogram);
                        }
                    }
                }
            }
        }
        all
    }

    const fn index(&self, series: Series) -> usize {
        let row = (series.phase.index() * Op::ALL.len() + series.op as usize) * OutcomeClass::ALL.len();
        (row + series.outcome as usize) * self.nodes + series.node.0
    }
}

/// A merged distribution of latencies.
#[derive(Clone, Debug)]
pub struct LatencyHistogram(Histogram<u32>);

/// As HdrHistogram's own V2 form.
impl LatencyHistogram {
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Result<Self, String> {
        let histogram: Histogram<u32> =
            Deserializer::new().deserialize(&mut bytes).map_err(|error| error.to_string())?;
        let bounds = (histogram.low(), histogram.high(), histogram.sigfig());
        if bounds == (LOWEST_NS, HIGHEST_NS, DIGITS) {
            Ok(Self(histogram))
        } else {
            Err("a histogram of other bounds".to_owned())
        }
    }
}

impl BorshSerialize for LatencyHistogram {
    fn serialize<W: Write>(&self, to: &mut W) -> io::Result<()> {
        self.to_bytes().map_err(io::Error::other)?.serialize(to)
    }
}

impl BorshDeserialize for LatencyHistogram {
    fn deserialize_reader<R: Read>(from: &mut R) -> io::Result<Self> {
        Self::from_bytes(&Vec::<u8>::deserialize_reader(from)?).map_err(io::Error::other)
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self(empty())
    }
}

impl LatencyHistogram {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(nanos(latency));
    }

    /// Adds `count` of so many nanoseconds.
    pub(crate) fn record_many(&mut self, nanos: u64, count: u64) {
        self.0.saturating_record_n(nanos, u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// As it is logged.
    pub(crate) const fn histogram(&self) -> &Histogram<u32> {
        &self.0
    }

    /// Adds what another program may have logged.
    ///
    /// # Errors
    /// If that has longer latencies than can be recorded here.
    pub(crate) fn add_logged(&mut self, logged: &Histogram<u32>) -> Result<(), hdrhistogram::AdditionError> {
        self.0.add(logged)
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.0, &other.0);
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that `percent` of them do not exceed; zero if there are none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percent).min(self.0.max()))
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The arithmetic mean; zero if there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        if self.0.is_empty() { Duration::ZERO } else { Duration::from_secs_f64(self.0.mean() / 1e9) }
    }

    /// Upper bound in nanoseconds and count of every bucket that is not empty.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value().into()))
    }
}

#[expect(clippy::expect_used, reason = "constants, used by every test")]
fn empty() -> Histogram<u32> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS).expect("1 us to 60 s at 3 digits is a valid range")
}

#[expect(clippy::expect_used, reason = "both have the bounds that `empty` gives")]
fn add(to: &mut Histogram<u32>, from: &Histogram<u32>) {
    to.add(from).expect("histograms of equal bounds can be added");
}

fn nanos(latency: Duration) -> u64 {
    u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: Series =
        Series { phase: Phase::Steady, op: Op::Get, outcome: OutcomeClass::Local, node: NodeIndex(0) };

    #[test]
    fn merging_adds_counts_and_never_averages() {
        let (mut fast, mut slow) = (Latencies::new(2), Latencies::new(2));
        for _ in 0..99 {
            fast.record(SERIES, Duration::from_millis(1));
        }
        slow.record(Series { node: NodeIndex(1), ..SERIES }, Duration::from_secs(1));
        fast.merge(&slow);
        let all = fast.select(|_| true);
        assert_eq!(all.count(), 100);
        assert!(all.percentile(99.0) < Duration::from_millis(2));
        assert!(all.percentile(99.9) > Duration::from_millis(999));
        assert_eq!(fast.select(|series| series.node == NodeIndex(1)).count(), 1);
        assert_eq!(fast.select(|series| series.op == Op::Set).count(), 0);
    }

    #[test]
    fn every_series_has_a_place_of_its_own() {
        let mut latencies = Latencies::new(3);
        for phase in Phase::ALL {
            for op in Op::ALL {
                for outcome in OutcomeClass::ALL {
                    for node in (0..3).map(NodeIndex) {
                        latencies.record(Series { phase, op, outcome, node }, Duration::from_millis(1));
                    }
                }
            }
        }
        assert!(latencies.histograms.iter().flatten().all(|histogram| histogram.count() == 1));
        assert_eq!(latencies.histograms.iter().flatten().count(), 4 * 3 * 5 * 3);
    }

    #[test]
    fn three_digits_are_kept_and_the_ends_are_clamped() {
        let mut distribution = LatencyHistogram::default();
        distribution.record(Duration::from_micros(1_234_567));
        let off = distribution.percentile(50.0).as_secs_f64() / 1.234_567 - 1.0;
        assert!(off.abs() < 0.001, "{off}");
        distribution.record(Duration::from_secs(3600));
        assert!(distribution.max() >= Duration::from_secs(60) && distribution.max() < Duration::from_secs(61));
        assert_eq!(LatencyHistogram::default().percentile(99.0), Duration::ZERO);
    }
}
