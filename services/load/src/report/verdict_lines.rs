//! The three verdicts in a line each: the word, and the reason for it in a sentence.

use anstyle::{AnsiColor, Style};

use super::{
    Report,
    numbers::{grouped, ms, percent},
    verdict::{Attainment, Correctness, Measurement},
};
use crate::Violation;

/// What is said of one verdict.
pub(crate) struct VerdictLine {
    pub(crate) name: &'static str,
    pub(crate) word: &'static str,
    pub(crate) style: Style,
    pub(crate) sentence: String,
    /// The further reasons for it.
    pub(crate) further: Vec<String>,
}

pub(crate) const RED: Style = AnsiColor::Red.on_default();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();

impl VerdictLine {
    /// Of the report's mesh, of its performance, and of the run itself.
    pub(crate) fn all(report: &Report) -> [Self; 3] {
        let verdict = &report.verdict;
        let (word, style) = match verdict.correctness {
            Correctness::Pass => ("PASS", GREEN),
            Correctness::Broken => ("BROKEN", RED),
            Correctness::Unchecked => ("UNCHECKED", YELLOW),
        };
        let correctness = Self::new("CORRECTNESS", (word, style), &verdict.broken, || kept(report));
        let (word, style) = match verdict.objectives {
            Attainment::Pass => ("PASS", GREEN),
            Attainment::Missed => ("MISSED", RED),
            Attainment::NoneSet => ("NONE SET", Style::new()),
        };
        let objectives = Self::new("OBJECTIVES", (word, style), &verdict.missed, || met(report));
        let (word, style) = match verdict.measurement {
            Measurement::Valid => ("VALID", GREEN),
            Measurement::Suspect => ("SUSPECT", YELLOW),
            Measurement::Invalid => ("INVALID", YELLOW),
        };
        let doubts: Vec<_> = verdict.invalid.iter().chain(&verdict.suspect).cloned().collect();
        let measurement = Self::new("MEASUREMENT", (word, style), &doubts, || supported(report));
        [correctness, objectives, measurement]
    }

    fn new(
        name: &'static str,
        (word, style): (&'static str, Style),
        reasons: &[String],
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        let (sentence, further) = match reasons.split_first() {
            Some((first, further)) => (first.clone(), further.to_vec()),
            None => (otherwise(), Vec::new()),
        };
        Self { name, word, style, sentence, further }
    }

    /// In one line.
    pub(crate) fn text(&self) -> String {
        let Self { name, word, style, sentence, further } = self;
        let more = if further.is_empty() { String::new() } else { format!(" (and {} more)", further.len()) };
        // A word alone has no spaces behind it.
        let width = if sentence.is_empty() { 0 } else { 9 };
        format!("{name:<13}{style}{word:<width$}{style:#} {sentence}{more}").trim_end().to_owned()
    }
}

/// What a run showed in which nothing was broken.
fn kept(report: &Report) -> String {
    if !report.setup.check {
        return "CHECK=off".to_owned();
    }
    let mut text = match &report.sweep {
        None => "0 wrong values; lost writes are unknown without a final sweep".to_owned(),
        Some(sweep) => {
            let [read, keys] = [sweep.keys.saturating_sub(sweep.unread), sweep.keys].map(grouped);
            let of = if sweep.unread > 0 { format!(" of {keys}") } else { String::new() };
            let by = if report.setup.guarantee.has_replicas() { " from every node" } else { "" };
            format!("{}, 0 wrong; {read}{of} keys read back{by}", lost(report))
        }
    };
    let explained: u64 = Violation::ALL.into_iter().map(|violation| report.integrity.explained(violation)).sum();
    if explained > 0 {
        let why = report.explanations().join("; ");
        text.push_str(&format!("; {} lost, missing or older values explained: {why}", grouped(explained)));
    }
    text
}

/// Acknowledged writes that are gone, though nothing was broken.
fn lost(report: &Report) -> String {
    let lost = report.integrity.explained(Violation::Lost);
    match &report.not_kept_because {
        Some(_) if lost > 0 => {
            format!("{} acknowledged writes lost: this target does not promise to keep them", grouped(lost))
        }
        _ => "0 lost".to_owned(),
    }
}

/// What a run showed in which no objective was missed.
fn met(report: &Report) -> String {
    if let Some(rate) = report.max_rate.as_ref().and_then(|found| found.ops_per_s) {
        return format!("{} ops/s meet {}", grouped(rate.round() as u64), report.setup.objectives);
    }
    if report.objectives.is_empty() {
        let (errors, allowed) = (report.errors_percent(), report.setup.errors_max_percent);
        return format!("{errors:.3} % errors and unknown outcomes, at most {allowed} %");
    }
    let one = |judged: &super::JudgedObjective| format!("{}: {}", judged.objective, judged.words);
    report.objectives.iter().filter(|judged| judged.is_met == Some(true)).map(one).collect::<Vec<_>>().join("; ")
}

/// What speaks for the measurement.
fn supported(report: &Report) -> String {
    let mut parts = Vec::new();
    if let Some(both) = &report.reconciliation {
        parts.push(match both.differences.len() {
            0 => "client and nodes agree".to_owned(),
            differences => format!("{differences} counts of client and nodes differ"),
        });
    }
    if let Some(lag) = report.lag.filter(|lag| lag.offered > 0) {
        let share = percent(report.totals.total, lag.offered);
        let share =
            if share < 99.5 { format!("{share:.1} % of the schedule achieved, ") } else { "schedule ".to_owned() };
        parts.push(format!("{share}kept to {} ms", ms(lag.schedule_late_ms)));
    }
    parts.join("; ")
}
