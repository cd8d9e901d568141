//! A run from its first connection to its report: prefill, load with its watchers and its fault, sweep.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use borsh::{BorshDeserialize, BorshSerialize};
use rustix::time::{ClockId, clock_gettime};
use tracing::{Instrument, info_span};

use super::{
    climb::climb,
    compare::{Comparisons, compare_for_ever},
    interrupts::Interrupts,
    progress::{Console, Rows, View, say, show_keys, show_load, show_nodes, show_stats},
    run::Run,
    sampler::{ProgressSampler, Sample},
    stages::Stages,
    standstill::{self, Standstill},
};
use crate::{
    Client, Cluster, Counter, NodeIndex, NodeStats, NodeView, Op, Phase, ServerCounts, Snapshot, all_of,
    faults::{ClusterObserver, FaultRecord, ObservedEvent, heal_all, inject, unix_ms},
    live::RunStage,
    plan::Plan,
    report::{
        Report, Step,
        numbers::{self, without_scheme},
    },
    results::{Machine, Recorded},
    shard::{Doubts, await_start, clock_of_first, duration, json},
};

/// What the main thread saw of a run.
#[derive(BorshDeserialize, BorshSerialize, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) prefilled: u64,
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    pub(crate) prefill_time: Duration,
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    pub(crate) load_time: Duration,
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    pub(crate) client_cpu: Duration,
    #[borsh(serialize_with = "json::write", deserialize_with = "json::read")]
    pub(crate) stats_at_start: Vec<Option<NodeStats>>,
    #[borsh(serialize_with = "json::write", deserialize_with = "json::read")]
    pub(crate) stats_before_load: Vec<Option<NodeStats>>,
    #[borsh(serialize_with = "json::write", deserialize_with = "json::read")]
    pub(crate) stats_after_load: Vec<Option<NodeStats>>,
    /// After the final sweep, if there was one.
    #[borsh(serialize_with = "json::write", deserialize_with = "json::read")]
    pub(crate) stats_at_end: Vec<Option<NodeStats>>,
    pub(crate) served_before_load: Vec<Option<ServerCounts>>,
    pub(crate) served_after_load: Vec<Option<ServerCounts>>,
    /// The nodes' p99 as a Prometheus computes it, if there is one to ask.
    pub(crate) watched_p99: Option<Result<[Option<f64>; Op::ALL.len()], String>>,
    #[borsh(skip)]
    pub(crate) sampler: ProgressSampler,
    #[borsh(skip)]
    pub(crate) samples: Vec<Sample>,
    pub(crate) comparisons: Option<Comparisons>,
    pub(crate) faults: Vec<FaultRecord>,
    /// What happened to the nodes and was not ordered.
    pub(crate) observed: Vec<ObservedEvent>,
    /// Why the mesh had not recovered from the faults.
    pub(crate) not_whole: Option<String>,
    pub(crate) interrupted: bool,
    pub(crate) swept: bool,
    /// When this process itself stood still.
    pub(crate) standstills: Vec<Standstill>,
    /// The nodes' WRITE_CONCERN, if they report it.
    pub(crate) write_concern: Option<usize>,
    /// The nodes' ids, as far as they told.
    pub(crate) ids: Vec<Option<String>>,
    /// How far the first node's clock is ahead of this host's, in milliseconds, and how far off that may be; where there are other
    /// shards.
    pub(crate) clock: Option<(f64, f64)>,
    /// When what happened, by this host's clock.
    pub(crate) times: Milestones,
    /// What all shards, or else this run alone, are called.
    pub(crate) run_id: String,
    /// What goes into files of their own.
    pub(crate) recorded: Recorded,
    /// The machine, before the load.
    pub(crate) machine: Machine,
    #[borsh(skip)]
    pub(crate) doubts: Doubts,
    /// Those of a search for the highest rate.
    #[borsh(skip)]
    pub(crate) steps: Vec<Step>,
}

/// Times of a run, in Unix milliseconds; 0 for what there was not.
#[derive(BorshDeserialize, BorshSerialize, Clone, Copy, Debug, Default)]
pub(crate) struct Milestones {
    pub(crate) began: u64,
    pub(crate) prefill_began: u64,
    pub(crate) prefill_ended: u64,
    pub(crate) counted_before: u64,
    /// By the clock that nodes tell the time of their start from.
    pub(crate) load_began: u64,
    pub(crate) load_ended: u64,
    pub(crate) counted_after: u64,
    pub(crate) sweep_began: u64,
    /// 0 also for one that was given up.
    pub(crate) sweep_ended: u64,
    pub(crate) ended: u64,
}

impl Observed {
    /// By how much a counter of the nodes has risen during the run, all nodes together.
    pub(crate) fn change(&self, field: fn(&NodeStats) -> u64) -> u64 {
        let change = |(start, end): (&Option<NodeStats>, &Option<NodeStats>)| {
            let (start, end) = (start.as_ref().map_or(0, field), end.as_ref().map_or(0, field));
            // A node that was restarted has begun to count anew.
            end.checked_sub(start).unwrap_or(end)
        };
        self.stats_at_start.iter().zip(self.last_stats()).map(change).sum()
    }

    /// Entries that the nodes have evicted.
    pub(crate) fn evicted(&self) -> u64 {
        self.change(|stats| stats.evictions)
    }

    /// How much older than the newest write these were, on the average, if the nodes tell.
    pub(crate) fn evicted_age_s(&self) -> Option<f64> {
        let age_ms = self.change(|stats| stats.own("evicted_age_ms").unwrap_or_default());
        (age_ms > 0).then(|| age_ms as f64 / 1000.0 / self.evicted().max(1) as f64)
    }

    /// Whether the nodes' counters cover the whole run: each has answered, and none was restarted. In a container every process is
    /// number 1.
    pub(crate) fn counters_are_whole(&self) -> bool {
        let was_restarted = |end: &NodeStats| {
            let run_ms = self.times.counted_after.saturating_sub(self.times.began);
            end.own("uptime_ms").is_some_and(|uptime_ms| uptime_ms < run_ms)
        };
        let is_same = |(start, end): (&Option<NodeStats>, &Option<NodeStats>)| {
            let both = start.as_ref().zip(end.as_ref());
            both.is_some_and(|(start, end)| end.is_same_process(start) && !was_restarted(end))
        };
        let last = self.last_stats();
        !last.is_empty() && self.stats_at_start.iter().zip(last).all(is_same)
    }

    /// What happened to servers that may have lost what only they held, in words; nothing if all have run throughout with the same
    /// roles.
    pub(crate) fn disturbance(&self, targets: &[String]) -> Option<String> {
        let mut nodes = self.stats_at_start.iter().zip(self.last_stats()).zip(targets);
        nodes.find_map(|((start, end), target)| {
            let target = without_scheme(target);
            let (start, Some(end)) = (start.as_ref()?, end) else { return Some(format!("{target} went away")) };
            if !end.is_same_process(start) {
                return Some(format!("{target} was restarted"));
            }
            (end.own("epoch") != start.own("epoch")).then(|| "there was a fail-over".to_owned())
        })
    }

    fn last_stats(&self) -> &[Option<NodeStats>] {
        if self.stats_at_end.is_empty() { &self.stats_after_load } else { &self.stats_at_end }
    }
}

/// The last counters of a run that is given up are waited for so long.
const LAST_COUNTERS_WITHIN: Duration = Duration::from_secs(1);

/// The final sweep of a mesh that evicts takes no longer than the load, or than this: with nearly all keys gone, there is little to
/// prove.
const SWEEP_MIN: Duration = Duration::from_secs(10);

/// A prefill of which nothing succeeds ends after this long; after the longer time also if no node has given a reason, or if something
/// did before.
const PREFILL_FAILS_AFTER: Duration = Duration::from_millis(4500);
const PREFILL_HANGS_AFTER: Duration = Duration::from_secs(15);

/// Runs the plan with one client per thread. A signal (SIGINT, SIGTERM, SIGHUP) ends the load early, a second one, or 20 s after
/// SIGTERM, also all waiting that is left; the report is made in any case.
///
/// # Errors
/// Why the run could not be made at all.
pub async fn run_plan<C: Client>(plan: Plan, clients: Vec<C>, cluster: &impl Cluster) -> Result<Report, String> {
    let run = Arc::new(Run::new(plan));
    let span = info_span!("run", run_id = run.id());
    conduct(run, clients, cluster).instrument(span).await
}

async fn conduct<C: Client>(run: Arc<Run>, clients: Vec<C>, cluster: &impl Cluster) -> Result<Report, String> {
    cluster.begins(&run);
    let mut interrupts = Interrupts::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let stats_at_start = all_stats(&run, cluster).await;
    let mut observed = Observed { stats_at_start, machine: Machine::look(), run_id: run.id(), ..Observed::default() };
    observed.times.began = run.began_unix_ms();
    let views = all_views(&run, cluster).await;
    observed.write_concern = views.iter().flatten().filter_map(|view| view.write_concern).min();
    observed.ids = views.into_iter().map(|view| view.map(|view| view.id)).collect();
    if run.plan.shard.is_one_of_many() {
        observed.clock = clock_of_first(cluster).await;
    }
    say(&run.plan.banner());
    let view = View::open(&run.plan);
    let mut stages = Stages::start(&run, clients).await?;
    if run.plan.prefill {
        prefill(&run, &mut stages, &mut interrupts, &mut observed).instrument(info_span!("run.prefill")).await?;
    }
    let start = match run.plan.start_at.filter(|_| !run.stopping()) {
        Some(at) => tokio::select! {
            start = await_start(at) => Some(start),
            () = interrupts.next() => {
                run.stop();
                None
            }
        },
        None => None,
    };
    if !run.abandoned() {
        observed.times.counted_before = unix_ms();
        observed.stats_before_load = all_stats(&run, cluster).await;
        observed.served_before_load = all_served(&run, cluster).await;
        if let Some(start) = start {
            observed.doubts.suspect.extend(start.await);
        }
        let span = info_span!("run.load");
        load(&run, &mut stages, cluster, &mut interrupts, &mut observed).instrument(span).await?;
    }
    observed.interrupted = run.interrupted();
    if !run.abandoned() {
        tokio::select! {
            result = after_load(&run, &mut stages, cluster, &mut observed) => result?,
            () = interrupts.next() => run.abandon(),
        }
    }
    if run.abandoned() && observed.stats_after_load.is_empty() {
        let counters = async { tokio::join!(all_served(&run, cluster), all_stats(&run, cluster)) };
        if let Ok(counters) = tokio::time::timeout(LAST_COUNTERS_WITHIN, counters).await {
            (observed.served_after_load, observed.stats_after_load) = counters;
        }
    }
    // Whatever threads still wait for, they give it up.
    let recorder = stages.finish();
    drop(view);
    observed.times.ended = unix_ms();
    let (samples, intervals) = std::mem::take(&mut observed.sampler).finish(&run.live, observed.load_time);
    (observed.samples, observed.recorded) = (samples, Recorded { intervals, moments: run.faults.all() });
    Report::of_run(run.plan.clone(), recorder, observed)
}

/// What follows the load: healing, the nodes' counters, the final sweep.
async fn after_load(
    run: &Run,
    stages: &mut Stages,
    cluster: &impl Cluster,
    observed: &mut Observed,
) -> Result<(), String> {
    observed.not_whole = heal_all(run, cluster, &mut observed.faults).await.err();
    observed.times.counted_after = unix_ms();
    observed.served_after_load = all_served(run, cluster).await;
    observed.watched_p99 = cluster.watched_p99(run.load_elapsed()).await;
    observed.stats_after_load = all_stats(run, cluster).await;
    if run.plan.sweeps() {
        if observed.evicted() > 0 {
            run.limit_sweep(observed.load_time.max(SWEEP_MIN));
        }
        sweep(run, stages, &mut observed.times).instrument(info_span!("run.sweep")).await?;
        observed.swept = true;
        observed.stats_at_end = all_stats(run, cluster).await;
    }
    Ok(())
}

async fn prefill(
    run: &Run,
    stages: &mut Stages,
    interrupts: &mut Interrupts,
    observed: &mut Observed,
) -> Result<(), String> {
    observed.times.prefill_began = unix_ms();
    let began = Instant::now();
    let console = Console::new(RunStage::Prefill, run.plan.keys.count().into());
    tokio::select! {
        result = until_done(run, interrupts, stages.prefill()) => result?,
        () = show_keys(run, "PREFILL", Counter::Prefilled, &console) => {}
        reason = stands_still(run, began) => return Err(reason),
    }
    console.clear();
    observed.prefill_time = began.elapsed();
    observed.times.prefill_ended = unix_ms();
    observed.prefilled = Snapshot::of(&run.live).get(Counter::Prefilled);
    let seconds = observed.prefill_time.as_secs_f64();
    let rate = numbers::grouped((observed.prefilled as f64 / seconds) as u64);
    say(&format!("[PREFILL] {}/{} keys in {seconds:.1}s, {rate} keys/s", observed.prefilled, run.plan.keys.count()));
    Ok(())
}

/// Waits until it is clear that no key can be written, or none any more, and says why.
async fn stands_still(run: &Run, mut since: Instant) -> String {
    let mut written = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now_written = Snapshot::of(&run.live).get(Counter::Prefilled);
        if now_written > written {
            (written, since) = (now_written, Instant::now());
        }
        let (reason, still) = (run.last_refusal(), since.elapsed());
        let has_failed = written == 0 && reason.is_some() && still >= PREFILL_FAILS_AFTER;
        if has_failed || still >= PREFILL_HANGS_AFTER {
            let reason = reason.unwrap_or_else(|| "no node has answered".to_owned());
            let what =
                if written == 0 { "no key was written".to_owned() } else { format!("nothing after {written} keys") };
            return format!("prefill: {what} in {:.1} s; the last try: {reason}", still.as_secs_f64());
        }
    }
}

async fn load(
    run: &Run,
    stages: &mut Stages,
    cluster: &impl Cluster,
    interrupts: &mut Interrupts,
    observed: &mut Observed,
) -> Result<(), String> {
    let console = Console::new(RunStage::Load, u64::try_from(run.plan.duration.as_millis()).unwrap_or(u64::MAX));
    let (sampler, rows) = (RefCell::default(), RefCell::<Rows>::default());
    let planned = run.plan.faults.iter().map(|fault| FaultRecord::planned(fault, &run.plan.targets));
    let faults = RefCell::new(planned.collect::<Vec<_>>());
    let observer = ClusterObserver::new(run.plan.targets.len());
    let comparisons = RefCell::new(Comparisons::new(run.plan.targets.len()));
    let (began, cpu_began) = (Instant::now(), process_cpu());
    run.begin_load();
    let standstills = standstill::Watch::start();
    observed.times.load_began = unix_ms();
    let watchers = async {
        tokio::join!(
            show_load(run, &console, &sampler, &rows, &faults),
            show_nodes(run, cluster),
            end_warmup(run),
            when(run.plan.stats_every, |every| show_stats(run, cluster, every)),
            when(run.plan.check_every, |every| compare_for_ever(run, cluster, every, &comparisons)),
            when((!run.plan.faults.is_empty()).then_some(()), |()| inject(run, cluster, &faults)),
            observer.watch(run, cluster, &faults),
        )
    };
    let steps = RefCell::default();
    let work =
        async { if run.plan.find_max { climb(run, stages, cluster, &steps).await } else { stages.load().await } };
    let loaded = tokio::select! {
        result = until_done(run, interrupts, work) => result,
        _ = watchers => Ok(()),
    };
    rows.into_inner().finish(run, &faults.borrow());
    console.clear();
    observed.standstills = standstills.finish();
    observed.steps = steps.into_inner();
    let (load_ended, load_time) = (unix_ms(), began.elapsed());
    let client_cpu = process_cpu().saturating_sub(cpu_began);
    observed.observed = observer.finish(run, cluster, &faults).await;
    observed.faults = faults.into_inner();
    loaded?;
    (observed.times.load_ended, observed.load_time, observed.client_cpu) = (load_ended, load_time, client_cpu);
    observed.sampler = sampler.into_inner();
    observed.comparisons = Some(comparisons.into_inner());
    Ok(())
}

async fn sweep(run: &Run, stages: &mut Stages, times: &mut Milestones) -> Result<(), String> {
    let quiescence = run.plan.quiescence();
    say(&format!("[SWEEP] begins in {:.1}s", quiescence.as_secs_f64()));
    tokio::time::sleep(quiescence).await;
    times.sweep_began = unix_ms();
    let console = Console::new(RunStage::Sweep, run.plan.keys.count().into());
    tokio::select! {
        result = stages.sweep() => result?,
        () = show_keys(run, "SWEEP", Counter::Swept, &console) => {}
    }
    console.clear();
    times.sweep_ended = unix_ms();
    Ok(())
}

async fn end_warmup(run: &Run) {
    if !run.plan.warmup.is_zero() {
        tokio::time::sleep(run.plan.warmup).await;
        if run.phase.get() == Phase::Warm {
            run.phase.set(Phase::Steady);
        }
    }
    std::future::pending().await
}

/// Waits for a stage; a signal ends it early, and a second one the waiting.
async fn until_done(
    run: &Run,
    interrupts: &mut Interrupts,
    stage: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let mut stage = std::pin::pin!(stage);
    loop {
        tokio::select! {
            result = &mut stage => return result,
            () = interrupts.next() => {
                if run.stopping() {
                    run.abandon();
                    return Ok(());
                }
                say("[STOP] finishing what is in flight; once more to skip that and the final sweep");
                run.stop();
            }
        }
    }
}

/// Does something if there is something to do, then waits for ever.
async fn when<V, F: Future<Output = ()>>(setting: Option<V>, work: impl FnOnce(V) -> F) {
    if let Some(value) = setting {
        work(value).await;
    }
    std::future::pending().await
}

pub(super) async fn all_stats(run: &Run, cluster: &impl Cluster) -> Vec<Option<NodeStats>> {
    let stats = all_of(nodes(run).map(|node| cluster.stats(node))).await;
    stats.into_iter().map(Result::ok).collect()
}

async fn all_served(run: &Run, cluster: &impl Cluster) -> Vec<Option<ServerCounts>> {
    let served = all_of(nodes(run).map(|node| cluster.server_counts(node))).await;
    served.into_iter().map(Result::ok).collect()
}

async fn all_views(run: &Run, cluster: &impl Cluster) -> Vec<Option<NodeView>> {
    let views = all_of(nodes(run).map(|node| cluster.view(node))).await;
    views.into_iter().map(Result::ok).collect()
}

fn nodes(run: &Run) -> impl Iterator<Item = NodeIndex> {
    (0..run.plan.targets.len()).map(NodeIndex)
}

/// CPU time of this process so far.
pub(super) fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
