//! The membership machine among others: what it promises, each on many seeds, and every failure names its own. Replay one with
//! `MEMBERSHIP_SEED=<seed> cargo test -p mesh-cache-proto --test membership_sim <test>`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::time::Duration;

use mesh_proto::{MemberState, Membership, Monotonic, Weight};
use rand::Rng;

mod members;

use members::{INTERVAL, SUSPICION, Sim, ms, s};

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
