//! What the live view shows. The run sets it, and a picture is made of it alone.

use std::{collections::VecDeque, time::Duration};

use crate::{
    Counter, Snapshot,
    exec::Interval,
    plan::Plan,
    report::numbers::{grouped, without_scheme},
};

/// Points of a curve; when there are more, each two become one.
const POINTS_MAX: usize = 2048;

/// Lines that are kept for the end.
const LINES_MAX: usize = 1000;

/// The part of a run that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RunStage {
    /// Connecting, asking the nodes.
    #[default]
    Start,
    /// Every key is written.
    Prefill,
    /// The load.
    Load,
    /// Healing, reading counters, leaving the mesh alone.
    Rest,
    /// Every key is read from every node.
    Sweep,
}

/// What is shown.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Nodes, load and seed in words.
    pub(super) title: String,
    pub(super) load: String,
    pub(super) stage: RunStage,
    /// How far the stage has come, and its whole: keys, or milliseconds.
    pub(super) done: u64,
    pub(super) total: u64,
    /// How long it has lasted.
    pub(super) stage_time: Duration,
    /// The last moment of the load.
    pub(super) now: Option<Interval>,
    pub(super) ops_per_s: Curve,
    pub(super) p99_ms: Curve,
    pub(super) service_p99_ms: Curve,
    pub(super) sums: Sums,
    /// Where the time of the operations beyond the p99 goes, in percent.
    pub(super) tail: Vec<(&'static str, f64)>,
    /// Each with its state.
    pub(super) nodes: Vec<(String, String)>,
    pub(super) faults: Vec<String>,
    /// What was printed.
    pub(super) lines: VecDeque<String>,
    plan: Length,
    /// Keys written per second, once all are.
    prefill_rate: f64,
}

/// How long the run is to last.
#[derive(Debug, Default)]
struct Length {
    /// 0 for no prefill.
    prefill_keys: u64,
    /// Nothing for a search, whose end is not known.
    load: Option<Duration>,
    quiescence: Duration,
    /// Reads; 0 for no sweep.
    sweep_reads: u64,
    nodes: u64,
}

/// Counts of the load so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) ops: u64,
    pub(super) errors: u64,
    pub(super) outcome_unknown: u64,
    pub(super) local_hits: u64,
    pub(super) remote_hits: u64,
    pub(super) misses: u64,
    pub(super) writes: u64,
    pub(super) extra_tries: u64,
    pub(super) stale: u64,
    pub(super) wrong: u64,
    pub(super) lag_max: Duration,
    pub(super) errors_max_percent: f64,
    pub(super) is_open_loop: bool,
    pub(super) is_checked: bool,
}

/// A figure over the whole run.
#[derive(Debug)]
pub(super) struct Curve {
    points: Vec<f64>,
    /// So many values make a point: the highest of them.
    every: usize,
    pending: usize,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), every: 1, pending: 0 }
    }
}

impl Curve {
    pub(super) fn push(&mut self, value: f64) {
        match self.points.last_mut() {
            Some(last) if self.pending > 0 => *last = last.max(value),
            _ => self.points.push(value),
        }
        self.pending = (self.pending + 1) % self.every;
        if self.points.len() > POINTS_MAX {
            self.points = self.points.chunks(2).map(|two| two.iter().copied().fold(0.0, f64::max)).collect();
            self.every *= 2;
            self.pending = 0;
        }
    }

    /// At most `width` columns; of several points in one, the highest.
    pub(super) fn columns(&self, width: usize) -> Vec<f64> {
        let per_column = self.points.len().div_ceil(width.max(1)).max(1);
        self.points.chunks(per_column).map(|points| points.iter().copied().fold(0.0, f64::max)).collect()
    }
}

impl Model {
    /// Of a run that has not begun.
    pub(crate) fn new(plan: &Plan) -> Self {
        let nodes = plan.targets.len() as u64;
        let keys = u64::from(plan.keys.count());
        Self {
            title: format!("{nodes} node{} · seed {}", if nodes == 1 { "" } else { "s" }, plan.seed),
            load: format!("{}; {}; {}", plan.loop_words(), plan.mix(), plan.key_words()),
            sums: Sums {
                errors_max_percent: plan.errors_objective().unwrap_or(plan.errors_max_percent),
                is_open_loop: plan.rate.is_some(),
                is_checked: plan.check,
                ..Sums::default()
            },
            nodes: plan.targets.iter().map(|name| (without_scheme(name).to_owned(), "ready".to_owned())).collect(),
            plan: Length {
                prefill_keys: if plan.prefill { keys } else { 0 },
                load: (!plan.find_max).then_some(plan.duration),
                quiescence: if plan.sweeps() { plan.quiescence() } else { Duration::ZERO },
                sweep_reads: if plan.sweeps() { keys * nodes } else { 0 },
                nodes,
            },
            ..Self::default()
        }
    }

    /// A stage begins.
    pub(crate) fn begin(&mut self, stage: RunStage, total: u64) {
        if self.stage == RunStage::Prefill {
            self.prefill_rate = self.rate();
        }
        self.stage = stage;
        (self.done, self.total, self.stage_time) = (0, total, Duration::ZERO);
    }

    /// It has come so far.
    pub(crate) const fn at(&mut self, done: u64, stage_time: Duration) {
        (self.done, self.stage_time) = (done, stage_time);
    }

    /// A moment of the load has passed.
    pub(crate) fn passed(&mut self, interval: Interval, counted: &Snapshot) {
        self.ops_per_s.push(interval.ops_per_s);
        self.p99_ms.push(interval.p99_ms);
        self.service_p99_ms.push(interval.service_p99_ms);
        let sums = &mut self.sums;
        sums.ops += interval.ops;
        sums.outcome_unknown += interval.outcome_unknown;
        sums.local_hits += interval.local_hits;
        sums.remote_hits += interval.remote_hits;
        sums.misses += interval.misses;
        sums.writes += counted_writes(&interval);
        sums.errors = counted.get(Counter::Errors);
        sums.extra_tries = counted.get(Counter::ExtraTries);
        sums.stale = counted.get(Counter::Stale);
        sums.wrong += interval.violations;
        sums.lag_max = counted.lag_max();
        self.tail = counted.tail_since(&Snapshot::default());
        self.now = Some(interval);
    }

    /// How each node is.
    pub(crate) fn set_nodes(&mut self, states: impl Iterator<Item = String>) {
        self.nodes.iter_mut().zip(states).for_each(|(node, state)| node.1 = state);
    }

    pub(crate) fn set_faults(&mut self, faults: Vec<String>) {
        self.faults = faults;
    }

    /// Something was printed.
    pub(crate) fn print(&mut self, text: &str) {
        self.lines.push_back(text.to_owned());
        while self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.drain(..).collect()
    }

    /// Of the stage, per second.
    fn rate(&self) -> f64 {
        if self.stage_time.is_zero() { 0.0 } else { self.done as f64 / self.stage_time.as_secs_f64() }
    }

    /// How long the run will last yet, as far as that is known: prefill, load and sweep together.
    pub(super) fn left(&self) -> Option<Duration> {
        let (plan, remaining) = (&self.plan, self.total.saturating_sub(self.done));
        let rate = self.rate();
        let at_rate = |count: u64, rate: f64| (rate > 0.0).then(|| Duration::from_secs_f64(count as f64 / rate));
        let prefill = match self.stage {
            RunStage::Start if plan.prefill_keys > 0 => None,
            RunStage::Prefill => at_rate(remaining, rate),
            _ => Some(Duration::ZERO),
        };
        let load = match self.stage {
            RunStage::Start | RunStage::Prefill => plan.load,
            RunStage::Load => plan.load.map(|_| Duration::from_millis(remaining)),
            RunStage::Rest | RunStage::Sweep => Some(Duration::ZERO),
        };
        let rest = match self.stage {
            RunStage::Rest => plan.quiescence.saturating_sub(self.stage_time),
            RunStage::Sweep => Duration::ZERO,
            _ => plan.quiescence,
        };
        // A key is read once from each node, as fast as keys were written, or as operations ended if that was faster.
        let mean = self.ops_per_s.points.iter().sum::<f64>() / self.ops_per_s.points.len().max(1) as f64;
        let written = if self.stage == RunStage::Prefill { rate } else { self.prefill_rate };
        let ops_per_s = mean.max(written);
        let sweep = match self.stage {
            _ if plan.sweep_reads == 0 => Some(Duration::ZERO),
            RunStage::Sweep if self.done > 0 => at_rate(remaining, rate),
            _ => at_rate(plan.sweep_reads, ops_per_s),
        };
        Some(prefill? + load? + rest + sweep?)
    }

    /// The stage and how far it has come, in words.
    pub(super) fn progress(&self) -> String {
        let keys = || format!("{} of {} keys", grouped(self.done), grouped(self.total));
        let seconds = |ms: u64| format!("{:.0}", ms as f64 / 1e3);
        match self.stage {
            RunStage::Start => "starting".to_owned(),
            RunStage::Prefill => format!("prefill, {}", keys()),
            RunStage::Load if self.plan.load.is_none() => format!("search, {} s", seconds(self.done)),
            RunStage::Load => format!("load, {} of {} s", seconds(self.done), seconds(self.total)),
            RunStage::Rest => "after the load: reading counters, leaving the mesh alone".to_owned(),
            RunStage::Sweep => format!("final sweep, {} at {} nodes", keys(), self.plan.nodes),
        }
    }
}

/// Writes and deletions that were acknowledged.
fn counted_writes(interval: &Interval) -> u64 {
    let answered = interval.local_hits + interval.remote_hits + interval.misses;
    interval.ops.saturating_sub(answered + interval.errors + interval.outcome_unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_keeps_its_highest_points() {
        let mut curve = Curve::default();
        (0..10_000).for_each(|at| curve.push(if at == 7777 { 100.0 } else { 1.0 }));
        assert!(curve.points.len() <= POINTS_MAX);
        let columns = curve.columns(50);
        assert!(columns.len() <= 50 && columns.iter().filter(|value| **value > 1.0).count() == 1, "{columns:?}");
        assert_eq!(Curve::default().columns(10), [0.0; 0]);
    }

    #[test]
    fn the_time_left_is_that_of_all_stages() {
        let mut model = Model {
            plan: Length {
                prefill_keys: 1000,
                load: Some(Duration::from_secs(30)),
                quiescence: Duration::from_secs(2),
                sweep_reads: 3000,
                nodes: 3,
            },
            ..Model::default()
        };
        assert_eq!(model.left(), None, "nothing is known of the nodes yet");
        model.begin(RunStage::Prefill, 1000);
        model.at(250, Duration::from_secs(1));
        // 3 s of prefill, the load, the rest, and 3000 reads at 250 per second.
        assert_eq!(model.left(), Some(Duration::from_secs(3 + 30 + 2 + 12)));
        model.begin(RunStage::Load, 30_000);
        model.at(10_000, Duration::from_secs(10));
        (0..4).for_each(|_| model.ops_per_s.push(1000.0));
        model.now = Some(Interval::between(&Default::default(), &Default::default(), crate::Phase::Steady, Vec::new()));
        assert_eq!(model.left(), Some(Duration::from_secs(20 + 2 + 3)));
        model.begin(RunStage::Rest, 0);
        model.at(0, Duration::from_millis(500));
        assert_eq!(model.left(), Some(Duration::from_millis(1500 + 3000)));
        model.begin(RunStage::Sweep, 1000);
        model.at(500, Duration::from_secs(1));
        assert_eq!(model.left(), Some(Duration::from_secs(1)));
    }
}
