//! What happened in a short time of the load, as it is shown while the run goes on: a row, a JSON object, or the figures of the
//! live view.

use std::time::Duration;

use serde::Serialize;

use super::sampler::OpSample;
use crate::{
    Counter, Op, OutcomeClass, Phase, Snapshot, Violation,
    report::numbers::{cell, grouped, percent},
    stats::LatencyHistogram,
};

/// A time of the load. With PROGRESS=ndjson it is printed as it is: times are in seconds and milliseconds, counts are those of this
/// time alone.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Interval {
    /// What kind of object it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Its end, in seconds after the load began.
    pub(crate) at_s: f64,
    pub(crate) phase: Phase,
    /// Operations that ended.
    pub(crate) ops: u64,
    pub(crate) ops_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) outcome_unknown: u64,
    pub(crate) local_hits: u64,
    pub(crate) remote_hits: u64,
    pub(crate) misses: u64,
    /// Reads older than an acknowledged write.
    pub(crate) stale: u64,
    /// Answers that must never be.
    pub(crate) violations: u64,
    /// Of all operations, from when each should have begun.
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// The 99th percentile of all operations since each was sent.
    pub(crate) service_p99_ms: f64,
    /// From when each should have begun.
    pub(crate) response: Vec<OpSample>,
    /// Since each was sent.
    pub(crate) service: Vec<OpSample>,
    /// Faults in force.
    pub(crate) faults: Vec<String>,
}

/// Where an interval begins or ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntervalMark {
    pub(crate) counted: Snapshot,
    /// After the load began.
    pub(crate) at: Duration,
}

impl Interval {
    /// What happened from one time to another.
    pub(crate) fn between(from: &IntervalMark, to: &IntervalMark, phase: Phase, faults: Vec<String>) -> Self {
        let (before, now) = (&from.counted, &to.counted);
        let (mut all, mut all_service) = (LatencyHistogram::default(), LatencyHistogram::default());
        let (mut response, mut service) = (Vec::new(), Vec::new());
        let mut outcomes = [0; OutcomeClass::ALL.len()];
        for op in Op::ALL {
            let mut of_op = LatencyHistogram::default();
            for outcome in OutcomeClass::ALL {
                let since = now.response_since(before, op, outcome);
                outcomes[outcome as usize] += since.count();
                of_op.merge(&since);
            }
            let of_service = now.service_since(before, op);
            response.extend(OpSample::of(op, &of_op));
            service.extend(OpSample::of(op, &of_service));
            all.merge(&of_op);
            all_service.merge(&of_service);
        }
        let rise = |counter| now.get(counter) - before.get(counter);
        let violations = |snapshot: &Snapshot| -> u64 {
            Violation::ALL.into_iter().map(|violation| snapshot.violations(violation)).sum()
        };
        let ms = |of: &LatencyHistogram, percent| of.percentile(percent).as_secs_f64() * 1e3;
        let ops = rise(Counter::Ops);
        let errors = rise(Counter::Errors);
        Self {
            kind: "interval",
            at_s: to.at.as_secs_f64(),
            phase,
            ops,
            ops_per_s: ops as f64 / to.at.saturating_sub(from.at).as_secs_f64().max(1e-6),
            errors,
            outcome_unknown: outcomes[OutcomeClass::Error as usize].saturating_sub(errors),
            local_hits: outcomes[OutcomeClass::Local as usize],
            remote_hits: outcomes[OutcomeClass::Remote as usize],
            misses: outcomes[OutcomeClass::Miss as usize],
            stale: rise(Counter::Stale),
            violations: violations(now) - violations(before),
            p50_ms: ms(&all, 50.0),
            p95_ms: ms(&all, 95.0),
            p99_ms: ms(&all, 99.0),
            max_ms: ms(&all, 100.0),
            service_p99_ms: ms(&all_service, 99.0),
            response,
            service,
            faults,
        }
    }

    /// Reads that found a value, in percent of those that were answered; a dash if none was.
    fn hit_percent(&self) -> String {
        let hits = self.local_hits + self.remote_hits;
        let answered = hits + self.misses;
        if answered == 0 { "–".to_owned() } else { format!("{:.1}", percent(hits, answered)) }
    }

    /// What stands above the rows.
    pub(crate) fn heading() -> String {
        let names = ["time s", "ops/s", "p50 ms", "p95", "p99", "max", "svc p99", "hit %", "errors", "unknown"];
        row(names.map(str::to_owned))
    }

    /// One row.
    pub(crate) fn row(&self) -> String {
        row([
            format!("{:.0}", self.at_s),
            grouped(self.ops_per_s.round() as u64),
            cell(self.p50_ms),
            cell(self.p95_ms),
            cell(self.p99_ms),
            cell(self.max_ms),
            cell(self.service_p99_ms),
            self.hit_percent(),
            grouped(self.errors),
            grouped(self.outcome_unknown),
        ])
    }
}

/// At most 80 columns, as long as the figures are not longer than theirs.
fn row(cells: [String; 10]) -> String {
    const COLUMNS: [usize; 10] = [7, 11, 8, 7, 7, 7, 8, 6, 7, 8];
    cells.iter().zip(COLUMNS).map(|(cell, width)| format!("{cell:>width$}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Live;

    #[test]
    fn an_interval_counts_only_what_happened_in_it() {
        let live = [Live::default()];
        let did = |op, outcome, ms: u64| {
            live[0].latency(op, outcome, Duration::from_millis(ms));
            live[0].service(op, Duration::from_millis(ms / 2));
            live[0].add(Counter::Ops);
        };
        did(Op::Get, OutcomeClass::Local, 900);
        let from = IntervalMark { counted: Snapshot::of(&live), at: Duration::from_secs(1) };
        (0..98).for_each(|_| did(Op::Get, OutcomeClass::Local, 2));
        did(Op::Get, OutcomeClass::Miss, 2);
        did(Op::Set, OutcomeClass::Error, 40);
        did(Op::Set, OutcomeClass::Error, 40);
        live[0].add(Counter::Errors);
        let to = IntervalMark { counted: Snapshot::of(&live), at: Duration::from_secs(2) };
        let found = Interval::between(&from, &to, Phase::Steady, Vec::new());
        assert_eq!((found.ops, found.errors, found.outcome_unknown, found.misses), (101, 1, 1, 1));
        assert_eq!(found.row().split_whitespace().collect::<Vec<_>>()[..2], ["2", "101"]);
        assert!((found.p99_ms - 40.0).abs() < 0.1 && (found.service_p99_ms - 20.0).abs() < 0.1, "{found:?}");
        assert!((found.response.len(), found.response[0].count) == (2, 99), "{found:?}");
        assert_eq!(Interval::heading().chars().count(), found.row().chars().count());
        assert!(found.row().chars().count() <= 80 && found.row().contains(" 99.0 "), "{}", found.row());
        let json = serde_json::to_value(&found).unwrap_or_default();
        assert!(json["type"] == "interval" && json["response"][0]["op"] == "GET", "{json}");
    }
}
