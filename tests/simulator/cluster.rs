//! Nodes on one simulated network: starting, killing and looking at them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use mesh::{Config, Node, Readiness, WallClock};
use mesh_proto::{NodeId, ReplicationFactor, Ring, Rings, Slot, Weight, WriteConcern};
use mesh_sim::SimulatedNetwork;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, sleep};

use crate::{
    life::Life,
    links::Links,
    narrator::{Narrator, narrate},
    overlap::Spans,
    plan::{Plan, Promise},
    tally::Tally,
};

/// How often a condition is looked at: first, and at most after a while.
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_millis(160);

thread_local! {
    /// The rings of all seeds: nodes have the same names in each, and most have the same rings. Threads that shared them would
    /// wait for each other.
    static RINGS: Arc<Rings> = Arc::new(Rings::new(1024));
}

/// A node's place: it stays, whatever process is in it.
struct Place {
    config: Config,
    /// Where it really is, whatever it announces.
    addr: String,
    running: Option<Running>,
    clock_ms: Arc<AtomicI64>,
    starts: u64,
}

/// One process.
struct Running {
    node: Node,
    life: Arc<Life>,
    /// It has asked for this one, or been given it by its capacity.
    weight: Weight,
    /// It is about to stop politely: it still serves requests, but is no member any more.
    leaves: bool,
}

/// The cluster of one seed.
pub struct Cluster {
    pub network: SimulatedNetwork,
    pub tally: Arc<Tally>,
    pub epoch: Instant,
    pub spans: Spans,
    /// Locked for a moment only, never across an await.
    places: Mutex<Vec<Place>>,
}

impl Cluster {
    /// The plan's nodes, not started.
    pub fn new(plan: &Plan) -> Self {
        let epoch = Instant::now();
        let mut dice = SmallRng::seed_from_u64(plan.seed ^ 0xc105);
        let weighted = dice.random_bool(0.3);
        let place = |index: usize| {
            let clock_ms = Arc::new(AtomicI64::new(plan.clock_offsets_ms[index]));
            let mut config = config(plan, index);
            config.wall_clock = WallClock::Simulated { epoch, offset_ms: Arc::clone(&clock_ms) };
            config.store.bytes_max = (64 << 20) * if weighted { dice.random_range(1..=16) } else { 4 };
            Place { addr: config.public_addr.clone(), config, running: None, clock_ms, starts: 0 }
        };
        let places: Vec<Place> = (0..plan.places).map(place).collect();
        let network = SimulatedNetwork::new(plan.seed);
        let cluster =
            Self { network, tally: Arc::default(), epoch, spans: Spans::default(), places: Mutex::new(places) };
        Links::default().apply(&cluster.network, &cluster.ids());
        cluster
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().expect("nobody panics under this lock")
    }

    /// All nodes' ids, by place.
    pub fn ids(&self) -> Vec<NodeId> {
        self.places().iter().map(|place| place.config.id()).collect()
    }

    /// The running nodes with their places, without those that are leaving.
    pub fn running(&self) -> Vec<(usize, Node, Arc<Life>)> {
        self.nodes(|running| !running.leaves)
    }

    /// The nodes that answer clients, with their places.
    pub fn serving(&self) -> Vec<(usize, Node, Arc<Life>)> {
        self.nodes(|_| true)
    }

    fn nodes(&self, wanted: impl Fn(&Running) -> bool) -> Vec<(usize, Node, Arc<Life>)> {
        let places = self.places();
        let nodes = places.iter().enumerate().filter_map(|(at, place)| Some((at, place.running.as_ref()?)));
        let nodes = nodes.filter(|(_, running)| wanted(running));
        nodes.map(|(at, running)| (at, running.node.clone(), Arc::clone(&running.life))).collect()
    }

    /// The node in a place.
    pub fn node(&self, at: usize) -> Option<Node> {
        self.places()[at].running.as_ref().map(|running| running.node.clone())
    }

    /// A new process, empty, in a place where none is: a storm of restarts may have been faster than who wanted to return.
    pub fn start(&self, at: usize) {
        let mut places = self.places();
        let place = &mut places[at];
        if place.running.is_some() {
            return;
        }
        place.starts += 1;
        let mut config = place.config.clone();
        config.seed = config.seed.wrapping_add(place.starts.wrapping_mul(7919));
        let transport = self.network.transport(config.id(), &place.addr);
        narrate(self.epoch, || format!("node {at} starts as {}", config.id()));
        let observer = Narrator::observer(at, place.starts, self.epoch, &self.tally);
        let node = Node::start(config, transport, observer).expect("a simulated node starts");
        let weight = Weight::from_capacity(place.config.store.bytes_max);
        place.running = Some(Running { node, life: Arc::default(), weight, leaves: false });
    }

    /// How processes in a place are configured from their next start on, and where they are.
    pub fn configure(&self, at: usize, change: impl FnOnce(&mut Config, &mut String)) {
        let place = &mut self.places()[at];
        change(&mut place.config, &mut place.addr);
    }

    /// Kills the process in a place.
    pub fn crash(&self, at: usize) {
        if let Some(Running { node, life, .. }) = self.places()[at].running.take() {
            narrate(self.epoch, || format!("node {at} is killed"));
            node.crash();
            self.tally.add_rounds(&node.stats());
            life.end();
        }
    }

    /// Stops the process in a place politely, or the next one there if it is just being restarted; clients may ask it until it is
    /// gone. Whether the others hold all that it held; also if it was killed before it was through.
    pub async fn stop(&self, at: usize) -> bool {
        let leaves = || {
            self.places()[at].running.as_mut().map(|running| {
                running.leaves = true;
                (running.node.clone(), Arc::clone(&running.life))
            })
        };
        let (node, life) = loop {
            match leaves() {
                Some(leaves) => break leaves,
                None => sleep(POLL_MIN).await,
            }
        };
        narrate(self.epoch, || format!("node {at} is told to stop"));
        let drained = tokio::select! {
            biased;
            () = life.over() => return true,
            drained = node.stop() => drained,
        };
        narrate(self.epoch, || format!("node {at} has stopped, drained: {drained}"));
        self.places()[at].running = None;
        self.tally.add_rounds(&node.stats());
        life.end();
        drained
    }

    /// Lets the node in a place, if there is one, have this share.
    pub fn weigh(&self, at: usize, weight: Weight) {
        let node = self.places()[at].running.as_mut().map(|running| {
            running.weight = weight;
            running.node.clone()
        });
        if let Some(node) = node {
            node.set_weight(weight);
        }
    }

    /// Moves a node's wall clock.
    pub fn move_clock(&self, at: usize, by_ms: i64) {
        self.places()[at].clock_ms.fetch_add(by_ms, Relaxed);
    }

    /// Whether all running nodes are ready and have one ring, of exactly them.
    pub fn is_ready(&self) -> bool {
        let running = self.running();
        if !running.iter().all(|(_, node, _)| node.readiness() == Readiness::Ready) {
            return false;
        }
        let views: Vec<_> = running.iter().map(|(_, node, _)| node.view()).collect();
        views.iter().all(|view| {
            let in_ring = view.members.iter().filter(|member| matches!(member.state, "alive" | "suspect")).count();
            view.ring == views[0].ring && in_ring == running.len()
        })
    }

    /// Whether all owners of each slot hold the same versions of the same keys, but for tombstones that some have collected and
    /// others are about to, and nothing is queued for anybody.
    pub fn is_settled(&self) -> bool {
        self.unsettled().is_none()
    }

    /// What is not as it should be once all is quiet, in words.
    pub fn unsettled(&self) -> Option<String> {
        let running = self.running();
        if !self.is_ready() {
            let states: Vec<_> =
                running.iter().map(|(at, node, _)| (at, node.readiness(), self.view_of(node))).collect();
            return Some(format!("not all are ready, with one ring: {states:?}"));
        }
        // A member that is gone for good keeps its hints until they are too old: it might have come back as it was.
        let runs = |id| running.iter().any(|(_, node, _)| node.id() == id);
        for (at, node, _) in &running {
            if let Some(hints) = node.hints().iter().find(|hints| hints.queued > 0 && runs(hints.peer)) {
                return Some(format!("node {at} has {} hints for {}", hints.queued, hints.peer));
            }
        }
        let digests: Vec<_> = running.iter().map(|(_, node, _)| (node.id(), node.digests())).collect();
        if digests.iter().all(|(_, of_node)| *of_node == digests[0].1) {
            return None;
        }
        let ring = self.ring();
        Slot::all().find_map(|slot| {
            let owners = ring.owners(slot);
            let mut held = running.iter().zip(&digests).filter(|(_, (id, _))| owners.contains(id));
            let first = held.next().map(|(_, (_, of_node))| of_node[slot.index()])?;
            held.any(|((_, node, _), _)| !node.agrees_on(slot, first)).then(|| format!("the owners of {slot:?} differ"))
        })
    }

    /// Whom a node knows, by place: what it believes of each, and whether it is connected to it.
    fn view_of(&self, node: &Node) -> Vec<(usize, &'static str, bool)> {
        let (ids, view) = (self.ids(), node.view());
        let place = |id: &str| ids.iter().position(|known| known.to_string() == id);
        let members = view.members.iter();
        members.filter_map(|member| Some((place(&member.id)?, member.state, member.connected))).collect()
    }

    /// The ring of the running nodes.
    pub fn ring(&self) -> Arc<Ring> {
        let (members, replicas): (Vec<_>, _) = {
            let places = self.places();
            let running = places.iter().filter_map(|place| Some((place, place.running.as_ref()?)));
            let members = running.filter(|(_, running)| !running.leaves);
            let members: Vec<_> = members.map(|(place, running)| (place.config.id(), running.weight)).collect();
            (members, places[0].config.replicas)
        };
        RINGS.with(|rings| rings.ring(&members, &[], replicas))
    }

    /// Waits for a condition; whether it came true in time, and after how long.
    pub async fn wait(
        &self,
        patience: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<Duration, Duration> {
        let started = Instant::now();
        let mut pause = POLL_MIN;
        loop {
            if condition(self) {
                return Ok(started.elapsed());
            }
            if started.elapsed() >= patience {
                return Err(started.elapsed());
            }
            sleep(pause).await;
            pause = (pause * 5 / 4).min(POLL_MAX);
        }
    }
}

fn config(plan: &Plan, index: usize) -> Config {
    let addr = |index: usize| format!("node{index}:5011");
    let mut config = Config::new(&addr(index));
    config.seeds = (0..plan.seeds).map(addr).collect();
    config.replicas = ReplicationFactor::new(plan.replicas).expect("1 to 8");
    config.concern = WriteConcern::new(plan.concern, config.replicas).expect("not above the replicas");
    config.gossip_interval = plan.gossip_interval;
    config.suspicion = plan.suspicion;
    config.hedge_delay = plan.hedge_delay;
    config.rings = RINGS.with(Arc::clone);
    config.seed = plan.seed.wrapping_mul(1000).wrapping_add(index as u64 + 1);
    if let Some(kept) = plan.tombstones_kept {
        config.store.tombstone_age_min = kept;
        config.hints.age_max = kept;
    }
    if let Some(bytes_max) = plan.hint_bytes_max {
        config.hints.bytes_max = bytes_max;
    }
    if plan.promise == Promise::Evicting {
        config.store.entries_max = 256;
    }
    config
}
