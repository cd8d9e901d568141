//! G6 at its full size: with 100 000 keys all owners hold the same versions within 10 s after a fault has healed. In
//! simulated time, where the figure is exact, and once over real QUIC, where it is printed.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh::{
    Config, NoObserver, Node, Readiness,
    transport::{ClusterSecret, Credentials, QuicConfig, QuicTransport, Transport},
};
use mesh_proto::{Direction, FaultPeer, FaultRule, LinkFault, NodeId};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    cluster::Cluster,
    links::Links,
    promises::{play, scene, set},
};

const KEYS: usize = 100_000;

/// What the guarantee says.
const CONVERGED_MAX: Duration = Duration::from_secs(10);

/// Writers at the same time.
const WRITERS: usize = 64;

/// What a machine that is slow and busy may take in real time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes these keys through these nodes.
async fn fill(nodes: &[Node], keys: std::ops::Range<usize>, value: &'static str) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (node, keys) = (nodes[writer % nodes.len()].clone(), keys.clone());
        writers.spawn(async move {
            for number in keys.skip(writer).step_by(WRITERS) {
                // What is refused while the ring changes is no matter here: only that in the end all are of one mind.
                let _ = set(&node, number, value).await;
            }
        });
    }
    writers.join_all().await;
}

async fn converges(cluster: &Cluster, what: &str) {
    let took = cluster.wait(CONVERGED_MAX, Cluster::is_settled).await;
    println!("{what}: {took:?}");
    assert!(took.is_ok(), "{what}: owners differ after {CONVERGED_MAX:?}: {:?}", cluster.unsettled());
}

fn converges_after_every_fault(nodes: usize) {
    play(&scene(nodes, 3, 2), async |cluster| {
        let last = nodes - 1;
        let all: Vec<Node> = cluster.running().into_iter().map(|(_, node, _)| node).collect();
        fill(&all, 0..KEYS, "first").await;
        converges(cluster, "after the load").await;
        let held: u64 = all.iter().map(|node| node.stats().store.entries).sum();
        assert_eq!(held, 3 * KEYS as u64, "every key has three owners");
        let mut links = Links::default();
        let others: Vec<usize> = (0..last).collect();
        links.cut(&[last], &others);
        links.cut(&others, &[last]);
        links.apply(&cluster.network, &cluster.ids());
        fill(&all[..last], 0..KEYS / 5, "second").await;
        sleep(Duration::from_secs(5)).await;
        fill(&all[..last], KEYS / 5..KEYS / 4, "third").await;
        Links::default().apply(&cluster.network, &cluster.ids());
        converges(cluster, &format!("{nodes} nodes, after a partition")).await;
        cluster.crash(0);
        sleep(Duration::from_secs(5)).await;
        fill(&all[1..], 0..KEYS / 10, "fourth").await;
        cluster.start(0);
        converges(cluster, &format!("{nodes} nodes, after a crash")).await;
    });
}

#[test]
fn three_nodes_agree_on_100_000_keys_within_10_s_of_every_heal() {
    converges_after_every_fault(3);
}

#[test]
fn five_nodes_agree_on_100_000_keys_within_10_s_of_every_heal() {
    converges_after_every_fault(5);
}

/// One of three nodes on loopback.
struct RealNode {
    node: Node,
    transport: Arc<QuicTransport>,
}

fn start(name: &str, seed: Option<SocketAddr>) -> RealNode {
    let credentials = Credentials::Secret(ClusterSecret::new("secret"));
    let bind = "127.0.0.1:0".parse().unwrap();
    let transport = QuicTransport::new(QuicConfig::new(NodeId::from_name(name), bind, credentials)).unwrap();
    let transport = Arc::new(transport);
    let addr = transport.local_addr();
    let mut config = Config::new(&addr.to_string());
    name.clone_into(&mut config.name);
    config.seeds = vec![seed.unwrap_or(addr).to_string()];
    let node = Node::start(config, Arc::clone(&transport) as _, Arc::new(NoObserver)).unwrap();
    RealNode { node, transport }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
    started.elapsed()
}

/// All three own everything, so all their digests are equal.
fn agree(nodes: &[RealNode]) -> bool {
    let first = nodes[0].node.digests();
    nodes.iter().all(|real| {
        real.node.readiness() == Readiness::Ready && real.node.stats().hints.queued == 0 && real.node.digests() == first
    })
}

#[test]
fn three_nodes_agree_on_100_000_keys_over_real_quic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let first = start("a", None);
        let seed = first.transport.local_addr();
        let nodes = [first, start("b", Some(seed)), start("c", Some(seed))];
        let in_ring = |real: &RealNode| real.node.view().members.len() == 3;
        until("all are ready", || nodes.iter().all(in_ring) && agree(&nodes)).await;
        let two: Vec<Node> = nodes[..2].iter().map(|real| real.node.clone()).collect();
        fill(&two, 0..KEYS, "first").await;
        until("they agree after the load", || agree(&nodes)).await;
        assert_eq!(nodes[2].node.stats().store.entries, KEYS as u64);
        let faults = nodes[2].transport.faults();
        let cut = LinkFault { cut: true, ..LinkFault::default() };
        let (peer, direction, now) = (FaultPeer::Everybody, Direction::Both, faults.now());
        faults.add(&[FaultRule { peer, direction, fault: cut, flap: None, from: now, until: now + PATIENCE }]).unwrap();
        let is_gone =
            || nodes[..2].iter().all(|real| real.node.view().members.iter().any(|member| member.state == "dead"));
        until("the others declare it dead", is_gone).await;
        fill(&two, 0..KEYS / 4, "second").await;
        assert!(!agree(&nodes), "the cut has had no effect");
        faults.heal();
        let took = until("they agree after the heal", || agree(&nodes)).await;
        println!("three nodes over QUIC, 100 000 keys: equal {took:?} after the heal");
    });
}
