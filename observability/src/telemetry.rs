//! What a node reports to: it is handed events, flight records and samples, and turns them into metrics, log lines and, if
//! it was told of a collector, traces. All handles of the request path are resolved at the start; an operation costs a counter and a histogram.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mesh_proto::{
    Event, LegOutcome, MemberState, NodeId, OpOutcome, OpRecord, OperationKind, ServeRecord, TraceContext,
};
use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{
    EndedRequest, Exposition, InitError, KeepTrace, RequestTrace, TraceDecision, TraceGuard, TraceSettings,
    catalogue::{self as names, SECONDS_BUCKETS},
    event_log::EventLog,
    http_series::{Cut, HttpSeries, Shed, TlsFailure},
    latency_series::LatencySeries,
    peer_series::PeerSeries,
    process,
    registry::Registry,
    sample::{NodeSample, SampleSeries},
    text::Text,
    trace::{SpanCounts, SpanPipeline, Tracer},
};

/// The service's name in traces unless it is told another.
const SERVICE_NAME: &str = "mesh-node";

const OPS: [(OperationKind, &str); 3] =
    [(OperationKind::Get, "get"), (OperationKind::Set, "set"), (OperationKind::Delete, "delete")];

const OUTCOMES: [(OpOutcome, &str); 8] = [
    (OpOutcome::HitLocal, "hit_local"),
    (OpOutcome::HitRemote, "hit_remote"),
    (OpOutcome::Miss, "miss"),
    (OpOutcome::Acknowledged, "acknowledged"),
    (OpOutcome::Refused, "refused"),
    (OpOutcome::Unavailable, "unavailable"),
    (OpOutcome::Indeterminate, "indeterminate"),
    (OpOutcome::Abandoned, "abandoned"),
];

const LEG_OUTCOMES: [(LegOutcome, &str); 6] = [
    (LegOutcome::Won, "won"),
    (LegOutcome::Lost, "lost"),
    (LegOutcome::Cancelled, "cancelled"),
    (LegOutcome::TimedOut, "timed_out"),
    (LegOutcome::Failed, "failed"),
    (LegOutcome::Pending, "pending"),
];

/// One node's telemetry. Several may live in one process: nothing here is global.
pub struct Telemetry {
    name: String,
    registry: Registry,
    handle: PrometheusHandle,
    requests: [[Counter; OUTCOMES.len()]; OPS.len()],
    durations: LatencySeries<{ OPS.len() }>,
    hedge_legs: [Counter; LEG_OUTCOMES.len()],
    hedge_wins: Counter,
    http: HttpSeries,
    traceparent_malformed: Counter,
    mesh: MeshHandles,
    sampled: SampleSeries,
    peers: PeerSeries,
    log: EventLog,
    spans: SpanHandles,
    /// Nothing if nobody wants traces: then no request pays more than a branch.
    tracer: Option<Tracer>,
}

/// Starts the telemetry of the node `name`, traces included if `traces` names a collector. The guard sends what is still
/// queued when it is dropped.
///
/// # Errors
/// [`InitError`]; a collector that cannot be reached is none.
pub fn init(
    name: &str,
    id: NodeId,
    version: &str,
    traces: &TraceSettings,
) -> Result<(Arc<Telemetry>, TraceGuard), InitError> {
    let mut telemetry = Telemetry::new(name, id, version)?;
    let Some(collector) = traces.collector() else { return Ok((Arc::new(telemetry), TraceGuard(None))) };
    let counts = Arc::clone(&telemetry.spans.counts);
    let pipeline = Arc::new(SpanPipeline::start(traces, &collector, (SERVICE_NAME, name), counts)?);
    telemetry.tracer = Some(Tracer::new(traces, id, version, Arc::clone(&pipeline)));
    Ok((Arc::new(telemetry), TraceGuard(Some(pipeline))))
}

impl Telemetry {
    /// Telemetry of the node `name` without traces; its id labels its build information.
    ///
    /// # Errors
    /// If the exporter rejects its buckets, which are constants.
    pub fn new(name: &str, id: NodeId, version: &str) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .add_global_label("node", name)
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
            .build_recorder();
        let handle = recorder.handle();
        let registry = Registry::new(recorder);
        registry.gauge(&names::BUILD_INFO, &[("version", version), ("id", &id.to_string())]).set(1.0);
        Ok(Self {
            name: name.to_owned(),
            requests: OPS.map(|(_, op)| {
                OUTCOMES.map(|(_, outcome)| registry.counter(&names::REQUESTS, &[("op", op), ("outcome", outcome)]))
            }),
            durations: LatencySeries::new(&names::OP_DURATION, name, "op", OPS.map(|(_, op)| op)),
            hedge_legs: LEG_OUTCOMES.map(|(_, how)| registry.counter(&names::HEDGE_LEGS, &[("outcome", how)])),
            hedge_wins: registry.counter(&names::HEDGE_WINS, &[]),
            http: HttpSeries::new(&registry),
            traceparent_malformed: registry.counter(&names::TRACEPARENT_MALFORMED, &[]),
            mesh: MeshHandles::new(&registry),
            sampled: SampleSeries::new(&registry),
            peers: PeerSeries::new(),
            log: EventLog::new(),
            spans: SpanHandles::new(&registry),
            tracer: None,
            handle,
            registry,
        })
    }

    /// What flight records take that wait to be asked for, and spans that wait for the collector, in bytes.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        self.tracer.as_ref().map(Tracer::memory).unwrap_or_default()
    }

    /// An operation ended. On the request path.
    pub fn operation(&self, record: &OpRecord) {
        let op = record.op as usize;
        self.requests[op][record.outcome as usize].increment(1);
        let kept = self.tracer.as_ref().and_then(|tracer| tracer.operation(record));
        self.durations.observe(op, record.took, kept);
        if record.op != OperationKind::Get {
            self.quorum(record);
        }
        for leg in record.legs.iter().filter(|leg| leg.hedged) {
            self.hedge_legs[leg.outcome as usize].increment(1);
            if leg.outcome == LegOutcome::Won {
                self.hedge_wins.increment(1);
            }
        }
    }

    /// Which owners confirmed a write before it was answered, and when.
    fn quorum(&self, record: &OpRecord) {
        for leg in record.legs.iter().filter(|leg| leg.outcome == LegOutcome::Won) {
            let took = leg.ended.saturating_sub(leg.started);
            self.peers.with(&self.registry, leg.peer, |handles| handles.quorum_ack.record(took.as_secs_f64()));
        }
    }

    /// Something rare happened.
    pub fn event(&self, event: &Event) {
        self.count(event);
        self.log.write(event);
        if let (Event::Member { peer, addr, .. }, Some(tracer)) = (event, &self.tracer) {
            tracer.learn(*peer, addr);
        }
    }

    /// This node will be ended. What it has recorded is sent before that, if there is time.
    pub fn flush(&self) {
        if let Some(tracer) = &self.tracer {
            tracer.flush();
        }
    }

    /// The times that the mesh tells are since this moment. To be called before the first request.
    pub fn align(&self, epoch: Instant) {
        if let Some(tracer) = &self.tracer {
            tracer.align(epoch);
        }
    }

    /// A request began, for this caller. Nothing without tracing. On the request path.
    #[must_use]
    pub fn begin(&self, caller: Option<TraceContext>) -> Option<RequestTrace> {
        self.tracer.as_ref().map(|tracer| tracer.begin(caller))
    }

    /// A request ended, with the record of its operation if it got as far as the mesh.
    pub fn end(&self, trace: &RequestTrace, ended: &EndedRequest, record: Option<&OpRecord>) -> TraceDecision {
        self.tracer.as_ref().map(|tracer| tracer.end(trace, ended, record)).unwrap_or_default()
    }

    /// Whether traces are recorded at all.
    #[must_use]
    pub const fn records_traces(&self) -> bool {
        self.tracer.is_some()
    }

    /// The caller of a request keeps its trace. Gives the peers to report it to.
    pub fn keep_request(&self, trace: u128) -> Option<KeepTrace> {
        self.tracer.as_ref()?.keep_request(trace)
    }

    /// A peer's leg that carries a trace was served.
    pub fn served(&self, record: &ServeRecord) {
        if let Some(tracer) = &self.tracer {
            tracer.served(record);
        }
    }

    /// A peer keeps this trace.
    pub fn keep_trace(&self, trace: u128) {
        if let Some(tracer) = &self.tracer {
            tracer.keep(trace);
        }
    }

    /// A request was answered with an error status.
    pub fn problem(&self, status: u16) {
        self.http.problem(status);
    }

    /// A connection was refused because too many are open.
    pub fn connection_refused(&self) {
        self.http.connection_refused();
    }

    /// A request waited for so long in this host after the kernel had received it.
    pub fn queued(&self, queued: Duration) {
        self.http.queued(queued);
    }

    /// A request was shed.
    pub fn shed(&self, reason: Shed) {
        self.http.shed(reason);
    }

    /// A connection was cut off because its client kept us waiting.
    pub fn cut(&self, reason: Cut) {
        self.http.cut(reason);
    }

    /// A TLS handshake with a client failed.
    pub fn tls_failed(&self, reason: TlsFailure) {
        self.http.tls_failed(reason);
    }

    /// A `traceparent` header made no sense and was ignored.
    pub fn traceparent_malformed(&self) {
        self.traceparent_malformed.increment(1);
    }

    /// Takes over sampled figures.
    pub fn sample(&self, sample: &NodeSample) {
        self.sampled.set(&self.registry, sample);
        self.http.set_queue_delay(sample.queue_delay);
        for hints in &sample.hints_by_peer {
            self.peers.with(&self.registry, hints.peer, |handles| handles.set_hints(hints));
        }
    }

    /// Folds what piled up since the last call into buckets. To be called every second, or memory grows between scrapes.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
        if let Some(tracer) = &self.tracer {
            tracer.run_upkeep();
        }
    }

    /// All metrics as text.
    #[must_use]
    pub fn render(&self, exposition: Exposition) -> String {
        self.spans.sample(self.tracer.as_ref());
        let mut process = Text::new("node", &self.name);
        process::write(&mut process);
        let text = self.peers.without_forgotten(self.handle.render()) + &process.text;
        exposition.write_with(&text, &self.durations)
    }

    fn count(&self, event: &Event) {
        let mesh = &self.mesh;
        match event {
            Event::Member { peer, to, .. } => {
                self.peers.remember(*peer);
                self.peers.with(&self.registry, *peer, |handles| {
                    handles.set_state(*to);
                    if *to == MemberState::Suspect {
                        handles.suspicions.increment(1);
                    }
                });
            }
            Event::Forgotten { peer } => self.peers.forget(*peer),
            Event::MissedWrite { peer, .. } => {
                self.peers.with(&self.registry, *peer, |handles| handles.missed_writes.increment(1));
            }
            Event::Ring { members, slots_owned, .. } => {
                mesh.ring_members.set(*members as f64);
                mesh.ring_slots_owned.set(*slots_owned as f64);
            }
            Event::GossipRound { rtt, indirect, .. } => mesh.gossip_round(*rtt, *indirect),
            Event::Repair { keys, took, .. } => {
                mesh.repair_rounds.increment(1);
                mesh.repair_keys.increment(*keys as u64);
                mesh.repair_round.record(took.as_secs_f64());
            }
            Event::Refuted { .. } => mesh.refutations.increment(1),
            Event::PeerUp { .. } => mesh.peer_up.increment(1),
            Event::PeerDown { .. } => mesh.peer_down.increment(1),
            Event::PeerRefused { .. } => mesh.peer_refused.increment(1),
            Event::ProtocolViolation { .. } => mesh.protocol_violations.increment(1),
            Event::DriftRefused { .. } => mesh.drift_refused.increment(1),
            // Counted where they are sampled.
            Event::ProbeSent { .. }
            | Event::ClockSetBack
            | Event::PeerUnreachable { .. }
            | Event::InSync { .. }
            | Event::HintsDropped(_)
            | Event::HintsReplayed { .. }
            | Event::FaultBegan { .. }
            | Event::FaultEnded { .. } => {}
        }
    }
}

/// Handles of rare events.
struct MeshHandles {
    ring_members: Gauge,
    ring_slots_owned: Gauge,
    gossip_direct: Counter,
    gossip_indirect: Counter,
    gossip_silent: Counter,
    gossip_round: Histogram,
    refutations: Counter,
    peer_up: Counter,
    peer_down: Counter,
    peer_refused: Counter,
    protocol_violations: Counter,
    drift_refused: Counter,
    repair_rounds: Counter,
    repair_keys: Counter,
    repair_round: Histogram,
}

impl MeshHandles {
    fn new(registry: &Registry) -> Self {
        let gossip = |answer| registry.counter(&names::GOSSIP_ROUNDS, &[("answer", answer)]);
        Self {
            ring_members: registry.gauge(&names::RING_MEMBERS, &[]),
            ring_slots_owned: registry.gauge(&names::RING_SLOTS_OWNED, &[]),
            gossip_direct: gossip("direct"),
            gossip_indirect: gossip("indirect"),
            gossip_silent: gossip("none"),
            gossip_round: registry.histogram(&names::GOSSIP_ROUND, &[]),
            refutations: registry.counter(&names::REFUTATIONS, &[]),
            peer_up: registry.counter(&names::PEER_UP, &[]),
            peer_down: registry.counter(&names::PEER_DOWN, &[]),
            peer_refused: registry.counter(&names::PEER_REFUSED, &[]),
            protocol_violations: registry.counter(&names::PROTOCOL_VIOLATIONS, &[]),
            drift_refused: registry.counter(&names::DRIFT_REFUSED, &[]),
            repair_rounds: registry.counter(&names::REPAIR_ROUNDS, &[]),
            repair_keys: registry.counter(&names::REPAIR_KEYS, &[]),
            repair_round: registry.histogram(&names::REPAIR_ROUND, &[]),
        }
    }

    fn gossip_round(&self, rtt: Option<Duration>, indirect: bool) {
        match rtt {
            Some(rtt) => {
                self.gossip_round.record(rtt.as_secs_f64());
                if indirect { &self.gossip_indirect } else { &self.gossip_direct }.increment(1);
            }
            None => self.gossip_silent.increment(1),
        }
    }
}

/// Handles of what became of spans. They are there without tracing, too, so that a dashboard finds them.
struct SpanHandles {
    counts: Arc<SpanCounts>,
    kept: Counter,
    exported: Counter,
    failed: Counter,
    dropped: Counter,
    keep_misses: Counter,
}

impl SpanHandles {
    fn new(registry: &Registry) -> Self {
        Self {
            counts: Arc::default(),
            kept: registry.counter(&names::SPANS_KEPT, &[]),
            exported: registry.counter(&names::SPANS_EXPORTED, &[]),
            failed: registry.counter(&names::SPANS_FAILED, &[]),
            dropped: registry.counter(&names::SPANS_DROPPED, &[]),
            keep_misses: registry.counter(&names::TRACE_KEEP_MISSES, &[]),
        }
    }

    fn sample(&self, tracer: Option<&Tracer>) {
        // Relaxed: each figure stands alone.
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let SpanCounts { kept, exported, failed, dropped } = &*self.counts;
        self.kept.absolute(read(kept));
        self.exported.absolute(read(exported));
        self.failed.absolute(read(failed));
        self.dropped.absolute(read(dropped));
        self.keep_misses.absolute(tracer.map_or(0, |tracer| read(&tracer.keep_misses)));
    }
}

/// An outcome as labels and spans name it.
pub(crate) const fn op_outcome_label(outcome: OpOutcome) -> &'static str {
    OUTCOMES[outcome as usize].1
}

/// A leg's outcome as labels and spans name it.
pub(crate) const fn leg_outcome_label(outcome: LegOutcome) -> &'static str {
    LEG_OUTCOMES[outcome as usize].1
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use arrayvec::ArrayVec;
    use mesh_proto::{HintStats, KeyHash, LegQueues, LegRecord, Monotonic, PeerHints, Stats};

    use super::*;

    fn telemetry() -> Telemetry {
        Telemetry::new("n1", NodeId::new(1), "0.0.0").unwrap()
    }

    fn value_of(text: &str, series: &str) -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    #[test]
    fn tables_are_in_the_order_of_their_enums() {
        assert!(OPS.iter().enumerate().all(|(index, (op, _))| *op as usize == index));
        assert!(OUTCOMES.iter().enumerate().all(|(index, (outcome, _))| *outcome as usize == index));
        assert!(LEG_OUTCOMES.iter().enumerate().all(|(index, (outcome, _))| *outcome as usize == index));
    }

    #[test]
    fn counters_are_there_before_anything_happened() {
        let text = telemetry().render(Exposition::Prometheus);
        let series = "mesh_requests_total{node=\"n1\",op=\"get\",outcome=\"unavailable\"}";
        assert_eq!(value_of(&text, series), Some(0.0), "{text}");
    }

    #[test]
    fn an_operation_is_counted_once_and_its_hedges_too() {
        let telemetry = telemetry();
        let leg = |hedged, outcome| LegRecord {
            peer: NodeId::new(2),
            hedged,
            outcome,
            started: Duration::ZERO,
            ended: Duration::from_millis(1),
            queues: LegQueues::default(),
        };
        let legs = ArrayVec::from_iter([leg(false, LegOutcome::Cancelled), leg(true, LegOutcome::Won)]);
        let took = Duration::from_millis(1);
        telemetry.operation(&OpRecord {
            op: OperationKind::Get,
            outcome: OpOutcome::HitRemote,
            took,
            started: Monotonic::default(),
            hash: KeyHash::of(b"k"),
            version: None,
            trace: None,
            legs,
        });
        telemetry.run_upkeep();
        let text = telemetry.render(Exposition::Prometheus);
        assert_eq!(value_of(&text, "mesh_requests_total{node=\"n1\",op=\"get\",outcome=\"hit_remote\"}"), Some(1.0));
        assert_eq!(value_of(&text, "mesh_op_duration_seconds_count{node=\"n1\",op=\"get\"}"), Some(1.0));
        assert_eq!(value_of(&text, "mesh_hedge_legs_total{node=\"n1\",outcome=\"won\"}"), Some(1.0));
        assert_eq!(value_of(&text, "mesh_hedge_legs_total{node=\"n1\",outcome=\"cancelled\"}"), Some(0.0));
        assert_eq!(value_of(&text, "mesh_hedge_wins_total{node=\"n1\"}"), Some(1.0));
    }

    #[test]
    fn a_member_is_in_one_state_at_a_time() {
        let telemetry = telemetry();
        let member = |to| Event::Member { peer: NodeId::new(2), addr: "n2:5011".to_owned(), from: None, to };
        for state in [MemberState::Alive, MemberState::Suspect, MemberState::Dead] {
            telemetry.event(&member(state));
        }
        let text = telemetry.render(Exposition::Prometheus);
        let in_force: Vec<&str> =
            text.lines().filter(|line| line.starts_with("mesh_member_state{") && line.ends_with(" 1")).collect();
        assert_eq!(in_force, ["mesh_member_state{node=\"n1\",peer=\"0000000000000002\",state=\"dead\"} 1"]);
        assert_eq!(value_of(&text, "mesh_suspicions_total{node=\"n1\",peer=\"0000000000000002\"}"), Some(1.0));
    }

    #[test]
    fn hints_are_shown_by_peer_and_their_drops_by_reason() {
        let telemetry = telemetry();
        let peer = PeerHints {
            peer: NodeId::new(2),
            queued: 3,
            queued_bytes: 900,
            oldest_age: Duration::from_millis(1500),
            needs_full_sync: false,
        };
        let hints = HintStats { replayed: 5, dropped_overflow: 7, ..HintStats::default() };
        let stats = Stats { hints, ..Stats::default() };
        telemetry.sample(&NodeSample { stats, hints_by_peer: vec![peer], ..NodeSample::default() });
        let text = telemetry.render(Exposition::Prometheus);
        let of_peer = |name: &str| value_of(&text, &format!("{name}{{node=\"n1\",peer=\"0000000000000002\"}}"));
        assert_eq!(of_peer(names::HINTS_QUEUED.name), Some(3.0));
        assert_eq!(of_peer(names::HINTS_QUEUED_BYTES.name), Some(900.0));
        assert_eq!(of_peer(names::HINTS_OLDEST_AGE.name), Some(1.5));
        let dropped = |reason| value_of(&text, &format!("mesh_hints_dropped_total{{node=\"n1\",reason=\"{reason}\"}}"));
        assert_eq!((dropped("overflow"), dropped("age")), (Some(7.0), Some(0.0)));
        assert_eq!(value_of(&text, "mesh_hints_replayed_total{node=\"n1\"}"), Some(5.0));
    }
}
