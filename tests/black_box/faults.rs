//! Nodes that stop, die and come back: what the others go on doing, and how soon they notice.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, Consistency, Latencies, NodeClient, in_parallel};

const KEYS: usize = 500;
const IN_FLIGHT: usize = 8;
const DETECTED_WITHIN: Duration = Duration::from_secs(8);

/// SUSPICION_AFTER_MS and two rounds of GOSSIP_INTERVAL_MS, by default; and what polling and a busy machine add.
const DECLARED_DEAD_WITHIN: Duration = Duration::from_millis(2000 + 2 * 500 + 500);

/// Below this, a difference between two percentiles is the machine's, not the mesh's.
const NOISE: Duration = Duration::from_millis(5);

struct Measured {
    get_p99: Duration,
    set_p99: Duration,
    errors: Vec<u16>,
}

/// Writes and reads all keys through these nodes, three times over; the percentiles are the medians of the three.
async fn measure(clients: &[NodeClient]) -> Measured {
    let (mut gets, mut sets, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        for writing in [true, false] {
            let clients = clients.to_vec();
            let replies = in_parallel(IN_FLIGHT, KEYS, move |key| {
                let client = clients[key % clients.len()].clone();
                async move {
                    let name = format!("key{key}");
                    if writing { client.set(&name, "value").await } else { client.get(&name, Consistency::One).await }
                }
            })
            .await;
            errors.extend(replies.iter().map(|reply| reply.status).filter(|status| *status != 200));
            let p99 = Latencies::new(replies.iter().map(|reply| reply.took)).percentile(99);
            if writing { sets.push(p99) } else { gets.push(p99) }
        }
    }
    let median = |p99s: Vec<Duration>| Latencies::new(p99s).percentile(50);
    Measured { get_p99: median(gets), set_p99: median(sets), errors }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_slows_nobody_down_once_it_is_noticed() {
    let cluster = Cluster::start(3, &[]).await;
    let others = cluster.clients(&[0, 1]);
    let baseline = measure(&others).await;
    assert_eq!(baseline.errors, [0_u16; 0], "with all nodes well");

    cluster.node(2).freeze();
    cluster.wait_seen(&[0, 1], 2, "dead", DETECTED_WITHIN).await;
    let frozen = measure(&others).await;
    assert_eq!(frozen.errors, [0_u16; 0], "with node2 frozen");
    for (op, frozen, baseline) in [("GET", frozen.get_p99, baseline.get_p99), ("SET", frozen.set_p99, baseline.set_p99)]
    {
        println!("{op} p99 with one of three frozen: {frozen:?}, before: {baseline:?}");
        assert!(frozen <= 2 * baseline + NOISE, "{op} p99 is {frozen:?} with node2 frozen, {baseline:?} before");
    }

    cluster.node(2).thaw();
    cluster.wait_whole(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_node_fails_no_write_and_two_leave_reads() {
    let mut cluster = Cluster::start(3, &[]).await;
    cluster.node_mut(2).kill();
    cluster.wait_seen(&[0, 1], 2, "dead", DETECTED_WITHIN).await;
    let one_dead = measure(&cluster.clients(&[0, 1])).await;
    assert_eq!(one_dead.errors, [0_u16; 0], "with one of three dead");

    cluster.node_mut(1).kill();
    cluster.wait_seen(&[0], 1, "dead", DETECTED_WITHIN).await;
    let last = cluster.node(0).client();
    for key in 0..KEYS {
        let reply = last.get(&format!("key{key}"), Consistency::One).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "value"), "key{key} with two of three dead");
    }
    let mut refusals = Vec::new();
    for key in 0..20 {
        let reply = last.set(&format!("refused{key}"), "value").await;
        assert_eq!(reply.status, 503, "a write that cannot reach WRITE_CONCERN owners: {}", reply.body);
        refusals.push(reply.took);
    }
    let median = Latencies::new(refusals).percentile(50);
    println!("a SET with two of three dead is refused after {median:?} (median)");
    assert!(median <= Duration::from_millis(10), "a refusal took {median:?}");

    cluster.node_mut(1).start_again();
    cluster.node_mut(2).start_again();
    cluster.wait_whole(Duration::from_secs(30)).await;
    let healed = measure(&cluster.clients(&[0, 1, 2])).await;
    assert_eq!(healed.errors, [0_u16; 0], "with all nodes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_declared_dead_in_time_and_rejoins() {
    let mut cluster = Cluster::start(3, &[]).await;
    let killed_at = Instant::now();
    cluster.node_mut(1).kill();
    cluster.wait_seen(&[0, 2], 1, "dead", DECLARED_DEAD_WITHIN).await;
    println!("declared dead after {:?}", killed_at.elapsed());
    assert!(killed_at.elapsed() <= DECLARED_DEAD_WITHIN, "declared dead after {:?}", killed_at.elapsed());
    cluster.node_mut(1).start_again();
    cluster.wait_whole(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_well_node_is_never_declared_dead_under_load() {
    let cluster = Cluster::start(3, &[]).await;
    let deadline = Instant::now() + Duration::from_secs(6);
    while Instant::now() < deadline {
        let measured = measure(&cluster.clients(&[0, 1, 2])).await;
        assert_eq!(measured.errors, [0_u16; 0]);
        for whom in 0..3 {
            let seen = cluster.states_of(whom).await;
            assert!(seen.iter().all(|state| state != "dead"), "node{whom} is well and seen as {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_an_absent_key_is_immediate() {
    let cluster = Cluster::start(3, &[]).await;
    let client = cluster.node(0).client();
    let mut latencies = Vec::new();
    for key in 0..20 {
        let reply = client.delete(&format!("absent{key}")).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        latencies.push(reply.took);
    }
    let median = Latencies::new(latencies).percentile(50);
    println!("deleting an absent key takes {median:?} (median)");
    assert!(median <= Duration::from_millis(50), "deleting an absent key took {median:?}");
}
