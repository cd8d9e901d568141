//! The load over time: a sample every half second, and the histograms of the same interval for the results.

use std::time::Duration;

use serde::Serialize;

use crate::{Counter, Live, Op, OutcomeClass, Snapshot, results::Intervals, stats::LatencyHistogram};

/// How often the run is sampled.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// One moment of a run.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sample {
    /// The end of the interval, in seconds after the load began.
    pub at_s: f64,
    /// Operations per second in it.
    pub ops_per_s: f64,
    /// Failed operations in it.
    pub errors: u64,
    /// The median response time of all operations.
    pub p50_ms: f64,
    /// Their 99th percentile.
    pub p99_ms: f64,
    /// Each operation that ended in it.
    pub ops: Vec<OpSample>,
}

/// Response times of one operation in one interval, whatever its outcome.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OpSample {
    /// Which.
    pub op: Op,
    /// How many.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// 95 %.
    pub p95_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// What was sampled so far.
#[derive(Debug, Default)]
pub(crate) struct ProgressSampler {
    before: Snapshot,
    at_before: Duration,
    samples: Vec<Sample>,
    intervals: Intervals,
}

impl ProgressSampler {
    /// Samples what these threads have done since the last time, `at` after the load began.
    pub(crate) fn take(&mut self, live: &[Live], at: Duration) -> &Sample {
        let now = Snapshot::of(live);
        let mut ops: [LatencyHistogram; Op::ALL.len()] = Default::default();
        for op in Op::ALL {
            for outcome in OutcomeClass::ALL {
                let since = now.response_since(&self.before, op, outcome);
                if since.count() > 0 {
                    ops[op as usize].merge(&since);
                    self.intervals.add(op, outcome, &since);
                }
            }
        }
        self.intervals.end_at(at);
        let errors = now.get(Counter::Errors) - self.before.get(Counter::Errors);
        self.samples.push(Sample::of(&ops, errors, self.at_before, at));
        (self.before, self.at_before) = (now, at);
        &self.samples[self.samples.len() - 1]
    }

    /// What was counted when the last sample was taken.
    pub(crate) const fn latest(&self) -> &Snapshot {
        &self.before
    }

    /// Adds what has ended since the last sample, once the load has, `load_time` after it began. A rest too short to give a rate is
    /// in the intervals only.
    pub(crate) fn finish(mut self, live: &[Live], load_time: Duration) -> (Vec<Sample>, Intervals) {
        let rest = load_time.saturating_sub(self.at_before);
        // Whatever has ended belongs to some time.
        self.take(live, load_time.max(self.at_before + Duration::from_millis(1)));
        if rest < SAMPLE_EVERY / 2 && self.samples.len() > 1 {
            self.samples.pop();
        }
        self.intervals.close();
        (self.samples, self.intervals)
    }
}

impl Sample {
    /// The operations that ended between two times after the load began.
    pub(crate) fn of(ops: &[LatencyHistogram; Op::ALL.len()], errors: u64, from: Duration, to: Duration) -> Self {
        let mut all = LatencyHistogram::default();
        ops.iter().for_each(|of_op| all.merge(of_op));
        Self {
            at_s: to.as_secs_f64(),
            ops_per_s: all.count() as f64 / to.saturating_sub(from).as_secs_f64().max(1e-6),
            errors,
            p50_ms: ms(&all, 50.0),
            p99_ms: ms(&all, 99.0),
            ops: Op::ALL.into_iter().filter_map(|op| OpSample::of(op, &ops[op as usize])).collect(),
        }
    }
}

impl OpSample {
    pub(super) fn of(op: Op, all: &LatencyHistogram) -> Option<Self> {
        (all.count() > 0).then(|| Self {
            op,
            count: all.count(),
            p50_ms: ms(all, 50.0),
            p95_ms: ms(all, 95.0),
            p99_ms: ms(all, 99.0),
            p999_ms: ms(all, 99.9),
            max_ms: ms(all, 100.0),
        })
    }
}

fn ms(distribution: &LatencyHistogram, percent: f64) -> f64 {
    distribution.percentile(percent).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_operation_has_its_own_percentiles_and_the_rest_is_not_lost() {
        let live = [Live::default(), Live::default()];
        let did = |thread: usize, op, outcome, latency| {
            live[thread].latency(op, outcome, latency);
            live[thread].add(Counter::Ops);
        };
        let mut sampler = ProgressSampler::default();
        for _ in 0..99 {
            did(0, Op::Get, OutcomeClass::Local, MS);
            did(1, Op::Set, OutcomeClass::Acknowledged, 10 * MS);
        }
        did(1, Op::Get, OutcomeClass::Remote, 5 * MS);
        let sample = sampler.take(&live, SAMPLE_EVERY);
        assert_eq!((sample.ops_per_s, sample.ops.len()), (398.0, 2));
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.001;
        let [get, set] = sample.ops[..] else { panic!("two operations") };
        assert!((get.op, get.count, set.count) == (Op::Get, 100, 99) && near(get.p99_ms, 1.0) && near(get.max_ms, 5.0));
        assert!(near(set.p50_ms, 10.0) && near(set.p999_ms, 10.0), "{set:?}");
        did(0, Op::Get, OutcomeClass::Local, MS);
        let (samples, intervals) = sampler.finish(&live, SAMPLE_EVERY + MS);
        assert_eq!(samples.len(), 1, "a rest of a millisecond gives no rate");
        assert_eq!(intervals.operations(), 200);
    }
}
