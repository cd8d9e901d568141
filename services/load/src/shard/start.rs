//! When all shards begin their load (START_AT), by the clock of each; and how far that clock is from a node's.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use crate::{Cluster, NodeIndex, faults::unix_ms, say};

/// A time by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartAt(SystemTime);

/// The nodes' counters are read this long before the load begins.
const READ_BEFORE: Duration = Duration::from_millis(500);

/// A load that begins later than this is late.
const LATE_MAX: Duration = Duration::from_millis(250);

/// How often a node is asked for its time; the quickest answer counts.
const CLOCK_READS: usize = 5;

impl FromStr for StartAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let after_epoch = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let seconds = || text.parse().ok().and_then(after_epoch);
        let parsed = humantime::parse_rfc3339_weak(text).ok().or_else(seconds);
        parsed.map(Self).ok_or("expected a time such as 2026-11-28T21:00:00Z, or Unix seconds")
    }
}

impl StartAt {
    /// How long that is from now; nothing if it is over.
    fn left(self) -> Option<Duration> {
        self.0.duration_since(SystemTime::now()).ok()
    }
}

/// Waits until just before `at`, when the nodes' counters are to be read; then, by the future that this gives, until `at` itself, and
/// says by how much that was missed, if it was.
pub(crate) async fn await_start(at: StartAt) -> impl Future<Output = Option<String>> {
    if let Some(left) = at.left() {
        say(&format!("[START] the load begins in {:.1} s", left.as_secs_f64()));
        tokio::time::sleep(left.saturating_sub(READ_BEFORE)).await;
    }
    async move {
        tokio::time::sleep(at.left().unwrap_or_default()).await;
        let late = SystemTime::now().duration_since(at.0).unwrap_or_default();
        (late > LATE_MAX).then(|| {
            format!("the load began {:.1} s after START_AT: give it more time for the prefill", late.as_secs_f64())
        })
    }
}

/// How far the first node's clock is ahead of this host's, in milliseconds, and how far off that may be.
pub(crate) async fn clock_of_first(cluster: &impl Cluster) -> Option<(f64, f64)> {
    let mut best: Option<(f64, f64)> = None;
    for _ in 0..CLOCK_READS {
        let asked = unix_ms() as f64;
        let theirs = cluster.view(NodeIndex(0)).await.ok()?.unix_ms? as f64;
        let answered = unix_ms() as f64;
        // Whole milliseconds on both sides.
        let off = (answered - asked) / 2.0 + 1.0;
        if best.is_none_or(|(_, least)| off < least) {
            best = Some((theirs - f64::midpoint(asked, answered), off));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_date_or_unix_seconds() {
        let seconds = |text: &str| text.parse::<StartAt>().map(|at| at.0.duration_since(SystemTime::UNIX_EPOCH).ok());
        assert_eq!(seconds("2001-09-09T01:46:40Z"), Ok(Some(Duration::from_secs(1_000_000_000))));
        assert_eq!(seconds("1000000000"), seconds("2001-09-09T01:46:40Z"));
        assert!(["soon", "", "18446744073709551615"].iter().all(|text| seconds(text).is_err()));
    }

    #[tokio::test]
    async fn a_start_that_is_over_is_missed_by_as_much() {
        let late = await_start(StartAt(SystemTime::now() - Duration::from_secs(3))).await.await;
        assert!(late.is_some_and(|late| late.starts_with("the load began 3.0 s after START_AT")));
    }
}
