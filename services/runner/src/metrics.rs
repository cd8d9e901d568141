//! `GET /metrics` of the runner. A thread of its own answers scrapes from the load threads' own counters; the load does not
//! notice.

use std::{convert::Infallible, net::Ipv4Addr, sync::Arc, thread, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use load::{Counter, ErrorKind, Moment, Op, OutcomeClass, Phase, Run, Snapshot, Violation};
use observability::{Exposition, FaultEvent, OpSeries, RunnerSample};
use tokio::{net::TcpListener, runtime, sync::Semaphore};

use crate::{
    control::WatchedRun,
    traces::{TraceCounts, op_label, outcome_label, phase_label},
};

/// A connection lasts at most so long: a request and its answer.
const CONNECTION_MAX: Duration = Duration::from_secs(5);

/// Connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 64;

/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a scrape shows.
#[derive(Clone)]
struct Scraped {
    watched: WatchedRun,
    traces: Option<TraceCounts>,
}

/// Serves until the process ends.
///
/// # Errors
/// One line, if the port cannot be used.
pub(crate) fn serve(port: u16, watched: WatchedRun, traces: Option<TraceCounts>) -> Result<(), String> {
    let failed = |error| format!("METRICS_PORT={port}: cannot listen on it: {error}");
    let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    let serve = move || runtime.block_on(accept(listener, Scraped { watched, traces }));
    let started = thread::Builder::new().name("metrics".to_owned()).spawn(serve);
    started.map(|_| ()).map_err(|error| format!("cannot start a thread: {error}"))
}

async fn accept(listener: std::net::TcpListener, shown: Scraped) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let shown = shown.clone();
        let answer = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(shown.answer(&request))));
        let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            // A client that is too slow or hangs up early is not our concern.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
            drop(place);
        });
    }
}

impl Scraped {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let (status, kind, body) = if request.uri().path() != "/metrics" {
            (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "metrics are at /metrics\n".to_owned())
        } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
            (StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "metrics are read by GET\n".to_owned())
        } else {
            let accept = request.headers().get_all(header::ACCEPT);
            let exposition = Exposition::negotiate(accept.iter().filter_map(|value| value.to_str().ok()));
            let sample = self.watched.get().map(|run| sample(run, self.traces.as_ref())).unwrap_or_default();
            (StatusCode::OK, exposition.content_type(), sample.render(exposition))
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

fn sample(run: &Run, traces: Option<&TraceCounts>) -> RunnerSample {
    let fates = traces.map(TraceCounts::get).unwrap_or_default();
    let now = Snapshot::of(&run.live);
    let get = |counter| now.get(counter);
    let series = |op, outcome| OpSeries {
        op: op_label(op),
        outcome: outcome_label(outcome),
        buckets: now.buckets(op, outcome).collect(),
        exemplars: traces.map(|traces| traces.exemplars(op, outcome)).unwrap_or_default(),
    };
    let possible = |op, outcome| match outcome {
        OutcomeClass::Local | OutcomeClass::Remote | OutcomeClass::Miss => op == Op::Get,
        OutcomeClass::Acknowledged => op != Op::Get,
        OutcomeClass::Error => true,
    };
    let outcomes = |op| OutcomeClass::ALL.into_iter().filter(move |outcome| possible(op, *outcome));
    let fault = |Moment { action, kind, target, unix_ms }| FaultEvent { action, kind, target, unix_ms };
    RunnerSample {
        run_id: run.id(),
        version: env!("CARGO_PKG_VERSION"),
        ops: Op::ALL
            .into_iter()
            .flat_map(|op| outcomes(op).map(move |outcome| (op, outcome)))
            .map(|(op, outcome)| series(op, outcome))
            .collect(),
        services: Op::ALL.into_iter().map(|op| (op_label(op), now.service_buckets(op).collect())).collect(),
        errors: ErrorKind::LABELS.into_iter().zip(now.errors()).collect(),
        spans: vec![
            ("kept", fates.kept),
            ("exported", fates.exported),
            ("failed", fates.failed),
            ("dropped", fates.dropped),
        ],
        keeps: vec![("asked", fates.asked), ("lost", fates.not_asked)],
        writes_sent: run.history.sent(),
        fail_overs: get(Counter::FailOvers),
        extra_tries: get(Counter::ExtraTries),
        violations: Violation::ALL.map(|violation| (violation.name(), now.violations(violation))).into(),
        stale_reads: get(Counter::Stale),
        swept_reads: get(Counter::Swept),
        phases: Phase::ALL.into_iter().map(|phase| (phase_label(phase), phase == run.phase.get())).collect(),
        faults: run.faults.latest().into_iter().map(fault).collect(),
        lag_max: run.live.iter().map(load::Live::lag_max).max().unwrap_or_default(),
        target_in_flight: run.plan.concurrency as u64,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    #[tokio::test]
    async fn a_slow_client_keeps_nobody_waiting_and_requests_have_every_form() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(accept(listener, Scraped { watched: WatchedRun::default(), traces: None }));
        let mut slow = TcpStream::connect(addr).await.unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await.unwrap();
        let ask = async |request: &str| {
            let mut client = TcpStream::connect(addr).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            let read = client.read_to_string(&mut text);
            tokio::time::timeout(Duration::from_secs(2), read).await.unwrap().unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            (head.to_ascii_lowercase(), body.to_owned())
        };
        let (head, body) = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head.starts_with("http/1.1 200 ok\r\ncontent-type: text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("runner_fail_overs_total{run_id=\"\"} 0\n"), "before the run: {body}");
        let (head, body) = ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head.starts_with("http/1.1 200 ok") && head.contains("content-length: ") && body.is_empty(), "{head}");
        let open = "GET http://x/metrics?a=b HTTP/1.1\r\nHost: x\r\naCCept: application/openmetrics-text\r\n\r\n";
        let (head, body) = ask(open).await;
        assert!(head.contains("content-type: application/openmetrics-text") && body.ends_with("# EOF\n"), "{head}");
        let (head, _) = ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        assert!(head.starts_with("http/1.1 405 ") && head.contains("allow: get, head"), "{head}");
        assert!(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.0.starts_with("http/1.1 404 "));
        server.abort();
    }
}
