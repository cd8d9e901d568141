//! Two configurations that were run several times in turn: the change of each figure from one to the other within each pair of
//! neighbouring runs, and the median over all pairs. What differs by chance from run to run is in its interval.

use std::{fmt, path::PathBuf};

use serde::Serialize;
use settings::{COLUMNS, columns_of, wrapped};

use super::{Change, Comparison, Condition, text::line};
use crate::{exec::show, results::commands::Format, results::stored::StoredRun, stats::Spread};

/// The folders of runs that were made in turn.
#[derive(Debug, Default)]
pub struct PairedRuns(Vec<(PathBuf, PathBuf)>);

impl PairedRuns {
    /// Adds the runs `a` and `b`, of which one followed the other.
    pub fn add(&mut self, a: PathBuf, b: PathBuf) {
        self.0.push((a, b));
    }

    /// Compares all pairs and prints what came of it; the exit code is 1 if one of the conditions holds.
    ///
    /// # Errors
    /// One line: why there is nothing to compare.
    pub fn compare(&self, format: Format, fail_on: &[Condition]) -> Result<u8, String> {
        let find = |path: &PathBuf| StoredRun::find(&path.display().to_string(), None);
        let compare = |(a, b): &(PathBuf, PathBuf)| Comparison::of(&find(a)?, &find(b)?, &[]);
        let all = self.0.iter().map(compare).collect::<Result<Vec<_>, _>>()?;
        let paired = Paired::of(&all, fail_on)?;
        match format {
            Format::Text => show(paired.to_string().trim_end()),
            Format::Json => show(&serde_json::to_string_pretty(&paired).map_err(|error| error.to_string())?),
        }
        Ok(u8::from(!paired.failed.is_empty()))
    }
}

/// What came of all pairs. Serialized, it is the output of `--format json`.
#[derive(Debug, Serialize)]
struct Paired {
    pairs: usize,
    /// What differs between the two: settings, which are meant to, and whatever else.
    differences: Vec<String>,
    /// Medians over the pairs.
    changes: Vec<Change>,
    failed: Vec<String>,
}

impl Paired {
    fn of(pairs: &[Comparison], conditions: &[Condition]) -> Result<Self, String> {
        let Some((first, others)) = pairs.split_first() else {
            return Err("there is no whole pair of runs".to_owned());
        };
        let of_all = |figure: &str| -> Option<Vec<&Change>> {
            let of = |pair: &Comparison| pair.changes.iter().position(|change| change.figure == figure);
            pairs.iter().map(|pair| of(pair).map(|at| &pair.changes[at])).collect()
        };
        let median = |change: &Change| median(change, &of_all(&change.figure)?);
        let changes: Vec<_> = first.changes.iter().filter_map(median).collect();
        let failed = Condition::that_hold(conditions, &changes)?;
        let mut differences = first.warnings.clone();
        for warning in others.iter().flat_map(|pair| &pair.warnings) {
            if !differences.contains(warning) {
                differences.push(warning.clone());
            }
        }
        // Each run has a name of its own.
        differences.retain(|difference| !difference.starts_with("RUN_ID: "));
        Ok(Self { pairs: pairs.len(), differences, changes, failed })
    }
}

fn median(change: &Change, all: &[&Change]) -> Option<Change> {
    let middle = |value: fn(&Change) -> f64| Spread::of(all.iter().map(|change| value(change)).collect());
    let percent = middle(|change| change.percent)?;
    Some(Change {
        figure: change.figure.clone(),
        unit: change.unit,
        a: middle(|change| change.a)?.median,
        b: middle(|change| change.b)?.median,
        percent: percent.median,
        between_percent: Some((percent.low, percent.high)),
        is_significant: percent.of >= Spread::SURE_FROM && (percent.low > 0.0 || percent.high < 0.0),
    })
}

impl fmt::Display for Paired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = columns_of(std::io::stdout()).unwrap_or(usize::MAX);
        for difference in &self.differences {
            writeln!(f, "{}", wrapped(&format!("differs  {difference}"), columns, 9))?;
        }
        writeln!(
            f,
            "\n{:<18}{:>10}{:>10}{:>9}   95 % interval over {} pairs",
            "medians", "A", "B", "change", self.pairs
        )?;
        for change in &self.changes {
            writeln!(f, "{}", line(change))?;
        }
        if self.pairs < Spread::SURE_FROM {
            let least = format!(
                "With {} pairs the interval is that of all of them, and nothing is called significant: {} are needed, --abba {}.",
                self.pairs,
                Spread::SURE_FROM,
                Spread::SURE_FROM.div_ceil(2)
            );
            writeln!(f, "\n{}", wrapped(&least, columns.min(COLUMNS), 0))?;
        }
        self.failed.iter().try_for_each(|failed| writeln!(f, "FAILED  {failed}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::{super::ComparedRun, *};

    fn pair(percent: f64) -> Comparison {
        let side = |run_id: &str| ComparedRun { run_id: run_id.to_owned(), intervals: 20, verdict: Value::Null };
        Comparison {
            warnings: vec!["RUN_ID: a in A, b in B".to_owned(), "RATE: 1 in A, 2 in B".to_owned()],
            a: side("a"),
            b: side("b"),
            changes: vec![Change::new("get.p99", "ms", 100.0, 100.0 + percent)],
            failed: Vec::new(),
        }
    }

    fn paired(percents: &[f64], condition: &str) -> Paired {
        let pairs: Vec<_> = percents.iter().map(|percent| pair(*percent)).collect();
        Paired::of(&pairs, &[condition.parse().unwrap()]).unwrap()
    }

    #[test]
    fn a_change_that_all_pairs_agree_on_is_significant() {
        let found = paired(&[10.0, 12.0, 9.0, 30.0, 11.0, 10.0], "get.p99 > +5%");
        let change = &found.changes[0];
        assert!((change.percent - 10.5).abs() < 1e-9 && change.is_significant, "{change:?}");
        assert_eq!((found.differences.as_slice(), found.failed.len()), (&["RATE: 1 in A, 2 in B".to_owned()][..], 1));
        let text = found.to_string();
        assert!(
            text.contains("GET p99, ms") && text.contains("over 6 pairs") && text.contains("significant"),
            "{text}"
        );
    }

    #[test]
    fn one_pair_that_differs_or_too_few_of_them_prove_nothing() {
        for percents in [&[10.0, 12.0, 9.0, -3.0, 11.0, 10.0][..], &[10.0, 10.0, 10.0, 10.0]] {
            let found = paired(percents, "get.p99 > +5%");
            assert!(!found.changes[0].is_significant && found.failed.is_empty(), "{found:?}");
        }
        assert!(paired(&[10.0; 4], "get.p99 > +5%").to_string().contains("6 are needed, --abba 3"));
        assert!(Paired::of(&[], &[]).is_err());
    }
}
