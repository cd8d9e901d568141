//! `GET /metrics` of the runner. A thread of its own answers one scrape after the other from the load threads' own
//! counters; the load does not notice.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use load::{Counter, ErrorKind, Moment, Op, OutcomeClass, Phase, Run, Snapshot, SpanFates, Violation};
use observability::{Exposition, FaultEvent, OpSeries, RunnerSample};

use crate::{
    control::Watched,
    traces::{TraceCounts, op_label, outcome_label, phase_label},
};

/// A scraper that is slower than this is hung up on.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request's head must fit.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves until the process ends.
///
/// # Errors
/// One line, if the port cannot be used.
pub(crate) fn serve(port: u16, watched: Watched, traces: Option<TraceCounts>) -> Result<(), String> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let listener = listener.map_err(|error| format!("METRICS_PORT={port}: cannot listen on it: {error}"))?;
    let serve = move || {
        for stream in listener.incoming().flatten() {
            // Whoever hangs up early is not our concern.
            let fates = traces.as_ref().map(TraceCounts::get).unwrap_or_default();
            let _ = answer(stream, watched.get().map(|run| sample(run, fates)).unwrap_or_default());
        }
    };
    let started = thread::Builder::new().name("metrics".to_owned()).spawn(serve);
    started.map(|_| ()).map_err(|error| format!("cannot start a thread: {error}"))
}

fn answer(mut stream: TcpStream, sample: RunnerSample) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let exposition = Exposition::negotiate([accept(&head).as_str()]);
    let (status, kind, body) = if head.starts_with("GET /metrics ") || head.starts_with("GET /metrics?") {
        ("200 OK", exposition.content_type(), sample.render(exposition))
    } else {
        ("404 Not Found", "text/plain; charset=utf-8", "metrics are at /metrics\n".to_owned())
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// The value of `Accept`.
fn accept(head: &str) -> String {
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let accept = headers.filter(|(name, _)| name.eq_ignore_ascii_case("accept")).map(|(_, value)| value.trim());
    accept.collect::<Vec<_>>().join(",")
}

fn sample(run: &Run, fates: SpanFates) -> RunnerSample {
    let now = Snapshot::of(&run.live);
    let get = |counter| now.get(counter);
    let series = |op, outcome| OpSeries {
        op: op_label(op),
        outcome: outcome_label(outcome),
        buckets: now.buckets(op, outcome).collect(),
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
    use super::*;

    #[test]
    fn accept_is_found_whatever_its_case() {
        let head = "GET /metrics HTTP/1.1\r\nHost: a:1\r\naCCept: application/openmetrics-text;q=0.5\r\n\r\n";
        assert_eq!(accept(head), "application/openmetrics-text;q=0.5");
        assert_eq!(accept("GET / HTTP/1.1\r\n\r\n"), "");
    }

    #[test]
    fn a_scrape_before_the_run_is_an_answer_too() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        answer(listener.accept().unwrap().0, RunnerSample::default()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{text}");
        assert!(text.contains("runner_fail_overs_total{run_id=\"\"} 0\n"), "{text}");
    }
}
