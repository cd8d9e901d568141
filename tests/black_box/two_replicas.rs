//! Two replicas on three nodes, so that a third of all reads must go to another node: where hits come from, how often
//! reads are hedged, and what a slow replica costs.

use std::time::Duration;

use crate::harness::{Cluster, Consistency, Latencies, NodeClient, Reply, eventually, in_parallel};

const KEYS: usize = 900;
const IN_FLIGHT: usize = 8;

async fn read_all(clients: Vec<NodeClient>) -> Vec<Reply> {
    in_parallel(IN_FLIGHT, clients.len() * KEYS, move |index| {
        let client = clients[index / KEYS].clone();
        async move { client.get(&format!("key{}", index % KEYS), Consistency::One).await }
    })
    .await
}

fn all_hit(replies: &[Reply]) -> bool {
    replies.iter().all(|reply| reply.status == 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_of_the_hits_is_remote_and_a_slow_replica_is_read_around() {
    let settings = [("REPLICATION_FACTOR", "2"), ("WRITE_CONCERN", "1")];
    let cluster = Cluster::start_behind_proxies(3, &settings).await;
    let all = cluster.clients(&[0, 1, 2]);
    let writers = all.clone();
    let written = in_parallel(IN_FLIGHT, KEYS, move |key| {
        let client = writers[key % writers.len()].clone();
        async move { client.set(&format!("key{key}"), "value").await }
    })
    .await;
    assert!(all_hit(&written), "every write is acknowledged");
    let replicated = async || all_hit(&read_all(all.clone()).await).then_some(());
    eventually("both replicas of every key", Duration::from_secs(10), replicated).await;

    let hedges_before = cluster.stat(&[0, 1, 2], "/mesh/hedges").await;
    let replies = read_all(all.clone()).await;
    let hedges = cluster.stat(&[0, 1, 2], "/mesh/hedges").await - hedges_before;
    assert!(all_hit(&replies));
    let remote = replies.iter().filter(|reply| reply.cache == "HIT_REMOTE").count();
    let share = 100 * remote / replies.len();
    println!("{share} % of the hits are remote; {hedges} of {} reads were hedged", replies.len());
    let p99_of = |replies: &[Reply]| Latencies::new(replies.iter().map(|reply| reply.took)).percentile(99);
    let p99_before = p99_of(&replies);
    assert!((27..=40).contains(&share), "{share} % of the hits are remote, expected a third");
    let hedged = 100 * hedges / replies.len() as u64;
    assert!(hedged <= 5, "{hedged} % of the reads were hedged");

    // 100 ms there and back. The first reads teach the other two that it is slow.
    cluster.network().slow_down(2, Duration::from_millis(50));
    let fast = cluster.clients(&[0, 1]);
    read_all(fast.clone()).await;
    let mut p99s = Vec::new();
    for _ in 0..3 {
        let replies = read_all(fast.clone()).await;
        assert!(all_hit(&replies), "a slow replica fails no read");
        p99s.push(p99_of(&replies));
    }
    let p99 = Latencies::new(p99s.clone()).percentile(50);
    println!("GET p99 with one replica slowed by 100 ms: {p99s:?}, before {p99_before:?}");
    let limit = p99_before + Duration::from_millis(10);
    assert!(p99 <= limit, "with one replica slow, GET p99 is {p99:?} ({p99s:?}), {p99_before:?} before");
    cluster.network().assert_senders_known();
}
