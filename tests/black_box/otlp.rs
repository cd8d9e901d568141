//! OpenTelemetry's environment variables, each before a real receiver: what it does here. docs/OBSERVABILITY.md has the same table.

use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Collector, Machine, NodeProcess, NodeSpec, Received, eventually};

const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// A node with these variables, alone.
fn node(folder: &TempDir, variables: &[(&str, &str)]) -> NodeProcess {
    let spec = NodeSpec::new("alone").with("REPLICATION_FACTOR", "1").with("WRITE_CONCERN", "1");
    let spec = spec.with("TRACE_SLOW_MS", "60000");
    NodeProcess::start(variables.iter().fold(spec, |spec, (name, value)| spec.with(name, value)), folder.path())
}

/// The first request that the collector gets from a node with these variables.
async fn first(collector: &Collector, variables: &[(&str, &str)]) -> Received {
    let folder = TempDir::new().unwrap();
    let before = collector.received().len();
    let _node = node(&folder, variables);
    let started = async || {
        let is_there = collector.spans().iter().any(|span| span.name == "node.start");
        is_there.then(|| collector.received().get(before).cloned()).flatten()
    };
    eventually(&format!("spans with {variables:?}"), ARRIVES_WITHIN, started).await.0
}

fn header<'a>(received: &'a Received, name: &str) -> &'a str {
    received.headers.get(name).map_or("", String::as_str)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_go_where_and_how_the_environment_says() {
    let _machine = Machine::alone().await;
    const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    for prefix in ["OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"] {
        let name = |what: &str| format!("{prefix}{what}");
        let (endpoint, headers, packing) = (name("ENDPOINT"), name("HEADERS"), name("COMPRESSION"));
        let grpc = Collector::start().await;
        let received = first(&grpc, &[(&endpoint, grpc.endpoint()), (&headers, "authorization=Bearer%20x,a=b")]).await;
        let found = ["authorization", "a", "grpc-encoding"].map(|name| header(&received, name));
        assert_eq!((received.path.as_str(), found), (GRPC, ["Bearer x", "b", ""]), "{prefix}");
        let received = first(&grpc, &[(&endpoint, grpc.endpoint()), (&packing, "gzip")]).await;
        assert_eq!(header(&received, "grpc-encoding"), "gzip", "{prefix}");

        let http = Collector::start_as(true, false).await;
        let protocol = name("PROTOCOL");
        let web = [(endpoint.as_str(), http.endpoint()), (protocol.as_str(), "http/protobuf")];
        let received = first(&http, &[&web[..], &[(&headers, "a=b"), (&packing, "gzip")]].concat()).await;
        // What is for traces only is the whole address.
        let path = if prefix.contains("TRACES") { "/" } else { "/v1/traces" };
        let found = ["content-type", "content-encoding", "a"].map(|name| header(&received, name));
        assert_eq!((received.path.as_str(), found), (path, ["application/x-protobuf", "gzip", "b"]), "{prefix}");

        for is_http in [false, true] {
            let encrypted = Collector::start_as(is_http, true).await;
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), encrypted.certificate()).unwrap();
            let (certificate, file) = (name("CERTIFICATE"), file.path().to_str().unwrap());
            let spoken = if is_http { "http/protobuf" } else { "grpc" };
            first(&encrypted, &[(&endpoint, encrypted.endpoint()), (&protocol, spoken), (&certificate, file)]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_the_time_that_the_environment_gives_it() {
    let _machine = Machine::alone().await;
    let slow = Collector::start_slow(Duration::from_millis(400)).await;
    for (name, timeout, counted) in [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "50", "failed"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "50", "failed"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000", "exported"),
    ] {
        let folder = TempDir::new().unwrap();
        let node = node(&folder, &[("OTEL_EXPORTER_OTLP_ENDPOINT", slow.endpoint()), (name, timeout)]);
        let client = node.client();
        eventually("the node to answer", ARRIVES_WITHIN, async || client.is_ready().await.then_some(())).await;
        let metric = format!("mesh_spans_{counted}_total{{");
        let any = async || {
            let text = client.text("/metrics").await;
            let line = text.lines().find(|line| line.starts_with(&metric))?;
            (!line.ends_with(" 0")).then_some(())
        };
        eventually(&format!("spans to be {counted} with {name}={timeout}"), ARRIVES_WITHIN, any).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_and_who_sends_it_follows_the_environment() {
    let _machine = Machine::alone().await;
    for (variables, is_kept) in [
        (vec![("OTEL_TRACES_SAMPLER", "parentbased_always_on")], true),
        (vec![("OTEL_TRACES_SAMPLER", "parentbased_always_off")], false),
        (vec![("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "1")], true),
        (vec![("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")], false),
    ] {
        let (folder, collector) = (TempDir::new().unwrap(), Collector::start().await);
        let who =
            [("OTEL_SERVICE_NAME", "mine"), ("OTEL_RESOURCE_ATTRIBUTES", "team=cache,deployment.environment=x%20y")];
        let variables = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())], &who[..], &variables].concat();
        let mut node = node(&folder, &variables);
        let client = node.client();
        eventually("the node to answer", ARRIVES_WITHIN, async || client.is_ready().await.then_some(())).await;
        assert_eq!(client.set("k", "v").await.status, 200);
        node.terminate();
        node.ended(ARRIVES_WITHIN).await;
        let spans = collector.spans();
        assert_eq!(spans.iter().any(|span| span.name == "POST /set"), is_kept, "{variables:?}: {spans:#?}");
        let start = spans.iter().find(|span| span.name == "node.start");
        let start = start.unwrap_or_else(|| panic!("its start: {spans:#?} {}", node.log()));
        let resource = ["service.name", "team", "deployment.environment"].map(|name| start.resource[name].as_str());
        assert_eq!(resource, ["mine", "cache", "x y"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_can_be_switched_off() {
    let _machine = Machine::alone().await;
    let collector = Collector::start().await;
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let folder = TempDir::new().unwrap();
        let mut node = node(&folder, &[("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()), (name, value)]);
        let client = node.client();
        eventually("the node to answer", ARRIVES_WITHIN, async || client.is_ready().await.then_some(())).await;
        node.terminate();
        node.ended(ARRIVES_WITHIN).await;
    }
    assert!(collector.received().is_empty(), "{:?}", collector.received());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_at_the_start() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for (file, reason) in [("/nowhere", "No such file"), (empty.path().to_str().unwrap(), "no certificate in it")] {
        let folder = TempDir::new().unwrap();
        let address = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1");
        let mut node = node(&folder, &[address, ("OTEL_EXPORTER_OTLP_CERTIFICATE", file)]);
        assert_ne!(node.ended(ARRIVES_WITHIN).await.code(), Some(0));
        let log = node.log();
        let told = |line: &str| line.contains("OTEL_EXPORTER_OTLP_CERTIFICATE=") && line.contains(reason);
        assert!(log.lines().any(told), "{log}");
    }
}
