//! Three real nodes over QUIC on loopback, port 0: the same promises as in the simulation, where real sockets, real TLS and
//! real time could break them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may stop at the first surprise")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh::{
    Config, GetOptions, Lookup, NoObserver, Node, Readiness, WriteOptions,
    transport::{ClusterSecret, Credentials, QuicConfig, QuicTransport},
};
use mesh_proto::{Consistency, NodeId};

fn quic(name: &str, bind: SocketAddr, secret: &str) -> Arc<QuicTransport> {
    let credentials = Credentials::Secret(ClusterSecret::new(secret));
    Arc::new(QuicTransport::new(QuicConfig::new(NodeId::from_name(name), bind, credentials)).unwrap())
}

/// Starts a node that looks for `seed`, or is the first.
fn start(name: &str, bind: SocketAddr, seed: Option<SocketAddr>, secret: &str) -> (Node, SocketAddr) {
    let transport = quic(name, bind, secret);
    let addr = transport.local_addr();
    let mut config = Config::new(&addr.to_string());
    name.clone_into(&mut config.name);
    config.seeds = vec![seed.unwrap_or(addr).to_string()];
    (Node::start(config, transport, Arc::new(NoObserver)).unwrap(), addr)
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn three() -> [(Node, SocketAddr); 3] {
    let (a, seed) = start("a", loopback(), None, "secret");
    let b = start("b", loopback(), Some(seed), "secret");
    let c = start("c", loopback(), Some(seed), "secret");
    let nodes = [(a, seed), b, c];
    until("three nodes are ready", Duration::from_secs(15), || {
        nodes.iter().all(|(node, _)| node.readiness() == Readiness::Ready && in_ring(node) == 3)
    })
    .await;
    nodes
}

fn in_ring(node: &Node) -> usize {
    node.view().members.iter().filter(|member| matches!(member.state, "alive" | "suspect")).count()
}

async fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

async fn value(node: &Node, key: &str, consistency: Consistency) -> Option<Bytes> {
    let options = GetOptions { consistency, trace: None };
    match node.get(&Bytes::copy_from_slice(key.as_bytes()), options).await.unwrap() {
        Lookup::Local(hit) | Lookup::Remote(hit) => Some(hit.value),
        Lookup::Miss { .. } => None,
    }
}

async fn set(node: &Node, key: &str, value: &Bytes) {
    let key = Bytes::copy_from_slice(key.as_bytes());
    node.set(key, value.clone(), WriteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn values_of_every_size_reach_every_node() {
    let nodes = three().await;
    for bytes in [0, 1, 1000, 64 << 10, (64 << 10) + 1, 1 << 20, 2 << 20] {
        let value_in: Bytes = (0..bytes).map(|index: usize| u8::try_from(index % 251).unwrap()).collect();
        let key = format!("of {bytes} bytes");
        set(&nodes[0].0, &key, &value_in).await;
        for (node, _) in &nodes {
            let value_out = value(node, &key, Consistency::Quorum).await;
            assert!(value_out.as_ref() == Some(&value_in), "{key}: {:?} bytes", value_out.map(|value| value.len()));
        }
    }
}

#[tokio::test]
async fn a_crashed_node_is_noticed_comes_back_empty_and_refills() {
    let mut nodes = three().await;
    for key in 0..2000 {
        set(&nodes[key % 3].0, &format!("k{key}"), &Bytes::from(format!("v{key}"))).await;
    }
    let (_, seed) = nodes[0];
    let addr = nodes[2].1;
    nodes[2].0.crash();
    let detected =
        until("its death is known", Duration::from_secs(10), || nodes[..2].iter().all(|(node, _)| in_ring(node) == 2))
            .await;
    assert!(detected <= Duration::from_millis(2000 + 2 * 500 + 500), "{detected:?}");
    for key in 0..2000 {
        assert_eq!(
            value(&nodes[key % 2].0, &format!("k{key}"), Consistency::One).await,
            Some(Bytes::from(format!("v{key}")))
        );
    }
    nodes[2] = start("c", addr, Some(seed), "secret");
    until("it is back", Duration::from_secs(15), || {
        nodes.iter().all(|(node, _)| node.readiness() == Readiness::Ready && in_ring(node) == 3)
    })
    .await;
    assert_eq!(nodes[2].0.stats().store.entries, 2000);
    nodes[0].0.crash();
    for key in 0..2000 {
        assert_eq!(
            value(&nodes[2].0, &format!("k{key}"), Consistency::One).await,
            Some(Bytes::from(format!("v{key}")))
        );
    }
}

#[tokio::test]
async fn a_node_with_another_secret_stays_outside_and_is_counted() {
    let (inside, seed) = start("a", loopback(), None, "secret");
    let (outside, _) = start("b", loopback(), Some(seed), "another secret");
    until("the attempt is counted", Duration::from_secs(10), || inside.stats().peers_refused > 0).await;
    assert_eq!(outside.readiness(), Readiness::Joining);
    assert_eq!(in_ring(&inside), 1);
}

#[tokio::test]
async fn a_second_node_of_the_same_name_is_turned_away() {
    let (_first, seed) = start("a", loopback(), None, "secret");
    let (second, _) = start("a", loopback(), Some(seed), "secret");
    let reason = tokio::time::timeout(Duration::from_secs(10), second.refused()).await.unwrap();
    assert!(reason.contains("already used"), "{reason}");
    assert!(matches!(second.readiness(), Readiness::Refused(_)));
}

#[tokio::test]
async fn writes_are_not_slower_than_their_network() {
    let nodes = three().await;
    for key in 0..200 {
        set(&nodes[0].0, &format!("warm{key}"), &Bytes::from_static(b"v")).await;
    }
    let mut took: Vec<Duration> = Vec::new();
    for key in 0..500 {
        let started = Instant::now();
        set(&nodes[key % 3].0, &format!("k{key}"), &Bytes::from_static(b"v")).await;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    // A round trip on loopback is well under a millisecond; a timer anywhere on the path would show.
    assert!(took[250] < Duration::from_millis(5), "median {:?}", took[250]);
}

/// Too soon for the others to notice that it was gone, and empty: what it held comes by comparison, what it misses by hints.
#[tokio::test]
async fn a_node_that_restarts_at_once_while_writes_go_on_misses_none_of_them() {
    let mut nodes = three().await;
    let written = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (a, b, written, done) = (nodes[0].0.clone(), nodes[1].0.clone(), Arc::clone(&written), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Relaxed) {
                let key = written.load(Ordering::Relaxed);
                let via = if key.is_multiple_of(2) { &a } else { &b };
                let (name, value) = (Bytes::from(format!("k{key}")), Bytes::from(format!("v{key}")));
                // A write in flight to the node that crashes may end without a verdict; the caller then tries again.
                while via.set(name.clone(), value.clone(), WriteOptions::default()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                written.store(key + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    until("some are written", Duration::from_secs(10), || written.load(Ordering::Relaxed) >= 100).await;
    let (seed, addr) = (nodes[0].1, nodes[2].1);
    nodes[2].0.crash();
    let before = written.load(Ordering::Relaxed);
    until("some are missed", Duration::from_secs(10), || written.load(Ordering::Relaxed) >= before + 50).await;
    nodes[2] = start("c", addr, Some(seed), "secret");
    until("it is back", Duration::from_secs(15), || {
        nodes.iter().all(|(node, _)| node.readiness() == Readiness::Ready && in_ring(node) == 3)
    })
    .await;
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let keys = written.load(Ordering::Relaxed);
    until("all replicas are alike", Duration::from_secs(10), || {
        nodes.iter().all(|(node, _)| node.digests() == nodes[0].0.digests())
    })
    .await;
    assert!(nodes.iter().all(|(node, _)| node.stats().store.entries == keys as u64), "{keys} keys");
    assert!(nodes[..2].iter().any(|(node, _)| node.stats().missed_writes > 0), "nothing was missed");
}
