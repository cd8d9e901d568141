//! A comparison for people: first what else differs, then the figures.

use std::fmt;

use serde_json::Value;
use settings::{columns_of, wrapped};

use super::{Change, ComparedRun, Comparison};
use crate::report::numbers::{cell, grouped};

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = columns_of(std::io::stdout()).unwrap_or(usize::MAX);
        for warning in &self.warnings {
            writeln!(f, "{}", wrapped(&format!("WARNING  not the same {warning}"), columns, 9))?;
        }
        if !self.warnings.is_empty() {
            f.write_str("\n")?;
        }
        for (name, side) in [("A", &self.a), ("B", &self.b)] {
            writeln!(f, "{}", wrapped(&side.line(name), columns, 3))?;
        }
        writeln!(f, "\n{:<18}{:>10}{:>10}{:>9}   99 % interval", "", "A", "B", "change")?;
        for change in &self.changes {
            writeln!(f, "{}", line(change))?;
        }
        let caution = "The confidence intervals rest on one run each. What differs by chance from run to run is not in them: repeat \
                       both runs before you trust a small change.";
        writeln!(f, "\n{}", wrapped(caution, columns.min(settings::COLUMNS), 0))?;
        for failed in &self.failed {
            writeln!(f, "FAILED  {failed}")?;
        }
        Ok(())
    }
}

impl ComparedRun {
    fn line(&self, name: &str) -> String {
        let verdict = self.verdict.as_object().into_iter().flatten().filter_map(|(name, value)| match value {
            Value::Array(reasons) if reasons.is_empty() => None,
            Value::Array(reasons) => Some(format!("{name}: {}", reasons.len())),
            Value::String(word) => Some(format!("{name} {word}")),
            Value::Number(number) => Some(format!("{} {number}", name.replace('_', " "))),
            _ => None,
        });
        let verdict = verdict.collect::<Vec<_>>().join(", ");
        format!("{name}  {}, {} intervals; {verdict}", self.run_id, self.intervals)
    }
}

pub(super) fn line(change: &Change) -> String {
    let figure = |value: f64| match change.unit {
        "ms" => cell(value),
        "ops/s" => grouped(value.round() as u64),
        _ => format!("{value:.1}"),
    };
    let percent = |percent: f64| format!("{percent:+.1} %");
    let between = change.between_percent.map_or_else(
        || "unknown: one figure a run".to_owned(),
        |(low, high)| format!("{low:+.1} to {}", percent(high)),
    );
    let mark = if change.is_significant { "   significant" } else { "" };
    let (a, b, change_percent) = (figure(change.a), figure(change.b), percent(change.percent));
    let name = match change.figure.split_once('.') {
        Some(("cpu", who)) => format!("CPU {who}"),
        Some((op, percentile)) => format!("{} {percentile}", op.to_uppercase()),
        None => change.figure.clone(),
    };
    let name = format!("{name}, {}", change.unit);
    format!("{name:<18}{a:>10}{b:>10}{change_percent:>9}   {between}{mark}")
}
