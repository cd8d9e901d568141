//! Flight records as spans: their names, their attributes, their places in the tree. Keys never appear, only their hashes.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use mesh_proto::{
    KeyHash, LegOutcome, LegRecord, NodeId, OpOutcome, OpRecord, OperationKind, ServeOutcome, ServeRecord, Slot,
    TraceContext, Version,
};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{EndedRequest, RequestTrace, clock::SpanClock, ids, names};
use crate::telemetry::{leg_outcome_label, op_outcome_label};

/// Beyond so many members the further ones have only their ids.
const ADDRESSES_MAX: usize = 4096;

/// A shorter wait of what a leg sends explains nothing, and has no span.
const QUEUE_MIN: Duration = Duration::from_micros(50);

/// Makes spans.
pub(super) struct SpanWriter {
    pub(super) clock: SpanClock,
    scope: InstrumentationScope,
    /// Under which addresses members are known. Taken for spans that are kept.
    addresses: Mutex<HashMap<NodeId, String>>,
}

/// A span's place.
#[derive(Clone, Copy)]
pub(super) struct SpanPlace {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) parent: u64,
    /// Whether the parent is another process's.
    pub(super) is_remote: bool,
}

impl SpanWriter {
    pub(super) fn new(version: &str) -> Self {
        let scope = InstrumentationScope::builder("mesh").with_version(version.to_owned()).build();
        Self { clock: SpanClock::new(), scope, addresses: Mutex::default() }
    }

    /// This is where a member is.
    pub(super) fn learn(&self, peer: NodeId, addr: &str) {
        // A panic cannot leave a map half made.
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() < ADDRESSES_MAX || addresses.contains_key(&peer) {
            addresses.insert(peer, addr.to_owned());
        }
    }

    /// A member by its id, and by its address for people.
    fn peer(&self, id: NodeId, name: &'static str) -> Vec<KeyValue> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let addr = addresses.get(&id).map(|addr| KeyValue::new(name, addr.clone()));
        std::iter::once(KeyValue::new("peer", id.to_string())).chain(addr).collect()
    }

    /// `GET /get` and its like, from when it was received, and `http.queue` if that was before it was looked at.
    pub(super) fn request(&self, trace: &RequestTrace, ended: &EndedRequest) -> impl Iterator<Item = SpanData> {
        let context = trace.context;
        let place = SpanPlace {
            trace: context.trace_id(),
            span: context.span_id(),
            parent: trace.parent,
            is_remote: trace.parent != 0,
        };
        let attributes = vec![
            KeyValue::new("http.request.method", ended.method),
            KeyValue::new("http.route", ended.route),
            KeyValue::new("http.response.status_code", i64::from(ended.status)),
        ];
        let status = failure(ended.has_failed(), "the request was not answered as it should be");
        let name = format!("{} {}", ended.method, ended.route);
        let (started, ended_at) = (self.clock.date(ended.started), self.clock.date(ended.started + ended.took));
        let received = ended.queued.map_or(started, |queued| started - queued);
        let request = self.span(place, (name, SpanKind::Server), (received, ended_at), attributes, status);
        let queue = ended.queued.map(|_| self.queue(names::HTTP_QUEUE, (place.trace, place.span), (received, started)));
        std::iter::once(request).chain(queue)
    }

    /// A wait between a kernel's receipt and the program, below that span of a trace.
    pub(super) fn queue(
        &self,
        name: &'static str,
        (trace, parent): (u128, u64),
        times: (SystemTime, SystemTime),
    ) -> SpanData {
        let place = SpanPlace { trace, span: ids::span_id(), parent, is_remote: false };
        self.span(place, (name, SpanKind::Internal), times, Vec::new(), Status::Unset)
    }

    /// `mesh.queue` below that span, if it is long enough to explain anything.
    fn leg_queue(&self, of: SpanPlace, (from, waited): (SystemTime, Duration)) -> Option<SpanData> {
        let times = (from, from + waited);
        (waited >= QUEUE_MIN).then(|| self.queue(names::MESH_QUEUE, (of.trace, of.span), times))
    }

    /// `mesh.get` and its like, and its legs.
    pub(super) fn operation<'a>(
        &'a self,
        record: &'a OpRecord,
        context: TraceContext,
    ) -> impl Iterator<Item = SpanData> + 'a {
        let span = TraceContext::operation_span(context.span_id());
        let place = SpanPlace { trace: context.trace_id(), span, parent: context.span_id(), is_remote: false };
        let name = match record.op {
            OperationKind::Get => names::MESH_GET,
            OperationKind::Set => names::MESH_SET,
            OperationKind::Delete => names::MESH_DELETE,
        };
        let mut attributes = vec![KeyValue::new("outcome", op_outcome_label(record.outcome))];
        attributes.extend(key_attributes(record.hash, record.version));
        let status = failure(is_failure(record.outcome), "too few owners answered in time");
        let times = (self.clock.mesh_date(record.started), self.clock.mesh_date(record.started + record.took));
        let operation = self.span(place, (name, SpanKind::Internal), times, attributes, status);
        let legs = record.legs.iter().enumerate().flat_map(move |(index, leg)| self.leg(record, context, index, leg));
        std::iter::once(operation).chain(legs)
    }

    /// `mesh.leg`, and `mesh.queue` if its answer waited for this node.
    fn leg(
        &self,
        record: &OpRecord,
        context: TraceContext,
        index: usize,
        leg: &LegRecord,
    ) -> impl Iterator<Item = SpanData> {
        let place = SpanPlace {
            trace: context.trace_id(),
            span: TraceContext::leg_span(context.span_id(), index),
            parent: TraceContext::operation_span(context.span_id()),
            is_remote: false,
        };
        let mut attributes = self.peer(leg.peer, "server.address");
        attributes.extend([
            KeyValue::new("leg", index as i64),
            KeyValue::new("hedged", leg.hedged),
            KeyValue::new("outcome", leg_outcome_label(leg.outcome)),
        ]);
        attributes.extend(key_attributes(record.hash, record.version));
        let has_failed = matches!(leg.outcome, LegOutcome::TimedOut | LegOutcome::Failed);
        let start = record.started + leg.started;
        let times = (self.clock.mesh_date(start), self.clock.mesh_date(record.started + leg.ended.max(leg.started)));
        let status = failure(has_failed, "the peer did not do its part");
        let (own, peer) = leg.queued();
        if !peer.is_zero() {
            attributes.push(KeyValue::new("peer.queue_ms", peer.as_secs_f64() * 1e3));
        }
        let queue = self.leg_queue(place, (times.1 - own, own));
        let leg = self.span(place, (names::MESH_LEG, SpanKind::Client), times, attributes, status);
        std::iter::once(leg).chain(queue)
    }

    /// `mesh.serve`, the other end of a leg, from when the request was received, and `mesh.queue` if that was before it was looked at.
    pub(super) fn served(&self, record: &ServeRecord) -> impl Iterator<Item = SpanData> {
        let context = record.trace;
        let place =
            SpanPlace { trace: context.trace_id(), span: ids::span_id(), parent: context.span_id(), is_remote: true };
        let mut attributes = self.peer(record.peer, "client.address");
        attributes.extend([
            KeyValue::new("operation", if record.is_write { "write" } else { "read" }),
            KeyValue::new("outcome", serve_outcome_label(record.outcome)),
        ]);
        attributes.extend(key_attributes(record.hash, record.version));
        let waited = Duration::from(record.waited);
        let received = self.clock.mesh_date(record.started) - waited;
        let times = (received, self.clock.mesh_date(record.started + record.took));
        let served = self.span(place, (names::MESH_SERVE, SpanKind::Server), times, attributes, Status::Unset);
        std::iter::once(served).chain(self.leg_queue(place, (received, waited)))
    }

    pub(super) fn span(
        &self,
        place: SpanPlace,
        (name, span_kind): (impl Into<Cow<'static, str>>, SpanKind),
        (start_time, end_time): (SystemTime, SystemTime),
        attributes: Vec<KeyValue>,
        status: Status,
    ) -> SpanData {
        let SpanPlace { trace, span, parent, is_remote } = place;
        let id = |id: u64| SpanId::from_bytes(id.to_be_bytes());
        let trace = TraceId::from_bytes(trace.to_be_bytes());
        SpanData {
            span_context: SpanContext::new(trace, id(span), TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: id(parent),
            parent_span_is_remote: is_remote,
            span_kind,
            name: name.into(),
            start_time,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Whether an operation ended without what it was for.
pub(super) const fn is_failure(outcome: OpOutcome) -> bool {
    matches!(outcome, OpOutcome::Refused | OpOutcome::Unavailable | OpOutcome::Indeterminate | OpOutcome::Abandoned)
}

pub(super) fn failure(has_failed: bool, why: &'static str) -> Status {
    if has_failed { Status::error(why) } else { Status::Unset }
}

fn key_attributes(hash: KeyHash, version: Option<Version>) -> impl Iterator<Item = KeyValue> {
    let slot = KeyValue::new("slot", i64::from(Slot::of(hash).get()));
    let hash = KeyValue::new("key_hash", format!("{:016x}", hash.get()));
    let version = version.map(|version| KeyValue::new("version", version.to_string()));
    [slot, hash].into_iter().chain(version)
}

const fn serve_outcome_label(outcome: ServeOutcome) -> &'static str {
    match outcome {
        ServeOutcome::Hit => "hit",
        ServeOutcome::Gone => "gone",
        ServeOutcome::Absent => "absent",
        ServeOutcome::Unknown => "unknown",
        ServeOutcome::Applied => "applied",
        ServeOutcome::Stale => "stale",
        ServeOutcome::Refused => "refused",
        ServeOutcome::WrongRing => "wrong_ring",
    }
}
