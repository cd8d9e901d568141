//! A node's memory as the system sees it, while more values than it may hold come in, and their sizes change.

use std::{fs, net::SocketAddr, time::Duration};

use tempfile::TempDir;

use crate::{
    harness::{Machine, NodeProcess, NodeSpec, eventually, in_parallel},
    overload::Connection,
};

const LIMIT: u64 = 64 << 20;

/// What a node takes that stores nothing: see docs/STORE.md.
const BASE: u64 = 48 << 20;

/// What may be written between two looks that a node takes at its memory, on a machine whose threads run late.
const UNSEEN: u64 = 10 << 20;

const CLIENTS: usize = 8;

/// Values of this many bytes, and how many of them: three times the bound each.
const PHASES: [(usize, usize); 4] = [(8000, 24_000), (300, 40_000), (30_000, 6400), (1500, 60_000)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resident_memory_is_bounded() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().unwrap();
    let spec = NodeSpec::new("alone").with("REPLICATION_FACTOR", "1").with("WRITE_CONCERN", "1");
    let seed = spec.public.to_string();
    let spec = spec.with("CACHE_SEEDS", &seed).with("CAPACITY_BYTES", "64MiB");
    let mut node = NodeProcess::start(spec, folder.path());
    let ready = async || node.client().is_ready().await.then_some(());
    eventually("the node to be ready", Duration::from_secs(30), ready).await;
    let (http, pid) = (node.spec().http, node.child().id());
    let idle = status_bytes(pid, "VmRSS:");
    for (phase, (value_bytes, keys)) in PHASES.into_iter().enumerate() {
        in_parallel(CLIENTS, CLIENTS, move |client| fill(http, phase, client, value_bytes, keys / CLIENTS)).await;
        let peak = status_bytes(pid, "VmHWM:");
        println!("{keys} values of {value_bytes} bytes: {} MiB at most, {} MiB idle", peak >> 20, idle >> 20);
        assert!(peak <= LIMIT * 12 / 10 + BASE + UNSEEN, "{peak} bytes after {keys} values of {value_bytes}");
    }
    let stats = node.client().stats().await.expect("/stats answers");
    assert!(stats["Evictions"].as_u64() > Some(10_000), "{stats}");
}

async fn fill(node: SocketAddr, phase: usize, client: usize, value_bytes: usize, keys: usize) {
    let mut connection = Connection::open(node).await.expect("a connection");
    let value = "v".repeat(value_bytes);
    for key in 0..keys {
        let body = format!("{{\"k\":\"{phase}-{client}-{key}\",\"v\":\"{value}\"}}");
        let request = format!("POST /set HTTP/1.1\r\nhost: n\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (status, answer) = connection.exchange(&request).await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
    }
}

/// A figure of `/proc/PID/status`.
fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a figure");
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).expect("kibibytes") << 10
}
