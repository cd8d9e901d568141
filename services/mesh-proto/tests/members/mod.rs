//! Whole clusters of membership machines under virtual time: every delay, loss and fault comes from a seed.

#![allow(dead_code, unreachable_pub, reason = "each test that includes this uses a part of it")]

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

pub const INTERVAL: Duration = Duration::from_millis(500);
pub const SUSPICION: Duration = Duration::from_millis(2000);

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Something on its way to a node.
#[derive(Clone, Debug)]
pub enum Item {
    Datagram(GossipMessage),
    Members { from: usize, members: Vec<Member>, answer: bool },
}

pub struct SimNode {
    pub machine: Option<Membership>,
    pub id: NodeId,
    pub addr: String,
    pub side: u8,
    /// What arrives while the process is stopped stays in its socket.
    pub stopped: Option<Vec<Item>>,
    pub ring: Vec<(NodeId, Weight)>,
    pub refuted: usize,
}

/// A node declared another dead.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub observer: usize,
    pub peer: NodeId,
}

pub struct Sim {
    pub seed: u64,
    pub now: Duration,
    pub nodes: Vec<SimNode>,
    pub on_the_way: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    pub items: BTreeMap<u64, Item>,
    pub next_item: u64,
    pub rng: SmallRng,
    pub loss: f64,
    pub deaths: Vec<Death>,
    pub sent: usize,
    pub sent_bytes: usize,
    pub joins: usize,
    places: BTreeMap<NodeId, usize>,
    /// By when a node wants to be woken; those that have changed their mind since are stale.
    timers: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Sim {
    pub fn new(seed: u64, size: usize) -> Self {
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
            places: (0..size).map(|i| (node(i).id, i)).collect(),
            timers: BinaryHeap::new(),
        }
    }

    /// A cluster that has found itself, some rounds on.
    pub fn converged(seed: u64, size: usize) -> Self {
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

    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    pub fn start(&mut self, node: usize, incarnation: Option<u64>) {
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

    pub fn kill(&mut self, node: usize) {
        self.nodes[node].machine = None;
    }

    pub fn stop(&mut self, node: usize) {
        self.nodes[node].stopped = Some(Vec::new());
    }

    /// The process goes on; whether its timers or its socket come first is up to the seed.
    pub fn resume(&mut self, node: usize) {
        let held = self.nodes[node].stopped.take().unwrap();
        if self.rng.random() {
            self.drain(node);
        }
        held.into_iter().for_each(|item| self.arrive(node, item));
        self.drain(node);
    }

    pub fn machine(&mut self, node: usize) -> &mut Membership {
        self.nodes[node].machine.as_mut().unwrap()
    }

    pub fn alive(&self) -> impl Iterator<Item = (usize, &Membership)> {
        self.nodes.iter().enumerate().filter_map(|(i, node)| node.machine.as_ref().map(|machine| (i, machine)))
    }

    /// Whether every running node has exactly the running nodes in its ring.
    pub fn is_one_ring(&self) -> bool {
        let mut ids: Vec<_> = self.alive().map(|(i, _)| self.nodes[i].id).collect();
        ids.sort_unstable();
        let first = self.alive().next().unwrap().1.ring_members();
        ids.iter().eq(first.iter().map(|(id, _)| id)) && self.alive().all(|(_, m)| m.ring_members() == first)
    }

    /// Whether all running nodes but `peer` itself have it in `state`.
    pub fn all_hold(&self, peer: usize, state: MemberState) -> bool {
        let id = self.nodes[peer].id;
        self.alive().all(|(i, machine)| i == peer || machine.member(id).is_some_and(|member| member.state == state))
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    /// Runs until the condition holds; returns how long that took.
    pub fn until(&mut self, what: &str, within: Duration, mut holds: impl FnMut(&Self) -> bool) -> Duration {
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
    pub fn step(&mut self, end: Duration) -> bool {
        let timer = self.next_timer();
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

    pub fn next_timer(&mut self) -> Option<(Duration, usize)> {
        loop {
            let Reverse((at, node)) = *self.timers.peek()?;
            let SimNode { machine, stopped, .. } = &self.nodes[node];
            let is_due = |machine: &Membership| machine.next_deadline().since_start() == at;
            if stopped.is_none() && machine.as_ref().is_some_and(is_due) {
                return Some((at, node));
            }
            self.timers.pop();
        }
    }

    pub fn arrive(&mut self, to: usize, item: Item) {
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

    pub fn send(&mut self, from: usize, to: usize, item: Item) {
        if self.nodes[from].side != self.nodes[to].side {
            return;
        }
        let at = self.now + Duration::from_micros(self.rng.random_range(100..20_000));
        self.next_item += 1;
        self.on_the_way.push(Reverse((at, self.next_item, to)));
        self.items.insert(self.next_item, item);
    }

    pub fn drain(&mut self, node: usize) {
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
        let next = self.machine(node).next_deadline().since_start();
        assert!(next > self.now, "seed {seed}: it would spin");
        self.timers.push(Reverse((next, node)));
    }

    pub fn datagram(&mut self, from: usize, to: NodeId, addr: &str, message: GossipMessage) {
        let to = self.places[&to];
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
