//! What became of one fault of FAULTS: when it began and ended, what effect was seen, and when the mesh was whole again.

use std::fmt;

use serde::Serialize;

use super::plan::PlannedFault;
use crate::report::grouped;

/// One fault of the schedule. Times are seconds after the load began.
#[derive(Clone, Debug, Serialize)]
pub struct FaultRecord {
    /// As it is written, without its time.
    pub fault: String,
    /// Its word.
    pub kind: &'static str,
    /// The nodes it is about, as in TARGETS.
    pub targets: Vec<String>,
    /// When it was to begin.
    pub planned_at_s: f64,
    /// When it began.
    pub begun_at_s: Option<f64>,
    /// The same by the wall clock, to lay over dashboards.
    pub begun_at_unix_ms: Option<u64>,
    /// When it was over; of a death: when the node answered again.
    pub ended_at_s: Option<f64>,
    /// When every node was ready again and saw all others alive.
    pub recovered_at_s: Option<f64>,
    /// What the nodes' own counters and answers show of it.
    pub effect: Option<Effect>,
    /// Why there was no effect.
    pub failure: Option<String>,
    /// Operations per second from 2 s before it to its end.
    pub ops_per_s_around: Option<f64>,
    /// Operations that failed from its beginning until the mesh was whole again.
    pub errors: u64,
    /// Deaths that were asked for; 0 for other faults.
    pub deaths: u32,
}

/// What was seen of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Packets that the nodes dropped for it.
    PacketsDropped(u64),
    /// Packets that they held back.
    PacketsDelayed(u64),
    /// Packets that they doubled.
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
        Self {
            fault: entry.to_string(),
            kind: entry.kind.name(),
            targets: fault.nodes.iter().map(|node| targets[node.0].clone()).collect(),
            planned_at_s: entry.at.as_secs_f64(),
            begun_at_s: None,
            begun_at_unix_ms: None,
            ended_at_s: None,
            recovered_at_s: None,
            effect: None,
            failure: None,
            ops_per_s_around: None,
            errors: 0,
            deaths: entry.kind.deaths(),
        }
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

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PacketsDropped(packets) => write!(f, "{} packets dropped", grouped(*packets)),
            Self::PacketsDelayed(packets) => write!(f, "{} packets delayed", grouped(*packets)),
            Self::PacketsDuplicated(packets) => write!(f, "{} packets doubled", grouped(*packets)),
            Self::ClockOffMs(ms) => write!(f, "clock {ms:+.0} ms"),
            Self::SilentS(seconds) => write!(f, "silent for {seconds:.2} s"),
            Self::Restarts(0) => f.write_str("gone"),
            Self::Restarts(1) => f.write_str("gone, 1 new process"),
            Self::Restarts(restarts) => write!(f, "gone, {restarts} new processes"),
        }
    }
}
