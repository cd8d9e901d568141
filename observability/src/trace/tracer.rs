//! What is kept. A request's trace context is made at its start; its fate is decided at its end, from its flight record.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arrayvec::ArrayVec;
use mesh_proto::{LEGS_MAX, NodeId, OpRecord, ServeRecord, TraceContext};
use opentelemetry_sdk::trace::SpanData;

use super::{
    SampleRatio, SpanPipeline, TraceMode, TraceSettings,
    answered::{AnsweredRequest, FoundTrace, RecentRequests},
    budget::{Budget, SampledShare},
    ids,
    served::Served,
    spans::{SpanWriter, is_failure},
};

/// An HTTP request's place in a trace.
#[derive(Clone, Copy, Debug)]
pub struct RequestTrace {
    /// What goes to the mesh: the trace, and the request's own span.
    pub context: TraceContext,
    /// The caller's span; zero if there is none.
    pub(super) parent: u64,
}

/// An HTTP request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct EndedRequest {
    /// Such as GET.
    pub method: &'static str,
    /// Such as /get.
    pub route: &'static str,
    /// As answered.
    pub status: u16,
    /// When its head had been read.
    pub started: Instant,
    /// How long it had waited by then since the kernel had received it, if that is known.
    pub queued: Option<Duration>,
    /// Until its answer was made.
    pub took: Duration,
}

impl EndedRequest {
    /// The status of a request whose caller went away before it was answered, as other servers name it.
    pub const GONE: u16 = 499;

    /// Whether it was not answered as it should be.
    pub(super) const fn has_failed(&self) -> bool {
        self.status >= Self::GONE
    }
}

/// What becomes of an ended request's trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceDecision {
    /// It is kept, whatever its caller thinks of it.
    pub is_kept: bool,
    /// Who else is to be told, if anybody.
    pub tell: Option<KeepTrace>,
}

/// These peers hold records of a trace that is kept, and do not know it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepTrace {
    /// The trace.
    pub trace: u128,
    /// Whom to tell.
    pub peers: ArrayVec<NodeId, LEGS_MAX>,
}

fn is_hedged(record: &OpRecord) -> bool {
    record.legs.iter().any(|leg| leg.hedged)
}

/// Decides, and hands what is kept to the pipeline.
pub(crate) struct Tracer {
    id: NodeId,
    keeps_all: bool,
    sample_ratio: SampleRatio,
    budget: Budget,
    spans: SpanWriter,
    served: Served,
    answered: RecentRequests,
    pipeline: Arc<SpanPipeline>,
    pub(crate) keep_misses: AtomicU64,
}

impl Tracer {
    pub(crate) fn new(settings: &TraceSettings, id: NodeId, version: &str, pipeline: Arc<SpanPipeline>) -> Self {
        Self {
            id,
            keeps_all: settings.mode == TraceMode::All,
            sample_ratio: settings.sample_ratio(),
            budget: settings.budget(),
            spans: SpanWriter::new(version),
            served: Served::new(),
            answered: RecentRequests::new(),
            pipeline,
            keep_misses: AtomicU64::new(0),
        }
    }

    /// The mesh tells its times since this moment.
    pub(crate) fn align(&self, epoch: Instant) {
        self.spans.clock.align(epoch);
    }

    /// What flight records take that wait to be asked for, and spans that wait for the collector, in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        (self.served.bytes() + self.answered.bytes(), self.pipeline.queued_bytes())
    }

    /// Called every second.
    pub(crate) fn run_upkeep(&self) {
        self.spans.clock.follow();
        self.budget.follow(self.pipeline.keeps_up());
    }

    /// A request began. The caller decides whether it is sampled; without a caller, the ratio does.
    pub(crate) fn begin(&self, caller: Option<TraceContext>) -> RequestTrace {
        let (trace, parent, sampled) = match caller {
            Some(caller) => (caller.trace_id(), caller.span_id(), caller.is_sampled()),
            None => {
                let trace = ids::trace_id();
                (trace, 0, self.sample_ratio.takes(trace as u64) && self.budget.samples())
            }
        };
        let context = TraceContext::new(trace, ids::span_id(), sampled || self.keeps_all);
        RequestTrace { context, parent }
    }

    /// An operation ended. Gives the id of its trace if that is kept.
    pub(crate) fn operation(&self, record: &OpRecord) -> Option<u128> {
        let context = record.trace.filter(|_| self.is_kept(record))?;
        self.keep_operation(record, context);
        Some(context.trace_id())
    }

    /// Whether an operation is reason enough to keep its trace.
    fn is_kept(&self, record: &OpRecord) -> bool {
        let is_one_of = |share: &SampledShare| record.trace.is_some_and(|trace| share.takes(trace.trace_id()));
        record.trace.is_some_and(TraceContext::is_sampled)
            || self.budget.is_slow(record.took)
            || (is_failure(record.outcome) && is_one_of(&self.budget.failed))
            || (is_hedged(record) && is_one_of(&self.budget.hedged))
    }

    /// A request is kept, for these reasons among others.
    fn count(&self, ended: &EndedRequest, record: Option<&OpRecord>) {
        if self.budget.is_slow(ended.took) {
            self.budget.count_slow();
        }
        if ended.has_failed() || record.is_some_and(|record| is_failure(record.outcome)) {
            self.budget.failed.count();
        }
        if record.is_some_and(is_hedged) {
            self.budget.hedged.count();
        }
    }

    /// A request ended, with the record of its operation if there was one. If its trace is kept and that was not known when its
    /// legs were sent, their peers must be told.
    pub(crate) fn end(&self, trace: &RequestTrace, ended: &EndedRequest, record: Option<&OpRecord>) -> TraceDecision {
        let context = trace.context;
        // Only who brought the trace can ask for it.
        let may_be_asked_for = trace.parent != 0 && !context.is_sampled();
        let is_kept = context.is_sampled()
            || self.budget.is_slow(ended.took)
            || (ended.has_failed() && self.budget.failed.takes(context.trace_id()))
            || record.is_some_and(|record| self.is_kept(record))
            || (may_be_asked_for && self.answered.is_awaited(context.trace_id(), ended.started + ended.took));
        if may_be_asked_for {
            self.answered.push(AnsweredRequest::new(*trace, *ended, record, is_kept));
        }
        if !is_kept {
            return TraceDecision::default();
        }
        self.count(ended, record);
        self.submit(self.spans.request(trace, ended));
        let Some(record) = record else { return TraceDecision { is_kept: true, tell: None } };
        if !self.is_kept(record) {
            self.keep_operation(record, context);
        }
        let tell = if context.is_sampled() { None } else { self.whom_to_tell(record, context) };
        TraceDecision { is_kept: true, tell }
    }

    /// The caller of a request keeps its trace. Gives whom to tell.
    pub(crate) fn keep_request(&self, trace: u128) -> Option<KeepTrace> {
        match self.answered.take(trace, Instant::now()) {
            FoundTrace::Kept => None,
            FoundTrace::Nothing => {
                // Relaxed: a figure for people.
                self.keep_misses.fetch_add(1, Ordering::Relaxed);
                None
            }
            FoundTrace::Request(request) => {
                self.submit(self.spans.request(&request.trace, &request.ended));
                let record = request.record()?;
                self.keep_operation(&record, request.trace.context);
                self.whom_to_tell(&record, request.trace.context)
            }
        }
    }

    fn whom_to_tell(&self, record: &OpRecord, context: TraceContext) -> Option<KeepTrace> {
        let mut peers = ArrayVec::new();
        for leg in record.legs.iter().filter(|leg| leg.peer != self.id) {
            if !peers.contains(&leg.peer) {
                peers.push(leg.peer);
            }
        }
        Some(KeepTrace { trace: context.trace_id(), peers })
    }

    /// A peer's leg was served.
    pub(crate) fn served(&self, record: &ServeRecord) {
        // A context of zeros is none.
        let is_valid = record.trace.trace_id() != 0 && record.trace.span_id() != 0;
        if is_valid && (record.trace.is_sampled() || !self.served.push(record)) {
            self.submit(self.spans.served(record));
        }
    }

    /// A peer keeps this trace.
    pub(crate) fn keep(&self, trace: u128) {
        let records = self.served.take(trace);
        if records.is_empty() {
            // Relaxed: a figure for people.
            self.keep_misses.fetch_add(1, Ordering::Relaxed);
        }
        self.submit(records.iter().flat_map(|record| self.spans.served(record)));
    }

    /// This is where a member is.
    pub(crate) fn learn(&self, peer: NodeId, addr: &str) {
        self.spans.learn(peer, addr);
    }

    /// What is kept so far is sent now, and not waited for.
    pub(crate) fn flush(&self) {
        self.pipeline.flush();
    }

    fn keep_operation(&self, record: &OpRecord, context: TraceContext) {
        self.submit(self.spans.operation(record, context));
    }

    /// Those that find no place are counted.
    fn submit(&self, spans: impl Iterator<Item = SpanData>) {
        spans.for_each(|span| {
            self.pipeline.submit(span);
        });
    }
}
