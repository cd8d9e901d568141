//! What a node does not put up with: settings that make no sense, ports that are taken, and strangers.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use rand::{RngCore, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use crate::harness::{Cluster, Consistency, Machine, NodeProcess, NodeSpec, eventually, exit_within};

const START_WITHIN: Duration = Duration::from_secs(20);
const REFUSE_WITHIN: Duration = Duration::from_secs(5);

/// A node that is a mesh by itself.
fn lonely(name: &str) -> NodeSpec {
    let spec = NodeSpec::new(name).with("REPLICATION_FACTOR", "1").with("WRITE_CONCERN", "1");
    let seeds = spec.public.to_string();
    spec.with("CACHE_SEEDS", &seeds)
}

async fn wait_ready(node: &NodeProcess) {
    let ready = async || node.client().is_ready().await.then_some(());
    eventually("the node to be ready", START_WITHIN, ready).await;
}

/// Starts a node that is to end by itself, unhappily, and returns what it said.
async fn refused(spec: NodeSpec, folder: &TempDir, within: Duration) -> String {
    let why = format!("{} to refuse to run", spec.name);
    let mut node = NodeProcess::start(spec, folder.path());
    let status = exit_within(node.child(), within, &why).await;
    assert!(status.code().is_some_and(|code| code != 0), "it ended with {status}:\n{}", node.log());
    node.log()
}

#[tokio::test]
async fn settings_that_make_no_sense_stop_it() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().unwrap();
    for (variable, value) in [
        ("WRITE_CONCERN", "4"),
        ("WRITE_CONCERN", "0"),
        ("REPLICATION_FACTOR", "0"),
        ("REPLICATION_FACTOR", "many"),
        ("PORT", "99999"),
        ("CACHE_BIND", "nowhere"),
        ("READ_PER_TRY_MS", "-1"),
        ("SUSPICION_AFTER_MS", "2s"),
        ("GOSSIP_INTERVAL_MS", "0"),
        ("CAPACITY_BYTES", "plenty"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector:4317"),
        ("TRACE_MODE", "sometimes"),
        ("TRACE_SAMPLE_RATIO", "1.5"),
    ] {
        let said = refused(NodeSpec::new("senseless").with(variable, value), &folder, REFUSE_WITHIN).await;
        let flag = variable.to_lowercase().replace('_', "-");
        assert!(said.contains(variable) || said.contains(&flag), "{variable}={value} is not named:\n{said}");
        assert!(said.contains(value), "{variable}={value} is not shown:\n{said}");
    }
}

#[tokio::test]
async fn without_a_secret_it_listens_on_loopback_only() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().unwrap();
    let spec = lonely("open").without("CACHE_AUTH");
    let port = spec.bind.port();
    for bind in [format!("0.0.0.0:{port}"), format!(":{port}")] {
        // Settings come after the addresses, so this one wins.
        let said = refused(spec.clone().with("CACHE_BIND", &bind), &folder, REFUSE_WITHIN).await;
        assert!(said.contains("CACHE_AUTH"), "{said}");
    }
    wait_ready(&NodeProcess::start(spec, folder.path())).await;
}

#[tokio::test]
async fn ports_that_are_taken_are_named() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().unwrap();
    let spec = lonely("late");
    {
        let _taken = TcpListener::bind(spec.http).unwrap();
        let said = refused(spec.clone(), &folder, REFUSE_WITHIN).await;
        assert!(said.contains("PORT") && said.contains(&spec.http.port().to_string()), "{said}");
    }
    {
        let _taken = UdpSocket::bind(spec.bind).unwrap();
        let said = refused(spec.clone(), &folder, REFUSE_WITHIN).await;
        assert!(said.contains("CACHE_BIND") && said.contains(&spec.bind.port().to_string()), "{said}");
        // Its log has the refusal before, too.
        let of_peers = said.lines().find(|line| line.contains("cannot listen for peers")).unwrap_or_default();
        assert_eq!(of_peers.matches("Address already in use").count(), 1, "{said}");
    }
    // Another node shares its ports among its own threads, and must not share them with a second process.
    let first = NodeProcess::start(spec.clone(), folder.path());
    wait_ready(&first).await;
    let other = lonely("second");
    refused(NodeSpec { http: spec.http, ..other.clone() }, &folder, REFUSE_WITHIN).await;
    refused(NodeSpec { bind: spec.bind, ..other }, &folder, REFUSE_WITHIN).await;
    assert!(first.client().is_ready().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_stays_outside() {
    let _machine = Machine::alone().await;
    let folder = TempDir::new().unwrap();
    let inside = NodeProcess::start(lonely("inside"), folder.path());
    wait_ready(&inside).await;
    let seed = inside.spec().public.to_string();
    let spec = NodeSpec::new("outside").with("CACHE_AUTH", "a guess").with("CACHE_SEEDS", &seed);
    let mut outside = NodeProcess::start(spec, folder.path());
    let told = async || {
        // It may give up or keep trying; either way it says why.
        let _ = outside.child().try_wait();
        outside.log().contains("CACHE_AUTH").then_some(())
    };
    eventually("the stranger to be told about CACHE_AUTH", START_WITHIN, told).await;
    assert!(!outside.client().is_ready().await);
    let view = inside.client().cluster().await.expect("/cluster answers");
    assert_eq!(view["members"].as_array().map(Vec::len), Some(1), "a stranger became a member: {view}");
    assert_eq!(inside.client().set("key", "value").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_peer_port_harms_nobody() {
    let cluster = Cluster::start(3, &[]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let mut packet = [0_u8; 1400];
    for number in 0..3000_usize {
        rng.fill_bytes(&mut packet);
        if number % 2 == 0 {
            // The form of a QUIC version 1 Initial, so that it is not thrown away at the first bit.
            packet[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        let bytes = 1 + number % packet.len();
        let node: SocketAddr = cluster.node(number % 3).spec().bind;
        // A full socket buffer is as good as a loss here.
        let _ = socket.send_to(&packet[..bytes], node);
        if number % 100 == 0 {
            let key = format!("key{number}");
            assert_eq!(cluster.node(0).client().set(&key, "value").await.status, 200);
            assert_eq!(cluster.node(1).client().get(&key, Consistency::Quorum).await.status, 200);
        }
    }
    cluster.wait_whole(Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_with_the_same_name_is_turned_away() {
    let cluster = Cluster::start(3, &[]).await;
    let folder = TempDir::new().unwrap();
    let seeds = cluster.node(0).spec().public.to_string();
    let said = refused(NodeSpec::new("node1").with("CACHE_SEEDS", &seeds), &folder, START_WITHIN).await;
    assert!(said.contains("NODE_ID") && said.contains("node1"), "{said}");
    cluster.wait_whole(Duration::from_secs(10)).await;
    assert_eq!(cluster.node(1).client().set("key", "value").await.status, 200);
}
