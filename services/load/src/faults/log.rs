//! What happened to nodes during a run, by the wall clock: the lines that a dashboard draws over everything else. The runner
//! keeps them because it outlives every node.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// The action that begins all others.
pub(crate) const KILL: &str = "kill";

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `kill`, `silent`, `dead`, `back`, `ready` or `recovered`; of a fault of FAULTS `begun`, `healed` or `recovered`.
    pub action: &'static str,
    /// The fault: `kill`, or a word of FAULTS.
    pub kind: &'static str,
    /// The node, as in TARGETS, or the place of a fault, as in FAULTS.
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
    /// Notes that it happened now. The first time after each kill counts: a second survivor that calls a node dead adds
    /// nothing.
    pub(crate) fn note(&self, action: &'static str, target: &str) {
        let mut moments = self.moments.lock();
        let of_target = moments.iter().rev().filter(|moment| moment.kind == KILL && moment.target == target);
        let mut since_kill = of_target.take_while(|moment| moment.action != KILL);
        if action == KILL || !since_kill.any(|moment| moment.action == action) {
            moments.push(Moment { action, kind: KILL, target: target.to_owned(), unix_ms: unix_ms() });
        }
    }

    /// Notes that a fault of FAULTS has come so far now.
    pub(crate) fn note_fault(&self, action: &'static str, kind: &'static str, target: &str) {
        self.moments.lock().push(Moment { action, kind, target: target.to_owned(), unix_ms: unix_ms() });
    }

    /// The latest of each action on each node: a gauge holds one.
    #[must_use]
    pub fn latest(&self) -> Vec<Moment> {
        let mut latest: Vec<Moment> = Vec::new();
        for moment in self.moments.lock().iter() {
            let what = |moment: &Moment| (moment.action, moment.kind, moment.target.clone());
            match latest.iter_mut().find(|known| what(known) == what(moment)) {
                Some(known) => known.clone_from(moment),
                None => latest.push(moment.clone()),
            }
        }
        latest
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
        let first = log.latest();
        log.note("dead", "a");
        log.note("dead", "b");
        assert_eq!(log.latest()[..1], first);
        assert_eq!(log.latest().len(), 2);
    }

    #[test]
    fn every_fault_counts_and_none_is_taken_for_a_kill() {
        let log = FaultLog::default();
        log.note(KILL, "a");
        log.note("recovered", "a");
        for action in ["begun", "healed", "recovered", "begun"] {
            log.note_fault(action, "pause", "a");
        }
        assert_eq!(log.moments.lock().len(), 6);
        let latest: Vec<_> = log.latest().into_iter().map(|moment| (moment.kind, moment.action)).collect();
        let pause = [("pause", "begun"), ("pause", "healed"), ("pause", "recovered")];
        assert_eq!(latest, [&[(KILL, KILL), (KILL, "recovered")][..], &pause].concat());
    }

    #[test]
    fn every_kill_counts_anew() {
        let log = FaultLog::default();
        for _ in 0..3 {
            log.note(KILL, "a");
            log.note("dead", "a");
            log.note("dead", "a");
        }
        assert_eq!(log.moments.lock().len(), 6);
        let latest: Vec<_> = log.latest().into_iter().map(|moment| moment.action).collect();
        assert_eq!(latest, [KILL, "dead"]);
        assert_eq!(log.latest()[1], log.moments.lock()[5]);
    }
}
