//! A little language for tests of whole clusters on the simulated network, under paused time and by seed.
#![allow(dead_code, reason = "each test binary speaks a part of it")]

pub(crate) mod load;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh::{
    Config, GetError, GetOptions, Lookup, Node, Observer, Readiness, WallClock, WriteError, WriteOptions, Written,
    transport::LinkFault,
};
use mesh_proto::{Consistency, Event, NodeId, OpRecord, ReplicationFactor, WriteConcern};
use mesh_sim::SimulatedNetwork;
use tokio::time::Instant;

/// Counts operations and their legs over all nodes.
#[derive(Default)]
pub(crate) struct Legs {
    pub(crate) operations: AtomicUsize,
    pub(crate) legs: AtomicUsize,
}

impl Observer for Legs {
    fn event(&self, _event: &Event) {}

    fn operation(&self, record: &OpRecord) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.legs.fetch_add(record.legs.len(), Ordering::Relaxed);
    }
}

/// Nodes on one simulated network. A crashed node leaves an empty place.
pub(crate) struct Cluster {
    pub(crate) network: SimulatedNetwork,
    pub(crate) nodes: Vec<Option<Node>>,
    pub(crate) legs: Arc<Legs>,
    configs: Vec<Config>,
    restarts: u64,
}

impl Cluster {
    /// Starts `count` nodes that all know the first one, and waits until they are ready.
    pub(crate) async fn start(seed: u64, count: usize, replicas: u64, concern: u64) -> Self {
        Self::start_with(seed, count, replicas, concern, |_| {}).await
    }

    /// As [`Cluster::start`], with something changed about every node.
    pub(crate) async fn start_with(
        seed: u64,
        count: usize,
        replicas: u64,
        concern: u64,
        change: impl Fn(&mut Config),
    ) -> Self {
        Self::start_some(seed, (count, count), (replicas, concern), change).await
    }

    /// As [`Cluster::start_with`], with places for more nodes than are started: `(places, started)`.
    pub(crate) async fn start_some(
        seed: u64,
        (count, started): (usize, usize),
        (replicas, concern): (u64, u64),
        change: impl Fn(&mut Config),
    ) -> Self {
        let network = SimulatedNetwork::new(seed);
        let epoch = Instant::now();
        let addr = |index: usize| format!("node{index}:5011");
        let configs = (0..count).map(|index| {
            let mut config = Config::new(&addr(index));
            config.seeds = vec![addr(0), addr(1.min(count - 1))];
            config.replicas = ReplicationFactor::new(replicas).unwrap();
            config.concern = WriteConcern::new(concern, config.replicas).unwrap();
            config.wall_clock = WallClock::Simulated { epoch, offset_ms: Arc::new(AtomicI64::new(0)) };
            config.seed = seed.wrapping_mul(1000) + index as u64 + 1;
            change(&mut config);
            config
        });
        let mut cluster =
            Self { network, nodes: vec![None; count], legs: Arc::default(), configs: configs.collect(), restarts: 0 };
        for index in 0..started {
            cluster.start_node(index);
        }
        cluster.all_ready(Duration::from_secs(20)).await;
        cluster
    }

    pub(crate) fn id(&self, index: usize) -> NodeId {
        self.configs[index].id()
    }

    pub(crate) fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().expect("the node is running")
    }

    /// The places of running nodes.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].is_some()).collect()
    }

    /// Starts a node, empty, in a new process as it were.
    pub(crate) fn start_node(&mut self, index: usize) {
        self.restarts += 1;
        let mut config = self.configs[index].clone();
        config.seed = config.seed.wrapping_add(self.restarts.wrapping_mul(7919));
        let transport = self.network.transport(config.id(), &config.public_addr);
        self.nodes[index] =
            Some(Node::start(config, transport, Arc::clone(&self.legs) as _).expect("a simulated node starts"));
    }

    pub(crate) fn crash(&mut self, index: usize) {
        self.nodes[index].take().expect("the node is running").crash();
    }

    /// Cuts everything between one node and all others, both ways.
    pub(crate) fn isolate(&self, index: usize) {
        let cut = LinkFault { cut: true, ..LinkFault::default() };
        for other in (0..self.configs.len()).filter(|other| *other != index) {
            self.network.set_fault(self.id(index), self.id(other), cut);
            self.network.set_fault(self.id(other), self.id(index), cut);
        }
    }

    /// Cuts what goes to one node: it can be heard, but hears nobody.
    pub(crate) fn isolate_one_way(&self, index: usize) {
        let cut = LinkFault { cut: true, ..LinkFault::default() };
        for other in (0..self.configs.len()).filter(|other| *other != index) {
            self.network.set_fault(self.id(other), self.id(index), cut);
        }
    }

    /// Waits until every running node is ready; panics after `patience` of simulated time.
    pub(crate) async fn all_ready(&self, patience: Duration) -> Duration {
        self.wait(patience, "all nodes are ready", |cluster| {
            cluster.running().iter().all(|index| cluster.node(*index).readiness() == Readiness::Ready)
                && cluster.one_ring()
        })
        .await
    }

    /// Whether all running nodes have the same ring, and it holds exactly them.
    pub(crate) fn one_ring(&self) -> bool {
        let running = self.running();
        let views: Vec<_> = running.iter().map(|index| self.node(*index).view()).collect();
        views.iter().all(|view| {
            let in_ring = view.members.iter().filter(|member| matches!(member.state, "alive" | "suspect")).count();
            view.ring == views[0].ring && in_ring == running.len()
        })
    }

    /// Whether all running nodes hold the same versions of the same keys. For clusters in which each owns everything.
    pub(crate) fn digests_agree(&self) -> bool {
        let running = self.running();
        running.iter().all(|index| self.node(*index).digests() == self.node(running[0]).digests())
    }

    /// Polls a condition; returns how long it took.
    pub(crate) async fn wait(
        &self,
        patience: Duration,
        what: &str,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let started = Instant::now();
        while !condition(self) {
            if started.elapsed() > patience {
                let views: Vec<_> = self
                    .running()
                    .iter()
                    .map(|index| (self.node(*index).readiness(), self.node(*index).view()))
                    .collect();
                panic!("not within {patience:?}: {what}; {views:#?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        started.elapsed()
    }

    pub(crate) async fn set(&self, via: usize, key: &str, value: &str) -> Result<Written, WriteError> {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        self.node(via).set(key, value, WriteOptions::default()).await
    }

    pub(crate) async fn get(&self, via: usize, key: &str, consistency: Consistency) -> Result<Lookup, GetError> {
        let options = GetOptions { consistency, trace: None };
        self.node(via).get(&Bytes::copy_from_slice(key.as_bytes()), options).await
    }

    /// The value as text; nothing for a miss.
    pub(crate) async fn value(
        &self,
        via: usize,
        key: &str,
        consistency: Consistency,
    ) -> Result<Option<String>, GetError> {
        let lookup = self.get(via, key, consistency).await?;
        Ok(match lookup {
            Lookup::Local(hit) | Lookup::Remote(hit) => Some(String::from_utf8(hit.value.to_vec()).unwrap()),
            Lookup::Miss { .. } => None,
        })
    }
}
