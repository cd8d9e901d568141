//! A search for the highest rate, for people: what was found, who limits, and a line for each step.

use settings::COLUMNS;

use super::{
    MaxRate, Page, Report,
    max_rate::Step,
    numbers::{cell, grouped},
    screen::{Rank, Screen},
};
use crate::Op;

/// The section of the details.
pub(super) fn write(out: &mut Page, report: &Report) {
    let Some(found) = &report.max_rate else { return };
    out.heading("Highest rate");
    sentences(found).iter().for_each(|(name, sentence)| out.field(name, sentence));
    out.gap();
    out.line(&header(found));
    found.steps.iter().for_each(|step| out.line(&row(found, step)));
}

/// The same for a terminal: the steps around the highest rate stay, and others only where there is room.
pub(super) fn show(out: &mut Screen, found: &MaxRate) {
    sentences(found).iter().for_each(|(name, sentence)| out.field(Rank::Always, name, sentence));
    out.gap();
    out.line(Rank::Always, &header(found));
    for step in &found.steps {
        let is_bracket = [found.ops_per_s, found.missed_ops_per_s].contains(&Some(step.offered_ops_per_s));
        out.line(if is_bracket { Rank::Always } else { Rank::Steps }, &row(found, step));
    }
}

/// What was found, in one line that programs look for.
pub(super) fn fact(found: &MaxRate) -> String {
    let number = |rate: Option<f64>| rate.map_or_else(|| "unknown".to_owned(), |rate| format!("{rate:.0}"));
    let limit = found.limited_by.map(|limit| format!(", limited by {}", limit.name())).unwrap_or_default();
    let (met, missed) = (number(found.ops_per_s), number(found.missed_ops_per_s));
    format!("Highest rate: {met} ops/s, not {missed} ops/s{limit}")
}

fn sentences(found: &MaxRate) -> Vec<(&'static str, String)> {
    let rate = |rate: f64| format!("{} ops/s", grouped(rate.round() as u64));
    let mut sentences = Vec::new();
    sentences.push((
        "Highest rate",
        match (found.ops_per_s, found.limiting()) {
            (Some(met), Some(above)) => {
                let more = (above.offered_ops_per_s / met - 1.0) * 100.0;
                let why = above.missed.join("; ");
                format!("{} met the objectives; {more:.1} % more did not: {why}", rate(met))
            }
            (Some(met), None) => format!("{} met the objectives, and nothing above it failed", rate(met)),
            (None, Some(lowest)) => {
                format!("none: {} missed {}", rate(lowest.offered_ops_per_s), lowest.missed.join("; "))
            }
            (None, None) => "unknown".to_owned(),
        },
    ));
    if let (Some(limit), Some(why)) = (found.limited_by, &found.because) {
        sentences.push(("Limited by", format!("{}: {why}", limit.name())));
    }
    sentences
}

fn ops(found: &MaxRate) -> impl Iterator<Item = Op> {
    let made = |op: &Op| found.steps.iter().any(|step| step.p99_ms.iter().any(|(other, _)| other == op));
    Op::ALL.into_iter().filter(made)
}

fn header(found: &MaxRate) -> String {
    let p99: String = ops(found).map(|op| format!("{:>8}", format!("{} p99", op.name()))).collect();
    format!("{:>10}{:>10}{p99}{:>8}{:>7}{:>6}  {}", "offered", "achieved", "errors", "client", "nodes", "result")
}

/// Rates in operations per second, times in milliseconds, and cores.
fn row(found: &MaxRate, step: &Step) -> String {
    let of = |op: Op| step.p99_ms.iter().find(|(other, _)| *other == op).map(|(_, ms)| cell(*ms)).unwrap_or_default();
    let p99: String = ops(found).map(|op| format!("{:>8}", of(op))).collect();
    let [offered, achieved] =
        [step.offered_ops_per_s, step.achieved_ops_per_s].map(|rate| grouped(rate.round() as u64));
    let errors = format!("{:.2} %", step.errors_percent);
    let nodes = step.nodes_cores().map_or_else(|| "–".to_owned(), |cores| format!("{cores:.2}"));
    // The name of the first objective that it missed; how far it was off is said of the one above the highest rate.
    let result = step.missed.first().map_or("met", |first| first.split(':').next().unwrap_or(first));
    let result = result.split(" of ").next().unwrap_or(result);
    let figures = format!("{offered:>10}{achieved:>10}{p99}{errors:>8}{:>7.2}{nodes:>6}  ", step.client_cores);
    let columns = COLUMNS - figures.chars().count();
    figures + &result.chars().take(columns).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::max_rate::Limit;

    fn found() -> MaxRate {
        let step = |rate: f64, is_met: bool| Step {
            offered_ops_per_s: rate,
            achieved_ops_per_s: rate,
            p99_ms: vec![(Op::Get, 1.5), (Op::Set, 12_345.0), (Op::Delete, 3.0)],
            is_met,
            missed: (!is_met).then(|| "set.p99<=50ms: 12345 ms, 247 times the limit".to_owned()).into_iter().collect(),
            node_cores: vec![Some(0.5), Some(0.25)],
            ..Step::default()
        };
        let steps = vec![step(1000.0, true), step(1_234_567.0, true), step(1_284_567.0, false)];
        MaxRate {
            ops_per_s: Some(1_234_567.0),
            missed_ops_per_s: Some(1_284_567.0),
            is_complete: true,
            limited_by: Some(Limit::Nodes),
            because: Some("the client was in time".to_owned()),
            steps,
        }
    }

    #[test]
    fn what_was_found_comes_first_and_each_step_is_a_line_of_80_columns() {
        let found = found();
        let mut screen = Screen::new(Page::new(Some(80)));
        show(&mut screen, &found);
        let out = screen.finish();
        assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
        let first = "Highest rate 1 234 567 ops/s met the objectives; 4.1 % more did not:\n             set.p99<=50ms: 12345 ms,";
        assert!(out.starts_with(first), "{out}");
        assert!(out.contains("Limited by   the nodes: the client was in time\n"), "{out}");
        let last = out.lines().last().unwrap_or_default();
        assert!(last.contains(" 12345 ") && last.contains(" 0.75  set.p99<=50ms"), "{out}");
        assert_eq!(fact(&found), "Highest rate: 1234567 ops/s, not 1284567 ops/s, limited by the nodes");
    }
}
