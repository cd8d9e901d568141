//! The runner's own part of every trace: begun before a request is sent, kept or forgotten when it was judged. Of what was not
//! sampled and is kept, the nodes hear afterwards.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use load::{Ended, Kept, NodeIndex, Op, OutcomeClass, Phase, SpanFates, Way};
use observability::{
    ClientAnswer, ClientRequest, ClientTrace, ClientTracer, ClientTry, Exemplar, SpanTotals, TraceGuard, init_spans,
};
use tokio::task::JoinHandle;

use crate::{
    access::Access,
    http::{LastRequest, Try, TryResult},
    keep::{KeepCounts, KeepTasks, Keeper},
    settings::{Settings, TargetUrl},
};

/// Requests that one thread keeps in a second only because they were slower than 99 % of all. A mesh that answers a hundred
/// thousand of them in a second would otherwise drown its collector in what is quick.
const ABOVE_P99_PER_S: u32 = 20;

/// Traces for one run: what records them, and what must be done at its end.
pub(crate) struct Recording {
    traces: Arc<Traces>,
    tasks: KeepTasks,
    guard: TraceGuard,
    upkeep: JoinHandle<()>,
}

/// What became of spans and requests for traces, readable meanwhile.
#[derive(Clone)]
pub(crate) struct TraceCounts {
    tracer: Arc<ClientTracer>,
    keeps: Arc<KeepCounts>,
}

impl TraceCounts {
    pub(crate) fn get(&self) -> SpanFates {
        let SpanTotals { kept, exported, failed, dropped } = self.tracer.totals();
        let (asked, not_asked) = self.keeps.get();
        SpanFates { kept, exported, failed, dropped, asked, not_asked }
    }

    /// Of the response times of these, by bucket.
    pub(crate) fn exemplars(&self, op: Op, outcome: OutcomeClass) -> Vec<Exemplar> {
        self.tracer.exemplars(op_label(op), outcome_label(outcome))
    }
}

impl Recording {
    /// Nothing if no collector is named.
    ///
    /// # Errors
    /// One line, if the collector's address is not taken or the system gives no thread.
    pub(crate) fn start(settings: &Settings, targets: &[TargetUrl], access: &Access) -> Result<Option<Self>, String> {
        let started = ClientTracer::start(&settings.traces, "runner", env!("CARGO_PKG_VERSION"));
        let Some((tracer, guard)) = started.map_err(|error| error.to_string())? else { return Ok(None) };
        init_spans(&guard).map_err(|error| error.to_string())?;
        let (keeper, tasks) = Keeper::start(targets.iter().map(TargetUrl::url), access)?;
        let upkeep = tokio::spawn(follow_the_clock(Arc::clone(&tracer)));
        let jaeger_url = settings.observers.jaeger_url.clone();
        let traces = Arc::new(Traces { tracer, keeper, targets: targets.to_vec(), jaeger_url });
        Ok(Some(Self { traces, tasks, guard, upkeep }))
    }

    pub(crate) fn traces(&self) -> Arc<Traces> {
        Arc::clone(&self.traces)
    }

    pub(crate) fn counts(&self) -> TraceCounts {
        TraceCounts { tracer: Arc::clone(&self.traces.tracer), keeps: self.traces.keeper.counts() }
    }

    /// Sends what is still queued, for some seconds at most. All load threads must have ended.
    pub(crate) async fn finish(self) -> SpanFates {
        let counts = self.counts();
        drop(self.traces);
        self.upkeep.abort();
        self.tasks.finish().await;
        drop(self.guard);
        counts.get()
    }
}

async fn follow_the_clock(tracer: Arc<ClientTracer>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tracer.run_upkeep();
    }
}

/// Traces of all threads.
pub(crate) struct Traces {
    tracer: Arc<ClientTracer>,
    keeper: Keeper,
    targets: Vec<TargetUrl>,
    jaeger_url: String,
}

impl Traces {
    /// Begins a request that is kept whatever becomes of it, everywhere.
    pub(crate) fn begin_kept(&self) -> ClientTrace {
        ClientTrace { sampled: true, ..self.tracer.begin() }
    }

    /// Keeps the read of a key that this node is behind with.
    pub(crate) fn keep_divergence(&self, trace: ClientTrace, node: NodeIndex, outcome: OutcomeClass, began: Instant) {
        self.tracer.keep(&ClientRequest {
            trace,
            op: op_label(Op::Get),
            outcome: outcome_label(outcome),
            kept: Kept::Violation.name(),
            phase: "comparison",
            is_error: true,
            intended: began,
            received: None,
            ended: Instant::now(),
            tries: &[ClientTry { server: self.targets[node.0].server(), started: began, answer: None }],
        });
    }
}

/// One thread's way to them.
#[derive(Clone)]
pub(crate) struct ThreadTraces {
    all: Arc<Traces>,
    /// The second that is running and how many were kept in it only for being above the 99th percentile.
    budget: Cell<(Option<Instant>, u32)>,
    /// Whether the last request is kept.
    is_kept: Cell<bool>,
}

impl std::fmt::Debug for ThreadTraces {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ThreadTraces").finish_non_exhaustive()
    }
}

impl ThreadTraces {
    pub(crate) fn new(all: Arc<Traces>) -> Self {
        Self { all, budget: Cell::new((None, 0)), is_kept: Cell::new(false) }
    }

    /// A request begins. Only those of the load are drawn.
    pub(crate) fn begin(&self, is_load: bool) -> ClientTrace {
        let trace = self.all.tracer.begin();
        ClientTrace { sampled: trace.sampled && is_load, ..trace }
    }

    /// A request was judged. Keeps it if there is a reason, and gives the reason.
    pub(crate) fn judged(&self, last: &LastRequest, ended: &Ended, is_load: bool) -> Option<Kept> {
        let trace = last.trace?;
        let reason = self.reason(trace, last.is_kept_there, ended, is_load);
        self.is_kept.set(reason.is_some());
        let kept = reason?;
        let tries: Vec<_> = last.tries().map(|tried| (tried, tried.result.words())).collect();
        let told: Vec<_> = tries
            .iter()
            .map(|(tried, words)| ClientTry {
                server: self.all.targets[tried.node.0].server(),
                started: tried.started.unwrap_or(ended.sent),
                answer: Some(match tried.result {
                    TryResult::Status(status) => ClientAnswer::Status(status),
                    TryResult::Failed(_) => ClientAnswer::Error(words),
                }),
            })
            .collect();
        self.all.tracer.keep(&ClientRequest {
            trace,
            op: op_label(ended.op),
            outcome: outcome_label(ended.outcome),
            kept: kept.name(),
            phase: phase_label(ended.phase),
            is_error: matches!(kept, Kept::Violation | Kept::Failed),
            intended: ended.intended,
            received: last.received.at(ended.ended),
            ended: ended.ended,
            tries: &told,
        });
        if !trace.sampled {
            let knows_already = |at: usize| last.is_kept_there && at + 1 == tries.len();
            // Who refused a connection knows of nothing.
            let refused = |tried: &Try| tried.result == TryResult::Failed(load::ErrorKind::Refused);
            for (at, tried) in last.tries().enumerate() {
                if !refused(tried) && !knows_already(at) {
                    self.all.keeper.keep(tried.node, trace.trace);
                }
            }
        }
        Some(kept)
    }

    fn reason(&self, trace: ClientTrace, is_kept_there: bool, ended: &Ended, is_load: bool) -> Option<Kept> {
        if ended.is_violation {
            Some(Kept::Violation)
        } else if ended.error.is_some() && self.all.tracer.keeps_failed(&trace) {
            Some(Kept::Failed)
        } else if ended.failed_over {
            Some(Kept::FailedOver)
        } else if is_load && self.is_slow(ended) {
            Some(Kept::Slow)
        } else if is_kept_there && !trace.sampled {
            Some(Kept::AtNode)
        } else if ended.is_among_slowest {
            Some(Kept::Slowest)
        } else {
            trace.sampled.then_some(Kept::Sampled)
        }
    }

    fn is_slow(&self, ended: &Ended) -> bool {
        let (p99, response) = (ended.p99, ended.response());
        self.all.tracer.keeps_slow(response) || (!p99.is_zero() && response > p99 && self.may_afford(ended))
    }

    fn may_afford(&self, ended: &Ended) -> bool {
        let (second, spent) = self.budget.get();
        let now = ended.ended;
        match second {
            Some(began) if now.saturating_duration_since(began) < Duration::from_secs(1) => {
                self.budget.set((second, spent + 1));
                spent < ABOVE_P99_PER_S
            }
            _ => {
                self.budget.set((Some(now), 1));
                true
            }
        }
    }

    /// Adds where to look at the last request, if it is kept.
    pub(crate) fn fill(&self, last: &LastRequest, way: &mut Way) {
        if let Some(trace) = last.trace.filter(|_| self.is_kept.get()) {
            way.trace = Some(trace.trace);
            way.url = Some(format!("{}/trace/{:032x}", self.all.jaeger_url, trace.trace));
        }
    }
}

/// As the nodes label it.
pub(crate) const fn op_label(op: Op) -> &'static str {
    match op {
        Op::Get => "get",
        Op::Set => "set",
        Op::Delete => "delete",
    }
}

/// As the nodes label it.
pub(crate) const fn outcome_label(outcome: OutcomeClass) -> &'static str {
    match outcome {
        OutcomeClass::Local => "hit_local",
        OutcomeClass::Remote => "hit_remote",
        OutcomeClass::Miss => "miss",
        OutcomeClass::Acknowledged => "acknowledged",
        OutcomeClass::Error => "error",
    }
}

pub(crate) const fn phase_label(phase: Phase) -> &'static str {
    match phase {
        Phase::Warm => "warm",
        Phase::Steady => "steady",
        Phase::InFault => "in_fault",
        Phase::Recovered => "recovered",
    }
}
