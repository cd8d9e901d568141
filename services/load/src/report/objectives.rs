//! Objectives against what was measured: met or missed, by how much, or not judged for want of operations.
//!
//! A failed operation, and a write whose outcome is unknown, counts as slower than any limit: connections that are refused at
//! once would otherwise improve a percentile.

use serde::Serialize;

use super::numbers::{grouped, percent};
use crate::{
    OutcomeClass, Phase,
    faults::FaultRecord,
    plan::objective::{BEYOND_MIN, Measure, Objective},
    stats::{Recorder, Series},
};

/// A share of failed operations is judged only of as many operations.
const SHARE_OF_MIN: u64 = 100;

/// An objective and what the run came to.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JudgedObjective {
    /// As it is written.
    pub objective: String,
    /// Nothing if it could not be judged.
    pub is_met: Option<bool>,
    /// What was measured, in the unit; nothing if it could not be judged, or lies beyond every limit.
    pub value: Option<f64>,
    /// What is allowed, in the unit.
    pub limit: f64,
    /// The unit of both.
    pub unit: &'static str,
    /// The value and by how much the limit was met or missed, or why it was not judged.
    pub words: String,
    /// The runner's own part in the measurement may have decided it.
    #[serde(skip)]
    pub(crate) is_measured: bool,
}

/// What an objective's measure came to.
enum Value {
    /// In the measure's unit.
    Of(f64),
    /// Worse than every limit, and why.
    Endless(String),
    /// Why it cannot be judged.
    Unknown(String),
}

/// What objectives are held against.
#[derive(Clone, Copy)]
pub(crate) struct ObjectiveEvidence<'a> {
    pub(crate) recorder: &'a Recorder,
    pub(crate) faults: &'a [FaultRecord],
    pub(crate) ops_per_s: f64,
    /// However few operations there were.
    pub(crate) is_enough: bool,
}

/// Holds an objective against what was measured.
pub(crate) fn judge(objective: &Objective, evidence: &ObjectiveEvidence<'_>) -> JudgedObjective {
    let value = match objective.measure {
        Measure::Percentile(rank) => response(objective, rank, evidence),
        Measure::Errors => errors(objective, evidence),
        Measure::Throughput => Value::Of(evidence.ops_per_s),
        Measure::Recovery => recovery(evidence.faults),
    };
    let (limit, unit) = (objective.limit, objective.measure.unit());
    let (is_met, value, words) = match value {
        Value::Of(value) => {
            let words = format!("{}{}", figure(value, unit), margin(value, limit));
            (Some(objective.is_met_by(value)), Some(value), words)
        }
        Value::Endless(words) => (Some(false), None, words),
        Value::Unknown(reason) => (None, None, reason),
    };
    let is_measured = matches!(objective.measure, Measure::Percentile(_) | Measure::Throughput);
    JudgedObjective { objective: objective.to_string(), is_met, value, limit, unit, words, is_measured }
}

impl ObjectiveEvidence<'_> {
    /// How many operations it takes, of which so many would be enough.
    fn needed(&self, enough: u64) -> u64 {
        if self.is_enough { 1 } else { enough }
    }
}

/// How many operations a percentile needs.
pub(crate) fn samples_needed(rank: f64) -> u64 {
    // Rounded, since 100 − 99.9 is not exactly 0.1.
    let share = ((100.0 - rank) * 1e3).round() / 1e5;
    if share > 0.0 { (BEYOND_MIN as f64 / share).ceil() as u64 } else { BEYOND_MIN }
}

fn response(objective: &Objective, rank: f64, evidence: &ObjectiveEvidence<'_>) -> Value {
    let recorder = evidence.recorder;
    let is_error = |series: Series| series.outcome == OutcomeClass::Error;
    let answered = recorder.response.select(|series| concerns(objective, series) && !is_error(series));
    let failed = recorder.response.select(|series| concerns(objective, series) && is_error(series)).count();
    let (all, needed) = (answered.count() + failed, evidence.needed(samples_needed(rank)));
    if all < needed {
        return Value::Unknown(few(objective, all, needed));
    }
    // The rank among all operations, of which those that failed come last.
    let rank = rank * all as f64 / answered.count().max(1) as f64;
    if rank > 100.0 {
        let share = percent(failed, all);
        return Value::Endless(format!("{share:.2} % failed, and what fails counts as slower than any limit"));
    }
    Value::Of(answered.percentile(rank).as_secs_f64() * 1e3)
}

fn errors(objective: &Objective, evidence: &ObjectiveEvidence<'_>) -> Value {
    let recorder = evidence.recorder;
    let all = recorder.response.select(|series| concerns(objective, series)).count();
    let needed = evidence.needed(SHARE_OF_MIN);
    if all < needed {
        return Value::Unknown(few(objective, all, needed));
    }
    let is_error = |series: Series| series.outcome == OutcomeClass::Error;
    let failed = recorder.response.select(|series| concerns(objective, series) && is_error(series)).count();
    Value::Of(percent(failed, all))
}

/// The longest of all faults.
fn recovery(faults: &[FaultRecord]) -> Value {
    let mut longest_s = None;
    for fault in faults.iter().filter(|fault| fault.begun_at_s.is_some() && fault.failure.is_none()) {
        let Some(recovered_s) = fault.recovered_at_s else {
            return Value::Endless(format!("the replicas were not seen in sync again after {}", fault.fault));
        };
        let since_s = fault.ended_at_s.or(fault.begun_at_s).unwrap_or_default();
        longest_s = Some((recovered_s - since_s).max(longest_s.unwrap_or_default()));
    }
    longest_s.map_or_else(|| Value::Unknown("no fault took effect".to_owned()), Value::Of)
}

fn concerns(objective: &Objective, series: Series) -> bool {
    objective.op.is_none_or(|op| op == series.op) && objective.phase.is_none_or(|phase| phase == series.phase)
}

fn few(objective: &Objective, all: u64, needed: u64) -> String {
    let phase = objective.phase.map_or("", Phase::name);
    let what = [phase, objective.op.map_or("", |op| op.name()), "operations"];
    let what: Vec<_> = what.into_iter().filter(|word| !word.is_empty()).collect();
    format!("only {} {}; {} are needed", grouped(all), what.join(" "), grouped(needed))
}

fn figure(value: f64, unit: &str) -> String {
    match unit {
        "ops/s" => format!("{} ops/s", grouped(value.round() as u64)),
        "%" => format!("{value:.3} %"),
        "s" => format!("{value:.2} s"),
        _ if value < 10.0 => format!("{value:.3} {unit}"),
        _ => format!("{value:.2} {unit}"),
    }
}

/// How far from the limit, in percent of it.
fn margin(value: f64, limit: f64) -> String {
    let off = (value - limit) * 100.0 / limit;
    match off {
        _ if limit == 0.0 => String::new(),
        1000.0.. => format!(", {:.0} times the limit", value / limit),
        0.0.. => format!(", {off:.0} % above"),
        _ => format!(", {:.0} % below", -off),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{NodeIndex, Objectives, Op};

    fn record(recorder: &mut Recorder, outcome: OutcomeClass, count: u64, ms: u64) {
        let series = Series { phase: Phase::Steady, op: Op::Get, outcome, node: NodeIndex(0) };
        (0..count).for_each(|_| recorder.response.record(series, Duration::from_millis(ms)));
    }

    fn judged(text: &str, recorder: &Recorder, faults: &[FaultRecord]) -> JudgedObjective {
        let objectives: Objectives = text.parse().unwrap();
        let evidence = ObjectiveEvidence { recorder, faults, ops_per_s: 900.0, is_enough: false };
        judge(&objectives.as_slice()[0], &evidence)
    }

    #[test]
    fn a_storm_of_refused_connections_never_improves_a_percentile() {
        let mut recorder = Recorder::new(1);
        record(&mut recorder, OutcomeClass::Local, 9_800, 2);
        record(&mut recorder, OutcomeClass::Local, 200, 20);
        let before = judged("get.p99<10ms", &recorder, &[]);
        assert_eq!(before.is_met, Some(false), "{before:?}");
        assert!(before.words.starts_with("20.0") && before.words.ends_with(" ms, 100 % above"), "{before:?}");
        // Refused within no time, 19 times as often as all others: the percentile of all is that of refusals.
        record(&mut recorder, OutcomeClass::Error, 190_000, 0);
        let all = recorder.response.select(|_| true).percentile(95.0);
        assert!(all < Duration::from_millis(1), "{all:?}");
        for objective in ["get.p50<10ms", "get.p95<10ms", "get.p99<10ms", "get.max<10s", "steady.get.p99<10ms"] {
            let after = judged(objective, &recorder, &[]);
            assert_eq!((after.is_met, after.value), (Some(false), None), "{after:?}");
            assert_eq!(after.words, "95.00 % failed, and what fails counts as slower than any limit");
        }
        // A few failures move the rank: 0.5 % of them leave p99 at what was the 99.5th.
        let mut recorder = Recorder::new(1);
        record(&mut recorder, OutcomeClass::Local, 9_870, 2);
        record(&mut recorder, OutcomeClass::Local, 80, 20);
        assert_eq!(judged("get.p99<10ms", &recorder, &[]).is_met, Some(true));
        record(&mut recorder, OutcomeClass::Error, 50, 0);
        let after = judged("get.p99<10ms", &recorder, &[]);
        assert!(after.is_met == Some(false) && after.value > Some(19.0), "{after:?}");
    }

    #[test]
    fn what_has_too_few_operations_is_not_judged() {
        assert_eq!([50.0, 95.0, 99.0, 99.9, 100.0].map(samples_needed), [20, 200, 1_000, 10_000, 10]);
        let mut recorder = Recorder::new(1);
        record(&mut recorder, OutcomeClass::Local, 999, 1);
        let few = judged("get.p99<10ms", &recorder, &[]);
        assert_eq!((few.is_met, few.words.as_str()), (None, "only 999 GET operations; 1 000 are needed"));
        record(&mut recorder, OutcomeClass::Error, 1, 1);
        assert_eq!(judged("get.p99<10ms", &recorder, &[]).is_met, Some(true));
        let none = judged("recovered.get.errors<1%", &recorder, &[]);
        assert_eq!(none.words, "only 0 recovered GET operations; 100 are needed");
    }

    #[test]
    fn shares_rates_and_recoveries_are_judged() {
        let mut recorder = Recorder::new(1);
        record(&mut recorder, OutcomeClass::Local, 990, 1);
        record(&mut recorder, OutcomeClass::Error, 10, 1);
        for (objective, is_met, words) in [
            ("errors<=1%", true, "1.000 %, 0 % above"),
            ("get.errors<0.5%", false, "1.000 %, 100 % above"),
            ("throughput>1000", false, "900 ops/s, 10 % below"),
            ("throughput>600", true, "900 ops/s, 50 % above"),
            ("get.p50<1s", true, "1.000 ms, 100 % below"),
            ("get.p50<10us", false, "1.000 ms, 100 times the limit"),
        ] {
            let judged = judged(objective, &recorder, &[]);
            assert_eq!((judged.is_met, judged.words.as_str()), (Some(is_met), words), "{objective}");
        }
        let fault = |recovered_at_s| FaultRecord { recovered_at_s, ..FaultRecord::example(0, 1.0) };
        let of = |faults: &[FaultRecord]| judged("recovery<2s", &recorder, faults);
        assert_eq!(of(&[]).words, "no fault took effect");
        let two = of(&[fault(Some(6.5)), fault(Some(9.0)), fault(Some(7.0))]);
        assert_eq!((two.is_met, two.words.as_str()), (Some(false), "3.00 s, 50 % above"), "the longest counts");
        assert_eq!(of(&[fault(Some(7.0))]).words, "1.00 s, 50 % below");
        let never = of(&[fault(None)]);
        assert_eq!((never.is_met, never.value), (Some(false), None));
    }
}
