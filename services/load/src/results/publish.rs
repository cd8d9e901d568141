//! A finished run becomes files and a summary.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;
use settings::COLUMNS;

use super::{Intervals, Results, events::Happened, html, intervals};
use crate::{
    Moment,
    exec::{emit, show},
    report::{Page, Report, Verdict},
    shard::SHARD,
};

/// What was recorded of a run for files of their own.
#[derive(BorshDeserialize, BorshSerialize, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) intervals: Intervals,
    pub(crate) moments: Vec<Moment>,
}

impl Report {
    /// Writes the results and prints the summary, which ends in the verdict. Gives the exit code.
    ///
    /// # Errors
    /// One line, if the results cannot be written.
    pub fn publish(&self, results: Option<Results>) -> Result<u8, String> {
        let place = results.as_ref().map(|results| results.path(&self.run_id).display().to_string());
        let saved = results.map_or(Ok(()), |results| self.save(results));
        let place = place.filter(|_| saved.is_ok()).unwrap_or_default();
        show(&format!("\n{}", self.printed(&place).trim_end()));
        if let Some(shard) = self.shard_line() {
            show(&shard);
        }
        emit(&EndOfRun {
            kind: "result",
            run_id: &self.run_id,
            exit_code: self.verdict.exit_code,
            verdict: &self.verdict,
            results: Some(place.as_str()).filter(|place| !place.is_empty()),
        });
        saved
            .map(|()| if self.shard().is_some() && self.verdict.broken.is_empty() { 0 } else { self.verdict.exit_code })
    }

    fn save(&self, results: Results) -> Result<(), String> {
        let result =
            serde_json::to_vec_pretty(self).map_err(|error| format!("the result cannot be written: {error}"))?;
        let others = results.folder(&self.run_id).map(|folder| self.others(&folder.display().to_string(), &result));
        let others = others.transpose().map_err(|error| format!("the result cannot be written: {error}"))?;
        results.save(&self.run_id, &result, &others.unwrap_or_default())
    }

    /// All files of a run's folder but the result.
    fn others(&self, place: &str, result: &[u8]) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
        let (mut intervals, mut events) = (Vec::new(), Vec::new());
        let happened = Happened {
            times: &self.times,
            moments: &self.recorded.moments,
            faults: &self.faults,
            standstills: &self.standstills,
            verdict: &self.verdict,
        };
        let began: SystemTime = UNIX_EPOCH + Duration::from_millis(happened.load_began_ms());
        self.recorded.intervals.write(&self.run_id, began, &mut intervals)?;
        happened.write(&mut events)?;
        let summary = self.summary(place, Page::new(Some(COLUMNS)));
        let summary = format!("{}\n", anstream::adapter::strip_str(&summary));
        // From what was written, so that it can be made again of the files.
        let page =
            html::page(&serde_json::from_slice(result)?, &intervals::read(&intervals).map_err(io::Error::other)?);
        let mut files = vec![
            (INTERVALS, intervals),
            (EVENTS, events),
            (SUMMARY, summary.into_bytes()),
            (REPORT, page.into_bytes()),
        ];
        files.extend(self.shard().map(|shard| (SHARD, shard.to_vec())));
        Ok(files)
    }
}

/// The last object of PROGRESS=ndjson.
#[derive(Serialize)]
struct EndOfRun<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    run_id: &'a str,
    exit_code: u8,
    verdict: &'a Verdict,
    /// Where the results are.
    results: Option<&'a str>,
}

/// Names in a run's folder.
pub(crate) const INTERVALS: &str = "intervals.hlog";
pub(crate) const EVENTS: &str = "events.ndjson";
pub(crate) const SUMMARY: &str = "summary.txt";
pub(crate) const REPORT: &str = "report.html";
