//! Traces as a collector receives them: one tree per request, across nodes; what is kept without being sampled; and that a
//! collector which is away disturbs nobody.

use std::{
    collections::{BTreeSet, HashSet},
    net::TcpListener,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{
    Cluster, Collector, Consistency, Machine, NodeProcess, NodeSpec, Span, eventually, exit_within, http_client,
};

/// Spans wait 200 ms for others; the rest is for a busy machine.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// How long the end of a node may take, whatever its collector does.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// All names but that of waits, which only those have that waited.
fn names(spans: &[Span]) -> Vec<&str> {
    let mut names: Vec<&str> =
        spans.iter().map(|span| span.name.as_str()).filter(|name| *name != "mesh.queue").collect();
    names.sort_unstable();
    names
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name} among {spans:#?}");
    found[0]
}

/// Waits until the trace has spans of these names, no more and no less.
async fn arrived(collector: &Collector, trace: &str, expected: &[&str]) -> Vec<Span> {
    let what = format!("trace {trace} to have {expected:?}");
    let whole = async || {
        let spans = collector.trace(trace);
        (names(&spans) == expected).then_some(spans)
    };
    eventually(&what, ARRIVES_WITHIN, whole).await.0
}

/// Every span but the roots has its parent among the others, or is the child of `caller`.
fn assert_no_orphans(spans: &[Span], caller: &str) {
    let ids: HashSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "ids are unique: {spans:#?}");
    for span in spans {
        assert!(span.parent == caller || ids.contains(span.parent.as_str()), "an orphan: {span:#?} among {spans:#?}");
    }
}

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-b7ad6b7169203331-{flags}")
}

const CALLER: &str = "b7ad6b7169203331";

async fn request(node: &NodeProcess, method: &str, path: &str, body: &'static str, traceparent: &str) -> u16 {
    let url = format!("http://{}{path}", node.spec().http);
    let client = http_client().timeout(Duration::from_secs(10)).build().unwrap();
    let request = client.request(method.parse().unwrap(), url).header("traceparent", traceparent);
    let request = request.header("content-type", "application/octet-stream").body(body);
    request.send().await.unwrap().status().as_u16()
}

async fn metrics(node: &NodeProcess, accept: &str) -> String {
    let url = format!("http://{}/metrics", node.spec().http);
    let client = http_client().build().unwrap();
    client.get(url).header("accept", accept).send().await.unwrap().text().await.unwrap()
}

async fn metric(node: &NodeProcess, name: &str) -> u64 {
    let text = metrics(node, "text/plain").await;
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The spans of a SET whose three owners all answer before its caller is answered, or soon after.
const TRACED_SET: [&str; 8] =
    ["POST /set", "http.queue", "mesh.leg", "mesh.leg", "mesh.leg", "mesh.serve", "mesh.serve", "mesh.set"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traced_set_arrives_as_one_tree_from_three_nodes() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const UNSAMPLED: &str = "0af7651916cd43dd8448eb211c803100";
    let collector = Collector::start().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("TRACE_SAMPLE_RATIO", "0"),
        ("TRACE_SLOW_MS", "5000"),
        ("READ_HEDGE_DELAY_MS", "1000"),
    ];
    let cluster = Cluster::start(3, &settings).await;
    let node = cluster.node(0);
    assert_eq!(request(node, "POST", "/set?k=before", "v", &traceparent(UNSAMPLED, "00")).await, 200);
    assert_eq!(request(node, "POST", "/set?k=hostile%22%7D%0A%23key", "v", &traceparent(TRACE, "01")).await, 200);

    let spans = arrived(&collector, TRACE, &TRACED_SET).await;
    assert_no_orphans(&spans, CALLER);
    let (http, set) = (only(&spans, "POST /set"), only(&spans, "mesh.set"));
    assert_eq!((http.parent.as_str(), http.attributes["http.response.status_code"].as_str()), (CALLER, "200"));
    assert_eq!((&set.parent, set.attributes["outcome"].as_str()), (&http.id, "acknowledged"));
    assert!(http.times.0 <= set.times.0 && set.times.1 <= http.times.1, "{http:?} does not hold {set:?}");
    // The request begins when the kernel received it, and its queue is the first of what happened then.
    let queue = only(&spans, "http.queue");
    assert_eq!((&queue.parent, queue.times.0), (&http.id, http.times.0));
    assert!(queue.times.1 <= set.times.0, "{queue:?} does not end before {set:?}");
    let legs = named(&spans, "mesh.leg");
    let peers: HashSet<&String> = legs.iter().map(|leg| &leg.attributes["peer"]).collect();
    assert_eq!(peers.len(), 3, "one leg per owner: {legs:#?}");
    assert!(legs.iter().all(|leg| leg.parent == set.id && leg.instance == "node0"));
    let served = named(&spans, "mesh.serve");
    let by: BTreeSet<&str> = served.iter().map(|span| span.instance.as_str()).collect();
    assert_eq!(by, BTreeSet::from(["node1", "node2"]));
    let home = node.spec().public.to_string();
    assert!(served.iter().all(|span| span.attributes["client.address"] == home), "{served:#?}");
    for span in &served {
        let leg = legs.iter().find(|leg| leg.id == span.parent).unwrap();
        assert_eq!(leg.attributes["version"], span.attributes["version"]);
        assert_eq!(
            (span.attributes["outcome"].as_str(), &leg.attributes["slot"]),
            ("applied", &span.attributes["slot"])
        );
    }
    // The one before went the same way and was sent nowhere.
    assert_eq!(names(&collector.trace(UNSAMPLED)), [""; 0]);

    let openmetrics = metrics(node, "application/openmetrics-text").await;
    assert!(openmetrics.contains(&format!("trace_id=\"{TRACE}\"")), "{openmetrics}");
    assert!(!openmetrics.contains(UNSAMPLED));
    let plain = metrics(node, "text/plain").await;
    assert!(!plain.contains("trace_id") && plain.contains("mesh_op_duration_seconds_bucket{"), "{plain}");
    assert!(!plain.contains("hostile") && !format!("{:?}", collector.spans()).contains("hostile"));

    assert_eq!(metric(node, "mesh_traceparent_malformed_total").await, 0);
    assert_eq!(request(node, "GET", "/get?k=before", "", "00-nonsense-01").await, 200);
    assert_eq!(metric(node, "mesh_traceparent_malformed_total").await, 1);
    let round = eventually("a gossip round", ARRIVES_WITHIN, async || {
        // The first rounds of all may have met only one peer.
        let all = collector.spans();
        let mut rounds = named(&all, "gossip.round").into_iter().map(|round| collector.trace(&round.trace));
        rounds.find(|spans| named(spans, "gossip.probe").len() == 2)
    });
    assert_no_orphans(&round.await.0, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_peer_stands_in_its_trace() {
    const LATE: &str = "0af7651916cd43dd8448eb211c803200";
    let collector = Collector::start().await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()), ("TRACE_SAMPLE_RATIO", "0")];
    let cluster = Cluster::start(3, &settings).await;
    let node = cluster.node(0);
    let peers = [cluster.node(1), cluster.node(2)];
    peers.iter().for_each(|peer| peer.freeze());
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        peers.iter().for_each(|peer| peer.thaw());
    };
    let parent = traceparent(LATE, "01");
    let (status, ()) = tokio::join!(request(node, "POST", "/set?k=late", "v", &parent), late);
    assert_eq!(status, 200);
    let spans = arrived(&collector, LATE, &TRACED_SET).await;
    let waits = named(&spans, "mesh.queue");
    assert!(waits.iter().any(|wait| wait.instance != "node0"), "{spans:#?}");
    for wait in waits {
        let of = spans.iter().find(|span| span.id == wait.parent).unwrap();
        let is_place = if wait.instance == "node0" {
            (of.name.as_str(), of.times.1) == ("mesh.leg", wait.times.1)
        } else {
            (of.name.as_str(), of.times.0) == ("mesh.serve", wait.times.0)
        };
        assert!(is_place && of.times.0 <= wait.times.0 && wait.times.1 <= of.times.1, "{wait:#?} of {of:#?}");
    }
    for served in named(&spans, "mesh.serve") {
        let leg = spans.iter().find(|span| span.id == served.parent).unwrap();
        // Each process dates its spans by itself.
        let apart_ns = 50_000_000;
        assert!(served.times.0 + apart_ns >= leg.times.0, "{served:#?} begins before {leg:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_of_the_fault_that_it_was_ordered() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c803333";
    let _machine = Machine::alone().await;
    let collector = Collector::start().await;
    let folder = TempDir::new().unwrap();
    let settings = [
        ("ALLOW_KILL", "true"),
        ("KILL_TOKEN", "t"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("REPLICATION_FACTOR", "1"),
        ("WRITE_CONCERN", "1"),
    ];
    let spec = settings.iter().fold(NodeSpec::new("alone"), |spec, (name, value)| spec.with(name, value));
    let node = NodeProcess::start(spec, folder.path());
    let client = node.client();
    eventually("the node to answer", ARRIVES_WITHIN, async || client.is_ready().await.then_some(())).await;
    // Nobody waits for it: the span must be there before.
    let ordered = request(&node, "POST", "/kill?token=t&after_ms=60000", "", &traceparent(TRACE, "00")).await;
    assert_eq!(ordered, 200);
    let told = async || named(&collector.spans(), "fault.kill").first().map(|span| (*span).clone());
    let span = eventually("the fault to be told", ARRIVES_WITHIN, told).await.0;
    assert_eq!(["mode", "after_ms"].map(|name| span.attributes[name].as_str()), ["crash", "60000"]);
}

/// The trace and the span that the first log line with these words names; text lines end with them, JSON lines have them as members.
fn named_by_log(log: &str, words: &[&str]) -> Option<(String, String)> {
    let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)))?;
    let value = |name: &str| {
        let digits = line.split_once(name)?.1.trim_start_matches(['=', '"', ':']);
        Some(digits.chars().take_while(char::is_ascii_hexdigit).collect())
    };
    Some((value("trace_id")?, value("span_id")?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_apart_from_requests_is_traced_and_its_log_lines_lead_there() {
    for (format, dead) in [("text", "is=\"dead\""), ("json", "\"is\":\"dead\"")] {
        let collector = Collector::start().await;
        let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()), ("LOG_FORMAT", format)];
        let mut cluster = Cluster::start(3, &settings).await;
        cluster.wait_whole(ARRIVES_WITHIN).await;
        let told = async |name: &str| {
            let any = async || (!named(&collector.spans(), name).is_empty()).then_some(());
            eventually(name, ARRIVES_WITHIN, any).await;
        };
        for name in ["node.start", "member.alive", "ring.build", "repair.round", "gossip.round"] {
            told(name).await;
        }
        cluster.node_mut(2).kill();
        let logged = async || named_by_log(&cluster.node(0).log(), &["member", dead]);
        let (trace, span) = eventually("the log to name a trace", ARRIVES_WITHIN, logged).await.0;
        let spans = arrived(&collector, &trace, &["member.dead"]).await;
        assert_eq!((spans[0].id.as_str(), spans[0].attributes["from"].as_str()), (span.as_str(), "suspect"));
        let silent = || collector.spans().into_iter().filter(|span| span.name == "gossip.probe" && span.is_error);
        assert!(silent().all(|probe| probe.attributes["answer"] == "none") && silent().count() > 0);

        let node = cluster.node_mut(1);
        node.terminate();
        assert_eq!(node.ended(ARRIVES_WITHIN).await.code(), Some(0), "{}", node.log());
        let (trace, _) = named_by_log(&node.log(), &["draining"]).expect("a trace");
        let whole = async || {
            let spans = collector.trace(&trace);
            ["handover", "node.stop"].iter().all(|name| named(&spans, name).len() == 1).then_some(spans)
        };
        assert_no_orphans(&eventually("the stop to arrive", ARRIVES_WITHIN, whole).await.0, "");
        let spans = collector.spans();
        assert!(spans.iter().all(|span| span.times.0 <= span.times.1), "{spans:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hedged_slow_and_failed_requests_are_kept_without_sampling() {
    const SLOW: &str = "0af7651916cd43dd8448eb211c800001";
    const FAILED: &str = "0af7651916cd43dd8448eb211c800002";
    let collector = Collector::start().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("TRACE_SAMPLE_RATIO", "0"),
        ("TRACE_SLOW_MS", "150"),
        ("REPLICATION_FACTOR", "2"),
        ("WRITE_CONCERN", "2"),
        ("READ_HEDGE_DELAY_MS", "0"),
        ("WRITE_TIMEOUT_MS", "700"),
    ];
    let cluster = Cluster::start_behind_proxies(3, &settings).await;
    let client = cluster.node(0).client();
    for key in 0..40 {
        assert_eq!(client.set(&format!("key{key}"), "v").await.status, 200);
    }
    // A third of the keys are not this node's, and their reads are hedged at once as far as the budget goes.
    let hedged = async || {
        for key in 0..40 {
            assert_eq!(client.get(&format!("key{key}"), Consistency::One).await.status, 200);
        }
        let spans = collector.spans();
        let hedges = spans.iter().filter(|span| span.attributes.get("hedged").is_some_and(|hedged| hedged == "true"));
        let mut wholes = hedges.map(|leg| collector.trace(&leg.trace)).filter(|spans| {
            named(spans, "mesh.get").len() == 1
                && named(spans, "mesh.leg").len() == 2
                && named(spans, "mesh.serve").len() == 2
        });
        wholes.next()
    };
    let spans = eventually("a hedged read with what both peers did", ARRIVES_WITHIN, hedged).await.0;
    assert_no_orphans(&spans, "");
    assert_eq!(only(&spans, "GET /get").instance, "node0");
    let by: BTreeSet<&str> = named(&spans, "mesh.serve").iter().map(|span| span.instance.as_str()).collect();
    assert_eq!(by, BTreeSet::from(["node1", "node2"]), "fetched from both after the fact");

    for other in [1, 2] {
        cluster.network().slow_down(other, Duration::from_millis(100));
    }
    // A key that is not this node's alone: with two owners of three, one of them is another.
    assert_eq!(request(cluster.node(0), "POST", "/set?k=slow", "v", &traceparent(SLOW, "00")).await, 200);
    let slow = eventually("a slow write", ARRIVES_WITHIN, async || {
        let spans = collector.trace(SLOW);
        let legs = named(&spans, "mesh.leg");
        let remote =
            legs.iter().filter(|leg| leg.attributes["outcome"] == "won" && leg.times.1 - leg.times.0 > 100_000_000);
        (legs.len() == 2 && named(&spans, "mesh.serve").len() == remote.count()).then_some(spans)
    })
    .await
    .0;
    assert_no_orphans(&slow, CALLER);
    cluster.network().heal();

    [1, 2].iter().for_each(|other| cluster.node(*other).freeze());
    let status = request(cluster.node(0), "POST", "/set?k=failed", "v", &traceparent(FAILED, "00")).await;
    assert!(status >= 500, "{status}");
    let failed = eventually("a failed write", ARRIVES_WITHIN, async || {
        let spans = collector.trace(FAILED);
        (!named(&spans, "POST /set").is_empty() && !named(&spans, "mesh.set").is_empty()).then_some(spans)
    })
    .await
    .0;
    assert!(only(&failed, "POST /set").is_error && only(&failed, "mesh.set").is_error, "{failed:#?}");
    [1, 2].iter().for_each(|other| cluster.node(*other).thaw());
    assert_eq!(metric(cluster.node(0), "mesh_spans_dropped_total").await, 0);
}

/// A node alone with a collector that lets it down. How many spans it kept, exported, failed and dropped after a
/// few requests, and how long its end took.
async fn let_down_by(endpoint: &str) -> ([u64; 4], Duration) {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().unwrap();
    let spec = NodeSpec::new("alone")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .with("TRACE_MODE", "all")
        .with("REPLICATION_FACTOR", "1")
        .with("WRITE_CONCERN", "1");
    let mut node = NodeProcess::start(spec, folder.path());
    let client = node.client();
    eventually("the node to be ready", ARRIVES_WITHIN, async || client.is_ready().await.then_some(())).await;
    let start = Instant::now();
    for _ in 0..3000 {
        assert_eq!(client.set("key", "value").await.status, 200);
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(15), "requests do not wait for a collector, but took {took:?}");
    let mut counts = [0; 4];
    for (count, what) in counts.iter_mut().zip(["kept", "exported", "failed", "dropped"]) {
        *count = metric(&node, &format!("mesh_spans_{what}_total")).await;
    }
    let start = Instant::now();
    kill_process(Pid::from_child(node.child()), Signal::TERM).unwrap();
    assert!(exit_within(node.child(), 2 * ENDS_WITHIN, "the node to end").await.success());
    let took = start.elapsed();
    let [kept, exported, ..] = counts;
    let tells = node.log().contains("some spans did not reach the collector");
    assert!(tells || exported > 0, "{kept} spans kept, {exported} exported: {}", node.log());
    (counts, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_refuses_costs_only_its_spans() {
    // Nobody listens on port 1 of loopback.
    let ([kept, exported, failed, dropped], end) = let_down_by("http://127.0.0.1:1").await;
    assert!(kept >= 9000 && exported == 0 && failed + dropped > 0, "{kept} {exported} {failed} {dropped}");
    assert!(end <= ENDS_WITHIN, "the end took {end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_costs_only_its_spans() {
    // Connections are taken by the system and never served.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let ([kept, exported, ..], end) = let_down_by(&endpoint).await;
    assert!(kept >= 9000 && exported == 0, "{kept} {exported}");
    assert!(end <= ENDS_WITHIN, "the end took {end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_collector_costs_only_its_spans() {
    // Each request is answered in time, but at this pace the queue cannot be emptied before the end.
    let collector = Collector::start_slow(Duration::from_millis(1500)).await;
    let ([kept, exported, failed, dropped], end) = let_down_by(collector.endpoint()).await;
    assert!(kept >= 9000 && exported + failed + dropped <= kept, "{kept} {exported} {failed} {dropped}");
    assert!(end <= ENDS_WITHIN, "the end took {end:?}");
    let arrived = collector.spans().len() as u64;
    assert!(arrived >= exported, "{arrived} arrived of {exported} exported");
}
