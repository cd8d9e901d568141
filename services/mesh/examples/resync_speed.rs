//! How fast an empty node refills over QUIC on loopback, beside two others that hold everything: keys per second from its
//! start to ready. `cargo run --release -p mesh-cache --example resync_speed -- 200000 24`: keys, and bytes of each value.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement may stop at the first surprise")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh::{
    Config, NoObserver, Node, Readiness, WriteOptions,
    transport::{ClusterSecret, Credentials, QuicConfig, QuicTransport},
};
use mesh_proto::NodeId;

/// Writers at the same time.
const WRITERS: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let keys = arguments.next().unwrap_or(200_000);
    let value_bytes = arguments.next().unwrap_or(24);
    let (first, seed) = start("a", "127.0.0.1:0".parse().unwrap(), None);
    let (second, _) = start("b", "127.0.0.1:0".parse().unwrap(), Some(seed));
    ready(&[&first, &second], 2).await;
    fill(&first, keys, value_bytes).await;
    let started = Instant::now();
    let (third, _) = start("c", "127.0.0.1:0".parse().unwrap(), Some(seed));
    ready(&[&first, &second, &third], 3).await;
    let took = started.elapsed();
    assert_eq!(third.stats().store.entries, keys as u64);
    let pulled = third.stats().repaired;
    println!(
        "{keys} keys of {value_bytes} bytes in {took:?}, {:.0} a second, {pulled} records new",
        keys as f64 / took.as_secs_f64()
    );
}

fn start(name: &str, bind: SocketAddr, seed: Option<SocketAddr>) -> (Node, SocketAddr) {
    let credentials = Credentials::Secret(ClusterSecret::new("secret"));
    let transport = Arc::new(QuicTransport::new(QuicConfig::new(NodeId::from_name(name), bind, credentials)).unwrap());
    let addr = transport.local_addr();
    let mut config = Config::new(&addr.to_string());
    name.clone_into(&mut config.name);
    config.seeds = vec![seed.unwrap_or(addr).to_string()];
    (Node::start(config, transport, Arc::new(NoObserver)).unwrap(), addr)
}

async fn ready(nodes: &[&Node], members: usize) {
    let is_ready = |node: &Node| node.readiness() == Readiness::Ready && node.view().members.len() == members;
    while !nodes.iter().all(|node| is_ready(node)) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn fill(node: &Node, keys: usize, value_bytes: usize) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let node = node.clone();
        writers.spawn(async move {
            for key in (writer..keys).step_by(WRITERS) {
                let (key, value) = (Bytes::from(format!("key:{key:012}")), Bytes::from(vec![7; value_bytes]));
                node.set(key, value, WriteOptions::default()).await.unwrap();
            }
        });
    }
    writers.join_all().await;
}
