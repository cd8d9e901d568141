//! Whole clusters of membership machines under virtual time: every delay, loss and fault comes from a seed, and every
//! failure names it. Replay one with `MEMBERSHIP_SEED=<seed> cargo test -p mesh-proto --test membership_sim <test>`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use mesh_proto::{
    Event, GossipMessage, Incarnation, Member, MemberState, Membership, MembershipConfig, MembershipOutput, Monotonic,
    NodeId, Stage, Weight,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

const INTERVAL: Duration = Duration::from_millis(500);
const SUSPICION: Duration = Duration::from_millis(2000);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Something on its way to a node.
#[derive(Clone, Debug)]
enum Item {
    Datagram(GossipMessage),
    Members { from: usize, members: Vec<Member>, answer: bool },
}

struct SimNode {
    machine: Option<Membership>,
    id: NodeId,
    addr: String,
    side: u8,
    /// What arrives while the process is stopped stays in its socket.
    stopped: Option<Vec<Item>>,
    ring: Vec<(NodeId, Weight)>,
    refuted: usize,
}

/// A node declared another dead.
#[derive(Clone, Copy, Debug)]
struct Death {
    observer: usize,
    peer: NodeId,
}

struct Sim {
    seed: u64,
    now: Duration,
    nodes: Vec<SimNode>,
    on_the_way: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    items: BTreeMap<u64, Item>,
    next_item: u64,
    rng: SmallRng,
    loss: f64,
    deaths: Vec<Death>,
    sent: usize,
    sent_bytes: usize,
    joins: usize,
}

impl Sim {
    fn new(seed: u64, size: usize) -> Self {
        let node = |i: usize| SimNode {
            machine: None,
            id: NodeId::from_name(&format!("node{i}")),
            addr: format!("node{i}:5011"),
            side: 0,
            stopped: None,
            ring: Vec::new(),
            refuted: 0,
        };
        Self {
            seed,
            now: s(1),
            nodes: (0..size).map(node).collect(),
            on_the_way: BinaryHeap::new(),
            items: BTreeMap::new(),
            next_item: 0,
            rng: SmallRng::seed_from_u64(seed),
            loss: 0.0,
            deaths: Vec::new(),
            sent: 0,
            sent_bytes: 0,
            joins: 0,
        }
    }

    /// A cluster that has found itself, some rounds on.
    fn converged(seed: u64, size: usize) -> Self {
        let mut sim = Self::new(seed, size);
        for node in 0..size {
            sim.start(node, None);
            let pause = Duration::from_micros(sim.rng.random_range(0..200_000));
            sim.run(pause);
        }
        sim.until("all find each other from the seeds", s(4), Self::is_one_ring);
        let pause = Duration::from_micros(sim.rng.random_range(0..2_000_000));
        sim.run(s(1) + pause);
        assert!(sim.deaths.is_empty(), "seed {seed}: {:?}", sim.deaths);
        sim
    }

    fn size(&self) -> usize {
        self.nodes.len()
    }

    fn start(&mut self, node: usize, incarnation: Option<u64>) {
        let config = MembershipConfig {
            interval: INTERVAL,
            suspicion: SUSPICION,
            indirect_probes: 3,
            seeds: (0..self.size().min(3)).map(|i| self.nodes[i].addr.clone()).collect(),
            forget_after: Duration::from_secs(86_400),
        };
        let me = Member {
            id: self.nodes[node].id,
            addr: self.nodes[node].addr.clone(),
            incarnation: Incarnation::new(incarnation.unwrap_or_else(|| u64::from(self.rng.random::<u32>()))),
            weight: Weight::new(1 + (node % 16) as u8).unwrap(),
            state: MemberState::Alive,
            stage: Stage::Normal,
        };
        let machine = Membership::new(config, me, Monotonic::new(self.now), self.rng.random());
        self.nodes[node].ring = machine.ring_members();
        self.nodes[node].machine = Some(machine);
        self.drain(node);
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].machine = None;
    }

    fn stop(&mut self, node: usize) {
        self.nodes[node].stopped = Some(Vec::new());
    }

    /// The process goes on; whether its timers or its socket come first is up to the seed.
    fn resume(&mut self, node: usize) {
        let held = self.nodes[node].stopped.take().unwrap();
        if self.rng.random() {
            self.drain(node);
        }
        held.into_iter().for_each(|item| self.arrive(node, item));
        self.drain(node);
    }

    fn machine(&mut self, node: usize) -> &mut Membership {
        self.nodes[node].machine.as_mut().unwrap()
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Membership)> {
        self.nodes.iter().enumerate().filter_map(|(i, node)| node.machine.as_ref().map(|machine| (i, machine)))
    }

    /// Whether every running node has exactly the running nodes in its ring.
    fn is_one_ring(&self) -> bool {
        let mut ids: Vec<_> = self.alive().map(|(i, _)| self.nodes[i].id).collect();
        ids.sort_unstable();
        let first = self.alive().next().unwrap().1.ring_members();
        ids.iter().eq(first.iter().map(|(id, _)| id)) && self.alive().all(|(_, m)| m.ring_members() == first)
    }

    /// Whether all running nodes but `peer` itself have it in `state`.
    fn all_hold(&self, peer: usize, state: MemberState) -> bool {
        let id = self.nodes[peer].id;
        self.alive().all(|(i, machine)| i == peer || machine.member(id).is_some_and(|member| member.state == state))
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Runs until the condition holds; returns how long that took.
    fn until(&mut self, what: &str, within: Duration, mut holds: impl FnMut(&Self) -> bool) -> Duration {
        let (began, end) = (self.now, self.now + within);
        while !holds(self) {
            if !self.step(end) {
                let views: Vec<_> = self.alive().map(|(i, machine)| (i, machine.members())).collect();
                panic!("seed {}, {} nodes: not within {within:?}: {what}\n{views:#?}", self.seed, self.size());
            }
        }
        self.now - began
    }

    /// The next thing that happens, or nothing before `end`.
    fn step(&mut self, end: Duration) -> bool {
        let timer = self.nodes.iter().enumerate().filter(|(_, node)| node.stopped.is_none());
        let timer = timer.filter_map(|(i, node)| Some((node.machine.as_ref()?.next_deadline().since_start(), i))).min();
        let arrival = self.on_the_way.peek().map(|Reverse((at, ..))| *at);
        let next = timer.map(|(at, _)| at).into_iter().chain(arrival).min();
        let Some(next) = next.filter(|&at| at <= end) else {
            self.now = end;
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let Reverse((_, number, to)) = self.on_the_way.pop().unwrap();
            let item = self.items.remove(&number).unwrap();
            self.arrive(to, item);
        } else {
            self.drain(timer.unwrap().1);
        }
        true
    }

    fn arrive(&mut self, to: usize, item: Item) {
        let now = Monotonic::new(self.now);
        if let Some(held) = &mut self.nodes[to].stopped {
            if matches!(item, Item::Datagram(_)) && held.len() < 64 {
                held.push(item);
            }
            return;
        }
        let Some(machine) = &mut self.nodes[to].machine else { return };
        match item {
            Item::Datagram(message) => machine.handle_message(now, message.from, message),
            Item::Members { from, members, answer } => {
                machine.handle_members(now, &members);
                let members = machine.members();
                if answer {
                    self.send(to, from, Item::Members { from: to, members, answer: false });
                }
            }
        }
        self.drain(to);
    }

    fn send(&mut self, from: usize, to: usize, item: Item) {
        if self.nodes[from].side != self.nodes[to].side {
            return;
        }
        let at = self.now + Duration::from_micros(self.rng.random_range(100..20_000));
        self.next_item += 1;
        self.on_the_way.push(Reverse((at, self.next_item, to)));
        self.items.insert(self.next_item, item);
    }

    fn drain(&mut self, node: usize) {
        let seed = self.seed;
        while let Some(output) = self.nodes[node].machine.as_mut().unwrap().poll(Monotonic::new(self.now)) {
            match output {
                MembershipOutput::Send { to, addr, message } => self.datagram(node, to, &addr, message),
                MembershipOutput::Join { addr } => {
                    self.joins += 1;
                    let members = self.machine(node).members();
                    let to = self.nodes.iter().position(|node| node.addr == addr).unwrap();
                    assert_ne!(to, node, "seed {seed}: a node joins itself");
                    self.send(node, to, Item::Members { from: node, members, answer: true });
                }
                MembershipOutput::RingChanged => {
                    let ring = self.machine(node).ring_members();
                    assert_ne!(ring, self.nodes[node].ring, "seed {seed}: the ring has not changed");
                    self.nodes[node].ring = ring;
                }
                MembershipOutput::Refuted => self.nodes[node].refuted += 1,
                MembershipOutput::Event(Event::Member { peer, from, to, .. }) => {
                    assert_ne!(from, Some(to), "seed {seed}: the state has not changed");
                    if to == MemberState::Dead {
                        self.deaths.push(Death { observer: node, peer });
                    }
                }
                MembershipOutput::Event(_) => {}
            }
        }
        let ring = self.machine(node).ring_members();
        assert_eq!(ring, self.nodes[node].ring, "seed {seed}: the ring has changed silently");
        assert!(self.machine(node).next_deadline() > Monotonic::new(self.now), "seed {seed}: it would spin");
    }

    fn datagram(&mut self, from: usize, to: NodeId, addr: &str, message: GossipMessage) {
        let to = self.nodes.iter().position(|node| node.id == to).unwrap();
        assert_eq!(self.nodes[to].addr, addr);
        self.sent += 1;
        // Encoding all of them would be most of the test's time.
        if self.sent.is_multiple_of(16) {
            let bytes = message.encode();
            assert_eq!(GossipMessage::decode(&bytes).as_ref(), Some(&message), "seed {}", self.seed);
            self.sent_bytes += 16 * bytes.len();
        }
        if !self.rng.random_bool(self.loss) {
            self.send(from, to, Item::Datagram(message));
        }
    }
}

/// Sizes 3 to 9, each with its own seed.
fn for_seeds(count: u64, test: impl Fn(u64, usize)) {
    let only = std::env::var("MEMBERSHIP_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        test(seed, 3 + (seed % 7) as usize);
    }
}

#[test]
fn a_killed_node_is_dead_everywhere_within_suspicion_and_two_intervals() {
    for_seeds(200, |seed, size| {
        let mut sim = Sim::converged(seed, size);
        let victim = sim.rng.random_range(0..size);
        sim.kill(victim);
        let took = sim
            .until("dead at every survivor", SUSPICION + 2 * INTERVAL, |sim| sim.all_hold(victim, MemberState::Dead));
        assert!(took >= SUSPICION, "seed {seed}: dead after only {took:?}");
        assert!(sim.is_one_ring(), "seed {seed}");
        let id = sim.nodes[victim].id;
        assert!(sim.deaths.iter().all(|death| death.peer == id), "seed {seed}: {:?}", sim.deaths);
    });
}

#[test]
fn a_node_that_restarts_with_a_lower_incarnation_is_alive_again_soon() {
    for_seeds(70, |seed, size| {
        let mut sim = Sim::converged(seed, size);
        let node = sim.rng.random_range(0..size);
        let before = sim.machine(node).incarnation();
        sim.kill(node);
        let down = ms(sim.rng.random_range(100..6000));
        sim.run(down);
        let believed_dead = sim.all_hold(node, MemberState::Dead);
        sim.start(node, Some(before.get() / 2));
        sim.until("alive everywhere", s(3), |sim| {
            let now = sim.nodes[node].machine.as_ref().unwrap().incarnation();
            let id = sim.nodes[node].id;
            let known = |m: &Membership| m.member(id).is_some_and(|c| c.incarnation == now && c.state.is_present());
            now > before && sim.alive().all(|(_, machine)| known(machine)) && sim.is_one_ring()
        });
        sim.until("not even suspected", s(3), |sim| sim.all_hold(node, MemberState::Alive));
        let refuted = sim.nodes[node].refuted > 0;
        assert!(refuted || !believed_dead, "seed {seed}: down for {down:?}, it may have missed writes");
        assert!(!refuted || !sim.deaths.is_empty(), "seed {seed}: down for {down:?}, nobody believed it dead");
    });
}

#[test]
fn a_partition_heals_within_five_seconds() {
    for_seeds(28, |seed, size| {
        let mut sim = Sim::converged(seed, size);
        let cut = sim.rng.random_range(1..size);
        (0..cut).for_each(|i| sim.nodes[i].side = 1);
        sim.run(s(40));
        for (i, machine) in sim.alive() {
            let side = if i < cut { cut } else { size - cut };
            assert_eq!(machine.ring_members().len(), side, "seed {seed}: node {i}");
        }
        sim.nodes.iter_mut().for_each(|node| node.side = 0);
        sim.until("one ring again", s(5), Sim::is_one_ring);
        sim.run(s(5));
        assert!(sim.is_one_ring(), "seed {seed}: and it stays one");
        assert!(sim.nodes.iter().all(|node| node.refuted > 0), "seed {seed}: all may have missed writes");
    });
}

#[test]
fn a_node_that_leaves_is_gone_at_once_and_may_come_back() {
    for_seeds(70, |seed, size| {
        let mut sim = Sim::converged(seed, size);
        let node = sim.rng.random_range(0..size);
        let now = Monotonic::new(sim.now);
        let incarnation = sim.machine(node).incarnation();
        sim.machine(node).handle_left(now);
        sim.drain(node);
        sim.until("left everywhere", ms(100), |sim| sim.all_hold(node, MemberState::Left));
        assert_eq!(sim.machine(node).ring_members().len(), size - 1, "seed {seed}: nor in its own ring");
        sim.run(s(1));
        sim.kill(node);
        sim.run(s(10));
        assert!(sim.all_hold(node, MemberState::Left), "seed {seed}: nobody mourns it");
        assert!(sim.is_one_ring() && sim.deaths.is_empty(), "seed {seed}");
        sim.start(node, Some(incarnation.get().saturating_sub(9)));
        sim.until("back", s(3), Sim::is_one_ring);
    });
}

#[test]
fn a_stopped_node_accuses_nobody_when_it_goes_on_and_is_back_within_three_seconds() {
    for_seeds(70, |seed, size| {
        let mut sim = Sim::converged(seed, size);
        let node = sim.rng.random_range(0..size);
        sim.stop(node);
        sim.run(s(20));
        assert!(sim.all_hold(node, MemberState::Dead), "seed {seed}");
        sim.resume(node);
        sim.until("alive everywhere", s(3), |sim| sim.all_hold(node, MemberState::Alive) && sim.is_one_ring());
        sim.run(s(6));
        assert!(sim.is_one_ring(), "seed {seed}");
        assert!(sim.nodes[node].refuted > 0, "seed {seed}: it has to know that it missed writes");
        assert!(sim.deaths.iter().all(|death| death.observer != node), "seed {seed}: {:?}", sim.deaths);
    });
}

#[test]
fn one_datagram_in_ten_lost_kills_nobody_in_five_minutes() {
    for_seeds(7, |seed, size| {
        let mut sim = Sim::converged(seed, size);
        sim.loss = 0.1;
        sim.run(s(300));
        assert!(sim.deaths.is_empty(), "seed {seed}: {:?}", sim.deaths);
        let victim = sim.rng.random_range(0..size);
        sim.kill(victim);
        sim.until("dead all the same", SUSPICION + 4 * INTERVAL, |sim| sim.all_hold(victim, MemberState::Dead));
    });
}

/// What a machine with too few cores does to its processes.
#[test]
fn nodes_that_stall_for_up_to_a_second_and_a_half_kill_nobody() {
    for_seeds(21, |seed, size| {
        let mut sim = Sim::converged(seed, size);
        let mut resume_at = vec![Duration::ZERO; size];
        let end = sim.now + s(60);
        while sim.now < end {
            for (node, resume_at) in resume_at.iter_mut().enumerate() {
                let stopped = sim.nodes[node].stopped.is_some();
                if stopped && *resume_at <= sim.now {
                    sim.resume(node);
                } else if !stopped && sim.rng.random_bool(0.02) {
                    sim.stop(node);
                    *resume_at = sim.now + ms(sim.rng.random_range(100..1500));
                }
            }
            sim.run(ms(50));
        }
        assert!(sim.deaths.is_empty(), "seed {seed}: {:?}", sim.deaths);
    });
}

#[test]
fn a_new_weight_is_known_everywhere_at_once() {
    for_seeds(28, |seed, size| {
        let mut sim = Sim::converged(seed, size);
        let node = sim.rng.random_range(0..size);
        let now = Monotonic::new(sim.now);
        sim.machine(node).handle_weight(now, Weight::MAX);
        sim.drain(node);
        let id = sim.nodes[node].id;
        sim.until("the weight is known", ms(150), |sim| {
            sim.alive().all(|(_, machine)| machine.member(id).unwrap().weight == Weight::MAX)
        });
        assert!(sim.is_one_ring(), "seed {seed}");
    });
}

#[test]
fn the_work_per_node_and_round_does_not_grow_with_the_cluster() {
    for size in [3, 9, 64] {
        let mut sim = Sim::converged(size as u64, size);
        sim.run(s(10));
        (sim.sent, sim.sent_bytes, sim.joins) = (0, 0, 0);
        sim.run(s(30));
        let rounds = (60 * size) as f64;
        let (sent, bytes) = (sim.sent as f64 / rounds, sim.sent_bytes as f64 / rounds);
        let probes = if size == 3 { 2.0 } else { 3.0 };
        assert!((sent - 2.0 * probes).abs() < 0.1, "{size} nodes: {sent} messages per node and round");
        assert!(bytes < 6.0 * 64.0, "{size} nodes: {bytes} bytes per node and round");
        assert_eq!(sim.joins, 0, "{size} nodes: nobody is missing, so nobody is looked for");
    }
}
