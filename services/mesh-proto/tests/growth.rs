//! What grows with the number of members, and what does not. Prints the table of docs/SCALING.md:
//! `cargo test --release -p mesh-cache-proto --test growth -- --nocapture`; `MEMBERS=1000` adds that many.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::time::{Duration, Instant};

use mesh_proto::{MemberState, NodeId, Ring, Weight};
use rand::Rng;

mod members;

use members::{INTERVAL, SUSPICION, Sim, ms, s};

/// One row.
#[derive(Debug)]
struct Row {
    members: usize,
    /// From the first start until all have all in their rings; all start within a second.
    settled_s: f64,
    datagrams: f64,
    bytes: f64,
    /// From a death until all know it: the median and the longest of several.
    known_s: [f64; 2],
    false_deaths: usize,
    ring_ms: f64,
}

fn measure(members: usize) -> Row {
    let mut sim = Sim::new(members as u64, members);
    for node in 0..members {
        sim.start(node, None);
        sim.run(s(1) / members as u32);
    }
    let began = sim.now;
    while !sim.is_one_ring() {
        assert!(sim.now - began < s(120), "{members} members: no ring");
        sim.run(INTERVAL);
    }
    let settled_s = (sim.now - began).as_secs_f64() + 1.0;
    // What has come with so many is news for a while.
    sim.run(s(if members > 100 { 60 } else { 30 }));
    (sim.sent, sim.sent_bytes) = (0, 0);
    sim.run(s(15));
    let rounds = (30 * members) as f64;
    let (datagrams, bytes) = (sim.sent as f64 / rounds, sim.sent_bytes as f64 / rounds);
    sim.loss = 0.05;
    sim.run(s(30));
    sim.loss = 0.0;
    let false_deaths = sim.deaths.len();
    let mut known: Vec<f64> = (0..3).map(|_| known_after(&mut sim)).collect();
    known.sort_by(f64::total_cmp);
    let (known_s, ring_ms) = ([known[1], known[2]], ring_ms(members));
    Row { members, settled_s, datagrams, bytes, known_s, false_deaths, ring_ms }
}

/// Kills one, and starts it again.
fn known_after(sim: &mut Sim) -> f64 {
    let victim = sim.rng.random_range(0..sim.size());
    sim.kill(victim);
    let began = sim.now;
    while !sim.all_hold(victim, MemberState::Dead) {
        assert!(sim.now - began < s(60), "{} members: a death is not known everywhere", sim.size());
        sim.run(ms(50));
    }
    let took = sim.now - began;
    sim.start(victim, None);
    sim.run(s(20));
    took.as_secs_f64()
}

#[expect(clippy::disallowed_methods, reason = "this is how long it really takes")]
fn ring_ms(members: usize) -> f64 {
    let of = |i: usize| (NodeId::from_name(&format!("node{i}")), Weight::new(4).unwrap());
    let members: Vec<_> = (0..members).map(of).collect();
    let mut took: Vec<Duration> = (0..5)
        .map(|_| {
            let began = Instant::now();
            std::hint::black_box(Ring::new(&members, mesh_proto::ReplicationFactor::new(3).unwrap()));
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[2].as_secs_f64() * 1e3
}

#[test]
fn gossip_is_as_much_work_for_many_members_as_for_few() {
    let more = std::env::var("MEMBERS").ok().map(|members| members.parse().expect("a number"));
    let rows: Vec<Row> = [3, 10, 30, 100].into_iter().chain(more).map(measure).collect();
    println!("members  settled s  datagrams  bytes  death known s, longest  false deaths  ring ms");
    for Row { members, settled_s, datagrams, bytes, known_s: [median, most], false_deaths, ring_ms } in &rows {
        println!(
            "{members:7}  {settled_s:9.1}  {datagrams:9.2}  {bytes:5.0}  {median:13.2}  {most:7.2}  {false_deaths:12}  {ring_ms:7.1}"
        );
    }
    for row in &rows {
        let usual = rows[1].bytes;
        assert!(row.datagrams <= 6.1 && row.false_deaths == 0, "{row:?}");
        assert!(row.members == 3 || (0.8 * usual..1.2 * usual).contains(&row.bytes), "{row:?}");
        let known_by = (SUSPICION + 2 * INTERVAL).as_secs_f64() + 0.25 * (row.members as f64).log10();
        assert!(row.known_s[1] <= known_by && row.settled_s <= 5.0, "{row:?}");
    }
}
