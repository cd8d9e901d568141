//! The HTTP side of a node, in process and over a stream in memory: whatever a client sends, it gets whole and well-formed
//! answers with the statuses that a node knows, and the node goes on.

use std::{cell::RefCell, net::Ipv4Addr, panic::RefUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::{Config, Node, WriteOptions};
use mesh_sim::SimulatedNetwork;
use node::{App, Connections, Settings, Shutdown, TelemetryObserver};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    runtime::Runtime,
};

/// What a node may answer when nothing is wrong with it.
const STATUSES: [u16; 12] = [100, 200, 400, 401, 403, 404, 405, 408, 413, 414, 415, 431];

/// Statuses of a body that the store or the budget of bodies has no room for.
const REFUSALS: [u16; 2] = [503, 507];

/// What the node reads at a time.
const PIECE_BYTES: usize = 512;

/// Headers that an answer may have.
const HEADERS_MAX: usize = 32;

/// A node that is alone in the world, with small limits, on a runtime whose time runs by itself.
pub struct InMemoryNode {
    runtime: RefCell<Runtime>,
    connections: Connections,
    _node: Node,
}

// A check that has panicked is the last, or is repeated with a shorter input: nothing that it broke is looked at.
impl RefUnwindSafe for InMemoryNode {}

impl InMemoryNode {
    /// Starts it, with one key `k`.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime needs nothing but memory");
        let arguments = [
            "node",
            "--cache-bind",
            "127.0.0.1:1",
            "--cache-public",
            "127.0.0.1:1",
            "--replication-factor",
            "1",
            "--write-concern",
            "1",
            "--key-bytes-max",
            "64",
            "--value-bytes-max",
            "1KiB",
            "--capacity-bytes",
            "16MiB",
            "--http-bind",
            &Ipv4Addr::LOCALHOST.to_string(),
            "--header-timeout-ms",
            "1000",
            "--request-timeout-ms",
            "500",
        ];
        let settings = Settings::from_args(arguments.map(Into::into)).unwrap_or_else(|error| panic!("{error}"));
        let (node, connections) = runtime.block_on(async {
            let config: Config = settings.mesh.clone();
            let network = SimulatedNetwork::new(1);
            let (telemetry, _flush) =
                observability::init(&config.name, config.id(), "0", &settings.traces).expect("no collector is named");
            let transport = network.transport(config.id(), &config.public_addr);
            let node = Node::start_upkeep(config, transport, Arc::new(TelemetryObserver(Arc::clone(&telemetry))))
                .expect("started");
            let worker = node.add_worker().expect("the address is free");
            let key = Bytes::from_static(b"k");
            worker
                .set(key, Bytes::from_static(b"v"), WriteOptions::default(), &mut None)
                .await
                .expect("an owner of its own");
            let app = Arc::new(App::new(node.clone(), telemetry, &settings, Shutdown::default()));
            (node, Connections::new(&app, worker, &settings.http))
        });
        Self { runtime: RefCell::new(runtime), connections, _node: node }
    }

    /// Panics if the answers to `input` are not what a client can rely on.
    pub fn check(&self, input: &[u8]) {
        let mut answers = self.exchange(input);
        while !answers.is_empty() {
            let rest = check_answer(&answers).unwrap_or_else(|why| {
                panic!("{why}: {:?} answered {:?}", String::from_utf8_lossy(input), String::from_utf8_lossy(&answers))
            });
            answers = rest;
        }
    }

    /// Sends `input` in pieces, ends the connection's sending half, and reads all answers.
    fn exchange(&self, input: &[u8]) -> Vec<u8> {
        self.runtime.borrow_mut().block_on(async {
            let (client, server) = duplex(PIECE_BYTES);
            let (mut answers, mut requests) = tokio::io::split(client);
            let send = async {
                // Fails once the node has closed the connection.
                let _ = requests.write_all(input).await;
                let _ = requests.shutdown().await;
            };
            let mut read = Vec::new();
            let receive = answers.read_to_end(&mut read);
            let serve = async {
                // On this task, so that a panic is ours.
                let served = tokio::time::timeout(Duration::from_secs(3600), self.connections.serve(server)).await;
                assert!(served.is_ok(), "the connection hangs");
            };
            let (_, received, ()) = tokio::join!(send, receive, serve);
            received.expect("memory does not fail");
            read
        })
    }
}

/// Looks at the first answer and gives what comes after it.
fn check_answer(answers: &[u8]) -> Result<Vec<u8>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(answers) {
        Ok(httparse::Status::Complete(head)) => head,
        // The last answer may break off: the connection does, if what comes after the request is no HTTP.
        Ok(httparse::Status::Partial) => return Ok(Vec::new()),
        Err(error) => return Err(format!("no HTTP ({error})")),
    };
    let status = response.code.unwrap_or_default();
    if !STATUSES.contains(&status) && !REFUSALS.contains(&status) {
        return Err(format!("status {status}"));
    }
    let header = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if status == 503 && header("retry-after").is_none() {
        return Err("503 without Retry-After".to_owned());
    }
    let length = header("content-length").and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    match length {
        None if status == 100 => Ok(answers[head..].to_vec()),
        // The answer to HEAD has a length and no body, and nothing here says what was asked.
        Some(length) if answers.len() >= head + length => {
            let (body, rest) = answers[head..].split_at(length);
            let follows = rest.is_empty() || rest.starts_with(b"HTTP/1.");
            if follows { Ok(rest.to_vec()) } else { Ok(after_head(body, rest)) }
        }
        Some(_) => Ok(Vec::new()),
        None => Ok(Vec::new()),
    }
}

/// After the answer to HEAD the next one begins at once.
fn after_head(body: &[u8], rest: &[u8]) -> Vec<u8> {
    if body.starts_with(b"HTTP/1.") { [body, rest].concat() } else { Vec::new() }
}
