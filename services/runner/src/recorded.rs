//! Settings that were written down: in a file made for it, or in the result of a run that is to be repeated.

use std::{ffi::OsString, fs, path::Path};

use clap::CommandFactory;
use load::Repeated;
use settings::{Exit, Mistakes, flags_of_file};

/// What tells one run from another is not repeated.
const NOT_REPEATED: [&str; 7] = ["RUN_ID", "SHARD", "START_AT", "RESULTS", "SEED", "PROGRESS", "PLAIN"];

/// The flags of a run file.
pub(crate) fn of_file<S: CommandFactory>(file: &Path) -> Result<Vec<OsString>, Exit> {
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| refused(&file.display().to_string(), format!("cannot read it: {error}")))?;
    flags_of_file::<S>(&file.display().to_string(), &text)
}

/// The flags that repeat a stored run; `results` is RESULTS.
pub(crate) fn of_run<S: CommandFactory>(run: &str, results: Option<&Path>) -> Result<Vec<OsString>, Exit> {
    let repeated = Repeated::of(run, results)
        .map_err(|reason| refused(run, reason.strip_prefix(&format!("RUN={run}: ")).unwrap_or(&reason)))?;
    let command = S::command();
    let flag = |(name, value): (&String, &String)| {
        let arg =
            command.get_arguments().find(|arg| arg.get_env().is_some_and(|variable| variable == name.as_str()))?;
        let long = arg.get_long().filter(|_| !NOT_REPEATED.contains(&name.as_str()))?;
        Some(format!("--{long}={value}").into())
    };
    let seed = format!("--seed={}", repeated.seed()).into();
    Ok(repeated.settings.iter().filter_map(flag).chain([seed]).collect())
}

fn refused(run: &str, why: impl Into<String>) -> Exit {
    let mut mistakes = Mistakes::default();
    mistakes.refuse("RUN", run, why);
    Exit::Mistakes(mistakes)
}
