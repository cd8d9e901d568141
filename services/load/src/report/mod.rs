//! What a run came to: figures, findings, and a verdict. Serialized, it is the machine-readable result.

mod entries;
mod explained;
mod fault_table;
mod first_screen;
mod max_rate;
mod max_rate_table;
pub(crate) mod numbers;
mod objectives;
mod page;
mod printed;
mod reconcile;
mod reconcile_table;
mod screen;
mod slow_table;
mod summary;
#[cfg(test)]
mod tests;
mod verdict;
mod verdict_lines;

#[cfg(test)]
pub(crate) use self::tests::full_report;
pub(crate) use self::{
    max_rate::{Measured, Step},
    numbers::without_scheme,
    page::Page,
    verdict::Verdict,
};

use std::collections::BTreeMap;

use serde::Serialize;

use self::{
    entries::EntryOutcome,
    max_rate::MaxRate,
    objectives::{JudgedObjective, ObjectiveEvidence},
    reconcile::Reconciliation,
};
use crate::{
    ErrorKind, Guarantee, NodeIndex, NodeStats, Op, OutcomeClass, Phase, SpanFates,
    exec::{Divergence, Milestones, Observed, Sample, Standstill},
    faults::{FaultRecord, ObservedEvent, RepeatedFault, completed, judge, too_much},
    history::Integrity,
    plan::Plan,
    results::{Machine, Recorded, Versions},
    shard::{Doubts, ShardFile},
    stats::{ErrorSummary, FailedRequest, LatencyHistogram, Recorder, Series, SlowRequest, SweepTally, TraceReport},
};

/// A finished run.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// The version of this file's form, [`SCHEMA`].
    pub schema: u32,
    /// Tells this run from others; its folder, and the runs of dashboards, are called so.
    pub run_id: String,
    /// The beginning of the run, Unix milliseconds.
    pub began_unix_ms: u64,
    /// The end of the run, Unix milliseconds.
    pub ended_unix_ms: u64,
    /// The machine that the runner was on.
    pub machine: Machine,
    /// Who took part.
    pub versions: Versions,
    /// Every setting as the run was started with it, by name, so that it can be repeated; without secrets.
    pub settings: BTreeMap<String, String>,
    /// What was planned.
    pub setup: Plan,
    /// The search for the highest rate, if there was one.
    pub max_rate: Option<MaxRate>,
    /// The keys written before the load.
    pub prefilled: u64,
    /// How long that took, in seconds.
    pub prefill_s: f64,
    /// How long the load lasted, in seconds.
    pub load_s: f64,
    /// It was ended by a signal.
    pub interrupted: bool,
    /// Counts.
    pub totals: Totals,
    /// Percentiles, from the whole to its parts.
    pub rows: Vec<Row>,
    /// Operations that failed or have an unknown outcome, by part of the run.
    #[serde(skip)]
    failed_by_phase: [u64; Phase::ALL.len()],
    /// Operations by entry node and outcome.
    pub entries: Vec<EntryOutcome>,
    /// Failures by kind.
    pub errors: Vec<ErrorSummary>,
    /// The first failed operations, one by one.
    pub failed: Vec<FailedRequest>,
    /// Wrong, stale and missing values seen by the load.
    pub integrity: Integrity,
    /// Half of the stale values were older than this when they were read, in milliseconds.
    pub stale_age_p50_ms: f64,
    /// The oldest stale value, in milliseconds.
    pub stale_age_max_ms: f64,
    /// What the final sweep found; nothing if there was none.
    pub sweep: Option<SweepTally>,
    /// Comparisons of one key between all nodes.
    pub comparisons: u64,
    /// Nodes that stayed behind in them.
    pub divergences: Vec<Divergence>,
    /// The nodes' counters, summed over those that answered at the end.
    pub counters: NodeStats,
    /// Entries that the nodes evicted during the run, which explains misses.
    pub evicted: u64,
    /// How much older than the newest write these were, on the average, in seconds; nothing where the nodes do not tell.
    pub evicted_age_s: Option<f64>,
    /// How many of the lost keys that explains at most; less than `evicted` would be wrong where a node's counters are not whole.
    #[serde(skip)]
    evicted_keys_max: u64,
    /// What happened to servers that do not promise to keep acknowledged writes then.
    pub not_kept_because: Option<String>,
    /// Entries that expired during the run, which explains misses.
    pub expired: u64,
    /// CPU.
    pub cpu: Cpu,
    /// How far an open loop fell behind.
    pub lag: Option<Lag>,
    /// The crashes of KILL_MODE in their order, then the faults of FAULTS as they were written.
    pub faults: Vec<FaultRecord>,
    /// Of each kind of fault that struck several times.
    pub repeated: Vec<RepeatedFault>,
    /// What happened to the nodes and this run did not order.
    pub observed: Vec<ObservedEvent>,
    /// When the runner itself stood still.
    pub standstills: Vec<Standstill>,
    /// The nodes' WRITE_CONCERN, if they report it.
    pub write_concern: Option<usize>,
    /// OBJECTIVES against what was measured.
    pub objectives: Vec<JudgedObjective>,
    /// Why the mesh had not recovered from them.
    pub not_whole: Option<String>,
    /// Client/server reconciliation; nothing if no node reported what it counted.
    pub reconciliation: Option<Reconciliation>,
    /// The slowest operations of each part of the run, kind and outcome.
    pub slowest: Vec<SlowRequest>,
    /// Traces; nothing if none were recorded.
    pub traces: Option<TraceReport>,
    /// The run over time.
    pub samples: Vec<Sample>,
    /// When what happened.
    #[serde(skip)]
    pub(crate) times: Milestones,
    /// What is known beforehand to make the measurement less than it should be.
    #[serde(skip)]
    doubts: Doubts,
    /// All that this shard measured, if there are others.
    #[serde(skip)]
    shard: Option<Vec<u8>>,
    /// What it all means.
    pub verdict: Verdict,
    /// What has files of its own.
    #[serde(skip)]
    pub(crate) recorded: Recorded,
}

/// Raised when a field of the results goes or changes its meaning.
pub(crate) const SCHEMA: u32 = 1;

/// Counts over the load.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Totals {
    /// Operations that ended.
    pub total: u64,
    /// Reads.
    pub gets: u64,
    /// Writes.
    pub sets: u64,
    /// Deletions.
    pub deletes: u64,
    /// Failed operations.
    pub errors: u64,
    /// Writes whose outcome is unknown: neither done nor failed.
    pub indeterminate: u64,
    /// Operations answered by a second node after a first had failed.
    pub failed_over: u64,
    /// Tries beyond the first of each operation, whatever they came to.
    pub extra_tries: u64,
    /// Writes of what a read did not find (BACKFILL), beside those that the load itself asked for.
    pub backfills: u64,
    /// Hits in the entry node's own replica.
    pub hits_local: u64,
    /// Hits at another owner.
    pub hits_remote: u64,
    /// Misses.
    pub misses: u64,
    /// Operations per second.
    pub ops_per_s: f64,
}

impl Totals {
    /// Operations that the schedule made due, or a closed loop began.
    pub(crate) const fn scheduled(&self) -> u64 {
        self.total.saturating_sub(self.backfills)
    }
}

/// One line of percentiles, in milliseconds.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Row {
    /// The table it belongs to.
    pub table: &'static str,
    /// What is measured.
    pub label: String,
    /// How many operations.
    pub count: u64,
    /// The mean.
    pub mean_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// 95 %.
    pub p95_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Upper bounds in nanoseconds and counts of the buckets that are not empty.
    pub buckets: Vec<(u64, u64)>,
}

/// CPU used during the load.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cpu {
    /// By this process, in percent of one core.
    pub client_percent: f64,
    /// By this process, microseconds for each operation.
    pub client_us_per_op: f64,
    /// By each node, microseconds for each operation of the whole run; nothing if a node does not say.
    pub node_us_per_op: Vec<Option<f64>>,
}

/// How far an open loop fell behind.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lag {
    /// The longest that an operation waited to begin, in milliseconds.
    pub max_ms: f64,
    /// The most operations that waited at one time, on one thread.
    pub backlog_max: usize,
    /// Operations that were due.
    pub offered: u64,
    /// Operations given up because too many waited, or the load had ended.
    pub dropped: u64,
    /// By how much the schedule itself was late, in milliseconds: the runner's own lateness.
    pub schedule_late_ms: f64,
}

impl Lag {
    fn of(recorder: &Recorder) -> Self {
        Self {
            max_ms: recorder.lag_max.as_secs_f64() * 1e3,
            backlog_max: recorder.backlog_high,
            offered: recorder.offered,
            dropped: recorder.dropped,
            schedule_late_ms: recorder.late_max.as_secs_f64() * 1e3,
        }
    }
}

impl Report {
    /// Of a run that this process has made.
    ///
    /// # Errors
    /// If it is one of many shards, and what it measured cannot be kept for the others.
    pub(crate) fn of_run(plan: Plan, recorder: Recorder, observed: Observed) -> Result<Self, String> {
        let file = ShardFile::new(plan, recorder, observed);
        let bytes = file.plan.shard.is_one_of_many().then(|| file.to_bytes()).transpose()?;
        let report = Self::new(&file.plan, &file.recorder, file.observed);
        Ok(Self { shard: bytes, ..report })
    }

    pub(crate) fn new(plan: &Plan, recorder: &Recorder, mut observed: Observed) -> Self {
        let totals = totals(recorder, observed.load_time.as_secs_f64());
        let (ids, evicted) = (observed.ids.clone(), observed.evicted());
        let ms = |distribution: &LatencyHistogram, percent| distribution.percentile(percent).as_secs_f64() * 1e3;
        let faults = completed(std::mem::take(&mut observed.faults), &observed.recorded.intervals, &recorder.errors);
        let begun_s: Vec<_> = faults.iter().filter_map(|fault| fault.begun_at_s).collect();
        let evidence = ObjectiveEvidence { recorder, faults: &faults, ops_per_s: totals.ops_per_s, is_enough: false };
        // Those of a search are for each of its steps.
        let objectives = plan.objectives.as_slice().iter().filter(|_| !plan.find_max);
        let objectives = objectives.map(|objective| objectives::judge(objective, &evidence)).collect();
        let max_rate = plan.find_max.then(|| MaxRate::of(plan, std::mem::take(&mut observed.steps)));
        let rate = max_rate.as_ref().map_or(plan.rate, |found| found.ops_per_s);
        let mut report = Self {
            schema: SCHEMA,
            run_id: std::mem::take(&mut observed.run_id),
            began_unix_ms: observed.times.began,
            machine: std::mem::take(&mut observed.machine),
            versions: Versions::of(&observed.stats_at_start),
            settings: settings::started_with(),
            ended_unix_ms: observed.times.ended,
            setup: Plan { rate, ..plan.clone() },
            max_rate,
            prefilled: observed.prefilled,
            prefill_s: observed.prefill_time.as_secs_f64(),
            load_s: observed.load_time.as_secs_f64(),
            interrupted: observed.interrupted,
            rows: rows(plan, recorder),
            entries: EntryOutcome::all(plan, recorder),
            failed_by_phase: failed_by_phase(recorder),
            errors: recorder.errors.summaries(),
            failed: recorder.aftermath.failures.first(&begun_s),
            integrity: recorder.integrity.clone(),
            stale_age_p50_ms: ms(&recorder.integrity.stale_age, 50.0),
            stale_age_max_ms: ms(&recorder.integrity.stale_age, 100.0),
            sweep: observed.swept.then(|| recorder.sweep.clone()),
            comparisons: observed.comparisons.as_ref().map_or(0, |found| found.made),
            counters: sum(&observed.stats_after_load),
            evicted,
            evicted_age_s: observed.evicted_age_s(),
            evicted_keys_max: if observed.counters_are_whole() { evicted } else { u64::MAX },
            not_kept_because: not_kept_because(plan, &observed),
            expired: observed.change(|stats| stats.expirations),
            cpu: cpu(&observed, totals.total),
            lag: plan.rate.filter(|_| !plan.find_max).map(|_| Lag::of(recorder)),
            reconciliation: Reconciliation::of(recorder, &observed, plan.reconcile),
            divergences: observed.comparisons.map(|found| found.divergences).unwrap_or_default(),
            repeated: RepeatedFault::all(&faults),
            faults,
            objectives,
            observed: observed.observed,
            standstills: observed.standstills,
            write_concern: observed.write_concern,
            not_whole: observed.not_whole,
            slowest: recorder.aftermath.slowest.all(),
            traces: traces(recorder),
            samples: observed.samples,
            times: observed.times,
            recorded: observed.recorded,
            doubts: observed.doubts,
            shard: None,
            verdict: Verdict::default(),
            totals,
        };
        report.name_peers(&ids);
        report.explain();
        let excuse = report.losses_allowed().or_else(|| too_much(plan.keys.count(), plan.value_sizes.largest()));
        judge(&mut report.faults, excuse.as_deref());
        report.verdict = Verdict::of(&report);
        report
    }

    /// Names the peers of slow requests' legs: `ids` are the nodes', in the order of the targets.
    pub(crate) fn name_peers(&mut self, ids: &[Option<String>]) {
        let slowest = self.slowest.iter_mut().flat_map(|request| &mut request.way.legs);
        for leg in slowest.chain(self.failed.iter_mut().flat_map(|request| &mut request.way.legs)) {
            if let Some(node) = ids.iter().position(|id| id.as_ref() == Some(&leg.peer)) {
                let target = &self.setup.targets[node];
                without_scheme(target).clone_into(&mut leg.peer);
            }
        }
    }

    /// Adds what became of the client's spans, and where to look at traces.
    pub fn set_spans(&mut self, spans: SpanFates, url: &str) {
        let traces = self.traces.get_or_insert_default();
        traces.spans = spans;
        url.clone_into(&mut traces.url);
    }
}

/// Nothing where acknowledged writes are to survive, or nothing has happened.
fn not_kept_because(plan: &Plan, observed: &Observed) -> Option<String> {
    (plan.guarantee == Guarantee::OneCopy).then(|| observed.disturbance(&plan.targets)).flatten()
}

fn failed_by_phase(recorder: &Recorder) -> [u64; Phase::ALL.len()] {
    let failed = |phase: Phase, series: Series| series.phase == phase && series.outcome == OutcomeClass::Error;
    Phase::ALL.map(|phase| recorder.response.select(|series| failed(phase, series)).count())
}

/// Which traces were kept; nothing if none were.
fn traces(recorder: &Recorder) -> Option<TraceReport> {
    let kept = recorder.aftermath.kept.by_reason();
    kept.values().any(|kept| kept.count > 0).then(|| TraceReport { kept, ..TraceReport::default() })
}

fn totals(recorder: &Recorder, load_s: f64) -> Totals {
    let count = |wanted: &dyn Fn(Series) -> bool| recorder.response.select(wanted).count();
    let (total, indeterminate) = (count(&|_| true), recorder.errors.count(ErrorKind::Indeterminate));
    Totals {
        total,
        gets: count(&|series| series.op == Op::Get),
        sets: count(&|series| series.op == Op::Set),
        deletes: count(&|series| series.op == Op::Delete),
        errors: count(&|series| series.outcome == OutcomeClass::Error).saturating_sub(indeterminate),
        indeterminate,
        failed_over: recorder.failed_over,
        extra_tries: recorder.extra_tries,
        backfills: recorder.backfills,
        hits_local: count(&|series| series.outcome == OutcomeClass::Local),
        hits_remote: count(&|series| series.outcome == OutcomeClass::Remote),
        misses: count(&|series| series.outcome == OutcomeClass::Miss),
        ops_per_s: if load_s > 0.0 { total as f64 / load_s } else { 0.0 },
    }
}

fn rows(plan: &Plan, recorder: &Recorder) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |table, label: String, wanted: &dyn Fn(Series) -> bool| {
        rows.extend(row(table, label, &recorder.response.select(wanted)));
    };
    for op in Op::ALL {
        add("all", op.name().to_owned(), &|series| series.op == op);
    }
    for op in Op::ALL {
        for outcome in OutcomeClass::ALL {
            let label = format!("{} {}", op.name(), outcome.name());
            add("outcome", label, &|series| series.op == op && series.outcome == outcome);
        }
    }
    for (node, target) in plan.targets.iter().enumerate() {
        for op in Op::ALL {
            let label = format!("{} {target}", op.name());
            add("node", label, &|series| series.op == op && series.node == NodeIndex(node));
        }
    }
    for phase in Phase::ALL {
        for op in Op::ALL {
            let label = format!("{} {}", op.name(), phase.name());
            add("phase", label, &|series| series.op == op && series.phase == phase);
        }
    }
    for op in Op::ALL {
        rows.extend(row("service", format!("{} service time", op.name()), recorder.service_of(op)));
    }
    rows
}

/// Nothing if nothing was measured.
fn row(table: &'static str, label: String, distribution: &LatencyHistogram) -> Option<Row> {
    let ms = |percent| distribution.percentile(percent).as_secs_f64() * 1e3;
    (distribution.count() > 0).then(|| Row {
        table,
        label,
        count: distribution.count(),
        mean_ms: distribution.mean().as_secs_f64() * 1e3,
        p50_ms: ms(50.0),
        p95_ms: ms(95.0),
        p99_ms: ms(99.0),
        p999_ms: ms(99.9),
        max_ms: ms(100.0),
        buckets: distribution.buckets().collect(),
    })
}

fn sum(stats: &[Option<NodeStats>]) -> NodeStats {
    let mut sum = NodeStats::default();
    for stats in stats.iter().flatten() {
        sum.hits += stats.hits;
        sum.misses += stats.misses;
        sum.evictions += stats.evictions;
        sum.expirations += stats.expirations;
        sum.size += stats.size;
        sum.capacity += stats.capacity;
        for (name, value) in &stats.mesh {
            let before = sum.mesh.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
            if let Some(value) = value.as_f64() {
                sum.mesh.insert(name.clone(), (before + value).into());
            }
        }
    }
    sum
}

fn cpu(observed: &Observed, operations: u64) -> Cpu {
    let per_op = |seconds: f64| if operations == 0 { 0.0 } else { seconds * 1e6 / operations as f64 };
    let (client_s, load_s) = (observed.client_cpu.as_secs_f64(), observed.load_time.as_secs_f64());
    let pairs = observed.stats_before_load.iter().zip(&observed.stats_after_load);
    let node = |(before, after): (&Option<NodeStats>, &Option<NodeStats>)| {
        let (before, after) = (before.as_ref()?.cpu_ms()?, after.as_ref()?.cpu_ms()?);
        // A node that was restarted has begun to count anew.
        Some(per_op(if after >= before { after - before } else { after } / 1e3))
    };
    Cpu {
        client_percent: if load_s > 0.0 { client_s * 100.0 / load_s } else { 0.0 },
        client_us_per_op: per_op(client_s),
        node_us_per_op: pairs.map(node).collect(),
    }
}
