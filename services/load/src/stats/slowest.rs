//! The slowest operations of each part of the run, kind and outcome, with where their time went: what a percentile cannot
//! say.

use std::{borrow::Cow, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use super::{
    flight::{Ended, Parts, Way},
    latency::OutcomeClass,
};
use crate::{NodeIndex, Op, Phase, shard::duration};

/// How many are kept of each kind.
const SLOWEST_MAX: usize = 5;

const KINDS: usize = Phase::ALL.len() * Op::ALL.len() * OutcomeClass::ALL.len();

/// One slow operation. Times are in milliseconds, and add up to the response time.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SlowRequest {
    /// The part of the run.
    pub phase: Phase,
    /// What was asked.
    pub op: Op,
    /// How it ended.
    pub outcome: Cow<'static, str>,
    /// When it ended, in seconds after the load began.
    pub at_s: f64,
    /// The node that answered, or was tried last.
    pub node: usize,
    /// From when it should have begun to its end.
    pub response_ms: f64,
    /// Of these, until it was sent.
    pub lag_ms: f64,
    /// From the first try to the second.
    pub elsewhere_ms: f64,
    /// From when the client's kernel had received the answer until the client had read it.
    pub client_queue_ms: f64,
    /// From one kernel to the other and back, where both told when they received; the client's system calls are in it.
    pub network_ms: f64,
    /// From when the node's kernel had received the request until the node looked at it.
    pub server_queue_ms: f64,
    /// What nobody has measured: network and queues, where the kernels do not tell.
    pub residual_ms: f64,
    /// In the node, outside the mesh; nothing if no node answered.
    pub handler_ms: Option<f64>,
    /// In the mesh.
    pub mesh_ms: Option<f64>,
    /// How it went.
    #[serde(flatten)]
    pub way: Way,
}

impl SlowRequest {
    pub(crate) fn new(ended: &Ended, node: NodeIndex, at: Duration, parts: &Parts, way: Way) -> Self {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let split = Split::of(ended, parts);
        Self {
            phase: ended.phase,
            op: ended.op,
            outcome: ended.outcome.name().into(),
            at_s: at.as_secs_f64(),
            node: node.0,
            response_ms: ms(ended.response()),
            lag_ms: ms(split.lag),
            elsewhere_ms: ms(split.elsewhere),
            client_queue_ms: ms(split.client_queue),
            network_ms: ms(split.network),
            server_queue_ms: ms(split.server_queue),
            residual_ms: ms(split.residual),
            handler_ms: parts.handler.map(|_| ms(split.handler)),
            mesh_ms: parts.mesh.map(|_| ms(split.mesh)),
            way,
        }
    }
}

/// A response time in parts that add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) lag: Duration,
    pub(crate) elsewhere: Duration,
    pub(crate) client_queue: Duration,
    pub(crate) network: Duration,
    pub(crate) server_queue: Duration,
    /// Outside the mesh.
    pub(crate) handler: Duration,
    pub(crate) mesh: Duration,
    /// What cannot be told apart.
    pub(crate) residual: Duration,
}

impl Split {
    /// The names of [`Split::parts`].
    pub(crate) const PARTS: [&'static str; 8] =
        ["lag", "other node", "client queue", "network", "server queue", "residual", "handler", "mesh"];

    /// They add up to the response time.
    pub(crate) const fn parts(&self) -> [Duration; 8] {
        let Self { lag, elsewhere, client_queue, network, server_queue, handler, mesh, residual } = *self;
        [lag, elsewhere, client_queue, network, server_queue, residual, handler, mesh]
    }

    pub(crate) fn of(ended: &Ended, parts: &Parts) -> Self {
        let service = ended.service();
        let elsewhere =
            parts.retried.map_or(Duration::ZERO, |at| at.saturating_duration_since(ended.sent)).min(service);
        // Each part takes at most what those before it have left: clocks of two hosts may disagree about how long things took.
        let mut left = service - elsewhere;
        let mut take = |part: Option<Duration>| {
            let taken = part.unwrap_or_default().min(left);
            left -= taken;
            taken
        };
        let at_node = take(parts.handler);
        let mesh = parts.mesh.unwrap_or_default().min(at_node);
        let server_queue = take(parts.server_queue);
        let client_queue = take(parts.received.map(|received| ended.ended.saturating_duration_since(received)));
        let both_told = parts.server_queue.is_some() && parts.received.is_some();
        let (network, residual) = if both_told { (left, Duration::ZERO) } else { (Duration::ZERO, left) };
        Self {
            lag: ended.response().saturating_sub(service),
            elsewhere,
            client_queue,
            network,
            server_queue,
            handler: at_node - mesh,
            mesh,
            residual,
        }
    }
}

/// The slowest of each kind.
#[derive(BorshDeserialize, BorshSerialize, Debug)]
pub(crate) struct Slowest {
    kinds: Vec<SlowestOfKind>,
}

#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default)]
struct SlowestOfKind {
    /// What one must exceed to enter.
    #[borsh(serialize_with = "duration::write", deserialize_with = "duration::read")]
    bar: Duration,
    /// Slowest first.
    requests: Vec<SlowRequest>,
}

impl Default for Slowest {
    fn default() -> Self {
        Self { kinds: vec![SlowestOfKind::default(); KINDS] }
    }
}

impl Slowest {
    /// Whether an operation that took so long is one of them.
    pub(crate) fn takes(&self, phase: Phase, op: Op, outcome: OutcomeClass, response: Duration) -> bool {
        response > self.kinds[kind(phase, op, outcome)].bar
    }

    pub(crate) fn add(&mut self, outcome: OutcomeClass, request: SlowRequest) {
        let kind = &mut self.kinds[kind(request.phase, request.op, outcome)];
        kind.add(request);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.kinds.iter_mut().zip(&other.kinds) {
            theirs.requests.iter().for_each(|request| mine.add(request.clone()));
        }
    }

    /// All of them, by part of the run, kind and outcome, slowest first.
    pub(crate) fn all(&self) -> Vec<SlowRequest> {
        self.kinds.iter().flat_map(|kind| kind.requests.iter().cloned()).collect()
    }
}

impl SlowestOfKind {
    fn add(&mut self, request: SlowRequest) {
        let at = self.requests.partition_point(|other| other.response_ms >= request.response_ms);
        self.requests.insert(at, request);
        self.requests.truncate(SLOWEST_MAX);
        if self.requests.len() == SLOWEST_MAX {
            self.bar =
                self.requests.last().map_or(Duration::ZERO, |last| Duration::from_secs_f64(last.response_ms / 1e3));
        }
    }
}

const fn kind(phase: Phase, op: Op, outcome: OutcomeClass) -> usize {
    (phase.index() * Op::ALL.len() + op as usize) * OutcomeClass::ALL.len() + outcome as usize
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ended(response: Duration, queue: Duration) -> Ended {
        let intended = Instant::now();
        Ended {
            op: Op::Get,
            outcome: OutcomeClass::Local,
            error: None,
            phase: Phase::Steady,
            failed_over: false,
            is_violation: false,
            intended,
            sent: intended + queue,
            ended: intended + response,
            is_among_slowest: false,
            p99: Duration::ZERO,
        }
    }

    fn add(slowest: &mut Slowest, ms: u32) -> bool {
        let ended = ended(MS * ms, Duration::ZERO);
        let takes = slowest.takes(ended.phase, ended.op, ended.outcome, ended.response());
        if takes {
            let request = SlowRequest::new(&ended, NodeIndex(0), MS, &Parts::default(), Way::default());
            slowest.add(ended.outcome, request);
        }
        takes
    }

    #[test]
    fn only_the_slowest_stay_and_threads_merge() {
        let (mut one, mut two) = (Slowest::default(), Slowest::default());
        for ms in [3, 1, 4, 1, 5, 9, 2, 6] {
            add(&mut one, ms);
        }
        assert!(!add(&mut one, 3) && add(&mut one, 7));
        assert!(add(&mut two, 8));
        one.merge(&two);
        let times: Vec<f64> = one.all().iter().map(|request| request.response_ms).collect();
        assert_eq!(times, [9.0, 8.0, 7.0, 6.0, 5.0]);
        assert!(one.takes(Phase::Recovered, Op::Get, OutcomeClass::Local, MS), "every kind has a list of its own");
    }

    #[test]
    fn parts_add_up_whatever_the_node_says() {
        let ended = ended(10 * MS, 2 * MS);
        let retried = Some(ended.sent + MS);
        let parts = Parts { retried, handler: Some(4 * MS), mesh: Some(3 * MS), ..Parts::default() };
        let (lag, elsewhere) = (2 * MS, MS);
        let expected = Split { lag, elsewhere, residual: 3 * MS, handler: MS, mesh: 3 * MS, ..Split::default() };
        assert_eq!(Split::of(&ended, &parts), expected);
        let received = Some(ended.ended - MS / 2);
        let told = Parts { server_queue: Some(MS), received, ..parts };
        let (client_queue, network, server_queue) = (MS / 2, MS * 3 / 2, MS);
        let expected = Split { client_queue, network, server_queue, residual: Duration::ZERO, ..expected };
        assert_eq!(Split::of(&ended, &told), expected);
        for absurd in [parts, told] {
            let absurd = Parts { handler: Some(99 * MS), mesh: Some(199 * MS), ..absurd };
            let expected = Split { lag, elsewhere, mesh: 7 * MS, ..Split::default() };
            assert_eq!(Split::of(&ended, &absurd), expected);
        }
        let late = Parts { server_queue: Some(99 * MS), received: Some(ended.intended), ..parts };
        let split = Split::of(&ended, &late);
        assert_eq!((split.server_queue, split.client_queue, split.network), (3 * MS, Duration::ZERO, Duration::ZERO));
        let silent = Split::of(&ended, &Parts::default());
        assert_eq!((silent.lag, silent.residual), (2 * MS, 8 * MS));
    }
}
