//! The series of a node's HTTP side: requests shed and connections cut, by reason, and how late its threads are.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use crate::{
    catalogue::{
        HTTP_CONNECTIONS_CUT, HTTP_CONNECTIONS_REFUSED, HTTP_PROBLEMS, HTTP_QUEUE_DELAY, HTTP_QUEUE_DURATION,
        HTTP_REQUESTS_SHED, HTTP_TLS_FAILURES,
    },
    registry::Registry,
};

/// The statuses that a node answers errors with; anything else counts as `other`.
const PROBLEM_CODES: [(u16, &str); 13] = [
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (413, "413"),
    (415, "415"),
    (500, "500"),
    (503, "503"),
    (504, "504"),
    (507, "507"),
    (0, "other"),
];

/// Which bound a request met that was shed with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Too many requests in flight: REQUESTS_MAX.
    Requests,
    /// Requests waited too long before they were looked at: QUEUE_DELAY_MAX_MS.
    Queue,
    /// Too many bytes of bodies in memory: REQUEST_BYTES_MAX.
    Bytes,
    /// A large value was read and could not be answered with, because clients have not read too many bytes of others:
    /// half of REQUEST_BYTES_MAX. The mesh has counted the operation.
    Answers,
}

/// Whom a connection was cut off for keeping waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// No whole head in HEADER_TIMEOUT_MS, or no next request.
    Head,
    /// No whole body in REQUEST_TIMEOUT_MS.
    Body,
    /// An answer not read in ANSWER_TIMEOUT_MS.
    Answer,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// It was not over in HEADER_TIMEOUT_MS.
    TimedOut,
    /// The client spoke without TLS.
    Plaintext,
    /// The two did not agree, or the client went away.
    Failed,
}

/// Handles, resolved once.
pub(crate) struct HttpSeries {
    problems: [Counter; PROBLEM_CODES.len()],
    connections_refused: Counter,
    shed: [Counter; 4],
    cut: [Counter; 3],
    tls_failed: [Counter; 3],
    queued: Histogram,
    queue_delay: Gauge,
}

impl HttpSeries {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            problems: PROBLEM_CODES.map(|(_, code)| registry.counter(&HTTP_PROBLEMS, &[("code", code)])),
            connections_refused: registry.counter(&HTTP_CONNECTIONS_REFUSED, &[]),
            shed: ["requests", "queue", "bytes", "answers"]
                .map(|reason| registry.counter(&HTTP_REQUESTS_SHED, &[("reason", reason)])),
            cut: ["head", "body", "answer"]
                .map(|reason| registry.counter(&HTTP_CONNECTIONS_CUT, &[("reason", reason)])),
            tls_failed: ["timed_out", "plaintext", "failed"]
                .map(|reason| registry.counter(&HTTP_TLS_FAILURES, &[("reason", reason)])),
            queued: registry.histogram(&HTTP_QUEUE_DURATION, &[]),
            queue_delay: registry.gauge(&HTTP_QUEUE_DELAY, &[]),
        }
    }

    pub(crate) fn problem(&self, status: u16) {
        let other = PROBLEM_CODES.len() - 1;
        let index = PROBLEM_CODES.iter().position(|(code, _)| *code == status).unwrap_or(other);
        self.problems[index].increment(1);
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.increment(1);
    }

    pub(crate) fn shed(&self, reason: Shed) {
        self.shed[reason as usize].increment(1);
    }

    pub(crate) fn cut(&self, reason: Cut) {
        self.cut[reason as usize].increment(1);
    }

    pub(crate) fn tls_failed(&self, reason: TlsFailure) {
        self.tls_failed[reason as usize].increment(1);
    }

    pub(crate) fn queued(&self, queued: Duration) {
        self.queued.record(queued.as_secs_f64());
    }

    pub(crate) fn set_queue_delay(&self, delay: Duration) {
        self.queue_delay.set(delay.as_secs_f64());
    }
}
