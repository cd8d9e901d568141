//! Clients that keep a node waiting, or ask for more than it can answer. In process, over streams in memory and under paused
//! time, so that nothing here depends on how fast the machine is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::{Node, WriteOptions};
use mesh_sim::SimulatedNetwork;
use node::{App, Connections, Settings, Shutdown, TelemetryObserver};
use observability::{Exposition, Telemetry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, timeout},
};

/// Longer than any timeout of a node; the time is not spent.
const FOR_EVER: Duration = Duration::from_secs(3600);

struct InMemoryNode {
    connections: Connections,
    telemetry: Arc<Telemetry>,
    worker: mesh::Worker,
    _node: Node,
}

impl InMemoryNode {
    fn start(settings: &[&str]) -> Self {
        let base = ["node", "--cache-bind", "127.0.0.1:1", "--cache-public", "127.0.0.1:1", "--node-id", "n"];
        let alone = ["--replication-factor", "1", "--write-concern", "1"];
        let arguments = base.iter().chain(&alone).chain(settings);
        let settings = Settings::from_args(arguments.map(Into::into)).unwrap_or_else(|error| panic!("{error}"));
        let config = settings.mesh.clone();
        let (telemetry, _flush) = observability::init("n", config.id(), "0", &settings.traces).unwrap();
        let transport = SimulatedNetwork::new(1).transport(config.id(), &config.public_addr);
        let node = Node::start_upkeep(config, transport, Arc::new(TelemetryObserver(Arc::clone(&telemetry)))).unwrap();
        let worker = node.add_worker().unwrap();
        let app = Arc::new(App::new(node.clone(), Arc::clone(&telemetry), &settings, Shutdown::default()));
        let connections = Connections::new(&app, worker.clone(), &settings.http);
        Self { connections, telemetry, worker, _node: node }
    }

    /// A connection with this much room in between.
    fn connect(&self, buffer_bytes: usize) -> DuplexStream {
        let (client, server) = duplex(buffer_bytes);
        let connections = self.connections.clone();
        tokio::spawn(async move { connections.serve(server).await });
        client
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.telemetry.render(Exposition::Prometheus);
        let line = text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    fn cut(&self, reason: &str) -> f64 {
        self.metric(&format!("mesh_http_connections_cut_total{{node=\"n\",reason=\"{reason}\"}}"))
    }

    fn shed(&self, reason: &str) -> f64 {
        self.metric(&format!("mesh_http_requests_shed_total{{node=\"n\",reason=\"{reason}\"}}"))
    }
}

/// What comes until the node closes the connection, and how long that took.
async fn read_to_end(client: &mut DuplexStream) -> (String, Duration) {
    let (start, mut answer) = (Instant::now(), Vec::new());
    let read = timeout(FOR_EVER, client.read_to_end(&mut answer)).await;
    // A broken connection is an end, too.
    let _ = read.expect("the node never closes the connection");
    (String::from_utf8_lossy(&answer).into_owned(), start.elapsed())
}

/// One answer, whose body is short.
async fn read_answer(client: &mut DuplexStream) -> String {
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let bytes = timeout(FOR_EVER, client.read(&mut piece)).await.expect("no answer").unwrap();
        answer.extend_from_slice(&piece[..bytes]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() >= length.parse().unwrap() {
            return text;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_ends_the_connection() {
    let node = InMemoryNode::start(&["--header-timeout-ms", "2000"]);
    for beginning in ["", "G", "GET /get?k=a HTTP/1.1\r\nhost:"] {
        let before = node.cut("head");
        let mut client = node.connect(4096);
        client.write_all(beginning.as_bytes()).await.unwrap();
        let (_, took) = read_to_end(&mut client).await;
        assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{beginning:?}: {took:?}");
        assert_eq!(node.cut("head"), before + 1.0, "{beginning:?}");
    }
    // One byte now and then is no help.
    let mut client = node.connect(4096);
    let start = Instant::now();
    while client.write_all(b"x").await.is_ok() {
        assert!(start.elapsed() < FOR_EVER, "it may go on for ever");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends() {
    let node = InMemoryNode::start(&["--header-timeout-ms", "2000"]);
    let mut client = node.connect(4096);
    client.write_all(b"GET /get?k=a HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut client).await.starts_with("HTTP/1.1 404"));
    let (rest, took) = read_to_end(&mut client).await;
    assert!(rest.is_empty() && took < Duration::from_secs(4), "{took:?}: {rest}");
    assert_eq!(node.cut("head"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_answered_408() {
    let node = InMemoryNode::start(&["--request-timeout-ms", "2000"]);
    let mut client = node.connect(4096);
    client.write_all(b"POST /set HTTP/1.1\r\nhost: n\r\ncontent-length: 30\r\n\r\n{\"k\":").await.unwrap();
    let (answer, took) = read_to_end(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("application/problem+json"), "{answer}");
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert_eq!(node.cut("body"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_ends_the_connection() {
    let node = InMemoryNode::start(&["--answer-timeout-ms", "2000"]);
    let value = Bytes::from(vec![b'v'; 1 << 20]);
    node.worker.set(Bytes::from_static(b"big"), value, WriteOptions::default(), &mut None).await.unwrap();
    let mut client = node.connect(4096);
    client.write_all(b"GET /get?k=big HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
    let start = Instant::now();
    while node.cut("answer") == 0.0 {
        assert!(start.elapsed() < FOR_EVER, "it may wait for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    // A client that reads gets all of it.
    let mut client = node.connect(4096);
    client.write_all(b"GET /get?k=big HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_to_end(&mut client).await.0.len() > 1 << 20);
    assert_eq!(node.cut("answer"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_bounded_and_looking_at_the_node_is_not() {
    let node = InMemoryNode::start(&["--requests-max", "1", "--request-timeout-ms", "60000"]);
    // In flight until its body has come.
    let mut first = node.connect(4096);
    first.write_all(b"POST /set HTTP/1.1\r\nhost: n\r\ncontent-length: 17\r\n\r\n{\"k\":").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut second = node.connect(4096);
    for (request, reason) in [("GET /get?k=a", 1.0), ("DELETE /del?k=a", 2.0), ("POST /set", 3.0)] {
        second.write_all(format!("{request} HTTP/1.1\r\nhost: n\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_answer(&mut second).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1\r\n"), "{answer}");
        assert!(answer.contains("application/problem+json") && answer.contains("REQUESTS_MAX"), "{answer}");
        assert_eq!(node.shed("requests"), reason);
    }
    for path in ["/stats", "/metrics", "/cluster", "/ready"] {
        second.write_all(format!("GET {path} HTTP/1.1\r\nhost: n\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_answer(&mut second).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    first.write_all(b"\"a\",\"v\":\"b\"}").await.unwrap();
    assert!(read_answer(&mut first).await.starts_with("HTTP/1.1 200"));
    second.write_all(b"GET /get?k=a HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_turned_away_is_not_listened_to_for_a_moment() {
    let node = InMemoryNode::start(&["--requests-max", "1", "--request-timeout-ms", "600000"]);
    let mut first = node.connect(4096);
    first.write_all(b"POST /set HTTP/1.1\r\nhost: n\r\ncontent-length: 17\r\n\r\n{\"k\":").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut second = node.connect(4096);
    let start = Instant::now();
    for _ in 0..10 {
        second.write_all(b"GET /get?k=a HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
        assert!(read_answer(&mut second).await.starts_with("HTTP/1.1 503"));
    }
    // The first answer comes at once, each of the others a tenth of a second after the one before.
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
}
