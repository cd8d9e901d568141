//! What happened to nodes during a run, by the wall clock: the lines that a dashboard draws over everything else. The runner
//! keeps them because it outlives every node.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `kill`, `silent`, `dead`, `back`, `ready` or `recovered`.
    pub action: &'static str,
    /// The node, as in TARGETS.
    pub target: String,
    /// When, in milliseconds of the Unix clock.
    pub unix_ms: u64,
}

/// All of them, in the order in which they were noticed.
#[derive(Debug, Default)]
pub struct FaultLog {
    // Rare events, and a reader once a second.
    moments: Mutex<Vec<Moment>>,
}

impl FaultLog {
    /// Notes that it happened now. The first time counts: a second survivor that calls a node dead adds nothing.
    pub(crate) fn note(&self, action: &'static str, target: &str) {
        let mut moments = self.moments.lock();
        if !moments.iter().any(|moment| moment.action == action && moment.target == target) {
            moments.push(Moment { action, target: target.to_owned(), unix_ms: unix_ms() });
        }
    }

    /// A copy.
    #[must_use]
    pub fn moments(&self) -> Vec<Moment> {
        self.moments.lock().clone()
    }
}

/// The Unix clock in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_counts() {
        let log = FaultLog::default();
        log.note("dead", "a");
        let first = log.moments();
        log.note("dead", "a");
        log.note("dead", "b");
        assert_eq!(log.moments()[..1], first);
        assert_eq!(log.moments().len(), 2);
    }
}
