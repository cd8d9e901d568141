//! What is done with stored runs: show, report, compare.

use std::{fs, path::Path};

use clap::{Subcommand, ValueEnum};
use settings::whole;

use super::{
    compare::{Comparison, Condition},
    html,
    publish::{REPORT, SUMMARY},
    stored::StoredRun,
};
use crate::exec::{say, show};

/// The exit code if a condition of `--fail-on` holds.
const FAILED: u8 = 1;

/// Does something with stored runs, and starts none. RUN is a run's folder, its id or the end of that, or its result.json; ids are looked
/// for in RESULTS.
#[derive(Subcommand, Clone, Debug)]
pub enum StoredRuns {
    /// Prints the whole summary of a stored run
    Show {
        /// The run's folder, or its id or the end of that in RESULTS; unset, it is the latest
        run: Option<String>,
    },
    /// Writes a stored run's report.html again
    Report {
        /// The run's folder, or its id or the end of that in RESULTS; unset, it is the latest
        run: Option<String>,
    },
    /// Compares a run with an earlier one: percentiles with intervals of 99 % confidence, throughput, CPU time
    Compare {
        /// The earlier run: its folder, result.json, or id; with --abba a run file
        a: String,
        /// The later run, or the other file
        b: String,
        /// Run both files first, A B B A and this many times, and compare the pairs, 1 to 100
        #[arg(long, value_name = "TIMES", value_parser = whole::<u32>(1, 100))]
        abba: Option<u32>,
        /// How the comparison is printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Exit code 1 if a change is beyond this and significant, such as 'get.p99 > +10%' or 'throughput < -5%'; repeatable
        #[arg(long, value_name = "CONDITION", value_parser = <Condition as std::str::FromStr>::from_str)]
        fail_on: Vec<Condition>,
    },
}

/// How a comparison is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table.
    Text,
    /// One JSON object.
    Json,
}

impl StoredRuns {
    /// Does it; `results` is RESULTS. Gives the exit code.
    ///
    /// # Errors
    /// One line: what was expected.
    pub fn run(&self, results: Option<&Path>) -> Result<u8, String> {
        let find = |run: &String| StoredRun::find(run, results);
        let or_latest = |run: &Option<String>| run.as_ref().map_or_else(|| StoredRun::latest(results), find);
        match self {
            Self::Show { run } => {
                let summary = or_latest(run)?.read(SUMMARY)?;
                show(String::from_utf8_lossy(&summary).trim_end());
            }
            Self::Report { run } => {
                let run = or_latest(run)?;
                let page = html::page(&run.result()?, &run.intervals()?);
                let path = run.file(REPORT);
                fs::write(&path, page).map_err(|error| format!("{}: cannot write it: {error}", path.display()))?;
                say(&format!("Report: {}", path.display()));
            }
            Self::Compare { a, b, format, fail_on, abba: _ } => {
                let comparison = Comparison::of(&find(a)?, &find(b)?, fail_on)?;
                match format {
                    Format::Text => show(comparison.to_string().trim_end()),
                    Format::Json => {
                        show(&serde_json::to_string_pretty(&comparison).map_err(|error| error.to_string())?)
                    }
                }
                return Ok(if comparison.failed.is_empty() { 0 } else { FAILED });
            }
        }
        Ok(0)
    }
}
