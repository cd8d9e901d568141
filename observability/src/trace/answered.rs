//! What this node has lately answered to callers who came with a trace of their own. Only the caller sees all of a request's
//! time: if it was slow to the caller and not here, the caller asks for it afterwards.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mesh_proto::{KeyHash, LegRecord, Monotonic, OpOutcome, OpRecord, OperationKind, Version};

use super::{EndedRequest, RequestTrace};

const SHARDS: usize = 16;

/// Requests in one shard: 65 536 in all, some seconds of a busy node in 15 MB.
const REQUESTS_MAX: usize = 4096;

/// Traces in one shard that were asked for before their requests had ended, as those that their callers gave up.
const AWAITED_MAX: usize = 64;

/// How long they are waited for.
const AWAITED_FOR: Duration = Duration::from_secs(10);

/// A request and its operation, with the legs apart: most have none, and the record has room for many.
pub(super) struct AnsweredRequest {
    pub(super) trace: RequestTrace,
    pub(super) ended: EndedRequest,
    operation: Option<AnsweredOperation>,
    is_kept: bool,
}

struct AnsweredOperation {
    op: OperationKind,
    outcome: OpOutcome,
    took: Duration,
    started: Monotonic,
    hash: KeyHash,
    version: Option<Version>,
    legs: Box<[LegRecord]>,
}

impl AnsweredRequest {
    pub(super) fn new(trace: RequestTrace, ended: EndedRequest, record: Option<&OpRecord>, is_kept: bool) -> Self {
        let operation = record.filter(|_| !is_kept).map(|record| AnsweredOperation {
            op: record.op,
            outcome: record.outcome,
            took: record.took,
            started: record.started,
            hash: record.hash,
            version: record.version,
            legs: record.legs.as_slice().into(),
        });
        Self { trace, ended, operation, is_kept }
    }

    /// The flight record of its operation, if it came to one.
    pub(super) fn record(&self) -> Option<OpRecord> {
        self.operation.as_ref().map(|operation| OpRecord {
            op: operation.op,
            outcome: operation.outcome,
            took: operation.took,
            started: operation.started,
            hash: operation.hash,
            version: operation.version,
            trace: Some(self.trace.context),
            legs: operation.legs.iter().copied().collect(),
        })
    }
}

/// What was found of a trace.
pub(super) enum FoundTrace {
    /// It can be kept now.
    Request(Box<AnsweredRequest>),
    /// It has been kept before.
    Kept,
    /// Nothing, or not yet.
    Nothing,
}

/// The last requests, by trace.
pub(super) struct RecentRequests {
    // By trace, as the caller may ask for it on any connection. Held for some nanoseconds by threads whose requests belong
    // to different traces; to search a shard takes some microseconds, and is rare.
    shards: [Mutex<AnsweredShard>; SHARDS],
}

#[derive(Default)]
struct AnsweredShard {
    requests: VecDeque<AnsweredRequest>,
    awaited: VecDeque<(u128, Instant)>,
}

impl RecentRequests {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// What they take, in bytes; most have one leg or none.
    pub(super) fn bytes(&self) -> u64 {
        let each = size_of::<AnsweredRequest>() + size_of::<LegRecord>();
        let requests =
            |shard: &Mutex<AnsweredShard>| shard.lock().unwrap_or_else(PoisonError::into_inner).requests.capacity();
        (self.shards.iter().map(requests).sum::<usize>() * each) as u64
    }

    fn with<T>(&self, trace: u128, work: impl FnOnce(&mut AnsweredShard) -> T) -> T {
        // Ids are random in all their bits. A poisoned lock still guards whole requests.
        work(&mut self.shards[(trace % SHARDS as u128) as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the caller has asked for this trace already. To be called at its end.
    pub(super) fn is_awaited(&self, trace: u128, now: Instant) -> bool {
        self.with(trace, |shard| {
            while shard.awaited.front().is_some_and(|(_, since)| now.duration_since(*since) > AWAITED_FOR) {
                shard.awaited.pop_front();
            }
            shard.awaited.iter().any(|(awaited, _)| *awaited == trace)
        })
    }

    /// Remembers a request.
    pub(super) fn push(&self, request: AnsweredRequest) {
        self.with(request.trace.context.trace_id(), |shard| {
            if shard.requests.len() >= REQUESTS_MAX {
                shard.requests.pop_front();
            }
            shard.requests.push_back(request);
        });
    }

    /// The request of a trace, which counts as kept from now on. If there is none, it is awaited.
    pub(super) fn take(&self, trace: u128, now: Instant) -> FoundTrace {
        self.with(trace, |shard| {
            let found = shard.requests.iter_mut().rev().find(|request| request.trace.context.trace_id() == trace);
            match found {
                Some(request) if request.is_kept => FoundTrace::Kept,
                Some(request) => {
                    let kept = AnsweredRequest::new(request.trace, request.ended, None, true);
                    FoundTrace::Request(Box::new(std::mem::replace(request, kept)))
                }
                None => {
                    if shard.awaited.len() >= AWAITED_MAX {
                        shard.awaited.pop_front();
                    }
                    shard.awaited.push_back((trace, now));
                    FoundTrace::Nothing
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::TraceContext;

    use super::*;

    fn request(trace: u128) -> AnsweredRequest {
        let trace = RequestTrace { context: TraceContext::new(trace, 16, false), parent: 1 };
        let (started, took) = (Instant::now(), Duration::from_millis(1));
        let ended = EndedRequest { method: "GET", route: "/get", status: 200, started, queued: None, took };
        AnsweredRequest::new(trace, ended, None, false)
    }

    #[test]
    fn a_request_is_handed_out_once() {
        let (answered, now) = (RecentRequests::new(), Instant::now());
        answered.push(request(7));
        answered.push(request(23));
        assert!(matches!(answered.take(7, now), FoundTrace::Request(found) if found.trace.context.trace_id() == 7));
        assert!(matches!(answered.take(7, now), FoundTrace::Kept));
        assert!(!answered.is_awaited(7, now));
    }

    #[test]
    fn what_is_asked_for_early_is_awaited_for_a_while() {
        let (answered, now) = (RecentRequests::new(), Instant::now());
        assert!(matches!(answered.take(7, now), FoundTrace::Nothing));
        assert!(answered.is_awaited(7, now) && !answered.is_awaited(23, now));
        assert!(!answered.is_awaited(7, now + 2 * AWAITED_FOR));
    }

    #[test]
    fn memory_is_bounded() {
        let (answered, now) = (RecentRequests::new(), Instant::now());
        let step = SHARDS as u128;
        (0..=REQUESTS_MAX as u128).for_each(|n| answered.push(request(step * (n + 1))));
        assert!(matches!(answered.take(step, now), FoundTrace::Nothing), "the oldest has gone");
        assert!(matches!(answered.take(2 * step, now), FoundTrace::Request(_)));
        (0..2 * AWAITED_MAX as u128).for_each(|n| drop(answered.take(step * (1_000_000 + n), now)));
        let (requests, awaited) = answered.with(0, |shard| (shard.requests.len(), shard.awaited.len()));
        assert_eq!((requests, awaited), (REQUESTS_MAX, AWAITED_MAX));
        assert!(size_of::<AnsweredRequest>() <= 256, "{}", size_of::<AnsweredRequest>());
    }
}
