//! Failed operations by kind: how many, the first one in words, and when they happened.

use std::{collections::BTreeMap, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use crate::{ErrorKind, shard::duration};

/// Errors closer together than this belong to one window.
const WINDOW_GAP_DECISECONDS: u32 = 10;

/// Errors of one thread, or of all threads once merged.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default)]
pub(crate) struct ErrorLog {
    kinds: BTreeMap<ErrorKind, ErrorsOfKind>,
}

#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default)]
struct ErrorsOfKind {
    count: u64,
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    first_at: Duration,
    example: String,
    /// How many in each tenth of a second since the load began; bounded by the length of the run.
    deciseconds: BTreeMap<u32, u64>,
}

/// A time in which errors happened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorWindow {
    /// Its first tenth of a second, in seconds since the load began.
    pub from_s: f64,
    /// The end of its last tenth of a second.
    pub to_s: f64,
    /// How many.
    pub count: u64,
}

/// One kind of error, for summaries.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorSummary {
    /// What went wrong.
    pub kind: String,
    /// How often.
    pub count: u64,
    /// The first one.
    pub first: String,
    /// When.
    pub windows: Vec<ErrorWindow>,
}

impl ErrorLog {
    /// Adds one that ended `at` after the load began; `describe` is asked for words only for the first of its kind.
    pub(crate) fn add(&mut self, kind: ErrorKind, at: Duration, describe: impl FnOnce() -> String) {
        let entry = self.kinds.entry(kind).or_default();
        if entry.count == 0 {
            entry.first_at = at;
            entry.example = describe();
        }
        entry.count += 1;
        let decisecond = u32::try_from(at.as_millis() / 100).unwrap_or(u32::MAX);
        *entry.deciseconds.entry(decisecond).or_default() += 1;
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (kind, theirs) in &other.kinds {
            let mine = self.kinds.entry(*kind).or_default();
            if mine.count == 0 || theirs.first_at < mine.first_at {
                mine.first_at = theirs.first_at;
                mine.example.clone_from(&theirs.example);
            }
            mine.count += theirs.count;
            for (decisecond, count) in &theirs.deciseconds {
                *mine.deciseconds.entry(*decisecond).or_default() += count;
            }
        }
    }

    /// How many of one kind.
    #[must_use]
    pub(crate) fn count(&self, kind: ErrorKind) -> u64 {
        self.kinds.get(&kind).map_or(0, |entry| entry.count)
    }

    /// How many operations failed in these tenths of seconds and between them, in seconds since the load began, and of how many
    /// the outcome is unknown.
    pub(crate) fn between(&self, from_s: f64, to_s: f64) -> (u64, u64) {
        // Negative numbers become 0, and what is too large the largest.
        let (from, to) = ((from_s * 10.0) as u32, (to_s * 10.0) as u32);
        let mut sums = (0, 0);
        for (kind, entry) in &self.kinds {
            let sum = if *kind == ErrorKind::Indeterminate { &mut sums.1 } else { &mut sums.0 };
            *sum += entry.deciseconds.range(from..=to.max(from)).map(|(_, count)| count).sum::<u64>();
        }
        sums
    }

    /// When the first and the last operation between two times failed or ended with an unknown outcome, to a tenth of a second; all in
    /// seconds since the load began.
    pub(crate) fn first_and_last(&self, from_s: f64, to_s: f64) -> Option<(f64, f64)> {
        // Negative numbers become 0, and what is too large the largest.
        let (from, to) = ((from_s * 10.0) as u32, (to_s * 10.0) as u32);
        let within = || self.kinds.values().flat_map(move |kind| kind.deciseconds.range(from..=to.max(from)));
        let seconds = |decisecond: &u32| f64::from(*decisecond) / 10.0;
        let first = within().map(|(decisecond, _)| decisecond).min()?;
        Some((seconds(first), seconds(within().map(|(decisecond, _)| decisecond).max()?)))
    }

    /// By kind, most frequent first.
    #[must_use]
    pub(crate) fn summaries(&self) -> Vec<ErrorSummary> {
        let mut summaries: Vec<_> = self
            .kinds
            .iter()
            .map(|(kind, entry)| ErrorSummary {
                kind: kind.name(),
                count: entry.count,
                first: entry.example.clone(),
                windows: windows(&entry.deciseconds),
            })
            .collect();
        summaries.sort_by_key(|summary| std::cmp::Reverse(summary.count));
        summaries
    }
}

fn windows(deciseconds: &BTreeMap<u32, u64>) -> Vec<ErrorWindow> {
    let mut windows: Vec<(u32, u32, u64)> = Vec::new();
    for (&at, &count) in deciseconds {
        match windows.last_mut() {
            Some((_, last, sum)) if at - *last <= WINDOW_GAP_DECISECONDS => {
                *last = at;
                *sum += count;
            }
            _ => windows.push((at, at, count)),
        }
    }
    let seconds = |deciseconds: u32| f64::from(deciseconds) / 10.0;
    windows
        .into_iter()
        .map(|(from, to, count)| ErrorWindow { from_s: seconds(from), to_s: seconds(to.saturating_add(1)), count })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_closed_by_a_quiet_second() {
        let mut log = ErrorLog::default();
        for at_ms in [20_100, 20_250, 20_399, 40_000] {
            log.add(ErrorKind::Refused, Duration::from_millis(at_ms), || format!("at {at_ms}"));
        }
        let mut other = ErrorLog::default();
        other.add(ErrorKind::Refused, Duration::from_millis(20_000), || "earlier".to_owned());
        log.merge(&other);
        let summaries = log.summaries();
        assert_eq!(summaries.len(), 1);
        assert_eq!((summaries[0].count, summaries[0].first.as_str()), (5, "earlier"));
        let (first, second) = (summaries[0].windows[0], summaries[0].windows[1]);
        assert_eq!((first.from_s, first.to_s, first.count), (20.0, 20.4, 4));
        assert_eq!((second.from_s, second.to_s, second.count), (40.0, 40.1, 1));
        log.add(ErrorKind::Indeterminate, Duration::from_millis(20_100), String::new);
        let between = [log.between(20.0, 20.25), log.between(20.3, 39.9), log.between(40.05, f64::INFINITY)];
        assert_eq!(between, [(3, 1), (1, 0), (1, 0)], "what failed and what is unknown are two counts");
    }
}
