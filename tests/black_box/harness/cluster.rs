//! A few nodes that form one mesh, and the network between them.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    Loopback, Machine, NodeClient, NodeProcess, NodeSpec, eventually,
    udp_proxy::{Fault, UdpProxy},
};

/// Debug builds on a busy machine take their time to start; a healthy mesh forms in about two seconds.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A running mesh. Everything is killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<NodeProcess>,
    network: Network,
    settings: Vec<(String, String)>,
    folder: TempDir,
    _machine: Machine,
}

/// What lies between the nodes: nothing, or a proxy in front of each.
#[derive(Debug)]
pub struct Network {
    proxies: Vec<UdpProxy>,
    ips: Vec<std::net::IpAddr>,
}

impl Cluster {
    /// Starts `count` nodes with these settings and waits until all are ready.
    pub async fn start(count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_specs(count, settings, false).await
    }

    /// As [`Cluster::start`], with a [`Network`] between the nodes that can be broken.
    pub async fn start_behind_proxies(count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_specs(count, settings, true).await
    }

    async fn start_specs(count: usize, settings: &[(&str, &str)], proxied: bool) -> Self {
        let machine = Machine::alone().await;
        let folder = TempDir::new().expect("a temporary folder");
        let mut specs: Vec<NodeSpec> = (0..count).map(|index| NodeSpec::new(&format!("node{index}"))).collect();
        let mut proxies = Vec::new();
        if proxied {
            for spec in &mut specs {
                spec.public = Loopback::fresh().free_port();
                proxies.push(UdpProxy::start(spec.public, spec.bind).await);
            }
        }
        let network = Network { proxies, ips: specs.iter().map(NodeSpec::ip).collect() };
        let seeds: Vec<String> = specs.iter().map(|spec| spec.public.to_string()).collect();
        let seeds = seeds.join(",");
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let settings =
            std::iter::once(("CACHE_SEEDS", &seeds[..])).chain(settings.iter().copied()).map(owned).collect();
        let mut cluster = Self { nodes: Vec::new(), network, settings, folder, _machine: machine };
        specs.into_iter().for_each(|spec| cluster.start_node(spec));
        cluster.wait_whole(START_WITHIN).await;
        cluster
    }

    fn start_node(&mut self, spec: NodeSpec) {
        let spec = self.settings.iter().fold(spec, |spec, (name, value)| spec.with(name, value));
        self.nodes.push(NodeProcess::start(spec, self.folder.path()));
    }

    /// Starts one more node that looks for the mesh where the first ones do; not behind proxies.
    pub fn add(&mut self) {
        self.start_node(NodeSpec::new(&format!("node{}", self.nodes.len())));
    }

    /// One node.
    pub fn node(&self, index: usize) -> &NodeProcess {
        &self.nodes[index]
    }

    /// One node, to do something to it.
    pub fn node_mut(&mut self, index: usize) -> &mut NodeProcess {
        &mut self.nodes[index]
    }

    /// The HTTP APIs of these nodes.
    pub fn clients(&self, indices: &[usize]) -> Vec<NodeClient> {
        indices.iter().map(|index| self.nodes[*index].client()).collect()
    }

    /// What lies between the nodes.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Waits until every running node is ready, sees all the others alive and has the same ring; says how long it took.
    pub async fn wait_whole(&self, within: Duration) -> Duration {
        let running = || self.nodes.iter().filter(|node| node.is_running());
        let whole = async || {
            let mut rings = Vec::new();
            for node in running() {
                let view = node.client().cluster().await?;
                let alive = members(&view).filter(|(_, state)| state == "alive").count();
                let ready = node.client().is_ready().await;
                rings.push(view["ring"].as_str()?.to_owned());
                if alive != running().count() || !ready {
                    return None;
                }
            }
            rings.dedup();
            (rings.len() == 1).then_some(())
        };
        eventually("the mesh to be whole", within, whole).await.1
    }

    /// Waits until each of the `observers` sees node `whom` in `state`; says how long it took.
    pub async fn wait_seen(&self, observers: &[usize], whom: usize, state: &str, within: Duration) -> Duration {
        let addr = self.nodes[whom].spec().public;
        let seen = async || {
            for observer in observers {
                let view = self.nodes[*observer].client().cluster().await?;
                if state_of(&view, addr).as_deref() != Some(state) {
                    return None;
                }
            }
            Some(())
        };
        eventually(&format!("node{whom} to be seen as {state} by {observers:?}"), within, seen).await.1
    }

    /// How each running node sees node `whom`.
    pub async fn states_of(&self, whom: usize) -> Vec<String> {
        let addr = self.nodes[whom].spec().public;
        let mut states = Vec::new();
        for node in &self.nodes {
            let view = node.client().cluster().await.expect("/cluster answers");
            states.push(state_of(&view, addr).unwrap_or_default());
        }
        states
    }

    /// Sum of a counter of `/stats`, by JSON pointer, over these nodes.
    pub async fn stat(&self, indices: &[usize], pointer: &str) -> u64 {
        let mut sum = 0;
        for client in self.clients(indices) {
            let stats = client.stats().await.expect("/stats answers");
            sum += stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {stats}"));
        }
        sum
    }
}

impl Network {
    /// Cuts one node off from all others, both ways.
    pub fn isolate(&self, index: usize) {
        self.set(index, Fault { cut: true, ..Fault::default() });
    }

    /// Makes the way to and from one node longer, by `delay` each way.
    pub fn slow_down(&self, index: usize, delay: Duration) {
        self.set(index, Fault { delay, ..Fault::default() });
    }

    fn set(&self, index: usize, fault: Fault) {
        assert!(!self.proxies.is_empty(), "start the cluster behind proxies to break its network");
        for (other, proxy) in self.proxies.iter().enumerate() {
            if other == index {
                proxy.set(fault);
            } else {
                proxy.set_for(self.ips[index], fault);
            }
        }
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.proxies.iter().for_each(UdpProxy::heal);
    }

    /// Fails if a node has dialled from an address that is not its own: no fault could then be laid on it.
    pub fn assert_senders_known(&self) {
        for proxy in &self.proxies {
            let strangers: Vec<_> = proxy.senders_seen().into_iter().filter(|ip| !self.ips.contains(ip)).collect();
            assert!(strangers.is_empty(), "nodes dialled from {strangers:?} instead of CACHE_BIND's address");
        }
    }
}

fn members(view: &Value) -> impl Iterator<Item = (String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = view["members"].as_array().cloned().unwrap_or_default();
    members.into_iter().map(move |member| (text(&member["addr"]), text(&member["state"])))
}

fn state_of(view: &Value, addr: SocketAddr) -> Option<String> {
    let addr = addr.to_string();
    members(view).find(|(member, _)| *member == addr).map(|(_, state)| state)
}
