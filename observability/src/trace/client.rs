//! The traces of a load generator: one per request, begun here and continued by the node. Its fate is decided
//! by the caller at its end; until then it is 25 bytes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;

use super::{
    InitError, SampleRatio, SpanCounts, SpanPipeline, TraceGuard, TraceMode, TraceSettings,
    budget::Budget,
    ids, names,
    spans::{SpanPlace, SpanWriter},
};
use crate::{catalogue::SECONDS_BUCKETS, text::Exemplar};

/// An exemplar gives way to a faster request only after so many seconds: no scrape interval should be longer.
const EXEMPLAR_STAYS_S: f64 = 5.0;

/// The service's name unless it is told another.
const SERVICE_NAME: &str = "mesh-runner";

/// A request's place in a trace, and whether it was sampled at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientTrace {
    /// The trace.
    pub trace: u128,
    /// The request's own span, the root.
    pub span: u64,
    /// It is kept whatever becomes of it, and everyone who takes part knows at once.
    pub sampled: bool,
}

impl ClientTrace {
    /// `traceparent` (W3C Trace Context, section 3.2) in so many bytes.
    pub const TRACEPARENT_BYTES: usize = 55;

    /// What travels with try number `number`: the first is the request itself, further ones have a span of their own.
    #[must_use]
    pub fn traceparent(&self, number: u64) -> [u8; Self::TRACEPARENT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace);
        write_hex(&mut text[36..52], u128::from(self.span_of(number)));
        text[54] += u8::from(self.sampled);
        text
    }

    /// Spans' lowest bits are zero, so that those of further tries follow.
    const fn span_of(&self, number: u64) -> u64 {
        self.span.wrapping_add(number)
    }
}

fn write_hex(digits: &mut [u8], mut number: u128) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// A request that ended.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// Its trace.
    pub trace: ClientTrace,
    /// As nodes label it.
    pub op: &'static str,
    /// How it ended.
    pub outcome: &'static str,
    /// Why it is kept.
    pub kept: &'static str,
    /// The part of the run that it belongs to.
    pub phase: &'static str,
    /// It did not get what it was for, or something that must not be.
    pub is_error: bool,
    /// When it should have begun.
    pub intended: Instant,
    /// When this host's kernel had its answer, if it told.
    pub received: Option<Instant>,
    /// When it ended.
    pub ended: Instant,
    /// Its tries, at least one.
    pub tries: &'a [ClientTry<'a>],
}

/// One try at one node.
#[derive(Clone, Copy, Debug)]
pub struct ClientTry<'a> {
    /// The node's host and port.
    pub server: (&'a str, u16),
    /// When it was sent.
    pub started: Instant,
    /// How it was answered; nothing if that is not known.
    pub answer: Option<ClientAnswer<'a>>,
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub enum ClientAnswer<'a> {
    /// A response with this status.
    Status(u16),
    /// None, for this reason.
    Error(&'a str),
}

/// What became of the spans that were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanTotals {
    /// Handed to the exporter.
    pub kept: u64,
    /// Taken by the collector.
    pub exported: u64,
    /// Not taken in time.
    pub failed: u64,
    /// Never sent, because too many were under way.
    pub dropped: u64,
}

/// Begins traces, and hands those that are kept to a pipeline of its own.
pub struct ClientTracer {
    keeps_all: bool,
    sample_ratio: SampleRatio,
    budget: Budget,
    spans: SpanWriter,
    pipeline: Arc<SpanPipeline>,
    counts: Arc<SpanCounts>,
    // Taken for what is kept, and by scrapes.
    exemplars: Mutex<Exemplars>,
}

/// One for each bucket of each operation and outcome.
#[derive(Default)]
struct Exemplars(HashMap<(&'static str, &'static str), [Option<Exemplar>; SECONDS_BUCKETS.len() + 1]>);

impl Exemplars {
    fn note(&mut self, request: &ClientRequest<'_>) {
        let seconds = request.ended.saturating_duration_since(request.intended).as_secs_f64();
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let bucket = SECONDS_BUCKETS.partition_point(|bound| *bound < seconds);
        let place = &mut self.0.entry((request.op, request.outcome)).or_default()[bucket];
        // The slowest has to stay until it is scraped.
        if place.is_none_or(|old| old.seconds <= seconds || old.unix_s + EXEMPLAR_STAYS_S < unix_s) {
            *place = Some(Exemplar { trace: request.trace.trace, seconds, unix_s });
        }
    }

    fn of(&self, op: &str, outcome: &str) -> Vec<Exemplar> {
        let found = self.0.iter().find(|(of, _)| **of == (op, outcome));
        found.map(|(_, buckets)| buckets.iter().flatten().copied().collect()).unwrap_or_default()
    }
}

impl ClientTracer {
    /// Starts it, if a collector is named. The guard sends what is still queued when it is dropped.
    ///
    /// # Errors
    /// [`InitError`]; a collector that cannot be reached is none.
    pub fn start(
        settings: &TraceSettings,
        instance: &str,
        version: &str,
    ) -> Result<Option<(Arc<Self>, TraceGuard)>, InitError> {
        let Some(collector) = settings.collector() else { return Ok(None) };
        let counts = Arc::<SpanCounts>::default();
        let pipeline =
            Arc::new(SpanPipeline::start(settings, &collector, (SERVICE_NAME, instance), Arc::clone(&counts))?);
        let tracer = Self {
            keeps_all: settings.mode == TraceMode::All,
            sample_ratio: settings.sample_ratio(),
            budget: settings.budget(),
            spans: SpanWriter::new(version),
            pipeline: Arc::clone(&pipeline),
            counts,
            exemplars: Mutex::default(),
        };
        Ok(Some((Arc::new(tracer), TraceGuard(Some(pipeline)))))
    }

    /// A request begins. A few nanoseconds.
    #[must_use]
    pub fn begin(&self) -> ClientTrace {
        let trace = ids::trace_id();
        let sampled = self.keeps_all || (self.sample_ratio.takes(trace as u64) && self.budget.samples());
        ClientTrace { trace, span: ids::span_id(), sampled }
    }

    /// Whether a request that took so long is kept.
    #[must_use]
    pub fn keeps_slow(&self, took: Duration) -> bool {
        let is_slow = self.budget.is_slow(took);
        if is_slow {
            self.budget.count_slow();
        }
        is_slow
    }

    /// Whether a request that has failed is kept: there may be very many.
    #[must_use]
    pub fn keeps_failed(&self, trace: &ClientTrace) -> bool {
        let is_kept = self.budget.failed.takes(trace.trace);
        if is_kept {
            self.budget.failed.count();
        }
        is_kept
    }

    /// A request is kept. Never waits.
    pub fn keep(&self, request: &ClientRequest<'_>) {
        if self.pipeline.submit(self.root(request)) {
            self.exemplars.lock().unwrap_or_else(PoisonError::into_inner).note(request);
        }
        for (number, tried) in (1..).zip(request.tries.iter().skip(1)) {
            self.pipeline.submit(self.retry(request, number, tried));
        }
        if let Some(received) = request.received.filter(|received| *received < request.ended) {
            self.pipeline.submit(self.queue(request, received));
        }
    }

    /// To be called every second or so.
    pub fn run_upkeep(&self) {
        self.spans.clock.follow();
        self.budget.follow(self.pipeline.keeps_up());
    }

    /// What has become of spans so far.
    #[must_use]
    pub fn totals(&self) -> SpanTotals {
        // Relaxed: each figure stands alone.
        let SpanCounts { kept, exported, failed, dropped } = &*self.counts;
        let [kept, exported, failed, dropped] =
            [kept, exported, failed, dropped].map(|count| count.load(Ordering::Relaxed));
        SpanTotals { kept, exported, failed, dropped }
    }

    /// Of the traces of these response times, in the order of their buckets.
    #[must_use]
    pub fn exemplars(&self, op: &str, outcome: &str) -> Vec<Exemplar> {
        // A panic cannot leave one half made.
        self.exemplars.lock().unwrap_or_else(PoisonError::into_inner).of(op, outcome)
    }

    /// `GET /get` and its like, from when it should have begun: the root, and the first try.
    fn root(&self, request: &ClientRequest<'_>) -> SpanData {
        let place = SpanPlace { trace: request.trace.trace, span: request.trace.span, parent: 0, is_remote: false };
        let mut attributes = vec![
            KeyValue::new("outcome", request.outcome),
            KeyValue::new("kept", request.kept),
            KeyValue::new("phase", request.phase),
        ];
        if let Some(first) = request.tries.first() {
            attributes.extend(http(request, first));
            let queue = first.started.saturating_duration_since(request.intended);
            attributes.push(KeyValue::new("queue_us", queue.as_micros() as i64));
        }
        self.client(place, request, request.intended, attributes)
    }

    /// The parent of what the second node did.
    fn retry(&self, request: &ClientRequest<'_>, number: u64, tried: &ClientTry<'_>) -> SpanData {
        let ClientTrace { trace, span, .. } = request.trace;
        let place = SpanPlace { trace, span: request.trace.span_of(number), parent: span, is_remote: false };
        let mut attributes = vec![KeyValue::new("http.request.resend_count", number as i64)];
        attributes.extend(http(request, tried));
        self.client(place, request, tried.started, attributes)
    }

    fn client(
        &self,
        place: SpanPlace,
        request: &ClientRequest<'_>,
        started: Instant,
        attributes: Vec<KeyValue>,
    ) -> SpanData {
        let (method, path) = method_and_path(request.op);
        let times = (self.spans.clock.date(started), self.spans.clock.date(request.ended));
        let kind = (format!("{method} {path}"), SpanKind::Client);
        self.spans.span(place, kind, times, attributes, status(request.is_error))
    }

    /// `client.queue`, below the try that was answered.
    fn queue(&self, request: &ClientRequest<'_>, received: Instant) -> SpanData {
        let parent = request.trace.span_of(request.tries.len().saturating_sub(1) as u64);
        let times = (self.spans.clock.date(received), self.spans.clock.date(request.ended));
        self.spans.queue(names::CLIENT_QUEUE, (request.trace.trace, parent), times)
    }
}

fn method_and_path(op: &str) -> (&'static str, &'static str) {
    match op {
        "get" => ("GET", "/get"),
        "set" => ("POST", "/set"),
        _ => ("DELETE", "/del"),
    }
}

/// As OpenTelemetry's conventions for HTTP clients have it.
fn http(request: &ClientRequest<'_>, tried: &ClientTry<'_>) -> impl Iterator<Item = KeyValue> {
    let ((method, path), (address, port)) = (method_and_path(request.op), tried.server);
    let (status, error) = match tried.answer {
        Some(ClientAnswer::Status(status)) => (Some(status), request.is_error.then(|| status.to_string())),
        Some(ClientAnswer::Error(error)) => (None, Some(error.to_owned())),
        None => (None, None),
    };
    let always = [
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.template", path),
        KeyValue::new("server.address", address.to_owned()),
        KeyValue::new("server.port", i64::from(port)),
    ];
    let status = status.map(|status| KeyValue::new("http.response.status_code", i64::from(status)));
    always.into_iter().chain(status).chain(error.map(|error| KeyValue::new("error.type", error)))
}

fn status(is_error: bool) -> Status {
    if is_error { Status::error("the client did not get what it asked for") } else { Status::Unset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_what_the_standard_says() {
        let trace = ClientTrace {
            trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span: 0xb7ad_6b71_6920_3330,
            sampled: true,
        };
        let text = |number| String::from_utf8_lossy(&trace.traceparent(number)).into_owned();
        assert_eq!(text(0), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203330-01");
        assert_eq!(text(1), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let unsampled = ClientTrace { sampled: false, ..trace };
        assert!(unsampled.traceparent(0).ends_with(b"-00"));
    }

    #[test]
    fn the_slowest_of_a_bucket_is_its_exemplar() {
        let (mut exemplars, now) = (Exemplars::default(), Instant::now());
        for (trace, us) in [(1, 800), (2, 950), (3, 900), (4, 7_000_000), (5, 30)] {
            exemplars.note(&ClientRequest {
                trace: ClientTrace { trace, ..ClientTrace::default() },
                op: "get",
                outcome: "miss",
                kept: "slow",
                phase: "steady",
                is_error: false,
                intended: now,
                received: None,
                ended: now + Duration::from_micros(us),
                tries: &[],
            });
        }
        let traces = |op| exemplars.of(op, "miss").iter().map(|exemplar| exemplar.trace).collect::<Vec<_>>();
        assert_eq!((traces("get"), traces("set")), (vec![5, 2, 4], vec![]));
    }

    #[test]
    fn nothing_is_started_without_a_collector() {
        let started = ClientTracer::start(&TraceSettings::default(), "i", "0");
        assert!(started.is_ok_and(|tracer| tracer.is_none()));
    }
}
