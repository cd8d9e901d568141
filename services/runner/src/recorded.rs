//! Settings that were written down: in a file made for it, or in the result of a run that is to be repeated.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use clap::CommandFactory;
use serde::Deserialize;
use settings::{Exit, Mistakes, flags_of_file};

use crate::settings::Settings;

/// What tells one run from another is not repeated.
const NOT_REPEATED: [&str; 4] = ["RUN_ID", "SHARD", "START_AT", "RESULTS"];

/// The part of a result that a run is repeated by.
#[derive(Deserialize)]
struct Recorded {
    settings: BTreeMap<String, String>,
    setup: Setup,
}

#[derive(Deserialize)]
struct Setup {
    /// The one that was drawn if none was set.
    seed: u64,
}

/// The flags of a run file.
pub(crate) fn of_file(file: &Path) -> Result<Vec<OsString>, Exit> {
    let text = fs::read_to_string(file).map_err(|error| refused(file, &format!("cannot read it: {error}")))?;
    flags_of_file::<Settings>(&file.display().to_string(), &text)
}

/// The flags that repeat a stored run.
pub(crate) fn of_run(run: &Path) -> Result<Vec<OsString>, Exit> {
    let path = if run.is_dir() { run.join("result.json") } else { run.to_owned() };
    let text = fs::read(&path).map_err(|error| refused(&path, &format!("cannot read it: {error}")))?;
    let recorded: Recorded = serde_json::from_slice(&text)
        .map_err(|error| refused(&path, &format!("expected the result of a run: {error}")))?;
    let command = Settings::command();
    let flag = |(name, value): (&String, &String)| {
        let arg =
            command.get_arguments().find(|arg| arg.get_env().is_some_and(|variable| variable == name.as_str()))?;
        let is_repeated = !NOT_REPEATED.contains(&name.as_str()) && name != "SEED";
        is_repeated.then(|| format!("--{}={value}", arg.get_long().unwrap_or_default()).into())
    };
    let seed = format!("--seed={}", recorded.setup.seed).into();
    Ok(recorded.settings.iter().filter_map(flag).chain([seed]).collect())
}

fn refused(path: &Path, why: &str) -> Exit {
    let mut mistakes = Mistakes::default();
    mistakes.refuse("RUN", path.display(), why);
    Exit::Mistakes(mistakes)
}
