//! The runner's metrics as text. The load keeps its own counters, one set per thread; here they only get their names, so
//! that nothing is counted twice and a scrape costs the load nothing.

use std::{borrow::Cow, time::Duration};

use crate::{
    Exposition, catalogue as names,
    text::{Exemplar, Text},
};

/// One look at a run.
#[derive(Clone, Debug, Default)]
pub struct RunnerSample {
    /// Tells this run from others; a label of every series.
    pub run_id: String,
    /// The runner's version.
    pub version: &'static str,
    /// Response times.
    pub ops: Vec<OpSeries>,
    /// Service times by operation: upper bound in nanoseconds and count, rising.
    pub services: Vec<(&'static str, Vec<(u64, u64)>)>,
    /// Failures by kind.
    pub errors: Vec<(&'static str, u64)>,
    /// The runner's own spans by what became of them: `kept`, `exported`, `failed`, `dropped`.
    pub spans: Vec<(&'static str, u64)>,
    /// Traces that nodes were `asked` to keep, and those that could not be asked for (`lost`).
    pub keeps: Vec<(&'static str, u64)>,
    /// Writes sent.
    pub writes_sent: u64,
    /// Operations that a second node answered.
    pub fail_overs: u64,
    /// Tries beyond the first of each operation.
    pub extra_tries: u64,
    /// Broken promises by kind.
    pub violations: Vec<(&'static str, u64)>,
    /// Reads older than an acknowledged write.
    pub stale_reads: u64,
    /// Reads of the final sweep.
    pub swept_reads: u64,
    /// All phases, and whether each is going on.
    pub phases: Vec<(&'static str, bool)>,
    /// What happened to nodes so far.
    pub faults: Vec<FaultEvent>,
    /// The longest wait for a start.
    pub lag_max: Duration,
    /// The requests in flight that the run aims at.
    pub target_in_flight: u64,
}

/// Response times of one operation and outcome.
#[derive(Clone, Debug, Default)]
pub struct OpSeries {
    /// As the nodes label it.
    pub op: &'static str,
    /// How it ended.
    pub outcome: &'static str,
    /// Upper bound in nanoseconds and count, rising.
    pub buckets: Vec<(u64, u64)>,
    /// Of traces that were kept, in the order in which they were.
    pub exemplars: Vec<Exemplar>,
}

/// Something happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultEvent {
    /// What.
    pub action: Cow<'static, str>,
    /// Of which fault.
    pub kind: Cow<'static, str>,
    /// To whom.
    pub target: String,
    /// When, in milliseconds of the Unix clock.
    pub unix_ms: u64,
}

impl RunnerSample {
    /// All metrics as text.
    #[must_use]
    pub fn render(&self, exposition: Exposition) -> String {
        let mut text = Text::new("run_id", &self.run_id);
        // Only OpenMetrics has them.
        let exemplars = |series: &OpSeries| match exposition {
            Exposition::OpenMetrics => series.exemplars.clone(),
            Exposition::Prometheus => Vec::new(),
        };
        text.head(&names::RUNNER_OPS);
        for series in &self.ops {
            let labels = [("op", series.op), ("outcome", series.outcome)];
            text.histogram(&names::RUNNER_OPS, &labels, &series.buckets, &exemplars(series));
        }
        text.head(&names::RUNNER_SERVICE);
        for (op, buckets) in &self.services {
            text.histogram(&names::RUNNER_SERVICE, &[("op", op)], buckets, &[]);
        }
        text.family(&names::RUNNER_ERRORS, "kind", &self.errors);
        text.family(&names::RUNNER_SPANS, "fate", &self.spans);
        text.family(&names::RUNNER_TRACE_KEEPS, "fate", &self.keeps);
        text.one(&names::RUNNER_SENT, self.writes_sent as f64);
        text.one(&names::RUNNER_FAIL_OVERS, self.fail_overs as f64);
        text.one(&names::RUNNER_EXTRA_TRIES, self.extra_tries as f64);
        text.family(&names::RUNNER_VIOLATIONS, "kind", &self.violations);
        text.one(&names::RUNNER_STALE, self.stale_reads as f64);
        text.one(&names::RUNNER_SWEPT, self.swept_reads as f64);
        text.head(&names::RUNNER_PHASE);
        for (phase, now) in &self.phases {
            text.line(names::RUNNER_PHASE.name, &[("phase", phase)], if *now { 1.0 } else { 0.0 });
        }
        text.head(&names::RUNNER_FAULT);
        for FaultEvent { action, kind, target, unix_ms } in &self.faults {
            let at_s = *unix_ms as f64 / 1000.0;
            text.line(names::RUNNER_FAULT.name, &[("action", action), ("kind", kind), ("target", target)], at_s);
        }
        text.one(&names::RUNNER_LAG, self.lag_max.as_secs_f64());
        text.one(&names::RUNNER_TARGET, self.target_in_flight as f64);
        text.head(&names::RUNNER_INFO);
        text.line(names::RUNNER_INFO.name, &[("version", self.version)], 1.0);
        exposition.write(&text.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RunnerSample {
        RunnerSample {
            run_id: "a\"b".to_owned(),
            version: "1",
            ops: vec![OpSeries {
                op: "get",
                outcome: "hit_local",
                buckets: vec![(4_000, 1), (5_000, 2), (900_000, 4), (9_000_000_000, 8)],
                exemplars: [0.000_8, 0.000_9, 9.0]
                    .map(|seconds| Exemplar { trace: 0xabc, seconds, unix_s: 1.5 })
                    .into(),
            }],
            writes_sent: 7,
            faults: vec![FaultEvent {
                action: "begun".into(),
                kind: "crash".into(),
                target: "http://n1:1".to_owned(),
                unix_ms: 1_700_000_000_250,
            }],
            phases: vec![("steady", true), ("recovered", false)],
            ..RunnerSample::default()
        }
    }

    #[test]
    fn fine_buckets_fall_into_the_catalogues() {
        let text = sample().render(Exposition::Prometheus);
        let count = |le: &str| {
            let start = format!(
                "runner_op_duration_seconds_bucket{{run_id=\"a\\\"b\",op=\"get\",outcome=\"hit_local\",le=\"{le}\"}} "
            );
            text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
        };
        assert_eq!(count("0.000005").as_deref(), Some("3"), "{text}");
        assert_eq!(count("0.00075").as_deref(), Some("3"));
        assert_eq!(count("0.001").as_deref(), Some("7"));
        assert_eq!(count("5").as_deref(), Some("7"));
        assert_eq!(count("+Inf").as_deref(), Some("15"));
    }

    #[test]
    fn the_last_exemplar_of_a_bucket_stands_in_openmetrics_only() {
        let text = sample().render(Exposition::OpenMetrics);
        let exemplars: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
        let trace = "{trace_id=\"00000000000000000000000000000abc\"}";
        assert_eq!(exemplars.len(), 2, "{text}");
        assert!(exemplars[0].contains("le=\"0.001\"} 7 # ") && exemplars[0].ends_with(&format!("{trace} 0.0009 1.5")));
        assert!(exemplars[1].contains("le=\"+Inf\"} 15 # ") && exemplars[1].ends_with(&format!("{trace} 9 1.5")));
        assert!(!sample().render(Exposition::Prometheus).contains("trace_id"));
    }

    #[test]
    fn both_forms_hold_the_fault_to_the_millisecond() {
        let line = "runner_fault_event_timestamp_seconds{run_id=\"a\\\"b\",action=\"begun\",kind=\"crash\",target=\"http://n1:1\"} 1700000000.25\n";
        for form in [Exposition::Prometheus, Exposition::OpenMetrics] {
            let text = sample().render(form);
            assert!(text.contains(line), "{text}");
            assert!(text.contains("runner_phase{run_id=\"a\\\"b\",phase=\"steady\"} 1\n"), "{text}");
            assert!(text.contains("runner_writes_sent_total{run_id=\"a\\\"b\"} 7\n"), "{text}");
        }
        assert!(sample().render(Exposition::OpenMetrics).ends_with("# EOF\n"));
    }
}
