//! What became of one fault: when it started and ended, the evidence of its effect, and when the mesh had recovered from it.

use std::{borrow::Cow, fmt};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use super::{plan::PlannedFault, timeline::Timeline};
use crate::report::numbers::grouped;

/// One fault of the schedule. Times are seconds after the load began.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FaultRecord {
    /// As it is written, without its time.
    pub fault: String,
    /// Its word.
    pub kind: Cow<'static, str>,
    /// The nodes it is about, as in TARGETS.
    pub targets: Vec<String>,
    /// When it was to begin.
    pub planned_at_s: f64,
    /// When it began.
    pub begun_at_s: Option<f64>,
    /// The same by the wall clock, to lay over dashboards.
    pub begun_at_unix_ms: Option<u64>,
    /// When a node that was told to end first gave no answer.
    pub silent_at_s: Option<f64>,
    /// What the other nodes saw of a crash or a stop.
    pub survivors: Vec<Survivor>,
    /// When it was over; of a crash, stop or storm: when a new process answered.
    pub ended_at_s: Option<f64>,
    /// When that process was ready.
    pub ready_at_s: Option<f64>,
    /// When every node was ready again and saw all others alive.
    pub recovered_at_s: Option<f64>,
    /// When it was last looked whether they are, and they were not.
    #[serde(skip)]
    pub(crate) unrecovered_at_s: Option<f64>,
    /// How long after its end the replicas were still not in sync, in seconds, where that is longer than promised (G6).
    pub late_s: Option<f64>,
    /// Why the time until it was recovered from is not judged.
    pub not_judged: Option<String>,
    /// What the nodes' own counters and answers show of it.
    pub effect: Option<Evidence>,
    /// Why there was no effect.
    pub failure: Option<String>,
    /// Operations per second from 2 s before it to its end.
    pub ops_per_s_around: Option<f64>,
    /// Operations that failed from its start until the mesh had recovered.
    pub errors: u64,
    /// Writes of that time whose outcome is unknown.
    pub outcome_unknown: u64,
    /// How the mesh came back from it; nothing if it had no effect.
    #[borsh(skip)]
    pub timeline: Option<Timeline>,
    /// Deaths that were asked for; 0 for other faults.
    pub deaths: u32,
    /// Another one waits until its node is ready again.
    #[serde(skip)]
    pub(crate) must_return: bool,
}

/// What one node saw of another that crashed or stopped.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Survivor {
    /// The survivor.
    pub node: String,
    /// When it saw the other one dead, or leaving.
    pub dead_at_s: Option<f64>,
    /// When it saw it alive again.
    pub alive_at_s: Option<f64>,
}

/// The evidence of a fault.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Packets that the nodes dropped for it.
    PacketsDropped(u64),
    /// Packets that they held back.
    PacketsDelayed(u64),
    /// Packets that they duplicated.
    PacketsDuplicated(u64),
    /// How far the node's clock was seen to move, in milliseconds.
    ClockOffMs(f64),
    /// The longest time without an answer, in seconds.
    SilentS(f64),
    /// The process gave no answer any more, and so often a new one answered.
    Restarts(u32),
}

impl FaultRecord {
    pub(crate) fn planned(fault: &PlannedFault, targets: &[String]) -> Self {
        let entry = &fault.entry;
        let survives = |node: usize| entry.kind.deaths() == 1 && node != fault.nodes[0].0;
        let survivor = |name: &String| Survivor { node: name.clone(), dead_at_s: None, alive_at_s: None };
        Self {
            fault: entry.to_string(),
            kind: entry.kind.name().into(),
            targets: fault.nodes.iter().map(|node| targets[node.0].clone()).collect(),
            planned_at_s: entry.at.as_secs_f64(),
            begun_at_s: None,
            begun_at_unix_ms: None,
            silent_at_s: None,
            survivors: (0..targets.len()).filter(|node| survives(*node)).map(|node| survivor(&targets[node])).collect(),
            ended_at_s: None,
            ready_at_s: None,
            recovered_at_s: None,
            unrecovered_at_s: None,
            late_s: None,
            not_judged: None,
            effect: None,
            failure: None,
            ops_per_s_around: None,
            errors: 0,
            outcome_unknown: 0,
            timeline: None,
            deaths: entry.kind.deaths(),
            must_return: fault.turn.is_some() || entry.kind.deaths() > 1,
        }
    }

    /// Survivor `index` sees the node that ended in this state. Gives whether it is the first to see it dead.
    pub(crate) fn seen(&mut self, index: usize, state: &str, now_s: f64) -> bool {
        let is_first = self.survivors.iter().all(|survivor| survivor.dead_at_s.is_none());
        let survivor = &mut self.survivors[index];
        let is_dead = matches!(state, "dead" | "leaving" | "left");
        if is_dead {
            survivor.dead_at_s.get_or_insert(now_s);
        } else if state == "alive" && survivor.dead_at_s.is_some() {
            survivor.alive_at_s.get_or_insert(now_s);
        }
        is_dead && is_first
    }

    /// When the last survivor saw the node dead; nothing if one of them never did.
    pub(crate) fn detected_at_s(&self) -> Option<f64> {
        let (first, others) = self.survivors.split_first()?;
        others.iter().try_fold(first.dead_at_s?, |latest, survivor| survivor.dead_at_s.map(|at| latest.max(at)))
    }

    /// Those that are in force, in words.
    pub(crate) fn in_force(all: &[Self]) -> Vec<String> {
        let in_force =
            |fault: &&Self| fault.begun_at_s.is_some() && fault.ended_at_s.is_none() && fault.failure.is_none();
        all.iter().filter(in_force).map(|fault| fault.fault.clone()).collect()
    }

    /// How far it has come `now_s` after the load began, in a line.
    pub(crate) fn state(&self, now_s: f64) -> String {
        let state = match (&self.failure, self.begun_at_s, self.ended_at_s, self.recovered_at_s) {
            (Some(reason), ..) => format!("no effect: {reason}"),
            (_, None, ..) => format!("in {:.0} s", (self.planned_at_s - now_s).max(0.0)),
            (_, Some(begun), None, _) => format!("for {:.1} s; {} errors", now_s - begun, self.errors),
            (_, _, Some(ended), None) => format!("over; not in sync after {:.1} s", now_s - ended),
            (_, _, Some(ended), Some(at)) => format!("over; in sync after {:.1} s", at - ended),
        };
        format!("{}: {state}", self.fault.replace("https://", "").replace("http://", ""))
    }

    /// Its process was told to end, and none has answered since.
    pub(crate) const fn is_away(&self) -> bool {
        self.deaths > 0 && self.begun_at_s.is_some() && self.ended_at_s.is_none()
    }

    /// It may still be in force at a node.
    pub(crate) const fn may_be_on(&self) -> bool {
        self.deaths == 0 && self.begun_at_s.is_some() && (self.ended_at_s.is_none() || self.failure.is_some())
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PacketsDropped(packets) => write!(f, "{} packets dropped", grouped(*packets)),
            Self::PacketsDelayed(packets) => write!(f, "{} packets delayed", grouped(*packets)),
            Self::PacketsDuplicated(packets) => write!(f, "{} packets duplicated", grouped(*packets)),
            Self::ClockOffMs(ms) => write!(f, "clock {ms:+.0} ms"),
            Self::SilentS(seconds) => write!(f, "silent for {seconds:.2} s"),
            Self::Restarts(0) => f.write_str("gone"),
            Self::Restarts(1) => f.write_str("gone, 1 new process"),
            Self::Restarts(restarts) => write!(f, "gone, {restarts} new processes"),
        }
    }
}

#[cfg(test)]
impl FaultRecord {
    /// One of `deaths` deaths of node `a` (0 is a partition) that was started at `begun_at_s` and recovered from 6 s later.
    pub(crate) fn example(deaths: u32, begun_at_s: f64) -> Self {
        Self {
            fault: "partition a for=5s".to_owned(),
            kind: "partition".into(),
            targets: vec!["a".to_owned()],
            planned_at_s: begun_at_s,
            begun_at_s: Some(begun_at_s),
            begun_at_unix_ms: Some(0),
            silent_at_s: None,
            survivors: Vec::new(),
            ended_at_s: Some(begun_at_s + 5.0),
            ready_at_s: None,
            recovered_at_s: Some(begun_at_s + 6.0),
            unrecovered_at_s: None,
            late_s: None,
            not_judged: None,
            effect: Some(Evidence::PacketsDropped(1)),
            failure: None,
            ops_per_s_around: Some(100.0),
            errors: 0,
            outcome_unknown: 0,
            timeline: None,
            deaths,
            must_return: deaths > 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_detected_once_every_survivor_has_seen_it() {
        let survivor = |node: &str| Survivor { node: node.to_owned(), dead_at_s: None, alive_at_s: None };
        let mut record = FaultRecord { survivors: ["b", "c"].map(survivor).to_vec(), ..FaultRecord::example(1, 1.0) };
        assert!(!record.seen(0, "alive", 1.5), "before its death");
        assert!(!record.seen(0, "suspect", 2.0) && record.seen(0, "dead", 3.0) && !record.seen(0, "dead", 3.1));
        assert_eq!(record.detected_at_s(), None);
        assert!(!record.seen(1, "left", 4.0), "only the first counts");
        assert_eq!(record.detected_at_s(), Some(4.0));
        record.seen(0, "alive", 5.0);
        record.seen(0, "alive", 6.0);
        let [first, second] = &record.survivors[..] else { panic!("two survivors") };
        assert_eq!((first.dead_at_s, first.alive_at_s), (Some(3.0), Some(5.0)));
        assert_eq!((second.dead_at_s, second.alive_at_s), (Some(4.0), None));
    }
}
