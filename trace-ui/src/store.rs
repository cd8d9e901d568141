//! What was received: the spans in `otlp-embedded`'s store, and beside it what that store does not do. It bounds the number of
//! traces, but never takes what it evicts off its estimate of memory, so memory is bounded here: by a log of what came, from which the
//! store is made anew with the younger half once it has grown too much. And it does not tell who sent how many spans, nor
//! which traces lack one.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use otlp_embedded::{
    Config, State, StateRef, TraceService, TraceServiceImpl,
    proto::{
        collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
        common::v1::any_value::Value,
        resource::v1::Resource,
        trace::v1::Span,
    },
};
use prost::Message;
use serde::Serialize;
use tokio::sync;
use tonic::{Request, Response, Status};

/// Senders that are told apart; the rest are counted together.
const SENDERS_MAX: usize = 256;

/// How those are called that come after [`SENDERS_MAX`] others.
const OTHERS: &str = "others";

/// What a span weighs in memory over what it weighs on the wire, measured at the process: its attributes are included, and the moment
/// in which two stores exist.
const MEMORY_PER_WIRE_BYTE: usize = 8;

/// A trace's id as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TraceId([u8; 16]);

/// Spans, and the counts of them. A clone is the same store.
#[derive(Clone)]
pub(crate) struct SpanStore {
    state: StateRef,
    seen: Arc<Mutex<Seen>>,
    log: Arc<sync::Mutex<Log>>,
    traces_max: u32,
    memory_max_bytes: usize,
}

/// Requests as they came, the oldest first.
#[derive(Default)]
struct Log {
    requests: VecDeque<Vec<u8>>,
    wire_bytes: usize,
}

#[derive(Default)]
struct Seen {
    spans_by_sender: BTreeMap<String, u64>,
    malformed: u64,
    // The newest traces, in the order in which their first spans came.
    order: VecDeque<TraceId>,
    known: HashSet<TraceId>,
}

/// How it stands.
#[derive(Debug, Serialize)]
pub(crate) struct StoreReport {
    /// Traces kept.
    traces: usize,
    /// Memory for them, as estimated.
    memory_bytes: usize,
    /// Spans taken since the start, by `service.instance.id`.
    spans_by_sender: BTreeMap<String, u64>,
    /// Spans refused since the start.
    spans_malformed: u64,
    /// Traces with a span whose parent is not there.
    incomplete: Vec<String>,
}

impl SpanStore {
    pub(crate) fn new(traces_max: u32, memory_max_bytes: usize) -> Self {
        let state = empty(traces_max);
        Self { state, seen: Arc::default(), log: Arc::default(), traces_max, memory_max_bytes }
    }

    pub(crate) fn state(&self) -> StateRef {
        Arc::clone(&self.state)
    }

    pub(crate) async fn report(&self) -> StoreReport {
        let (ids, spans_by_sender, spans_malformed) = {
            let seen = self.seen();
            (seen.order.clone(), seen.spans_by_sender.clone(), seen.malformed)
        };
        let memory_bytes = self.log.lock().await.memory_bytes();
        let mut state = self.state.write().await;
        let incomplete = ids
            .iter()
            .filter_map(|id| state.get_by_id(&id.0))
            .filter(|trace| !trace.is_complete())
            .map(|trace| trace.hex_id())
            .collect();
        StoreReport { traces: state.len(), memory_bytes, spans_by_sender, spans_malformed, incomplete }
    }

    /// Counts a request's spans, and takes out what would make no sense to the UI.
    fn sift(&self, request: &mut ExportTraceServiceRequest) {
        let mut seen = self.seen();
        for sent in &mut request.resource_spans {
            let sender = sent.resource.as_ref().and_then(sender).unwrap_or("unknown").to_owned();
            let mut taken = 0;
            for scope in &mut sent.scope_spans {
                scope.spans.retain_mut(|span| {
                    let id = made_sense(span);
                    match id {
                        Some(id) => {
                            taken += 1;
                            seen.note(id, self.traces_max as usize);
                        }
                        None => seen.malformed += 1,
                    }
                    id.is_some()
                });
            }
            seen.count(sender, taken);
        }
    }

    /// Keeps a request, and forgets the oldest ones if memory asks for it.
    async fn keep(&self, request: ExportTraceServiceRequest) -> Result<(), Status> {
        // Held to the end: requests are kept in the order of the log.
        let mut log = self.log.lock().await;
        log.push(&request);
        if log.memory_bytes() <= self.memory_max_bytes {
            return apply(&self.state, request).await;
        }
        log.shrink(self.memory_max_bytes / 2);
        let younger = empty(self.traces_max);
        for request in &log.requests {
            let request = ExportTraceServiceRequest::decode(request.as_slice());
            apply(&younger, request.map_err(|error| Status::internal(error.to_string()))?).await?;
        }
        std::mem::swap(&mut *self.state.write().await, &mut *younger.write().await);
        Ok(())
    }

    /// Nothing awaits while it is held; a panic in between would leave counts, which are still good.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn push(&mut self, request: &ExportTraceServiceRequest) {
        let request = request.encode_to_vec();
        self.wire_bytes += request.len();
        self.requests.push_back(request);
    }

    fn shrink(&mut self, memory_max_bytes: usize) {
        while self.memory_bytes() > memory_max_bytes
            && let Some(oldest) = self.requests.pop_front()
        {
            self.wire_bytes -= oldest.len();
        }
    }

    /// Of the log and of the store that was made from it.
    const fn memory_bytes(&self) -> usize {
        self.wire_bytes * (MEMORY_PER_WIRE_BYTE + 1)
    }
}

fn empty(traces_max: u32) -> StateRef {
    State::new(Config { max_length: traces_max, max_memory_usage: usize::MAX })
}

async fn apply(state: &StateRef, request: ExportTraceServiceRequest) -> Result<(), Status> {
    TraceServiceImpl::new(Arc::clone(state)).export(Request::new(request)).await.map(|_| ())
}

impl Seen {
    fn note(&mut self, id: TraceId, traces_max: usize) {
        if !self.known.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > traces_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn count(&mut self, sender: String, spans: u64) {
        let has_room = self.spans_by_sender.len() < SENDERS_MAX || self.spans_by_sender.contains_key(&sender);
        let sender = if has_room { sender } else { OTHERS.to_owned() };
        *self.spans_by_sender.entry(sender).or_default() += spans;
    }
}

#[tonic::async_trait]
impl TraceService for SpanStore {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut request = request.into_inner();
        self.sift(&mut request);
        self.keep(request).await?;
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

/// The span's trace, if its ids are ids. A span that is its own parent has no root, one that ends before it starts no duration:
/// the UI's code expects neither.
fn made_sense(span: &mut Span) -> Option<TraceId> {
    let id = TraceId(span.trace_id.as_slice().try_into().ok()?);
    let has_ids = span.span_id.len() == 8 && matches!(span.parent_span_id.len(), 0 | 8);
    if !has_ids || span.parent_span_id == span.span_id {
        return None;
    }
    span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano);
    Some(id)
}

fn sender(resource: &Resource) -> Option<&str> {
    let attribute = resource.attributes.iter().find(|attribute| attribute.key == "service.instance.id")?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(name) => Some(name),
        _ => None,
    }
}
