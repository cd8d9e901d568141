//! A run of which results are stored: found by its folder, its id or its file, and read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Machine,
    intervals::{self, StoredInterval},
    place::RESULT,
    publish::INTERVALS,
};

/// The place of a stored run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredRun {
    result: PathBuf,
}

/// What is read of a result. What other versions may have written otherwise is kept as it is.
#[derive(Debug, Deserialize)]
pub(crate) struct StoredResult {
    pub(crate) run_id: String,
    pub(crate) machine: Machine,
    pub(crate) versions: StoredVersions,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) cpu: StoredCpu,
    pub(crate) verdict: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StoredVersions {
    pub(crate) runner: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StoredCpu {
    pub(crate) client_us_per_op: f64,
    pub(crate) node_us_per_op: Vec<Option<f64>>,
}

/// What a stored run is repeated by.
#[derive(Debug, Deserialize)]
pub struct Repeated {
    /// Its settings, by the names of their variables; without secrets.
    pub settings: BTreeMap<String, String>,
    setup: StoredSetup,
}

#[derive(Debug, Deserialize)]
struct StoredSetup {
    seed: u64,
}

impl Repeated {
    /// Of a run that is found by its folder, its result, or its id or the end of that in the folder `results`.
    ///
    /// # Errors
    /// One line: what was expected.
    pub fn of(run: &str, results: Option<&Path>) -> Result<Self, String> {
        StoredRun::find(run, results)?.result()
    }

    /// Its SEED, which was drawn if none was set.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.setup.seed
    }
}

impl StoredRun {
    /// Finds a run by its folder, its result, or its id or the end of that in the folder `results`.
    ///
    /// # Errors
    /// One line: what was expected.
    pub(crate) fn find(run: &str, results: Option<&Path>) -> Result<Self, String> {
        let path = Path::new(run);
        if path.is_file() {
            return Ok(Self { result: path.to_owned() });
        }
        if path.join(RESULT).is_file() {
            return Ok(Self { result: path.join(RESULT) });
        }
        let of_this_end = |id: &&String| !run.is_empty() && id.ends_with(run);
        let ids = results.map(ids).unwrap_or_default();
        let found: Vec<_> = ids.iter().filter(of_this_end).collect();
        match (&found[..], results) {
            ([id], Some(results)) => Ok(Self { result: results.join(id).join(RESULT) }),
            ([_, _, ..], _) => Err(format!("RUN={run}: expected one run, there are {}", found.len())),
            _ => {
                let place = results
                    .map_or_else(|| "a folder of RESULTS, which is off".to_owned(), |at| at.display().to_string());
                Err(format!("RUN={run}: expected a run's folder, its {RESULT}, or the id of a run in {place}"))
            }
        }
    }

    /// The run that ended last.
    ///
    /// # Errors
    /// One line, if there is none.
    pub(crate) fn latest(results: Option<&Path>) -> Result<Self, String> {
        let results = results.ok_or("RESULTS=off: expected the folder of stored runs")?;
        // A RUN_ID may say nothing of the time.
        let written = |id: &String| fs::metadata(results.join(id).join(RESULT)).and_then(|file| file.modified()).ok();
        let latest = ids(results).into_iter().max_by_key(written);
        let latest = latest.ok_or_else(|| format!("RESULTS={}: there is no run in it", results.display()))?;
        Ok(Self { result: results.join(latest).join(RESULT) })
    }

    /// The path of one of its files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.result.with_file_name(name)
    }

    /// Reads one of its files.
    ///
    /// # Errors
    /// One line, if it cannot be read.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.file(name);
        fs::read(&path).map_err(|error| format!("{}: cannot read it: {error}", path.display()))
    }

    /// Reads the result.
    ///
    /// # Errors
    /// One line, if it cannot be read or is none.
    pub(crate) fn result<T: for<'a> Deserialize<'a>>(&self) -> Result<T, String> {
        let path = self.result.display();
        let text = fs::read(&self.result).map_err(|error| format!("{path}: cannot read it: {error}"))?;
        serde_json::from_slice(&text).map_err(|error| format!("{path}: expected the result of a run: {error}"))
    }

    /// Reads its intervals.
    ///
    /// # Errors
    /// One line, if there are none or they cannot be read.
    pub(crate) fn intervals(&self) -> Result<Vec<StoredInterval>, String> {
        let path = self.file(INTERVALS);
        let log = fs::read(&path).map_err(|error| {
            let where_from = "a run keeps its intervals if RESULTS is a folder";
            format!("{}: there are no intervals to compare: {error}; {where_from}", path.display())
        })?;
        intervals::read(&log).map_err(|reason| format!("{}: {reason}", path.display()))
    }
}

/// The ids of all runs in a folder, in the order of time.
fn ids(results: &Path) -> Vec<String> {
    let entries = fs::read_dir(results).into_iter().flatten().flatten();
    let is_run = |name: &String| !name.starts_with('.') && results.join(name).join(RESULT).is_file();
    let mut ids: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(is_run).collect();
    ids.sort_unstable();
    ids
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_many_names() {
        let folder = tempfile::TempDir::new().unwrap();
        let results = folder.path();
        for id in ["20260102-000000-cbbb", "20260102-000000-bbbb", ".unfinished-1-2", "20260101-000000-aaaa"] {
            fs::create_dir(results.join(id)).unwrap();
            fs::write(results.join(id).join(RESULT), "{}").unwrap();
        }
        fs::create_dir(results.join("20260103-000000-dddd")).unwrap();
        // Times of files are told apart by milliseconds only.
        let latest = fs::File::options().write(true).open(results.join("20260101-000000-aaaa").join(RESULT)).unwrap();
        latest.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
        let result = |id: &str| StoredRun { result: results.join(id).join(RESULT) };
        let find = |run: &str| StoredRun::find(run, Some(results));
        assert_eq!(
            StoredRun::latest(Some(results)),
            Ok(result("20260101-000000-aaaa")),
            "the one that was written last"
        );
        let first = Ok(result("20260101-000000-aaaa"));
        let path = results.join("20260101-000000-aaaa");
        for name in ["20260101-000000-aaaa", "aaaa", path.to_str().unwrap(), path.join(RESULT).to_str().unwrap()] {
            assert_eq!(find(name), first, "{name}");
        }
        assert_eq!(find("bbb"), Err("RUN=bbb: expected one run, there are 2".to_owned()));
        for none in ["dddd", "", "2-2"] {
            assert!(
                find(none).is_err_and(|reason| reason.starts_with(&format!("RUN={none}: expected a run's folder")))
            );
        }
        assert!(StoredRun::latest(None).is_err() && StoredRun::latest(Some(&path)).is_err());
        assert!(result("20260101-000000-aaaa").result::<StoredResult>().is_err_and(|reason| reason.contains("run_id")));
        assert!(result("20260101-000000-aaaa").intervals().is_err_and(|reason| reason.contains("no intervals")));
    }
}
