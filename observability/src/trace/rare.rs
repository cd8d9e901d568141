//! Spans of what happens apart from requests: gossip, repair, hints, members, faults. Each is a small trace of its own; the probes
//! of one gossip round share one.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use mesh_proto::{Event, FaultOrder, MemberState, Monotonic, NodeId};
use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;

use super::{
    ids,
    names::{self, SpanName},
    spans::{Place, SpanWriter, failure, peer},
};
use crate::peer_series::state_label;

/// Makes these spans, and holds those of the gossip round that goes on.
#[derive(Default)]
pub(super) struct RareSpans {
    round: Mutex<Option<Round>>,
}

/// Probes that left together. They are sent when the next round begins; so a round is there as a whole, or not at all.
struct Round {
    began: Monotonic,
    place: Place,
    ended: SystemTime,
    answered: u64,
    probes: Vec<SpanData>,
}

impl RareSpans {
    /// What an event is on a time line: nothing for most.
    pub(super) fn event(&self, writer: &SpanWriter, event: &Event, now: SystemTime) -> Vec<SpanData> {
        let (name, took, attributes) = match event {
            Event::GossipRound { peer, began, rtt, indirect } => {
                return self.probe(writer, (*peer, *began), *rtt, *indirect, now);
            }
            Event::Repair { peer: source, slots, keys, took } => {
                let attributes = vec![peer(*source), count("slots", *slots as u64), count("keys", *keys as u64)];
                (names::REPAIR_ROUND, *took, attributes)
            }
            Event::HintsReplayed { peer: to, hints, took } => {
                (names::HINTS_REPLAY, *took, vec![peer(*to), count("hints", *hints)])
            }
            Event::Member { peer: member, from, to, .. } => {
                let was = KeyValue::new("from", from.map_or("unknown", state_label));
                (member_span(*to), Duration::ZERO, vec![peer(*member), was])
            }
            Event::FaultEnded { what, lasted } => {
                (names::FAULT_INJECTED, *lasted, vec![KeyValue::new("fault", what.clone())])
            }
            _ => return Vec::new(),
        };
        let start = now.checked_sub(took).unwrap_or(now);
        vec![writer.span(root(), (name.name, SpanKind::Internal), (start, now), attributes, Status::Unset)]
    }

    /// A fault of this node's own that was ordered and strikes after a while.
    pub(super) fn fault(writer: &SpanWriter, mode: &'static str, after: Duration, now: SystemTime) -> SpanData {
        let attributes = vec![KeyValue::new("mode", mode)];
        writer.span(root(), (names::FAULT_KILL.name, SpanKind::Internal), (now, now + after), attributes, Status::Unset)
    }

    /// Faults of this node's own that were ordered and last for a while: one span each.
    pub(super) fn faults(writer: &SpanWriter, order: &FaultOrder, now: SystemTime) -> Vec<SpanData> {
        let links = order.links.iter();
        let links = links.map(|link| (names::FAULT_LINK, KeyValue::new("link", link.to_string())));
        let slow_ms = i64::try_from(order.slow.as_millis()).unwrap_or(i64::MAX);
        let slow = (slow_ms > 0).then(|| (names::FAULT_SLOW, KeyValue::new("slow_ms", slow_ms)));
        let off_ms = order.clock_offset_ms;
        let clock = (off_ms != 0).then(|| (names::FAULT_CLOCK, KeyValue::new("offset_ms", off_ms)));
        let times = (now, now + order.time);
        let span = |(name, what): (SpanName, KeyValue)| {
            writer.span(root(), (name.name, SpanKind::Internal), times, vec![what], Status::Unset)
        };
        links.chain(slow).chain(clock).map(span).collect()
    }

    /// A probe ended. Gives the round before, once this one belongs to the next.
    fn probe(
        &self,
        writer: &SpanWriter,
        (probed, began): (NodeId, Monotonic),
        rtt: Option<Duration>,
        indirect: bool,
        now: SystemTime,
    ) -> Vec<SpanData> {
        // A panic cannot leave a round half made.
        let mut current = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let before = current.take_if(|round| round.began != began);
        let start = writer.clock.mesh_date(began);
        let round = current.get_or_insert_with(|| Round {
            began,
            place: root(),
            ended: start,
            answered: 0,
            probes: Vec::new(),
        });
        let (answer, end) = match (rtt, indirect) {
            (None, _) => ("none", now.max(start)),
            (Some(rtt), true) => ("indirect", start + rtt),
            (Some(rtt), false) => ("direct", start + rtt),
        };
        let attributes = vec![peer(probed), KeyValue::new("answer", answer)];
        let status = failure(rtt.is_none(), "nobody reached it");
        let place = Place { span: ids::span_id(), parent: round.place.span, ..round.place };
        let name = names::GOSSIP_PROBE.name;
        round.probes.push(writer.span(place, (name, SpanKind::Client), (start, end), attributes, status));
        round.ended = round.ended.max(end);
        round.answered += u64::from(rtt.is_some());
        before.map(|round| round.spans(writer)).unwrap_or_default()
    }
}

impl Round {
    fn spans(self, writer: &SpanWriter) -> Vec<SpanData> {
        let attributes = vec![count("probes", self.probes.len() as u64), count("answered", self.answered)];
        let times = (writer.clock.mesh_date(self.began), self.ended);
        let name = names::GOSSIP_ROUND.name;
        let mut spans = self.probes;
        spans.push(writer.span(self.place, (name, SpanKind::Internal), times, attributes, Status::Unset));
        spans
    }
}

/// The only span of a trace, or the first.
fn root() -> Place {
    Place { trace: ids::trace_id(), span: ids::span_id(), parent: 0, is_remote: false }
}

fn count(name: &'static str, count: u64) -> KeyValue {
    KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX))
}

const fn member_span(state: MemberState) -> SpanName {
    match state {
        MemberState::Alive => names::MEMBER_ALIVE,
        MemberState::Suspect => names::MEMBER_SUSPECT,
        MemberState::Dead => names::MEMBER_DEAD,
        MemberState::Left => names::MEMBER_LEFT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(target: u64, ms: u64, rtt: Option<u64>, indirect: bool) -> Event {
        let began = Monotonic::new(Duration::from_millis(ms));
        Event::GossipRound { peer: NodeId::new(target), began, rtt: rtt.map(Duration::from_millis), indirect }
    }

    #[test]
    fn a_round_comes_as_a_whole_with_its_probes() {
        let (rare, writer) = (RareSpans::default(), SpanWriter::new("test"));
        let now = writer.clock.mesh_date(Monotonic::new(Duration::from_millis(450)));
        let event = |event| rare.event(&writer, &event, now);
        assert!(event(probe(1, 100, Some(1), false)).is_empty());
        assert!(event(probe(2, 100, Some(210), true)).is_empty());
        assert!(event(probe(3, 100, None, true)).is_empty());
        let spans = event(probe(1, 600, Some(1), false));
        let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["gossip.probe", "gossip.probe", "gossip.probe", "gossip.round"]);
        let round = &spans[3];
        assert!(spans[..3].iter().all(|span| span.parent_span_id == round.span_context.span_id()));
        assert!(spans.iter().all(|span| span.span_context.trace_id() == round.span_context.trace_id()));
        let took = |span: &SpanData| span.end_time.duration_since(span.start_time).ok().map(|took| took.as_millis());
        assert_eq!(spans.iter().map(took).collect::<Vec<_>>(), [Some(1), Some(210), Some(350), Some(350)]);
        assert!(round.attributes.contains(&KeyValue::new("answered", 2)), "{round:?}");
        assert!(matches!(spans[2].status, Status::Error { .. }));
    }

    #[test]
    fn hints_and_faults_have_spans_and_the_rest_has_none() {
        let (rare, writer) = (RareSpans::default(), SpanWriter::new("test"));
        let now = SystemTime::now();
        let replayed = Event::HintsReplayed { peer: NodeId::new(7), hints: 3, took: Duration::from_millis(2) };
        let spans = rare.event(&writer, &replayed, now);
        assert_eq!((spans.len(), &*spans[0].name, spans[0].end_time), (1, "hints.replay", now));
        assert!(rare.event(&writer, &Event::PeerUp { peer: NodeId::new(7) }, now).is_empty());
        let fault = RareSpans::fault(&writer, "crash", Duration::from_millis(20), now);
        assert_eq!((&*fault.name, fault.start_time), ("fault.kill", now));
        let time = Duration::from_secs(5);
        let order = FaultOrder { time, links: Vec::new(), slow: Duration::from_millis(7), clock_offset_ms: -300 };
        let faults = RareSpans::faults(&writer, &order, now);
        let names: Vec<&str> = faults.iter().map(|span| &*span.name).collect();
        assert_eq!((names, faults[1].end_time), (vec!["fault.slow", "fault.clock"], now + time));
    }
}
