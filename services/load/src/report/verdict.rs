//! What a report comes to: guarantees that were broken, objectives that were missed, and why a run or its faults prove nothing.

use serde::Serialize;

use super::{
    Report,
    numbers::{grouped, percent},
};
use crate::{
    Op, Violation,
    exec::Standstill,
    faults::{FaultRecord, broken, strays, voids},
    program::INVALID,
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

/// Pass or fail, and why.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Verdict {
    /// Guarantees that were broken.
    pub broken: Vec<String>,
    /// Objectives that were missed.
    pub missed: Vec<String>,
    /// Why the run proves nothing.
    pub invalid: Vec<String>,
    /// Why its faults prove nothing, which makes the run as invalid.
    pub void: Vec<String>,
    /// Why the run's measurements are to be doubted: the runner's own part in them.
    pub suspect: Vec<String>,
    /// 0 pass, 1 a guarantee or an objective broken, 2 the run is invalid.
    pub exit_code: u8,
}

impl Verdict {
    pub(super) fn of(report: &Report) -> Self {
        let errors_max_percent = report.setup.errors_max_percent;
        let mut verdict = Self::default();
        let found = Violation::ALL.map(|violation| (report.integrity.of(violation), violation.words()));
        let behind = (report.unexplained_divergences() as u64, "comparisons found a node that stayed behind");
        for (count, what) in found.into_iter().chain([behind]).filter(|(count, _)| *count > 0) {
            verdict.broken.push(format!("{count} {what}"));
        }
        verdict.broken.extend(report.faults.iter().filter_map(broken));
        // A write whose outcome is unknown serves its client as little as one that failed.
        let errors = percent(report.totals.errors + report.totals.indeterminate, report.totals.total);
        if errors > errors_max_percent {
            let what = "of the operations failed or have an unknown outcome";
            verdict.missed.push(format!("{errors:.3} % {what}, {errors_max_percent} % are allowed"));
        }
        if report.totals.total < SAMPLES_MIN {
            verdict.invalid.push(format!("only {} operations; {SAMPLES_MIN} are needed", report.totals.total));
        }
        verdict.void = voids(&report.faults);
        if !report.faults.is_empty() {
            // Where every operation may fail, it does not matter when.
            let judged = errors_max_percent < 100.0 && verdict.void.is_empty();
            verdict.missed.extend(strays(&report.errors, &report.faults, &report.standstills).filter(|_| judged));
        }
        // A node that nobody has started again is nobody's failure.
        let is_judged = !report.faults.iter().any(FaultRecord::is_away);
        verdict.missed.extend(report.not_whole.clone().filter(|_| is_judged));
        if let Some(sweep) = report.sweep.as_ref().filter(|sweep| sweep.unread > sweep.keys / 2) {
            let (unread, keys) = (sweep.unread, sweep.keys);
            verdict.invalid.push(format!("the final sweep proves nothing: {unread} of {keys} keys could not be read"));
        }
        if let Some(both) = report.reconciliation.as_ref().filter(|both| both.is_binding)
            && let Some(first) = both.differences.first()
        {
            let words = first.words(&report.setup.targets);
            let count = both.differences.len();
            verdict.invalid.push(format!("{count} counts of client and nodes do not agree, the first: {words}"));
        }
        verdict.invalid.extend_from_slice(&report.doubts.invalid);
        verdict.suspect.extend_from_slice(&report.doubts.suspect);
        verdict.judge_runner(report);
        let proves_nothing = verdict.invalid.len() + verdict.void.len();
        verdict.exit_code = match (verdict.broken.len(), proves_nothing, verdict.missed.len(), verdict.suspect.len()) {
            (0, 0, 0, _) => 0,
            // What was missed may be the runner's own doing.
            (0, 1.., _, _) | (0, 0, 1.., 1..) => INVALID,
            _ => 1,
        };
        verdict
    }

    /// What the runner itself did to the measurement.
    fn judge_runner(&mut self, report: &Report) {
        if let Some(lag) = report.lag.filter(|lag| lag.offered > 0) {
            let (achieved, offered) = (report.totals.total, lag.offered);
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
