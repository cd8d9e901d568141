//! What the runner says it has seen, as a collector has received it: under load with a kill, every request of its own record
//! is a whole trace, from its own span down to what peers did.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{Collector, Machine, Span},
    runner_cli::Runner,
};

/// A killed node has not sent what it kept last, and what it was in the middle of nobody has finished.
const AROUND_KILL_NS: f64 = 3e9;

fn traces(collector: &Collector) -> BTreeMap<String, Vec<Span>> {
    let mut traces = BTreeMap::<String, Vec<Span>>::new();
    for span in collector.spans() {
        traces.entry(span.trace.clone()).or_default().push(span);
    }
    traces
}

fn count(spans: &[Span], name: &str) -> usize {
    spans.iter().filter(|span| span.name == name).count()
}

/// Method and path, as OpenTelemetry's conventions have it.
fn is_of_runner(span: &Span) -> bool {
    matches!(span.name.as_str(), "GET /get" | "POST /set") && span.service == "mesh-runner"
}

fn has_runner_span(spans: &[Span]) -> bool {
    spans.iter().any(|span| is_of_runner(span) && span.parent.is_empty())
}

fn has_node_span(spans: &[Span]) -> bool {
    spans.iter().any(|span| matches!(span.name.as_str(), "GET /get" | "POST /set") && span.service == "mesh-node")
}

fn orphans(spans: &[Span]) -> Vec<&Span> {
    let ids: HashSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    spans.iter().filter(|span| !span.parent.is_empty() && !ids.contains(span.parent.as_str())).collect()
}

/// The requests that the runner lists under these reasons, with when they ended.
fn listed(results: &Value, reasons: &[&str]) -> Vec<(String, f64)> {
    let lists = reasons.iter().flat_map(|reason| results["traces"]["kept"][reason]["traces"].as_array().unwrap());
    lists.map(|kept| (kept["trace"].as_str().unwrap().to_owned(), kept["at_s"].as_f64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_the_runner_kept_is_a_whole_trace() {
    let _machine = Machine::alone().await;
    let collector = Collector::start().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("TRACE_SAMPLE_RATIO", "0.1"),
        ("TRACE_SLOW_MS", "20"),
        // A third of all reads is remote, and writes fail while a node is away.
        ("REPLICATION_FACTOR", "2"),
        ("WRITE_CONCERN", "2"),
        ("ERRORS_MAX_PERCENT", "100"),
        ("DURATION", "14s"),
        ("RATE", "250"),
        ("KEYS", "300"),
        ("SET_RATIO", "30"),
        ("KILL_MODE", "target"),
        ("KILL_TARGET", "2"),
        ("KILL_AFTER", "4s"),
        ("RESTART_AFTER", "2s"),
        ("JAEGER_URL", "http://jaeger:16686/"),
    ];
    let mut runner = Runner::start_binary("runner", "traces", &["--local", "3"], &settings);
    let status = runner.exit_within(Duration::from_secs(90)).await;
    let (output, results) = (runner.output(), runner.results());
    assert_ne!(status.code(), Some(2), "{output}");
    let traces = traces(&collector);
    let kill_ns = results["faults"][0]["begun_at_unix_ms"].as_f64().expect("a kill") * 1e6;
    let is_around =
        |span: &Span| span.times.0 as f64 - AROUND_KILL_NS < kill_ns && kill_ns < span.times.1 as f64 + AROUND_KILL_NS;
    let is_around_kill = |spans: &[Span]| spans.iter().any(is_around);

    let bad = listed(&results, &["violation", "failed", "failed_over"]);
    assert!(!bad.is_empty(), "a kill leaves its mark:\n{output}");
    let slow = listed(&results, &["slow", "at_node", "slowest"]);
    for (trace, at_s) in bad.iter().chain(&slow) {
        let spans = traces.get(trace).unwrap_or_else(|| panic!("trace {trace} at {at_s} s is nowhere:\n{output}"));
        assert!(has_runner_span(spans), "{spans:#?}");
    }
    // Who was answered has a node's span, too.
    for (trace, at_s) in listed(&results, &["failed_over", "slow", "at_node", "slowest"]) {
        let spans = &traces[&trace];
        assert!(is_around_kill(spans) || has_node_span(spans), "at {at_s} s: {spans:#?}");
    }
    for request in results["slowest"].as_array().unwrap() {
        let trace = request["trace"].as_str().expect("the load is traced");
        assert!(traces.get(trace).is_some_and(|spans| has_runner_span(spans)), "{request}");
        assert_eq!(request["url"], format!("http://jaeger:16686/trace/{trace}"));
        let waits = ["lag_ms", "elsewhere_ms", "client_queue_ms", "network_ms", "server_queue_ms", "residual_ms"];
        let sum: f64 =
            waits.iter().chain(&["handler_ms", "mesh_ms"]).map(|part| request[part].as_f64().unwrap_or(0.0)).sum();
        assert!((sum - request["response_ms"].as_f64().unwrap()).abs() < 0.01, "{request}");
    }

    // Nothing of the load hangs in the air but what the killed node took with it. What is read behind it nodes trace by
    // themselves, and they are killed with the last of it unsent.
    let load_ended_ns = (results["load_s"].as_f64().unwrap() - results["faults"][0]["begun_at_s"].as_f64().unwrap())
        .mul_add(1e9, kill_ns);
    let is_of_load = |spans: &[Span]| spans.iter().all(|span| (span.times.0 as f64) < load_ended_ns);
    for spans in traces.values().filter(|spans| is_of_load(spans)) {
        assert!(is_around_kill(spans) || orphans(spans).is_empty(), "{spans:#?}");
    }
    assert_shapes(&traces);

    assert_fates(&results, &traces);
    assert!(output.contains("http://jaeger:16686/trace/") && output.contains("── Traces "), "{output}");
    let section = output.lines().skip_while(|line| !line.contains("── Slowest"));
    let section = section.take_while(|line| !line.starts_with("Verdict"));
    let widest = section.map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|widest| widest <= 80), "{widest:?}:\n{output}");
}

/// The runner's own count of its spans is what has arrived.
fn assert_fates(results: &Value, traces: &BTreeMap<String, Vec<Span>>) {
    let fates = &results["traces"]["spans"];
    let fate = |name: &str| fates[name].as_u64().unwrap();
    let arrived = traces.values().flatten().filter(|span| span.service == "mesh-runner").count() as u64;
    assert_eq!(fate("exported"), arrived, "{fates}");
    assert_eq!(fate("kept"), fate("exported") + fate("failed") + fate("dropped"), "{fates}");
    assert_eq!((fate("failed"), fate("dropped")), (0, 0), "{fates}");
    let is_sampled = |span: &&Span| {
        is_of_runner(span)
            && span.parent.is_empty()
            && span.attributes.get("kept").is_some_and(|kept| kept == "sampled")
    };
    let sampled = traces.values().flatten().filter(is_sampled).count();
    assert_eq!(results["traces"]["kept"]["sampled"]["count"], sampled, "{fates}");
}

/// A remote read spans two services and two nodes; a write has one leg per owner.
fn assert_shapes(traces: &BTreeMap<String, Vec<Span>>) {
    let is_remote_read = |spans: &&Vec<Span>| {
        let nodes: HashSet<&str> = spans.iter().map(|span| span.instance.as_str()).collect();
        let services: HashSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
        let names = ["GET /get", "mesh.get", "mesh.leg", "mesh.serve"];
        let all = names.iter().all(|name| count(spans, name) > 0);
        all && has_runner_span(spans) && has_node_span(spans) && services.len() == 2 && nodes.len() == 3
    };
    assert!(traces.values().filter(is_remote_read).count() > 10, "no remote read among {} traces", traces.len());
    let acknowledged = |spans: &&Vec<Span>| {
        let is = |span: &Span| {
            is_of_runner(span) && span.attributes.get("outcome").is_some_and(|outcome| outcome == "acknowledged")
        };
        let tries = spans.iter().filter(|span| is_of_runner(span)).count();
        spans.iter().any(is) && tries == 1 && count(spans, "mesh.set") == 1
    };
    let writes: Vec<_> = traces.values().filter(acknowledged).collect();
    assert!(writes.len() > 10, "{} writes among {} traces", writes.len(), traces.len());
    for spans in &writes {
        let ours: Vec<_> = spans.iter().filter(|span| span.service == "mesh-runner").collect();
        let root = ours.iter().find(|span| span.parent.is_empty()).expect("the root is the runner's");
        let attribute = |name: &str| root.attributes.get(name).map(String::as_str);
        let expected = [Some("POST"), Some("/set"), Some("200"), Some("127.0.0.1"), None];
        let names =
            ["http.request.method", "url.template", "http.response.status_code", "server.address", "error.type"];
        assert_eq!(names.map(attribute), expected, "{root:#?}");
        for queue in ours.iter().filter(|span| span.name == "client.queue") {
            let is_within = root.times.0 <= queue.times.0 && queue.times.1 <= root.times.1;
            assert!(queue.parent == root.id && is_within, "{queue:#?} in {root:#?}");
        }
    }
    let queued = writes.iter().filter(|spans| count(spans, "client.queue") == 1).count();
    assert!(queued * 2 > writes.len() || !cfg!(target_os = "linux"), "{queued} of {} waited to be read", writes.len());
    // One that waited at its node behind another of its key, as some do while a node is killed, goes out with the next: it has no legs.
    let (sent, joined): (Vec<_>, Vec<_>) =
        writes.iter().copied().partition(|spans: &&Vec<Span>| count(spans, "mesh.leg") > 0);
    assert!(joined.len() * 10 < sent.len(), "{} of {} writes have no legs", joined.len(), writes.len());
    for spans in sent {
        let legs = spans.iter().filter(|span| span.name == "mesh.leg");
        let peers: HashSet<&String> = legs.map(|leg| &leg.attributes["peer"]).collect();
        assert_eq!(peers.len(), 2, "one leg per owner: {spans:#?}");
    }
}
