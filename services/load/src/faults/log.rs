//! What happened to nodes during a run, by the wall clock: the lines that a dashboard draws over everything else. The runner
//! keeps them because it outlives every node.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use borsh::{BorshDeserialize, BorshSerialize};
use parking_lot::Mutex;

/// Something that happened to a node.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `begun`, `healed` or `recovered`; of a crash and a stop also `silent`, `dead`, `back` and `ready`; `observed` if it was not
    /// ordered.
    pub action: Cow<'static, str>,
    /// The fault, by its word in FAULTS; what was observed: `restarted`, `joined`, `left` or `dead`.
    pub kind: Cow<'static, str>,
    /// The place of the fault, as in FAULTS; a node that KILL_MODE chose as in TARGETS.
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
    /// Notes that a fault has come so far now.
    pub(crate) fn note(&self, action: &'static str, kind: impl Into<Cow<'static, str>>, target: &str) {
        self.moments.lock().push(Moment {
            action: action.into(),
            kind: kind.into(),
            target: target.to_owned(),
            unix_ms: unix_ms(),
        });
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Moment> {
        self.moments.lock().clone()
    }

    /// The latest of each action on each node: a gauge holds one.
    #[must_use]
    pub fn latest(&self) -> Vec<Moment> {
        let mut latest: Vec<Moment> = Vec::new();
        for moment in self.moments.lock().iter() {
            let what = |moment: &Moment| (moment.action.clone(), moment.kind.clone(), moment.target.clone());
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
    fn the_latest_of_each_action_and_place_is_given() {
        let log = FaultLog::default();
        for (action, kind) in [("begun", "crash"), ("begun", "pause"), ("healed", "pause"), ("begun", "pause")] {
            log.note(action, kind, "a");
        }
        assert_eq!(log.moments.lock().len(), 4);
        let latest: Vec<_> =
            log.latest().into_iter().map(|moment| format!("{} {}", moment.kind, moment.action)).collect();
        assert_eq!(latest, ["crash begun", "pause begun", "pause healed"]);
    }
}
