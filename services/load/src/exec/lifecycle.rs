//! A run from its first connection to its report: prefill, load with its watchers and its fault, sweep.

use std::{
    cell::RefCell,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    compare::{Comparisons, compare_for_ever},
    progress::{Console, Sample, say, show_keys, show_load, show_stats},
    run::Run,
    stages::Stages,
};
use crate::{
    Client, Cluster, Counter, NodeIndex, NodeStats, Op, Phase, ServerCounts, Snapshot,
    faults::{FaultRecord, heal_all, inject, unix_ms},
    plan::Plan,
    report::{Report, numbers},
};

/// What the main thread saw of a run.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    pub(crate) prefilled: u64,
    pub(crate) prefill_time: Duration,
    pub(crate) load_time: Duration,
    pub(crate) client_cpu: Duration,
    pub(crate) stats_at_start: Vec<Option<NodeStats>>,
    pub(crate) stats_before_load: Vec<Option<NodeStats>>,
    pub(crate) stats_after_load: Vec<Option<NodeStats>>,
    pub(crate) served_before_load: Vec<Option<ServerCounts>>,
    pub(crate) served_after_load: Vec<Option<ServerCounts>>,
    /// The nodes' p99 as a Prometheus computes it, if there is one to ask.
    pub(crate) watched_p99: Option<Result<[Option<f64>; Op::ALL.len()], String>>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) comparisons: Option<Comparisons>,
    /// When the load began, by the clock that nodes tell the time of their start from.
    pub(crate) load_began_unix_ms: u64,
    pub(crate) faults: Vec<FaultRecord>,
    /// Why the mesh had not recovered from the faults.
    pub(crate) not_whole: Option<String>,
    pub(crate) interrupted: bool,
    pub(crate) swept: bool,
}

/// Runs the plan with one client per thread. SIGINT and SIGTERM end the load early, a second one also the sweep; the
/// report is made in any case.
///
/// # Errors
/// Why the run could not be made at all.
pub async fn run_plan<C: Client>(plan: Plan, clients: Vec<C>, cluster: &impl Cluster) -> Result<Report, String> {
    let run = Arc::new(Run::new(plan));
    cluster.begins(&run);
    let mut interrupts = Interrupts::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let mut observed = Observed { stats_at_start: all_stats(&run, cluster).await, ..Observed::default() };
    let mut stages = Stages::start(&run, clients).await?;
    if run.plan.prefill {
        prefill(&run, &mut stages, &mut interrupts, &mut observed).await?;
    }
    observed.stats_before_load = all_stats(&run, cluster).await;
    observed.served_before_load = all_served(&run, cluster).await;
    let loaded = load(&run, &mut stages, cluster, &mut interrupts, &mut observed).await;
    let healed = tokio::select! {
        // Without faults it is done at once, and an interrupt is for the sweep.
        biased;
        healed = heal_all(&run, cluster, &mut observed.faults) => Some(healed),
        () = interrupts.next() => None,
    };
    loaded?;
    observed.served_after_load = all_served(&run, cluster).await;
    observed.watched_p99 = cluster.watched_p99(run.load_elapsed()).await;
    observed.stats_after_load = all_stats(&run, cluster).await;
    observed.interrupted = run.interrupted();
    observed.not_whole = healed.as_ref().and_then(|healed| healed.clone().err());
    if run.plan.sweeps() && healed.is_some() {
        observed.swept = tokio::select! {
            result = sweep(&run, &mut stages) => result.map(|()| true)?,
            () = interrupts.next() => false,
        };
    }
    if !observed.swept && run.plan.sweeps() {
        // The threads end the sweep after the key they are at, so that their measurements can be collected.
        run.abandon();
    }
    let recorder = stages.finish(run.plan.targets.len());
    let mut report = Report::new(&run, &recorder, observed);
    report.name_peers(&all_ids(&run, cluster).await);
    Ok(report)
}

async fn prefill(
    run: &Run,
    stages: &mut Stages,
    interrupts: &mut Interrupts,
    observed: &mut Observed,
) -> Result<(), String> {
    let began = Instant::now();
    let console = Console::new("prefill", run.plan.keys.count().into());
    tokio::select! {
        result = until_done(run, interrupts, stages.prefill()) => result?,
        () = show_keys(run, "PREFILL", Counter::Prefilled, &console) => {}
    }
    console.clear();
    observed.prefill_time = began.elapsed();
    observed.prefilled = Snapshot::of(&run.live).get(Counter::Prefilled);
    let seconds = observed.prefill_time.as_secs_f64();
    let rate = numbers::grouped((observed.prefilled as f64 / seconds) as u64);
    say(&format!("[PREFILL] {}/{} keys in {seconds:.1}s, {rate} keys/s", observed.prefilled, run.plan.keys.count()));
    Ok(())
}

async fn load(
    run: &Run,
    stages: &mut Stages,
    cluster: &impl Cluster,
    interrupts: &mut Interrupts,
    observed: &mut Observed,
) -> Result<(), String> {
    let console = Console::new("load", u64::try_from(run.plan.duration.as_millis()).unwrap_or(u64::MAX));
    let samples = RefCell::default();
    let planned = run.plan.faults.iter().map(|fault| FaultRecord::planned(fault, &run.plan.targets));
    let faults = RefCell::new(planned.collect::<Vec<_>>());
    let comparisons = RefCell::new(Comparisons::new(run.plan.targets.len()));
    let (began, cpu_began) = (Instant::now(), process_cpu());
    run.begin_load();
    observed.load_began_unix_ms = unix_ms();
    let watchers = async {
        tokio::join!(
            show_load(run, &console, &samples),
            end_warmup(run),
            when(run.plan.stats_every, |every| show_stats(run, cluster, every)),
            when(run.plan.check_every, |every| compare_for_ever(run, cluster, every, &comparisons)),
            when((!run.plan.faults.is_empty()).then_some(()), |()| inject(run, cluster, &faults)),
        )
    };
    let loaded = tokio::select! {
        result = until_done(run, interrupts, stages.load()) => result,
        _ = watchers => Ok(()),
    };
    console.clear();
    observed.faults = faults.into_inner();
    loaded?;
    observed.load_time = began.elapsed();
    observed.client_cpu = process_cpu().saturating_sub(cpu_began);
    observed.samples = samples.into_inner();
    observed.comparisons = Some(comparisons.into_inner());
    Ok(())
}

async fn sweep(run: &Run, stages: &mut Stages) -> Result<(), String> {
    let quiescence = run.plan.quiescence();
    say(&format!("[SWEEP] leaving the mesh alone for {:.1}s", quiescence.as_secs_f64()));
    tokio::time::sleep(quiescence).await;
    let console = Console::new("sweep", run.plan.keys.count().into());
    tokio::select! {
        result = stages.sweep() => result?,
        () = show_keys(run, "SWEEP", Counter::Swept, &console) => {}
    }
    console.clear();
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

/// Waits for a stage; an interrupt ends it early.
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
                say("[STOP] finishing what is in flight; once more to skip the final sweep");
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

async fn all_stats(run: &Run, cluster: &impl Cluster) -> Vec<Option<NodeStats>> {
    let mut stats = Vec::new();
    for node in (0..run.plan.targets.len()).map(NodeIndex) {
        stats.push(cluster.stats(node).await.ok());
    }
    stats
}

async fn all_served(run: &Run, cluster: &impl Cluster) -> Vec<Option<ServerCounts>> {
    let mut served = Vec::new();
    for node in (0..run.plan.targets.len()).map(NodeIndex) {
        served.push(cluster.server_counts(node).await.ok());
    }
    served
}

async fn all_ids(run: &Run, cluster: &impl Cluster) -> Vec<Option<String>> {
    let mut ids = Vec::new();
    for node in (0..run.plan.targets.len()).map(NodeIndex) {
        ids.push(cluster.view(node).await.ok().map(|view| view.id));
    }
    ids
}

/// CPU time of this process so far.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
