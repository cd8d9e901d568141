//! Secrets stay where they belong: whatever a mesh says, to whomever, names neither CACHE_AUTH nor KILL_TOKEN. And a stranger
//! who keeps knocking is counted each time but complained of once.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use tempfile::TempDir;

use crate::harness::{Cluster, Collector, Machine, NodeProcess, NodeSpec, eventually, http_client};

const CACHE_AUTH: &str = "correct-horse-battery";
const KILL_TOKEN: &str = "staple-in-the-wall";
const WITHIN: Duration = Duration::from_secs(60);

/// Fails if `text` says either secret, or enough of one to guess it.
fn assert_silent(what: &str, text: &str) {
    for secret in [CACHE_AUTH, KILL_TOKEN, "correct-horse", "staple-in"] {
        assert!(!text.contains(secret), "{what} tells {secret}:\n{text}");
    }
}

/// The answer, head and body.
async fn told(request: RequestBuilder) -> String {
    let response = request.timeout(WITHIN).send().await.expect("an answer");
    format!("{} {:?}\n{}", response.status(), response.headers().clone(), response.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_names_a_secret() {
    let collector = Collector::start().await;
    let settings = [
        ("CACHE_AUTH", CACHE_AUTH),
        ("ALLOW_KILL", "true"),
        ("KILL_TOKEN", KILL_TOKEN),
        ("LOG", "debug"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("TRACE_MODE", "all"),
    ];
    let mut cluster = Cluster::start(3, &settings).await;
    let http = http_client().build().unwrap();
    let node = format!("http://{}", cluster.node(0).spec().http);
    let wrong = format!("{KILL_TOKEN}x");
    let requests = [
        (Method::GET, "/stats".to_owned()),
        (Method::GET, "/cluster".to_owned()),
        (Method::GET, "/ready".to_owned()),
        (Method::GET, "/metrics".to_owned()),
        (Method::GET, "/nowhere".to_owned()),
        (Method::GET, "/get?k=key".to_owned()),
        (Method::DELETE, "/del?k=key".to_owned()),
        (Method::POST, "/kill".to_owned()),
        (Method::POST, format!("/kill?token={wrong}")),
        (Method::POST, format!("/kill?token={KILL_TOKEN}&mode=gently")),
        (Method::POST, format!("/kill?token={KILL_TOKEN}&after_ms=x")),
        (Method::POST, format!("/fault?token={wrong}")),
        (Method::POST, format!("/fault?token={KILL_TOKEN}")),
        (Method::POST, format!("/kill?token={KILL_TOKEN}&mode=pause&for_ms=10")),
    ];
    for (method, path) in requests {
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let answer = told(http.request(method, format!("{node}{path}"))).await;
        assert_silent(&what, &answer);
    }
    let open = http.get(format!("{node}/metrics")).header("accept", "application/openmetrics-text; version=1.0.0");
    assert_silent("OpenMetrics", &told(open).await);
    assert_eq!(cluster.node(1).client().set("key", "value").await.status, 200);
    told(http.post(format!("{node}/kill?token={KILL_TOKEN}"))).await;
    cluster.wait_seen(&[1, 2], 0, "dead", WITHIN).await;

    let spans = async || (!collector.spans().is_empty()).then(|| collector.spans());
    let (spans, _) = eventually("spans to arrive", WITHIN, spans).await;
    assert_silent("spans", &format!("{spans:?}"));
    for index in 0..3 {
        let log = cluster.node(index).log();
        assert!(log.contains("node started"), "{log}");
        assert_silent("a log", &log);
    }
    cluster.node_mut(1).kill();
}

#[tokio::test]
async fn neither_help_nor_complaints_name_a_secret() {
    let _machine = Machine::alone().await;
    let spec = NodeSpec::new("help").with("CACHE_AUTH", CACHE_AUTH).with("ALLOW_KILL", "true");
    let spec = spec.with("KILL_TOKEN", KILL_TOKEN);
    let complaints: [&[&str]; 7] = [
        &["--help"],
        &["--help-all"],
        &["-h"],
        &["--port", "none"],
        &["--no-such-flag"],
        &["--cache-auth", CACHE_AUTH, "--kill-token", KILL_TOKEN, "--workers", "0"],
        &["--cache-auth"],
    ];
    for arguments in complaints {
        let output = spec.command().args(arguments).output().expect("node runs");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(text.len() > 20, "{arguments:?} says nothing");
        assert_silent(&format!("{arguments:?}"), &text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_keeps_knocking_is_counted_each_time_and_logged_once() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().unwrap();
    let inside = NodeSpec::new("inside").with("REPLICATION_FACTOR", "1").with("WRITE_CONCERN", "1");
    let seed = inside.public.to_string();
    let inside = NodeProcess::start(inside.with("CACHE_SEEDS", &seed), folder.path());
    let ready = async || inside.client().is_ready().await.then_some(());
    eventually("the node to be ready", WITHIN, ready).await;
    let outside = NodeSpec::new("outside").with("CACHE_AUTH", "a guess").with("CACHE_SEEDS", &seed);
    let _outside = NodeProcess::start(outside, folder.path());

    let refused = async || {
        let metrics = inside.client().text("/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with("mesh_peer_refused_total"))?.to_owned();
        let count: f64 = line.rsplit_once(' ')?.1.parse().ok()?;
        (count >= 5.0).then_some(())
    };
    eventually("the stranger to be refused five times", WITHIN, refused).await;
    let log = inside.log();
    let complaints = log.lines().filter(|line| line.contains("refused a peer")).count();
    // Once a minute, and this may take more than one on a very busy machine.
    assert!((1..=2).contains(&complaints), "{complaints} complaints:\n{log}");
    assert!(!log.contains("a guess") && !log.contains("black-box"), "{log}");
}
