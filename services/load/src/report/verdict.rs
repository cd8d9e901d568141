//! What a report comes to: guarantees that were broken, objectives that were missed, and why a run or its faults prove nothing.

use serde::Serialize;

use super::{Report, numbers::percent};
use crate::{
    Violation,
    faults::{FaultRecord, strays, voids},
};

/// Fewer operations than this prove nothing.
const SAMPLES_MIN: u64 = 100;

/// Pass or fail, and why.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Guarantees that were broken.
    pub broken: Vec<String>,
    /// Objectives that were missed.
    pub missed: Vec<String>,
    /// Why the run proves nothing.
    pub invalid: Vec<String>,
    /// Why its faults prove nothing, which makes the run as invalid.
    pub void: Vec<String>,
    /// 0 pass, 1 a guarantee or an objective broken, 2 the run is invalid.
    pub exit_code: u8,
}

impl Verdict {
    pub(super) fn of(report: &Report) -> Self {
        let errors_max_percent = report.setup.errors_max_percent;
        let mut verdict = Self::default();
        let found = Violation::ALL.map(|violation| (report.violations(violation), violation.words()));
        let behind = (report.divergences.len() as u64, "comparisons found a node that stayed behind");
        for (count, what) in found.into_iter().chain([behind]).filter(|(count, _)| *count > 0) {
            verdict.broken.push(format!("{count} {what}"));
        }
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
            verdict.missed.extend(strays(&report.errors, &report.faults).filter(|_| judged));
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
        if let Some(lag) = report.lag.filter(|lag| lag.dropped > 0) {
            verdict.invalid.push(format!("the rate was too high: {} operations were given up", lag.dropped));
        }
        verdict.exit_code =
            match (verdict.broken.len(), verdict.invalid.len() + verdict.void.len(), verdict.missed.len()) {
                (0, 0, 0) => 0,
                (0, 1.., _) => 2,
                _ => 1,
            };
        verdict
    }
}
