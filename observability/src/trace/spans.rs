//! Flight records as spans: their names, their attributes, their places in the tree. Keys never appear, only their hashes.

use std::{borrow::Cow, time::SystemTime};

use mesh_proto::{
    Event, KeyHash, LegOutcome, LegRecord, MemberState, NodeId, Op, OpOutcome, OpRecord, ServeOutcome, ServeRecord,
    Slot, TraceContext, Version,
};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{EndedRequest, RequestTrace, clock::SpanClock, ids};
use crate::{
    peer_series::state_label,
    telemetry::{leg_outcome_label, op_outcome_label},
};

/// Makes spans.
pub(super) struct SpanWriter {
    pub(super) clock: SpanClock,
    scope: InstrumentationScope,
}

/// A span's place.
struct Place {
    trace: u128,
    span: u64,
    parent: u64,
    /// Whether the parent is another process's.
    is_remote: bool,
}

impl SpanWriter {
    pub(super) fn new(version: &str) -> Self {
        let scope = InstrumentationScope::builder("mesh").with_version(version.to_owned()).build();
        Self { clock: SpanClock::new(), scope }
    }

    /// `GET /get` and its like.
    pub(super) fn request(&self, trace: &RequestTrace, ended: &EndedRequest) -> SpanData {
        let context = trace.context;
        let place = Place {
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
        let status = failure(ended.status >= 500, "the request was not answered as it should be");
        let name = format!("{} {}", ended.method, ended.route);
        let times = (self.clock.date(ended.started), self.clock.date(ended.started + ended.took));
        self.span(place, name, SpanKind::Server, times, attributes, status)
    }

    /// `mesh.get` and its like, and its legs.
    pub(super) fn operation<'a>(
        &'a self,
        record: &'a OpRecord,
        context: TraceContext,
    ) -> impl Iterator<Item = SpanData> + 'a {
        let span = TraceContext::operation_span(context.span_id());
        let place = Place { trace: context.trace_id(), span, parent: context.span_id(), is_remote: false };
        let name = match record.op {
            Op::Get => "mesh.get",
            Op::Set => "mesh.set",
            Op::Delete => "mesh.delete",
        };
        let mut attributes = vec![KeyValue::new("outcome", op_outcome_label(record.outcome))];
        attributes.extend(key_attributes(record.hash, record.version));
        let status = failure(is_failure(record.outcome), "too few owners answered in time");
        let times = (self.clock.mesh_date(record.started), self.clock.mesh_date(record.started + record.took));
        let operation = self.span(place, name, SpanKind::Internal, times, attributes, status);
        let legs = record.legs.iter().enumerate().map(move |(index, leg)| self.leg(record, context, index, leg));
        std::iter::once(operation).chain(legs)
    }

    fn leg(&self, record: &OpRecord, context: TraceContext, index: usize, leg: &LegRecord) -> SpanData {
        let place = Place {
            trace: context.trace_id(),
            span: TraceContext::leg_span(context.span_id(), index),
            parent: TraceContext::operation_span(context.span_id()),
            is_remote: false,
        };
        let mut attributes = vec![
            peer(leg.peer),
            KeyValue::new("leg", index as i64),
            KeyValue::new("hedged", leg.hedged),
            KeyValue::new("outcome", leg_outcome_label(leg.outcome)),
        ];
        attributes.extend(key_attributes(record.hash, record.version));
        let has_failed = matches!(leg.outcome, LegOutcome::TimedOut | LegOutcome::Failed);
        let start = record.started + leg.started;
        let times = (self.clock.mesh_date(start), self.clock.mesh_date(record.started + leg.ended.max(leg.started)));
        let status = failure(has_failed, "the peer did not do its part");
        self.span(place, "mesh.leg", SpanKind::Client, times, attributes, status)
    }

    /// `mesh.serve`, the other end of a leg.
    pub(super) fn served(&self, record: &ServeRecord) -> SpanData {
        let context = record.trace;
        let place =
            Place { trace: context.trace_id(), span: ids::span_id(), parent: context.span_id(), is_remote: true };
        let mut attributes = vec![
            peer(record.peer),
            KeyValue::new("operation", if record.is_write { "write" } else { "read" }),
            KeyValue::new("outcome", serve_outcome_label(record.outcome)),
        ];
        attributes.extend(key_attributes(record.hash, record.version));
        let times = (self.clock.mesh_date(record.started), self.clock.mesh_date(record.started + record.took));
        self.span(place, "mesh.serve", SpanKind::Server, times, attributes, Status::Unset)
    }

    /// A rare event as a trace of its own, if it is one that has a place on a time line.
    pub(super) fn event(&self, event: &Event, now: SystemTime) -> Option<SpanData> {
        let (name, took, attributes) = match event {
            Event::GossipRound { peer: probed, rtt, indirect } => {
                let answer = match (rtt, indirect) {
                    (None, _) => "none",
                    (Some(_), true) => "indirect",
                    (Some(_), false) => "direct",
                };
                ("gossip.round", rtt.unwrap_or_default(), vec![peer(*probed), KeyValue::new("answer", answer)])
            }
            Event::Repair { peer: source, slots, keys, took } => {
                let found = [("slots", *slots), ("keys", *keys)].map(|(name, count)| KeyValue::new(name, count as i64));
                ("repair.round", *took, [vec![peer(*source)], found.to_vec()].concat())
            }
            Event::Member { peer: member, from, to, .. } => {
                let was = KeyValue::new("from", from.map_or("unknown", state_label));
                (member_span(*to), std::time::Duration::ZERO, vec![peer(*member), was])
            }
            Event::FaultEnded { what, lasted } => {
                ("fault.injected", *lasted, vec![KeyValue::new("fault", what.clone())])
            }
            _ => return None,
        };
        let place = Place { trace: ids::trace_id(), span: ids::span_id(), parent: 0, is_remote: false };
        let start = now.checked_sub(took).unwrap_or(now);
        Some(self.span(place, name, SpanKind::Internal, (start, now), attributes, Status::Unset))
    }

    fn span(
        &self,
        place: Place,
        name: impl Into<Cow<'static, str>>,
        span_kind: SpanKind,
        (start_time, end_time): (SystemTime, SystemTime),
        attributes: Vec<KeyValue>,
        status: Status,
    ) -> SpanData {
        let Place { trace, span, parent, is_remote } = place;
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
    matches!(outcome, OpOutcome::Refused | OpOutcome::Unavailable | OpOutcome::Indeterminate | OpOutcome::Overloaded)
}

fn failure(has_failed: bool, why: &'static str) -> Status {
    if has_failed { Status::error(why) } else { Status::Unset }
}

fn peer(id: NodeId) -> KeyValue {
    KeyValue::new("peer", id.to_string())
}

fn key_attributes(hash: KeyHash, version: Option<Version>) -> impl Iterator<Item = KeyValue> {
    let slot = KeyValue::new("slot", i64::from(Slot::of(hash).get()));
    let hash = KeyValue::new("key_hash", format!("{:016x}", hash.get()));
    let version = version.map(|version| KeyValue::new("version", version.to_string()));
    [slot, hash].into_iter().chain(version)
}

const fn member_span(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "member.alive",
        MemberState::Suspect => "member.suspect",
        MemberState::Dead => "member.dead",
        MemberState::Left => "member.left",
    }
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
