//! A finished run becomes files and a summary.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use settings::{COLUMNS, columns_of};

use super::{Intervals, Results, StageTimes, events::Happened, html, intervals};
use crate::{
    Moment, Run,
    exec::show,
    report::{Page, Report},
};

/// What was recorded of a run for files of their own.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    intervals: Intervals,
    stages: Vec<StageTimes>,
    moments: Vec<Moment>,
}

impl Recorded {
    /// All that this run has recorded.
    pub(crate) fn of(run: &Run, intervals: Intervals) -> Self {
        Self { intervals, stages: run.stages.all(), moments: run.faults.all() }
    }
}

impl Report {
    /// Writes the results and prints the summary, which ends in the verdict. Gives the exit code.
    ///
    /// # Errors
    /// One line, if the results cannot be written.
    pub fn publish(&self, results: Option<Results>) -> Result<u8, String> {
        let place = results.as_ref().map(|results| format!("Results: {}", results.path(&self.run_id).display()));
        let saved = results.map_or(Ok(()), |results| self.save(results));
        let place = place.filter(|_| saved.is_ok()).unwrap_or_default();
        show(&format!("\n{}", self.summary(&place, Page::new(columns_of(std::io::stdout())))));
        saved.map(|()| self.verdict.exit_code)
    }

    fn save(&self, results: Results) -> Result<(), String> {
        let result =
            serde_json::to_vec_pretty(self).map_err(|error| format!("the result cannot be written: {error}"))?;
        let others =
            results.folder(&self.run_id).map(|folder| self.others(&format!("Results: {}", folder.display()), &result));
        let others = others.transpose().map_err(|error| format!("the result cannot be written: {error}"))?;
        results.save(&self.run_id, &result, &others.unwrap_or_default())
    }

    /// All files of a run's folder but the result.
    fn others(&self, place: &str, result: &[u8]) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
        let (mut intervals, mut events) = (Vec::new(), Vec::new());
        let load = self.recorded.stages.iter().find(|stage| stage.stage == "load");
        let load_began_ms = load.map_or(self.ended_unix_ms, |load| load.began_ms);
        let began: SystemTime = UNIX_EPOCH + Duration::from_millis(load_began_ms);
        self.recorded.intervals.write(&self.run_id, began, &mut intervals)?;
        let happened = Happened {
            stages: &self.recorded.stages,
            moments: &self.recorded.moments,
            faults: &self.faults,
            standstills: &self.standstills,
            verdict: &self.verdict,
            ended_ms: self.ended_unix_ms,
            load_began_ms,
        };
        happened.write(&mut events)?;
        let summary = self.summary(place, Page::new(Some(COLUMNS)));
        let summary = format!("{}\n", anstream::adapter::strip_str(&summary));
        // From what was written, so that it can be made again of the files.
        let page =
            html::page(&serde_json::from_slice(result)?, &intervals::read(&intervals).map_err(io::Error::other)?);
        let files =
            [(INTERVALS, intervals), (EVENTS, events), (SUMMARY, summary.into_bytes()), (REPORT, page.into_bytes())];
        Ok(files.into())
    }
}

/// Names in a run's folder.
pub(crate) const INTERVALS: &str = "intervals.hlog";
pub(crate) const EVENTS: &str = "events.ndjson";
pub(crate) const SUMMARY: &str = "summary.txt";
pub(crate) const REPORT: &str = "report.html";
