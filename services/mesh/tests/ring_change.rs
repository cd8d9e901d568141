//! The ring changes while everybody writes and reads, on the simulated network: no acknowledged write is lost or missed.
//! Replay one seed with `MESH_SEED=n cargo test -p mesh-cache --test ring_change`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may stop at the first surprise")]

mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::{
    Cluster,
    load::{Load, Tally},
};
use mesh::{WriteOptions, transport::LinkFault};
use mesh_proto::{Digest, Weight};
use tokio::task::JoinSet;

const SEEDS: u64 = 20;

/// One way, between the nodes of a mesh that takes long over everything.
const LINK_DELAY: Duration = Duration::from_millis(12);

/// Enough to be in most of the slots.
const KEYS_MANY: usize = 8000;

fn for_each_seed(name: &str, mut test: impl AsyncFnMut(u64) -> Tally) {
    let seeds = match std::env::var("MESH_SEED") {
        Ok(seed) => vec![seed.parse().expect("MESH_SEED is a number")],
        Err(_) => (1..=SEEDS).collect(),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let tally = runtime.block_on(test(seed));
        println!(
            "seed {seed}: {tally:?}; replay with MESH_SEED={seed} cargo test -p mesh-cache --test ring_change {name}"
        );
    }
}

async fn some_time(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

async fn settled(cluster: &Cluster) {
    cluster.all_ready(Duration::from_secs(20)).await;
}

/// Stops a node politely while the load goes on.
async fn leave(cluster: &mut Cluster, load: &Load, index: usize) {
    load.spare_all(cluster, &[index]);
    // As HTTP does: what is under way ends first.
    some_time(50).await;
    let node = cluster.nodes[index].take().unwrap();
    assert!(node.stop().await, "node {index} went before all was handed over");
}

/// No change was made that nobody asked for, so nobody has to be refused.
fn expect_no_errors(seed: u64, tally: Tally) {
    assert_eq!((tally.writes_failed, tally.reads_failed), (0, 0), "seed {seed}: {tally:?}");
    assert!(tally.writes > 500 && tally.reads > 200, "seed {seed}: too little load: {tally:?}");
}

#[test]
fn two_nodes_join_at_once() {
    for_each_seed("two_nodes_join_at_once", async |seed| {
        let mut cluster = Cluster::start_some(seed, (5, 3), (3, 2), |_| {}).await;
        let load = Load::start(&cluster, seed);
        some_time(500).await;
        cluster.start_node(3);
        cluster.start_node(4);
        settled(&cluster).await;
        load.aim(&cluster);
        some_time(300).await;
        let tally = load.check(&cluster).await;
        expect_no_errors(seed, tally);
        tally
    });
}

#[test]
fn from_three_to_five_and_back() {
    for_each_seed("from_three_to_five_and_back", async |seed| {
        let mut cluster = Cluster::start_some(seed, (5, 3), (3, 2), |_| {}).await;
        let load = Load::start(&cluster, seed);
        some_time(200).await;
        cluster.start_node(3);
        cluster.start_node(4);
        settled(&cluster).await;
        load.aim(&cluster);
        some_time(200).await;
        // Not those that came last: keys then have owners that were none at first.
        for index in [seed as usize % 3, 3 + seed as usize % 2] {
            leave(&mut cluster, &load, index).await;
            some_time(20).await;
        }
        settled(&cluster).await;
        let tally = load.check(&cluster).await;
        expect_no_errors(seed, tally);
        tally
    });
}

#[test]
fn one_joins_while_another_leaves() {
    for_each_seed("one_joins_while_another_leaves", async |seed| {
        let mut cluster = Cluster::start_some(seed, (5, 4), (3, 2), |_| {}).await;
        let load = Load::start(&cluster, seed);
        some_time(200).await;
        // It comes before, together with or after the announcement that it leaves; the leaver waits for it, too.
        load.spare_all(&cluster, &[seed as usize % 4]);
        some_time(50).await;
        let node = cluster.nodes[seed as usize % 4].take().unwrap();
        let leaves = tokio::spawn(async move { node.stop().await });
        some_time(seed / 4).await;
        cluster.start_node(4);
        assert!(leaves.await.unwrap(), "seed {seed}: it went before all was handed over");
        settled(&cluster).await;
        load.aim(&cluster);
        some_time(500).await;
        let tally = load.check(&cluster).await;
        expect_no_errors(seed, tally);
        tally
    });
}

#[test]
fn two_nodes_stop_at_the_same_time() {
    for_each_seed("two_nodes_stop_at_the_same_time", async |seed| {
        let mut cluster = Cluster::start_some(seed, (5, 5), (3, 2), |_| {}).await;
        // So many that it takes longer to take them over than a read is patient.
        let mut writes = JoinSet::new();
        for key in 0..KEYS_MANY {
            let node = cluster.node(key % 5).clone();
            let (key, value) = (Bytes::from(format!("many{key}")), Bytes::from_static(b"v"));
            writes.spawn(async move { node.set(key, value, WriteOptions::default()).await });
        }
        assert!(writes.join_all().await.iter().all(Result::is_ok), "seed {seed}: the prefill");
        for (from, to) in (0..25).map(|pair| (cluster.id(pair / 5), cluster.id(pair % 5))) {
            cluster.network.set_fault(from, to, LinkFault { delay: LINK_DELAY, ..LinkFault::default() });
        }
        let load = Load::start(&cluster, seed);
        some_time(2000).await;
        let first = seed as usize % 5;
        let second = (first + 1 + seed as usize / 5 % 4) % 5;
        load.spare_all(&cluster, &[first, second]);
        some_time(50).await;
        let [one, other] = [first, second].map(|index| cluster.nodes[index].take().unwrap());
        let (one, other) = tokio::join!(one.stop(), other.stop());
        assert!(one && other, "seed {seed}: a node went before all was handed over");
        settled(&cluster).await;
        let tally = load.check(&cluster).await;
        expect_no_errors(seed, tally);
        tally
    });
}

/// One answer makes a miss, and two owners may take over a slot together: neither may take the other's emptiness for an answer.
#[test]
fn with_two_replicas_a_node_restarts_while_two_join() {
    for_each_seed("with_two_replicas_a_node_restarts_while_two_join", async |seed| {
        let mut cluster = Cluster::start_some(seed, (6, 4), (2, 2), |_| {}).await;
        let load = Load::start(&cluster, seed);
        some_time(300).await;
        let victim = seed as usize % 4;
        load.spare_all(&cluster, &[victim]);
        cluster.start_node(4);
        some_time(3 * seed).await;
        cluster.crash(victim);
        cluster.start_node(5);
        some_time(7 * seed).await;
        cluster.start_node(victim);
        settled(&cluster).await;
        load.aim(&cluster);
        some_time(100).await;
        load.check(&cluster).await
    });
}

#[test]
fn weights_change() {
    for_each_seed("weights_change", async |seed| {
        let cluster = Cluster::start(seed, 5, 3, 2).await;
        let load = Load::start(&cluster, seed);
        for (round, weight) in [(0, 2), (1, 16), (2, 7)] {
            some_time(300).await;
            let index = (seed as usize + round) % 5;
            cluster.node(index).set_weight(Weight::new(weight).unwrap());
        }
        some_time(300).await;
        settled(&cluster).await;
        let tally = load.check(&cluster).await;
        expect_no_errors(seed, tally);
        tally
    });
}

#[test]
fn a_node_crashes_while_two_join() {
    for_each_seed("a_node_crashes_while_two_join", async |seed| {
        let mut cluster = Cluster::start_some(seed, (5, 3), (3, 2), |_| {}).await;
        let load = Load::start(&cluster, seed);
        some_time(300).await;
        cluster.start_node(3);
        cluster.start_node(4);
        some_time(5 * seed).await;
        let victim = seed as usize % 5;
        load.spare_all(&cluster, &[victim]);
        cluster.crash(victim);
        settled(&cluster).await;
        load.aim(&cluster);
        some_time(100).await;
        load.check(&cluster).await
    });
}

#[test]
fn a_partition_while_two_join() {
    for_each_seed("a_partition_while_two_join", async |seed| {
        let mut cluster = Cluster::start_some(seed, (5, 3), (3, 2), |_| {}).await;
        let load = Load::start(&cluster, seed);
        some_time(200).await;
        cluster.start_node(3);
        cluster.start_node(4);
        some_time(4 * seed).await;
        cluster.isolate(seed as usize % 5);
        some_time(if seed % 2 == 0 { 1500 } else { 4000 }).await;
        cluster.network.heal();
        settled(&cluster).await;
        load.aim(&cluster);
        some_time(100).await;
        load.check(&cluster).await
    });
}

#[test]
fn who_no_longer_owns_a_slot_forgets_it() {
    for_each_seed("who_no_longer_owns_a_slot_forgets_it", async |seed| {
        let mut cluster = Cluster::start_some(seed, (5, 3), (3, 2), |_| {}).await;
        let load = Load::start(&cluster, seed);
        some_time(2000).await;
        cluster.start_node(3);
        cluster.start_node(4);
        settled(&cluster).await;
        let held = |cluster: &Cluster| {
            let digests: Vec<_> = (0..5).map(|index| cluster.node(index).digests()).collect();
            let copies = |slot: usize| digests.iter().filter(|digests| digests[slot] != Digest::default()).count();
            (0..digests[0].len()).map(copies).all(|copies| copies == 0 || copies == 3)
        };
        cluster.wait(Duration::from_secs(10), "only owners hold records", held).await;
        load.check(&cluster).await
    });
}

/// Were there a timer for each slot, it would take seconds, however little is in them.
#[tokio::test(start_paused = true)]
async fn a_node_refills_many_slots_of_few_keys_at_once() {
    let mut cluster = Cluster::start(1, 3, 3, 2).await;
    let mut writes = JoinSet::new();
    for key in 0..KEYS_MANY {
        let node = cluster.node(key % 3).clone();
        let (key, value) = (Bytes::from(format!("many{key}")), Bytes::from_static(b"v"));
        writes.spawn(async move { node.set(key, value, WriteOptions::default()).await });
    }
    assert!(writes.join_all().await.iter().all(Result::is_ok), "the prefill");
    assert!(cluster.nodes[2].take().unwrap().stop().await, "it went before all was handed over");
    cluster.start_node(2);
    let took = cluster.all_ready(Duration::from_secs(20)).await;
    assert!(cluster.digests_agree());
    assert!(took < Duration::from_secs(2), "{took:?}");
}
