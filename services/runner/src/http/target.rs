//! The HTTP target: one request, and at most one more try at another node.

use std::{
    io::Write,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use load::{
    Answer, Client, Ended, ErrorKind, FailedTry, Freshness, Kept, NodeIndex, Op, Outcome, Parts, Target, Way,
    WriteVersion,
};
use observability::ClientTrace;
use rand::{SeedableRng, rngs::SmallRng};
use receive_timestamps::KernelTime;

use super::{
    TargetHealth,
    last::{LastRequest, Try, TryResult},
    patience::{Patience, RequestKind},
    pool::Pool,
    response::{CacheHeader, Head, parse_head},
    timing,
};
use crate::{
    settings::Entry,
    traces::{ThreadTraces, Traces},
    wire::{Deadline, TICK},
};

/// Ahead of the 55 bytes that say which trace.
const TRACEPARENT: &[u8] = b"traceparent: ";

/// How often a slow try is looked at that found the budget spent: its node may have fallen silent, or the budget grown.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How requests are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpOptions {
    pub(crate) entry: Entry,
    pub(crate) failover_after: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) extra_tries_max_percent: u32,
    pub(crate) kernel_timestamps: bool,
}

/// Makes one thread's targets.
pub(crate) struct HttpClient {
    pub(crate) targets: Arc<[TargetHealth]>,
    pub(crate) options: HttpOptions,
    pub(crate) seed: u64,
    /// A whole line, or nothing.
    pub(crate) authorization: Arc<str>,
    /// Nothing if nobody wants traces.
    pub(crate) traces: Option<Arc<Traces>>,
}

impl Client for HttpClient {
    type Target = HttpTarget;

    async fn connect(self) -> Result<HttpTarget, String> {
        let HttpOptions { failover_after, request_timeout, extra_tries_max_percent, .. } = self.options;
        let patience = Patience::new(failover_after, request_timeout, extra_tries_max_percent);
        let pool = Rc::new(Pool::new(self.targets, patience, self.options.kernel_timestamps));
        tokio::task::spawn_local(Rc::clone(&pool.deadlines).tick_for_ever());
        let traces = self.traces.map(|all| Rc::new(ThreadTraces::new(all)));
        let dice = SmallRng::seed_from_u64(self.seed);
        Ok(HttpTarget::new(pool, self.options, self.authorization, dice, traces))
    }
}

/// One task's way to the nodes.
#[derive(Debug)]
pub(crate) struct HttpTarget {
    pool: Rc<Pool>,
    options: HttpOptions,
    authorization: Arc<str>,
    deadline: Deadline,
    dice: SmallRng,
    request: Vec<u8>,
    body: Vec<u8>,
    traces: Option<Rc<ThreadTraces>>,
    last: LastRequest,
    /// Of what is written before the load and read after it, only findings and failures are kept.
    is_load: bool,
    /// Where in the request the value of `Host` stands, and how many bytes it has.
    host: (usize, usize),
    /// Where in the request the value of `traceparent` stands.
    traceparent_at: usize,
}

/// Why a try gave no answer.
#[derive(Clone, Copy, Debug)]
struct TryFailure {
    kind: ErrorKind,
    /// The epoch of the connection that failed.
    epoch: u32,
    /// What became of a try that took too long.
    late: Late,
}

/// What becomes of a try that takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// The caller's time is up.
    Failed,
    /// Its node answers others: another one is asked instead, within the budget.
    Replaced,
    /// Its node answers nobody: another one is asked instead, whatever the budget.
    Silent,
}

impl TryFailure {
    const fn new(kind: ErrorKind, epoch: u32) -> Self {
        Self { kind, epoch, late: Late::Failed }
    }
}

/// What a try came to.
type Tried = Result<Head, TryFailure>;

impl Clone for HttpTarget {
    fn clone(&self) -> Self {
        // A clone of the dice would throw the same numbers; its place in the thread makes it differ.
        let (dice, traces) = (self.dice.clone(), self.traces.clone());
        let mut clone = Self::new(Rc::clone(&self.pool), self.options, Arc::clone(&self.authorization), dice, traces);
        let thread = rand::RngCore::next_u64(&mut clone.dice);
        clone.dice = SmallRng::seed_from_u64(thread.wrapping_add(clone.deadline.place()));
        clone
    }
}

impl HttpTarget {
    fn new(
        pool: Rc<Pool>,
        options: HttpOptions,
        authorization: Arc<str>,
        dice: SmallRng,
        traces: Option<Rc<ThreadTraces>>,
    ) -> Self {
        let deadline = Deadline::new(&pool.deadlines);
        let request = Vec::with_capacity(384);
        let (body, last) = (Vec::new(), LastRequest::default());
        let host = (0, pool.targets.iter().map(|target| target.target.authority.len()).max().unwrap_or_default());
        let (is_load, traceparent_at) = (false, 0);
        Self {
            pool,
            options,
            authorization,
            deadline,
            dice,
            request,
            body,
            traces,
            last,
            is_load,
            host,
            traceparent_at,
        }
    }

    /// Sends the prepared request, and once more elsewhere if that is the rule.
    async fn send(&mut self, op: Op, read: impl Fn(&Head) -> Outcome, value: &mut Vec<u8>) -> Answer {
        let strict = self.options.entry == Entry::Strict;
        let count = self.pool.targets.len();
        let anywhere = NodeIndex(rand::Rng::random_range(&mut self.dice, 0..count));
        let first = if strict { anywhere } else { self.pool.pick(&mut self.dice, None).unwrap_or(anywhere) };
        let may_move = !strict && self.pool.has_other(first);
        let timeout = self.options.request_timeout;
        let kind = RequestKind::new(op, self.request.len());
        let patience = self.pool.patience.begin(kind);
        let tried = self.try_at(first, kind, if may_move { patience } else { timeout }, value).await;
        self.last.first = Some(Try { node: first, result: result_of(&tried), started: None });
        if !strict {
            self.note(first, &tried);
        }
        if strict || !is_worth_another_try(&tried, value) {
            return answer(first, &tried, read, value);
        }
        let second = self.pool.pick(&mut self.dice, Some(first));
        let Some(second) = second.or_else(|| self.pool.pick_blindly(&mut self.dice, first)) else {
            return answer(first, &tried, read, value);
        };
        let started = Some(Instant::now());
        self.write_traceparent(1);
        // A node that closed or fell silent may have executed the request, or may do it yet.
        let doubtful = matches!(&tried, Err(first) if first.kind != ErrorKind::Refused);
        let before = match &tried {
            // The only status that is worth another try.
            Ok(_) => FailedTry { node: first, error: ErrorKind::Unavailable, is_reply: true },
            Err(failure) => FailedTry { node: first, error: failure.kind, is_reply: false },
        };
        let tried = self.try_at(second, kind, timeout, value).await;
        self.last.second = Some(Try { node: second, result: result_of(&tried), started });
        self.note(second, &tried);
        Answer { is_retried: true, doubtful, before: Some(before), ..answer(second, &tried, read, value) }
    }

    async fn send_write(&mut self, op: Op) -> Answer {
        // The request holds a copy of a written value, so the body's buffer is free for the response.
        let mut body = std::mem::take(&mut self.body);
        let answer = self.send(op, read_set, &mut body).await;
        self.body = body;
        answer
    }

    /// Tries one node. After `patience` it is given up if another node is to do it instead, else only when the time is up.
    async fn try_at(&mut self, node: NodeIndex, kind: RequestKind, patience: Duration, body: &mut Vec<u8>) -> Tried {
        self.write_host(node);
        let (pool, request, timeout) = (&self.pool, &self.request, self.options.request_timeout);
        let LastRequest { timing, is_kept_there, received, .. } = &mut self.last;
        timing.clear();
        *received = KernelTime::default();
        let exchange = async {
            let mut connection = pool.take(node).await.map_err(|(epoch, kind)| TryFailure::new(kind, epoch))?;
            let epoch = connection.epoch;
            let read = |buffer: &[u8], ended| match parse_head(buffer)? {
                Some(head) if head.copy_body(buffer, ended, body)? => Ok(Some(head)),
                _ => Ok(None),
            };
            let head = connection.exchange(request, read).await.map_err(|kind| TryFailure::new(kind, epoch))?;
            timing.extend_from_slice(connection.text(head.timing));
            *received = connection.received();
            *is_kept_there = head.is_kept;
            pool.note_answer(node);
            if !head.close {
                pool.give(node, connection);
            }
            Ok(head)
        };
        let (epoch, open) = (pool.targets[node.0].epoch(), pool.begin_try(node));
        let (mut exchange, mut late) = (pin!(exchange), Late::Failed);
        let mut given = patience.min(timeout);
        let mut tried = self.deadline.within(given, exchange.as_mut()).await;
        while tried.is_none() && given < timeout {
            if open.meets_silence(patience) {
                late = Late::Silent;
                break;
            }
            if pool.patience.spend() {
                late = Late::Replaced;
                break;
            }
            let more = LOOK_AGAIN.min(timeout - given);
            tried = self.deadline.within(more, exchange.as_mut()).await;
            given += more;
        }
        // What a silent node would have taken says nothing about the others.
        if late != Late::Silent {
            let took = TICK.saturating_mul(u32::try_from(open.age()).unwrap_or(u32::MAX));
            pool.patience.record(kind, took, pool.deadlines.now());
        }
        tried.unwrap_or(Err(TryFailure { kind: ErrorKind::TimedOut, epoch, late }))
    }

    /// A target that gave no answer is skipped until a probe says it is ready. One that was slow is skipped only if it gave no
    /// answer to anybody, and another is there to go to.
    fn note(&self, node: NodeIndex, tried: &Tried) {
        match tried {
            Err(TryFailure { kind: ErrorKind::TimedOut, late: Late::Failed | Late::Replaced, .. }) => {}
            Err(TryFailure { kind: ErrorKind::Protocol, .. }) | Ok(_) => {}
            Err(failure) => self.pool.targets[node.0].mark_down(failure.epoch),
        }
    }

    fn prepare_get(&mut self, key: &[u8], fresh: Freshness) {
        self.prepare_path(b"GET /get?k=", key);
        self.request.extend_from_slice(match fresh {
            Freshness::One => b"",
            Freshness::Session(_) => b"&consistency=session",
            Freshness::Quorum => b"&consistency=quorum",
        });
        self.end_path();
        if let Freshness::Session(met) = fresh
            && met > WriteVersion::ZERO
        {
            // Writing to a vector cannot fail.
            let _ = write!(self.request, "X-Mesh-Min-Version: {met}\r\n");
        }
        self.end_head();
    }

    fn prepare_delete(&mut self, key: &[u8]) {
        self.prepare_path(b"DELETE /del?k=", key);
        self.end_path();
        self.end_head();
    }

    fn prepare_path(&mut self, until_key: &[u8], key: &[u8]) {
        // The keys of the load need no percent-encoding: letters, digits and a dash.
        debug_assert!(key.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-'));
        self.request.clear();
        self.request.extend_from_slice(until_key);
        self.request.extend_from_slice(key);
    }

    fn end_path(&mut self) {
        self.request.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        self.host.0 = self.request.len();
        self.request.resize(self.host.0 + self.host.1, b' ');
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(self.authorization.as_bytes());
    }

    /// `Host` is the authority of the node that is tried. Spaces after a shorter one are no part of it (RFC 9110, 5.5).
    fn write_host(&mut self, node: NodeIndex) {
        let authority = self.pool.targets[node.0].target.authority.as_bytes();
        let value = &mut self.request[self.host.0..self.host.0 + self.host.1];
        let (name, padding) = value.split_at_mut(authority.len());
        name.copy_from_slice(authority);
        padding.fill(b' ');
    }

    /// A new operation begins: its trace is the last of its headers.
    fn end_head(&mut self) {
        self.last.begin(self.traces.as_ref().map(|traces| traces.begin(self.is_load)));
        if self.last.trace.is_some() {
            self.request.extend_from_slice(TRACEPARENT);
            self.traceparent_at = self.request.len();
            self.request.extend_from_slice(&[0; ClientTrace::TRACEPARENT_BYTES]);
            self.request.extend_from_slice(b"\r\n");
            self.write_traceparent(0);
        }
        self.request.extend_from_slice(b"\r\n");
    }

    /// Every try has a span of its own.
    fn write_traceparent(&mut self, number: u64) {
        if let Some(trace) = self.last.trace {
            let place = self.traceparent_at..self.traceparent_at + ClientTrace::TRACEPARENT_BYTES;
            self.request[place].copy_from_slice(&trace.traceparent(number));
        }
    }

    fn prepare_set(&mut self, key: &[u8], value: &[u8], ttl_ms: i64) {
        // Neither keys nor values of the load hold a character that JSON would escape.
        debug_assert!(key.iter().chain(value).all(|byte| byte.is_ascii_alphanumeric() || b":-".contains(byte)));
        self.body.clear();
        // Writing to a vector cannot fail.
        let _ = write!(self.body, "\",\"ttl_ms\":{}}}", ttl_ms);
        let pieces: [&[u8]; 4] = [b"{\"k\":\"", key, b"\",\"v\":\"", value];
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>() + self.body.len();
        self.request.clear();
        self.request.extend_from_slice(b"POST /set");
        self.end_path();
        let _ = write!(self.request, "Content-Type: application/json\r\nContent-Length: {length}\r\n");
        self.end_head();
        pieces.iter().for_each(|piece| self.request.extend_from_slice(piece));
        self.request.extend_from_slice(&self.body);
    }
}

impl Target for HttpTarget {
    async fn get(&mut self, key: &[u8], fresh: Freshness, value: &mut Vec<u8>) -> Answer {
        self.prepare_get(key, fresh);
        self.send(Op::Get, read_get, value).await
    }

    async fn get_at(&mut self, node: NodeIndex, key: &[u8], fresh: Freshness, value: &mut Vec<u8>) -> Answer {
        self.prepare_get(key, fresh);
        let tried = self.try_at(node, RequestKind::new(Op::Get, 0), self.options.request_timeout, value).await;
        self.last.first = Some(Try { node, result: result_of(&tried), started: None });
        answer(node, &tried, read_get, value)
    }

    async fn set(&mut self, key: &[u8], value: &[u8], ttl_ms: i64) -> Answer {
        self.prepare_set(key, value, ttl_ms);
        self.send_write(Op::Set).await
    }

    async fn delete(&mut self, key: &[u8]) -> Answer {
        self.prepare_delete(key);
        self.send_write(Op::Delete).await
    }

    fn begin_load(&mut self) {
        self.is_load = true;
    }

    fn judged(&mut self, ended: &Ended) -> Option<Kept> {
        self.traces.as_ref().and_then(|traces| traces.judged(&self.last, ended, self.is_load))
    }

    fn trace(&self) -> Option<u128> {
        self.last.trace.map(|trace| trace.trace)
    }

    fn parts(&self) -> Parts {
        let retried = self.last.second.and_then(|tried| tried.started);
        Parts { retried, received: self.last.received.at(Instant::now()), ..timing::parts(&self.last.timing) }
    }

    fn way(&self) -> Way {
        let elsewhere = self.last.first.filter(|_| self.last.second.is_some());
        let elsewhere = elsewhere.map(|tried| (tried.node, tried.result.words()));
        let mut way = Way { elsewhere, legs: timing::legs(&self.last.timing), ..Way::default() };
        if let Some(traces) = &self.traces {
            traces.fill(&self.last, &mut way);
        }
        way
    }
}

const fn result_of(tried: &Tried) -> TryResult {
    match tried {
        Ok(head) => TryResult::Status(head.status),
        Err(failure) => TryResult::Failed(failure.kind),
    }
}

/// A node that refused, vanished, hung or cannot serve may be replaced by another; a node that answered may not. A 504 to a
/// write is an answer: nobody knows whether it happened, and another try would not make that known. Nor is a node that has too
/// much to do: the others have as much, and would get this on top.
fn is_worth_another_try(tried: &Tried, body: &[u8]) -> bool {
    match tried {
        Ok(head) => head.status == 503 && !says_overloaded(body),
        Err(failure) if failure.kind == ErrorKind::TimedOut => failure.late != Late::Failed,
        Err(failure) => matches!(failure.kind, ErrorKind::Refused | ErrorKind::Closed),
    }
}

fn answer(node: NodeIndex, tried: &Tried, read: impl Fn(&Head) -> Outcome, body: &[u8]) -> Answer {
    let (outcome, version, served_by) = match tried {
        Ok(head) if head.status == 503 && says_overloaded(body) => (Outcome::Error(ErrorKind::Overloaded), None, None),
        Ok(head) => (read(head), head.version, head.node),
        Err(failure) => (Outcome::Error(failure.kind), None, None),
    };
    let spoke = matches!(outcome, Outcome::Error(_)) && tried.is_ok();
    let detail = spoke.then(|| complaint(body));
    let (is_reply, before) = (tried.is_ok(), None);
    Answer { outcome, node, is_reply, before, is_retried: false, doubtful: false, version, served_by, detail }
}

/// Whether the body of a 503 is the problem document (RFC 9457) of a node with too much to do.
fn says_overloaded(body: &[u8]) -> bool {
    const TYPE: &[u8] = b"urn:problem-type:mesh:overloaded";
    body.windows(TYPE.len()).take(200).any(|window| window == TYPE)
}

/// What a node says about an error: the detail of a problem document (RFC 9457), or the beginning of anything else.
fn complaint(body: &[u8]) -> Box<str> {
    const BEFORE: &str = "\"detail\":\"";
    let text = String::from_utf8_lossy(&body[..body.len().min(1000)]);
    let detail = text.find(BEFORE).map(|at| &text[at + BEFORE.len()..]);
    let detail = detail.and_then(|rest| rest.split_once('"')).map_or(&*text, |(detail, _)| detail);
    detail.chars().take(200).collect::<String>().into()
}

const fn read_get(head: &Head) -> Outcome {
    match (head.status, head.cache) {
        (200, CacheHeader::HitLocal) => Outcome::HitLocal,
        (200, CacheHeader::HitRemote) => Outcome::HitRemote,
        (404, _) => Outcome::Miss,
        (200, _) => Outcome::Error(ErrorKind::Protocol),
        (503, _) => Outcome::Error(ErrorKind::Unavailable),
        (504, _) => Outcome::Error(ErrorKind::TimedOut),
        (status, _) => Outcome::Error(ErrorKind::Status(status)),
    }
}

const fn read_set(head: &Head) -> Outcome {
    match head.status {
        200 => Outcome::Acknowledged,
        503 => Outcome::Error(ErrorKind::Unavailable),
        504 => Outcome::Error(ErrorKind::Indeterminate),
        status => Outcome::Error(ErrorKind::Status(status)),
    }
}
