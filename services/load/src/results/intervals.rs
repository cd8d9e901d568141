//! `intervals.hlog`: the response times of every half second, by operation and outcome, as an HdrHistogram log (version 2), which
//! HdrHistogram's own tools and libraries read. While the run lasts each histogram is kept encoded, in a few kilobytes.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use borsh::{BorshDeserialize, BorshSerialize};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer, V2DeflateSerializer,
        interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag},
    },
};

use crate::{
    Op, OutcomeClass,
    exec::{SAMPLE_EVERY, Sample},
    shard::duration,
    stats::LatencyHistogram,
};

/// Half an hour of intervals; the next as many last twice as long, and so on: memory grows with the logarithm of the time.
const INTERVALS_MAX: usize = 3600;

const OUTCOMES: usize = OutcomeClass::ALL.len();

/// Maxima in the log are milliseconds, as HdrHistogram's tools expect.
const NANOS_PER_MILLI: f64 = 1e6;

/// One interval, encoded.
#[derive(BorshDeserialize, BorshSerialize, Debug)]
struct Encoded {
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    from: Duration,
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    to: Duration,
    histograms: Vec<(Op, OutcomeClass, Vec<u8>)>,
}

/// All operations of an interval, or of several.
#[derive(Debug, Default)]
pub(crate) struct IntervalSum {
    /// Its end, after the load began.
    pub(crate) to: Duration,
    /// Response times.
    pub(crate) all: LatencyHistogram,
    hits: u64,
    misses: u64,
}

impl IntervalSum {
    /// Adds a later one.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.to = other.to;
        self.all.merge(&other.all);
        self.hits += other.hits;
        self.misses += other.misses;
    }

    /// The share of reads that found a value; nothing if none was answered.
    pub(crate) fn hit_ratio(&self) -> Option<f64> {
        let answered = self.hits + self.misses;
        (answered > 0).then(|| self.hits as f64 / answered as f64)
    }
}

/// Those of a run, as they are recorded.
#[derive(BorshDeserialize, BorshSerialize, Debug)]
pub(crate) struct Intervals {
    ended: Vec<Encoded>,
    /// The one that is going on, by operation and outcome.
    open: [Option<LatencyHistogram>; Op::ALL.len() * OUTCOMES],
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    open_from: Duration,
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    open_to: Duration,
    /// How many samples it has, and how many end it.
    open_samples: u32,
    samples: u32,
    operations: u64,
}

impl Default for Intervals {
    fn default() -> Self {
        let (ended, open) = (Vec::new(), [const { None }; Op::ALL.len() * OUTCOMES]);
        let (open_from, open_to) = (Duration::ZERO, Duration::ZERO);
        Self { ended, open, open_from, open_to, open_samples: 0, samples: 1, operations: 0 }
    }
}

impl Intervals {
    /// Adds to the interval that is going on.
    pub(crate) fn add(&mut self, op: Op, outcome: OutcomeClass, response: &LatencyHistogram) {
        self.operations += response.count();
        self.open[op as usize * OUTCOMES + outcome as usize].get_or_insert_default().merge(response);
    }

    /// A sample ends `at` after the load began, and the interval with it if it has enough of them.
    pub(crate) fn end_at(&mut self, at: Duration) {
        self.open_to = at;
        self.open_samples += 1;
        if self.open_samples >= self.samples {
            self.close();
        }
    }

    /// Ends the interval however short it is.
    pub(crate) fn close(&mut self) {
        self.open_samples = 0;
        let mut histograms = Vec::new();
        for (op, outcome) in series() {
            let response = self.open[op as usize * OUTCOMES + outcome as usize].take();
            // In a time in which nothing ended, one that is empty says so.
            let is_last = (op, outcome) == (Op::Delete, OutcomeClass::Error);
            let Some(response) =
                response.or_else(|| (is_last && histograms.is_empty()).then(LatencyHistogram::default))
            else {
                continue;
            };
            // Writing to memory does not fail.
            histograms.extend(response.to_bytes().ok().map(|encoded| (op, outcome, encoded)));
        }
        if self.open_to > self.open_from {
            self.ended.push(Encoded { from: self.open_from, to: self.open_to, histograms });
            self.open_from = self.open_to;
            if self.ended.len().is_multiple_of(INTERVALS_MAX) {
                self.samples *= 2;
            }
        }
    }

    /// How many operations are in them.
    #[cfg(test)]
    pub(crate) const fn operations(&self) -> u64 {
        self.operations
    }

    /// Adds those of another shard, whose load began at the same time and was sampled as often.
    ///
    /// # Errors
    /// If what is encoded cannot be read.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), String> {
        self.operations += other.operations;
        let mut others = other.ended.into_iter();
        for (mine, theirs) in self.ended.iter_mut().zip(&mut others) {
            mine.to = mine.to.max(theirs.to);
            for (op, outcome, bytes) in theirs.histograms {
                match mine.histograms.iter_mut().find(|(of, how, _)| (*of, *how) == (op, outcome)) {
                    Some((_, _, known)) => {
                        let mut sum = LatencyHistogram::from_bytes(known)?;
                        sum.merge(&LatencyHistogram::from_bytes(&bytes)?);
                        *known = sum.to_bytes()?;
                    }
                    None => mine.histograms.push((op, outcome, bytes)),
                }
            }
        }
        self.ended.extend(others);
        Ok(())
    }

    /// The samples that these intervals give.
    ///
    /// # Errors
    /// If what is encoded cannot be read.
    pub(crate) fn samples(&self) -> Result<Vec<Sample>, String> {
        let sample = |Encoded { from, to, histograms }: &Encoded| {
            let mut ops: [LatencyHistogram; Op::ALL.len()] = Default::default();
            let mut errors = 0;
            for (op, outcome, bytes) in histograms {
                let response = LatencyHistogram::from_bytes(bytes)?;
                errors += if *outcome == OutcomeClass::Error { response.count() } else { 0 };
                ops[*op as usize].merge(&response);
            }
            Ok(Sample::of(&ops, errors, *from, *to))
        };
        // A rest is too short to give a rate.
        let is_rest = |last: &Encoded| last.to - last.from < SAMPLE_EVERY / 2;
        let rest = usize::from(self.ended.len() > 1 && self.ended.last().is_some_and(is_rest));
        self.ended[..self.ended.len() - rest].iter().map(sample).collect()
    }

    /// Those that began and ended between two times after the load began. What cannot be read is left out.
    pub(crate) fn between(&self, from: Duration, to: Duration) -> Vec<IntervalSum> {
        let sum = |Encoded { to, histograms, .. }: &Encoded| {
            let mut sum = IntervalSum { to: *to, ..IntervalSum::default() };
            for (op, outcome, bytes) in histograms {
                let Ok(response) = LatencyHistogram::from_bytes(bytes) else { continue };
                match (op, outcome) {
                    (Op::Get, OutcomeClass::Local | OutcomeClass::Remote) => sum.hits += response.count(),
                    (Op::Get, OutcomeClass::Miss) => sum.misses += response.count(),
                    _ => {}
                }
                sum.all.merge(&response);
            }
            sum
        };
        self.ended.iter().filter(|interval| interval.from >= from && interval.to <= to).map(sum).collect()
    }

    /// Writes the log. Times in it are seconds after the load began.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, run_id: &str, began: SystemTime, to: &mut impl Write) -> io::Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment(&format!("Mesh Bench run {run_id}: response times in nanoseconds"));
        builder.with_start_time(began).with_base_time(began).with_max_value_divisor(NANOS_PER_MILLI);
        let mut log = builder.begin_log_with(to, &mut serializer)?;
        log.write_comment("[Histogram log format version 1.3]")?;
        for Encoded { from, to, histograms } in &self.ended {
            for (op, outcome, encoded) in histograms {
                let decoded = LatencyHistogram::from_bytes(encoded).map_err(io::Error::other)?;
                let tag = tag(*op, *outcome);
                let written = log.write_histogram(decoded.histogram(), *from, *to - *from, Tag::new(&tag));
                written.map_err(io::Error::other)?;
            }
        }
        Ok(())
    }
}

fn series() -> impl Iterator<Item = (Op, OutcomeClass)> {
    Op::ALL.into_iter().flat_map(|op| OutcomeClass::ALL.map(|outcome| (op, outcome)))
}

/// Such as `GET_HIT_LOCAL`.
fn tag(op: Op, outcome: OutcomeClass) -> String {
    format!("{}_{}", op.name(), outcome.name())
}

/// One interval of a stored log: response times by operation, whatever the outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredInterval {
    /// Its start, after the load began.
    pub(crate) from: Duration,
    /// How long it lasted.
    pub(crate) lasted: Duration,
    /// Those of the operations that ended in it.
    pub(crate) ops: [LatencyHistogram; Op::ALL.len()],
}

impl StoredInterval {
    /// How many operations ended in it.
    pub(crate) fn count(&self) -> u64 {
        self.ops.iter().map(LatencyHistogram::count).sum()
    }
}

/// Reads a log that [`Intervals::write`] has written.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(log: &[u8]) -> Result<Vec<StoredInterval>, String> {
    let mut decoder = Deserializer::new();
    let mut intervals: Vec<StoredInterval> = Vec::new();
    for entry in IntervalLogIterator::new(log) {
        let LogEntry::Interval(entry) = entry.map_err(|_| "it is no HdrHistogram log".to_owned())? else { continue };
        let tag_text = entry.tag().map(|tag| tag.as_str().to_owned()).unwrap_or_default();
        let Some((op, _)) = series().find(|(op, outcome)| tag(*op, *outcome) == tag_text) else {
            return Err(format!("the tag `{tag_text}` is not one of ours"));
        };
        let bad = |error: &dyn std::fmt::Display| format!("a histogram at {:?}: {error}", entry.start_timestamp());
        let bytes = STANDARD.decode(entry.encoded_histogram()).map_err(|error| bad(&error))?;
        let decoded: Histogram<u32> = decoder.deserialize(&mut &bytes[..]).map_err(|error| bad(&error))?;
        let (from, lasted) = (entry.start_timestamp(), entry.duration());
        if intervals.last().is_none_or(|last| last.from != from) {
            intervals.push(StoredInterval { from, lasted, ..StoredInterval::default() });
        }
        if let Some(interval) = intervals.last_mut() {
            interval.ops[op as usize].add_logged(&decoded).map_err(|error| bad(&error))?;
        }
    }
    Ok(intervals)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn some(ms: u64, count: u64) -> LatencyHistogram {
        let mut some = LatencyHistogram::default();
        some.record_many(ms * 1_000_000, count);
        some
    }

    #[test]
    fn what_is_written_is_read_by_the_library_and_by_us() {
        let mut intervals = Intervals::default();
        for at in 1..4 {
            intervals.add(Op::Get, OutcomeClass::Local, &some(at, 100));
            intervals.add(Op::Get, OutcomeClass::Error, &some(1000, 1));
            intervals.add(Op::Set, OutcomeClass::Acknowledged, &some(10 * at, 7));
            intervals.end_at(SAMPLE_EVERY * u32::try_from(at).unwrap());
        }
        let mut log = Vec::new();
        intervals.write("r", SystemTime::UNIX_EPOCH + Duration::from_secs(1), &mut log).unwrap();
        let text = String::from_utf8(log.clone()).unwrap();
        assert!(text.contains("#[BaseTime: 1.000 (seconds since epoch)]\n"), "{text}");
        assert!(text.contains("\nTag=GET_HIT_LOCAL,0.500,0.500,2.0"), "{text}");
        assert!(text.contains(",HISTFAAA"), "compressed, as HdrHistogram's tools expect: {text}");
        let entries = IntervalLogIterator::new(&log).filter(|entry| matches!(entry, Ok(LogEntry::Interval(_))));
        assert_eq!(entries.count(), 9);
        let read = read(&log).unwrap();
        assert_eq!(read.iter().map(StoredInterval::count).collect::<Vec<_>>(), [108; 3]);
        assert_eq!(read[1].ops[Op::Get as usize].count(), 101);
        assert_eq!((read[2].from, read[2].lasted), (SAMPLE_EVERY * 2, SAMPLE_EVERY));
        let p50 = read[2].ops[Op::Set as usize].percentile(50.0).as_secs_f64();
        assert!((p50 / 0.03 - 1.0).abs() < 0.001, "{p50}");
        assert!(super::read(b"Tag=x,0.5,0.5,1.0,HISTFAAAAB4\n").unwrap_err().contains("`x`"));
    }

    #[test]
    fn a_long_run_has_longer_intervals() {
        let mut intervals = Intervals::default();
        for at in 1..=3 * u32::try_from(INTERVALS_MAX).unwrap() {
            intervals.add(Op::Get, OutcomeClass::Local, &some(1, 1));
            intervals.end_at(SAMPLE_EVERY * at);
        }
        intervals.close();
        assert_eq!((intervals.ended.len(), intervals.operations), (2 * INTERVALS_MAX, 3 * INTERVALS_MAX as u64));
    }
}
