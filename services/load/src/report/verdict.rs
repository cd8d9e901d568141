//! What a report comes to, in three verdicts: whether the mesh kept its guarantee, whether objectives were met, and whether what was
//! measured can be believed. The exit code follows from them.

use serde::Serialize;

use super::{
    MaxRate, Report,
    max_rate::Limit,
    numbers::{grouped, percent},
};
use crate::{
    Op, Violation,
    exec::Standstill,
    exec::program::INVALID,
    faults::{FaultRecord, broken, strays, voids},
    stats::P99Reconciled,
};

/// Fewer operations than this prove nothing.
const SAMPLES_MIN: u64 = 100;

/// An open loop that achieved less of its schedule than this measures something else than was asked for.
const ACHIEVED_MIN: f64 = 0.95;

/// An operation whose p99 lies by more than this part in the runner's own queues tells little of the nodes.
const OWN_QUEUE_MAX: f64 = 0.25;

/// A schedule that was later than this, and a runner that stood still for longer, are part of what was measured.
const LATE_MAX_MS: f64 = 250.0;
const STANDSTILL_MAX_S: f64 = 1.0;

/// Whether the guarantee was kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Correctness {
    /// Nothing was found that breaks it.
    #[default]
    Pass,
    /// It was not.
    Broken,
    /// Answers were not checked (CHECK=off).
    Unchecked,
}

/// Whether objectives were met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Attainment {
    /// All of OBJECTIVES, and none that always holds was missed.
    Pass,
    /// At least one was missed.
    Missed,
    /// OBJECTIVES is empty, and none that always holds was missed.
    #[default]
    #[serde(rename = "NONE SET")]
    NoneSet,
}

/// Whether what was measured can be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Measurement {
    /// It can.
    #[default]
    Valid,
    /// The runner itself had a part in it.
    Suspect,
    /// It proves nothing.
    Invalid,
}

/// The three verdicts, the reasons for each, and the exit code.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Verdict {
    /// Of the mesh.
    pub correctness: Correctness,
    /// Of its performance.
    pub objectives: Attainment,
    /// Of the run itself.
    pub measurement: Measurement,
    /// Guarantees that were broken.
    pub broken: Vec<String>,
    /// Objectives that were missed.
    pub missed: Vec<String>,
    /// Why the run, or a fault of it, proves nothing.
    pub invalid: Vec<String>,
    /// Why the run's measurements are to be doubted: the runner's own part in them.
    pub suspect: Vec<String>,
    /// 0 pass, 1 a guarantee or an objective broken, 2 the run is invalid.
    pub exit_code: u8,
}

impl Verdict {
    pub(super) fn of(report: &Report) -> Self {
        let mut verdict = Self::default();
        verdict.judge_guarantee(report);
        verdict.judge_measurement(report);
        if let Some(found) = &report.max_rate {
            verdict.judge_search(found);
        } else {
            verdict.judge_objectives(report);
            verdict.judge_runner(report);
        }
        verdict.conclude(report);
        verdict
    }

    fn conclude(&mut self, report: &Report) {
        self.correctness = match self.broken.is_empty() {
            false => Correctness::Broken,
            true if report.setup.check => Correctness::Pass,
            true => Correctness::Unchecked,
        };
        self.objectives = match self.missed.is_empty() {
            false => Attainment::Missed,
            true if report.objectives.is_empty() && report.max_rate.is_none() => Attainment::NoneSet,
            true => Attainment::Pass,
        };
        self.measurement = match (self.invalid.is_empty(), self.suspect.is_empty()) {
            (true, true) => Measurement::Valid,
            (true, false) => Measurement::Suspect,
            (false, _) => Measurement::Invalid,
        };
        // What was missed may be the runner's own doing; latency and throughput may have been met because of it, too.
        let rests_on_it = !self.missed.is_empty() || report.objectives.iter().any(|objective| objective.is_measured);
        self.exit_code = self.exit_code(rests_on_it);
    }

    const fn exit_code(&self, rests_on_it: bool) -> u8 {
        match (self.correctness, self.measurement, self.objectives) {
            (Correctness::Broken, ..) => 1,
            (_, Measurement::Invalid, _) => INVALID,
            (_, Measurement::Suspect, _) if rests_on_it => INVALID,
            (.., Attainment::Missed) => 1,
            _ => 0,
        }
    }

    fn judge_guarantee(&mut self, report: &Report) {
        let found = Violation::ALL.map(|violation| (report.integrity.of(violation), violation.words()));
        let behind = (report.unexplained_divergences() as u64, "comparisons found a node that stayed behind");
        for (count, what) in found.into_iter().chain([behind]).filter(|(count, _)| *count > 0) {
            self.broken.push(format!("{count} {what}"));
        }
        self.broken.extend(report.faults.iter().filter_map(broken));
    }

    fn judge_objectives(&mut self, report: &Report) {
        let objective = report.setup.errors_objective();
        let errors_max_percent = objective.unwrap_or(report.setup.errors_max_percent);
        // A write whose outcome is unknown serves its client as little as one that failed.
        let errors = report.errors_percent();
        if objective.is_none() && errors > errors_max_percent {
            let what = "of the operations failed or have an unknown outcome";
            self.missed.push(format!("{errors:.3} % {what}, {errors_max_percent} % are allowed"));
        }
        for judged in &report.objectives {
            let list = match judged.is_met {
                Some(true) => continue,
                Some(false) => &mut self.missed,
                None => &mut self.invalid,
            };
            list.push(format!("{}: {}", judged.objective, judged.words));
        }
        if !report.faults.is_empty() {
            // Where every operation may fail, it does not matter when.
            let judged = errors_max_percent < 100.0 && voids(&report.faults).is_empty();
            self.missed.extend(strays(&report.errors, &report.faults, &report.standstills).filter(|_| judged));
        }
        // A node that nobody has started again is nobody's failure.
        let is_judged = !report.faults.iter().any(FaultRecord::is_away);
        self.missed.extend(report.not_whole.clone().filter(|_| is_judged));
    }

    /// Steps that miss objectives, and are late, are what a search is made of: what it has found is judged.
    fn judge_search(&mut self, found: &MaxRate) {
        let is_ended = !found.is_complete && found.ops_per_s.is_some();
        match (found.ops_per_s, found.limiting()) {
            (None, Some(lowest)) => {
                let why = lowest.missed.join("; ");
                self.missed.push(format!("not even {} ops/s: {why}", grouped(lowest.offered_ops_per_s.round() as u64)));
            }
            (None, None) => self.invalid.push("the search was ended before its first step".to_owned()),
            _ if is_ended => self.invalid.push("the search was ended before it had found the highest rate".to_owned()),
            _ => {}
        }
        self.invalid.extend(
            found
                .best()
                .iter()
                .flat_map(|best| &best.uncertain)
                .map(|what| format!("{what} at the highest rate: give its steps a longer DURATION")),
        );
        if let (Some(limit @ (Limit::Client | Limit::Concurrency)), Some(why)) = (found.limited_by, &found.because) {
            let who = limit.name();
            self.suspect.push(format!("{who} limits, and the nodes may do more: {why}"));
        }
    }

    fn judge_measurement(&mut self, report: &Report) {
        if report.totals.total < SAMPLES_MIN {
            self.invalid.push(format!("only {} operations; {SAMPLES_MIN} are needed", report.totals.total));
        }
        self.invalid.extend(voids(&report.faults));
        if let Some(sweep) = report.sweep.as_ref().filter(|sweep| sweep.unread > sweep.keys / 2) {
            let (unread, keys) = (sweep.unread, sweep.keys);
            self.invalid.push(format!("the final sweep proves nothing: {unread} of {keys} keys could not be read"));
        }
        if let Some(both) = report.reconciliation.as_ref().filter(|both| both.is_binding)
            && let Some(first) = both.differences.first()
        {
            let words = first.words(&report.setup.targets);
            let count = both.differences.len();
            self.invalid.push(format!("{count} counts of client and nodes do not agree, the first: {words}"));
        }
        self.invalid.extend_from_slice(&report.doubts.invalid);
        self.suspect.extend_from_slice(&report.doubts.suspect);
    }

    /// What the runner itself did to the measurement.
    fn judge_runner(&mut self, report: &Report) {
        if let Some(lag) = report.lag.filter(|lag| lag.offered > 0) {
            let (achieved, offered) = (report.totals.scheduled(), lag.offered);
            if (achieved as f64) < ACHIEVED_MIN * offered as f64 {
                let share = percent(achieved, offered);
                let (achieved, offered) = (grouped(achieved), grouped(offered));
                let what = format!("{achieved} of {offered} operations were achieved ({share:.1} %)");
                self.invalid.push(format!("the rate was too high: {what}"));
            }
            if lag.schedule_late_ms >= LATE_MAX_MS {
                self.suspect.push(format!("the runner's schedule was up to {:.0} ms late", lag.schedule_late_ms));
            }
        }
        let ops = report.reconciliation.iter().flat_map(|both| &both.ops);
        self.suspect.extend(ops.filter_map(|op| own_queue(op.op, op.p99.as_ref()?)));
        let longest = report.standstills.iter().max_by(|a, b| a.lasted_s().total_cmp(&b.lasted_s()));
        if let Some(longest) = longest {
            let Standstill { from_s, to_s } = *longest;
            let what = format!(
                "the runner itself stood still (stopped, suspended or without CPU): {} times, the longest from {from_s:.2} s \
                 to {to_s:.2} s; what failed or was slow then is no node's failure",
                report.standstills.len()
            );
            let list = if longest.lasted_s() >= STANDSTILL_MAX_S { &mut self.invalid } else { &mut self.suspect };
            list.push(what);
        }
    }
}

impl Report {
    /// Operations that failed or have an unknown outcome, in percent of all.
    pub(super) fn errors_percent(&self) -> f64 {
        percent(self.totals.errors + self.totals.indeterminate, self.totals.total)
    }
}
/// What the runner's own queues were of an operation's p99, if that is too much.
fn own_queue(op: Op, p99: &P99Reconciled) -> Option<String> {
    let own_ms = p99.lag_ms + p99.client_queue_ms;
    (own_ms > OWN_QUEUE_MAX * p99.response_ms).then(|| {
        let share = own_ms * 100.0 / p99.response_ms;
        format!(
            "{share:.0} % of the p99 of {} ({:.2} ms) lay in the runner's own queues (lag {:.2}, client queue {:.2}): give it more \
             CPU, or a lower RATE or CONCURRENCY",
            op.name(),
            p99.response_ms,
            p99.lag_ms,
            p99.client_queue_ms
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_from_the_three_verdicts() {
        use {Attainment as A, Correctness as C, Measurement as M};
        let exit_code = |correctness, objectives, measurement, rests_on_it| {
            Verdict { correctness, objectives, measurement, ..Verdict::default() }.exit_code(rests_on_it)
        };
        for (correctness, objectives, measurement, rests_on_it, expected) in [
            (C::Pass, A::NoneSet, M::Valid, false, 0),
            (C::Unchecked, A::Pass, M::Valid, true, 0),
            (C::Pass, A::NoneSet, M::Suspect, false, 0),
            (C::Pass, A::Pass, M::Suspect, true, 2),
            (C::Pass, A::Missed, M::Suspect, true, 2),
            (C::Pass, A::Missed, M::Valid, true, 1),
            (C::Pass, A::Pass, M::Invalid, false, 2),
            (C::Broken, A::Missed, M::Invalid, true, 1),
            (C::Broken, A::Pass, M::Suspect, true, 1),
        ] {
            let found = exit_code(correctness, objectives, measurement, rests_on_it);
            assert_eq!(found, expected, "{correctness:?} {objectives:?} {measurement:?} {rests_on_it}");
        }
    }

    #[test]
    fn a_p99_that_lies_in_the_runners_own_queues_is_doubted() {
        let of = |lag_ms, client_queue_ms| {
            own_queue(
                Op::Get,
                &P99Reconciled { response_ms: 10.0, lag_ms, client_queue_ms, ..P99Reconciled::default() },
            )
        };
        assert_eq!(of(1.0, 1.4), None);
        let words = of(1.2, 1.4).unwrap_or_default();
        assert!(words.starts_with("26 % of the p99 of GET (10.00 ms) lay in the runner's own queues"), "{words}");
    }
}
