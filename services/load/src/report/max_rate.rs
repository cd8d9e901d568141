//! A search for the highest rate (FIND_MAX): its steps, whether each met the objectives, and who limits.

use std::time::Duration;

use serde::Serialize;

use super::{
    numbers::{cell, grouped, percent},
    objectives::{ObjectiveEvidence, judge},
};
use crate::{Op, exec::is_narrow, plan::Plan, stats::Recorder};

/// A step that achieved less of what was offered has failed, whatever the objectives say.
const ACHIEVED_MIN_PERCENT: f64 = 98.0;

/// The client limits if its threads use so much of their cores, if its schedule was so late, or if so much of the slowest operations'
/// time passed in its own queue.
const CLIENT_BUSY: f64 = 0.9;
const LATE_MAX: Duration = Duration::from_millis(50);
const CLIENT_QUEUE_MAX: f64 = 0.25;

/// Client and nodes on one machine limit each other if they use so much of it together.
const MACHINE_BUSY: f64 = 0.8;

/// All operations in flight, and each no slower than by this factor than where it was fastest: more would have fitted.
const AS_FAST: f64 = 2.0;

/// This share of a step's operations is the slowest; as many are needed to tell where their time went.
const SLOWEST_SHARE: f64 = 0.01;
const SLOWEST_MIN: usize = 10;

/// What a step is made of.
pub(crate) struct Measured<'a> {
    pub(crate) rate: f64,
    /// Until its last operation had ended.
    pub(crate) took: Duration,
    pub(crate) recorder: &'a Recorder,
    pub(crate) client_cpu: Duration,
    pub(crate) node_cpu: Vec<Option<Duration>>,
}

/// One step.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Step {
    /// Operations per second that were due.
    pub offered_ops_per_s: f64,
    /// Operations per second that ended.
    pub achieved_ops_per_s: f64,
    /// The 99th percentile of each operation's response time, in milliseconds, failed ones with theirs.
    pub p99_ms: Vec<(Op, f64)>,
    /// Operations that failed or have an unknown outcome.
    pub errors_percent: f64,
    /// Cores that the client used.
    pub client_cores: f64,
    /// Cores that each node used, if it tells.
    pub node_cores: Vec<Option<f64>>,
    /// It met all objectives.
    pub is_met: bool,
    /// Which it missed, and by how much.
    pub missed: Vec<String>,
    /// Which had too few operations to be sure of.
    pub uncertain: Vec<String>,
    /// What speaks for the client as the limit.
    pub client_limits: Option<String>,
    /// Operations that waited because all were in flight.
    #[serde(skip)]
    pub(super) is_full: bool,
    #[serde(skip)]
    pub(super) service_p50: Duration,
}

/// What a search came to.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MaxRate {
    /// The highest rate that met the objectives.
    pub ops_per_s: Option<f64>,
    /// The lowest rate above it that did not.
    pub missed_ops_per_s: Option<f64>,
    /// They are no further apart than they should be.
    pub is_complete: bool,
    /// Who limits.
    pub limited_by: Option<Limit>,
    /// Why it is thought so.
    pub because: Option<String>,
    /// All steps.
    pub steps: Vec<Step>,
}

/// Who limits the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The nodes.
    Nodes,
    /// This process: the nodes may do more.
    Client,
    /// CONCURRENCY: the nodes may do more.
    Concurrency,
    /// Client and nodes share a machine that is busy.
    Machine,
}

impl Limit {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "the nodes",
            Self::Client => "the client",
            Self::Concurrency => "CONCURRENCY",
            Self::Machine => "the machine",
        }
    }
}

impl Step {
    pub(crate) fn new(plan: &Plan, measured: &Measured<'_>) -> Self {
        let Measured { rate, recorder, .. } = *measured;
        let count = recorder.response.select(|_| true).count();
        // What a read did not find is written beside the schedule.
        let scheduled = count.saturating_sub(recorder.backfills);
        let achieved_ops_per_s = scheduled as f64 / plan.duration.as_secs_f64();
        let failed = recorder.response.select(|series| series.outcome == crate::OutcomeClass::Error).count();
        let (achieved, errors_percent) = (percent(scheduled, recorder.offered), percent(failed, count));
        let mut missed = Vec::new();
        if achieved < ACHIEVED_MIN_PERCENT {
            missed.push(format!("achieved {achieved:.1} % of {} operations", grouped(recorder.offered)));
        }
        if plan.errors_objective().is_none() && errors_percent > plan.errors_max_percent {
            missed.push(format!("errors: {errors_percent:.3} %, {} % are allowed", plan.errors_max_percent));
        }
        let evidence = ObjectiveEvidence { recorder, faults: &[], ops_per_s: achieved_ops_per_s, is_enough: true };
        for objective in plan.objectives.as_slice() {
            let judged = judge(objective, &evidence);
            if judged.is_met != Some(true) {
                missed.push(format!("{}: {}", judged.objective, judged.words));
            }
        }
        let strict = ObjectiveEvidence { is_enough: false, ..evidence };
        let uncertain = plan.objectives.as_slice().iter().map(|objective| judge(objective, &strict));
        let uncertain = uncertain.filter(|judged| judged.is_met.is_none());
        let p99 = |op: Op| {
            let all = recorder.response.select(|series| series.op == op);
            (all.count() > 0).then(|| (op, all.percentile(99.0).as_secs_f64() * 1e3))
        };
        let cores = |cpu: Duration| cpu.as_secs_f64() / measured.took.as_secs_f64().max(1e-6);
        let mut service = crate::stats::LatencyHistogram::default();
        recorder.service.iter().for_each(|op| service.merge(op));
        Self {
            offered_ops_per_s: rate,
            achieved_ops_per_s,
            p99_ms: Op::ALL.into_iter().filter_map(p99).collect(),
            errors_percent,
            client_cores: cores(measured.client_cpu),
            node_cores: measured.node_cpu.iter().map(|cpu| cpu.map(cores)).collect(),
            is_met: missed.is_empty(),
            missed,
            uncertain: uncertain.map(|judged| format!("{}: {}", judged.objective, judged.words)).collect(),
            client_limits: client_limits(plan, measured, cores(measured.client_cpu)),
            is_full: recorder.backlog_high > 1 && recorder.lag_max > recorder.late_max + LATE_MAX / 10,
            service_p50: service.percentile(50.0),
        }
    }

    /// In one line, while the search goes on.
    pub(crate) fn words(&self) -> String {
        let p99: String = self.p99_ms.iter().map(|(op, ms)| format!(", {} p99 {} ms", op.name(), cell(*ms))).collect();
        let [offered, achieved] =
            [self.offered_ops_per_s, self.achieved_ops_per_s].map(|rate| grouped(rate.round() as u64));
        let result = self.missed.first().map_or_else(|| "met".to_owned(), |first| format!("missed {first}"));
        format!("{offered} ops/s offered, {achieved} achieved{p99}, {:.3} % errors: {result}", self.errors_percent)
    }

    /// The cores that all nodes used together, if all tell.
    pub(crate) fn nodes_cores(&self) -> Option<f64> {
        self.node_cores.iter().copied().sum()
    }
}

/// What speaks for the client as the limit of a step.
fn client_limits(plan: &Plan, measured: &Measured<'_>, cores: f64) -> Option<String> {
    let (recorder, threads) = (measured.recorder, plan.threads);
    if !plan.nodes_within && cores >= CLIENT_BUSY * threads as f64 {
        return Some(format!("its {threads} threads use {cores:.2} cores"));
    }
    if recorder.late_max >= LATE_MAX {
        return Some(format!("its schedule was up to {:.0} ms late", recorder.late_max.as_secs_f64() * 1e3));
    }
    let slowest = |op: Op| {
        let mut samples = recorder.aftermath.parts[op as usize].samples().to_vec();
        samples.sort_by(|one, other| other.response_s().total_cmp(&one.response_s()));
        samples.truncate((SLOWEST_SHARE * samples.len() as f64) as usize);
        let whole: f64 = samples.iter().map(crate::stats::PartSample::response_s).sum();
        let queued: f64 = samples.iter().map(|sample| f64::from(sample.client_queue_s)).sum();
        (samples.len() >= SLOWEST_MIN && whole > 0.0).then(|| (op, queued / whole))
    };
    let (op, share) = Op::ALL.into_iter().filter_map(slowest).max_by(|one, other| one.1.total_cmp(&other.1))?;
    let share_percent = share * 100.0;
    (share > CLIENT_QUEUE_MAX)
        .then(|| format!("the slowest {} spent {share_percent:.0} % of their time in its queue", op.name()))
}

impl MaxRate {
    pub(crate) fn of(plan: &Plan, steps: Vec<Step>) -> Self {
        let met = steps.iter().filter(|step| step.is_met).map(|step| step.offered_ops_per_s).reduce(f64::max);
        let is_above = |step: &&Step| !step.is_met && met.is_none_or(|met| step.offered_ops_per_s > met);
        let missed = steps.iter().filter(is_above).map(|step| step.offered_ops_per_s).reduce(f64::min);
        let limiting = steps.iter().rev().find(|step| Some(step.offered_ops_per_s) == missed);
        let fastest = steps.iter().filter(|step| step.is_met).map(|step| step.service_p50).min();
        let limit = limiting.map(|limiting| limit(plan, limiting, fastest));
        let (limited_by, because) = limit.unzip();
        Self {
            ops_per_s: met,
            missed_ops_per_s: missed,
            is_complete: is_narrow(met, missed),
            limited_by,
            because,
            steps,
        }
    }

    /// The step at the highest rate that met the objectives.
    pub(crate) fn best(&self) -> Option<&Step> {
        self.steps.iter().rev().find(|step| step.is_met && Some(step.offered_ops_per_s) == self.ops_per_s)
    }

    /// The last step at the lowest rate that did not.
    pub(crate) fn limiting(&self) -> Option<&Step> {
        self.steps.iter().rev().find(|step| !step.is_met && Some(step.offered_ops_per_s) == self.missed_ops_per_s)
    }
}

/// Who limited a step, and why it is thought so.
fn limit(plan: &Plan, step: &Step, fastest: Option<Duration>) -> (Limit, String) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let busy = step.client_cores + if plan.nodes_within { 0.0 } else { step.nodes_cores().unwrap_or_default() };
    if plan.is_local() && busy >= MACHINE_BUSY * cores {
        return (Limit::Machine, format!("client and nodes share its {cores} cores and use {busy:.2} of them"));
    }
    if let Some(why) = &step.client_limits {
        return (Limit::Client, why.clone());
    }
    let is_as_fast = |fastest: Duration| step.service_p50.as_secs_f64() < AS_FAST * fastest.as_secs_f64();
    if step.is_full && fastest.is_some_and(is_as_fast) {
        let what = format!("all {} were in flight, and each as fast as at lower rates", plan.concurrency);
        return (Limit::Concurrency, what);
    }
    let cores: Vec<_> = step.node_cores.iter().flatten().map(|cores| format!("{cores:.2}")).collect();
    let cores = if cores.is_empty() { String::new() } else { format!("; they use {} cores", cores.join(" + ")) };
    (Limit::Nodes, format!("the client was in time and its queue short{cores}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        NodeIndex, OutcomeClass, Phase,
        plan::settings::tests::plan_of,
        stats::{PartSample, Series},
    };

    fn recorder(answered: u64, failed: u64, ms: u64) -> Recorder {
        let mut recorder = Recorder::new(1);
        for (outcome, count) in [(OutcomeClass::Local, answered), (OutcomeClass::Error, failed)] {
            let series = Series { phase: Phase::Steady, op: Op::Get, outcome, node: NodeIndex(0) };
            (0..count).for_each(|_| recorder.response.record(series, Duration::from_millis(ms)));
        }
        (0..answered).for_each(|_| recorder.service[Op::Get as usize].record(Duration::from_millis(1)));
        recorder.offered = answered + failed;
        recorder
    }

    fn step(rate: f64, recorder: &Recorder, node_cpu_ms: u64) -> Step {
        let plan = plan_of(&["--find-max", "--set-ratio=0", "--duration=1s"]);
        let node_cpu = vec![Some(Duration::from_millis(node_cpu_ms))];
        let (took, client_cpu) = (Duration::from_secs(1), Duration::from_millis(10));
        Step::new(&plan, &Measured { rate, took, recorder, client_cpu, node_cpu })
    }

    #[test]
    fn a_step_meets_the_objectives_or_names_those_it_missed() {
        let met = step(2000.0, &recorder(2000, 0, 1), 10);
        assert!(met.is_met && met.uncertain.is_empty() && met.missed.is_empty(), "{met:?}");
        let slow = step(2000.0, &recorder(2000, 0, 60), 10);
        assert!(!slow.is_met && slow.missed[0].starts_with("get.p99<=50ms: 60.0"), "{slow:?}");
        let failing = step(2000.0, &recorder(1990, 10, 1), 10);
        assert_eq!(failing.missed, ["errors: 0.500 %, 0.1 % are allowed"]);
        let behind = step(2000.0, &Recorder { offered: 2100, ..recorder(2000, 0, 1) }, 10);
        assert_eq!(behind.missed, ["achieved 95.2 % of 2 100 operations"]);
        let few = step(500.0, &recorder(500, 0, 60), 10);
        assert!(
            !few.is_met && few.uncertain == ["get.p99<=50ms: only 500 GET operations; 1 000 are needed"],
            "{few:?}"
        );
    }

    #[test]
    fn who_limits_is_told_from_the_clients_own_lateness_and_queues() {
        let plan = plan_of(&["--find-max", "--set-ratio=0", "--duration=1s"]);
        let found = |slow: &Recorder| {
            let steps = vec![step(2000.0, &recorder(2000, 0, 1), 10), step(2100.0, slow, 10)];
            MaxRate::of(&plan, steps)
        };
        let slow = || {
            let mut slow = recorder(2000, 0, 60);
            slow.service[Op::Get as usize] = slow.response.select(|_| true);
            slow
        };
        let nodes = found(&slow());
        assert_eq!((nodes.ops_per_s, nodes.missed_ops_per_s, nodes.is_complete), (Some(2000.0), Some(2100.0), true));
        assert_eq!(nodes.limited_by, Some(Limit::Nodes), "{nodes:?}");
        let late = found(&Recorder { late_max: Duration::from_millis(51), ..slow() });
        assert_eq!(
            (late.limited_by, late.because.as_deref()),
            (Some(Limit::Client), Some("its schedule was up to 51 ms late"))
        );
        let full = Recorder { backlog_high: 9, lag_max: Duration::from_secs(1), ..recorder(2000, 0, 60) };
        assert_eq!(found(&full).limited_by, Some(Limit::Concurrency));
        let mut queued = slow();
        let sample = PartSample { client_queue_s: 0.5, server_queue_s: 0.5, ..PartSample::default() };
        (0..1000).for_each(|_| queued.aftermath.parts[Op::Get as usize].push(sample));
        assert_eq!(found(&queued).limited_by, Some(Limit::Client));
        let local = crate::plan::Plan { targets: vec!["http://127.0.0.1:1".to_owned()], ..plan };
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let steps = vec![step(2000.0, &recorder(2000, 0, 1), 10), step(2100.0, &slow(), cores * 1000)];
        assert_eq!(MaxRate::of(&local, steps).limited_by, Some(Limit::Machine));
    }

    #[test]
    fn a_rate_that_met_the_objectives_at_its_second_try_did() {
        let plan = plan_of(&["--find-max", "--set-ratio=0", "--duration=1s"]);
        let (good, bad) = (recorder(2000, 0, 1), recorder(2000, 0, 60));
        let steps = [(1000.0, &good), (2000.0, &bad), (2000.0, &good), (4000.0, &bad), (4000.0, &bad)];
        let steps = steps.map(|(rate, recorder)| step(rate, recorder, 1)).to_vec();
        let found = MaxRate::of(&plan, steps);
        assert_eq!((found.ops_per_s, found.missed_ops_per_s, found.is_complete), (Some(2000.0), Some(4000.0), false));
        let none = MaxRate::of(&plan, vec![step(1000.0, &bad, 1)]);
        assert_eq!((none.ops_per_s, none.missed_ops_per_s, none.is_complete), (None, Some(1000.0), false));
    }
}
