//! Four nodes with HTTP in front of the first, on a network in memory without delay. So each slot has three owners, and one node
//! that asks another.

use std::{sync::Arc, sync::atomic::AtomicI64, time::Duration};

use bytes::Bytes;
use mesh::{Node, Readiness, WallClock, Worker, WriteOptions};
use mesh_proto::NodeId;
use mesh_sim::SimulatedNetwork;
use node::{App, Connections, Settings, Shutdown, TelemetryObserver};
use observability::Telemetry;
use tokio::time::Instant;

const NODES: usize = 4;

/// How many keys an operation goes through.
pub(crate) const KEYS: usize = 64;

/// As long as the load's values are by default.
pub(crate) const VALUE: &[u8] = b"v:k-0000000001:7a3f00:1f:0123456789abcdef";

/// The nodes. Operations are asked of the first.
pub(crate) struct Cluster {
    pub(crate) network: SimulatedNetwork,
    pub(crate) nodes: Vec<Node>,
    pub(crate) worker: Worker,
    pub(crate) connections: Connections,
    /// Keys whose slots the first node owns.
    pub(crate) local: Vec<Bytes>,
    /// Keys whose slots the other nodes own.
    pub(crate) remote: Vec<Bytes>,
}

impl Cluster {
    /// Starts the nodes, waits until they are ready, and writes the keys.
    pub(crate) async fn start() -> Self {
        let (network, epoch) = (SimulatedNetwork::new(1), Instant::now());
        let mut nodes = Vec::new();
        let mut first = None;
        for index in 0..NODES {
            let mut settings = settings(index);
            settings.mesh.seed = index as u64 + 1;
            settings.mesh.wall_clock = WallClock::Simulated { epoch, offset_ms: Arc::new(AtomicI64::new(0)) };
            let (node, worker, telemetry) = start_node(&network, &settings);
            nodes.push(node.clone());
            first.get_or_insert((node, worker, telemetry, settings));
        }
        let (node, worker, telemetry, settings) = first.expect("there is a first node");
        let is_ready = |node: &Node| node.readiness() == Readiness::Ready && node.view().members.len() == NODES;
        while !nodes.iter().all(is_ready) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let app = Arc::new(App::new(node, telemetry, &settings, Shutdown::default()));
        let connections = Connections::new(&app, worker.clone(), &settings.http);
        let mut cluster = Self { network, nodes, worker, connections, local: Vec::new(), remote: Vec::new() };
        cluster.write_keys().await;
        cluster
    }

    /// Where a key is found tells whether the first node owns it.
    async fn write_keys(&mut self) {
        for number in 0.. {
            let key = Bytes::from(format!("k-{number:010}"));
            self.nodes[0].set(key.clone(), Bytes::from_static(VALUE), WriteOptions::default()).await.unwrap();
            // The third owner may not have it yet.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let keys = match self.nodes[0].get(&key, mesh::GetOptions::default()).await.unwrap() {
                mesh::Lookup::Local(_) => &mut self.local,
                mesh::Lookup::Remote(_) => &mut self.remote,
                mesh::Lookup::Miss { .. } => panic!("{key:?} was just written"),
            };
            if keys.len() < KEYS {
                keys.push(key);
            }
            if self.local.len() + self.remote.len() == 2 * KEYS {
                return;
            }
        }
    }
}

/// The defaults, but for names.
fn settings(index: usize) -> Settings {
    let public = format!("node{index}:5011");
    let arguments =
        ["node", "--cache-bind", "127.0.0.1:1", "--cache-public", &public, "--cache-seeds", "node0:5011,node1:5011"];
    Settings::from_args(arguments.map(Into::into)).unwrap_or_else(|error| panic!("{error}"))
}

fn start_node(network: &SimulatedNetwork, settings: &Settings) -> (Node, Worker, Arc<Telemetry>) {
    let config = settings.mesh.clone();
    let id: NodeId = config.id();
    let (telemetry, _flush) = observability::init(&config.name, id, "0", &settings.traces).unwrap();
    let transport = network.transport(id, &config.public_addr);
    let node = Node::start_upkeep(config, transport, Arc::new(TelemetryObserver(Arc::clone(&telemetry)))).unwrap();
    let worker = node.add_worker().unwrap();
    (node, worker, telemetry)
}
