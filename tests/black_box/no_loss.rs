//! G2 and G4: what was acknowledged is there, through every node, whichever node dies.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::harness::{Cluster, Consistency, NodeClient, eventually, in_parallel};

const KEYS: usize = 2000;
const ROUNDS: usize = 3;
const IN_FLIGHT: usize = 32;
const SEED: u64 = 20_260_101;

/// Longer than a death takes to be noticed: suspicion, two rounds, and a slow machine.
const DETECTED_WITHIN: Duration = Duration::from_secs(8);

/// What reading all keys through all of some nodes came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    missing: usize,
    /// An older round than the last acknowledged one.
    old: usize,
    /// Anything else: another key's value, or one that nobody wrote.
    wrong: usize,
    /// No answer at all, by status.
    errors: BTreeMap<u16, usize>,
}

/// Writes every key once more, each through a node drawn at random, and insists on every acknowledgement.
async fn write_round(round: usize, clients: Vec<NodeClient>) {
    let replies = in_parallel(IN_FLIGHT, KEYS, move |key| {
        let mut rng = StdRng::seed_from_u64(SEED ^ (round * KEYS + key) as u64);
        let client = clients[rng.random_range(0..clients.len())].clone();
        async move { client.set(&format!("key{key}"), &format!("key{key}:{round}")).await }
    })
    .await;
    for (key, reply) in replies.iter().enumerate() {
        assert_eq!(reply.status, 200, "key{key} in round {round} (seed {SEED}): {}", reply.body);
    }
}

/// Reads every key through every one of the clients. A read that gets no answer is asked again for as long as `patience`.
async fn read_all(clients: Vec<NodeClient>, consistency: Consistency, patience: Duration) -> Verdict {
    let count = clients.len() * KEYS;
    let replies = in_parallel(IN_FLIGHT, count, move |index| {
        let (key, client) = (index % KEYS, clients[index / KEYS].clone());
        async move {
            let deadline = tokio::time::Instant::now() + patience;
            loop {
                let reply = client.get(&format!("key{key}"), consistency).await;
                let answered = matches!(reply.status, 200 | 404);
                if answered || tokio::time::Instant::now() >= deadline {
                    return (key, reply);
                }
            }
        }
    })
    .await;
    let mut verdict = Verdict::default();
    for (key, reply) in replies {
        let rounds = (1..=ROUNDS).map(|round| format!("key{key}:{round}"));
        match reply.status {
            404 => verdict.missing += 1,
            200 if reply.body == format!("key{key}:{ROUNDS}") => {}
            200 if rounds.into_iter().any(|older| older == reply.body) => verdict.old += 1,
            200 => verdict.wrong += 1,
            other => *verdict.errors.entry(other).or_default() += 1,
        }
    }
    verdict
}

const PERFECT: Verdict = Verdict { missing: 0, old: 0, wrong: 0, errors: BTreeMap::new() };
const AT_ONCE: Duration = Duration::ZERO;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_one_death_after_another() {
    let mut cluster = Cluster::start(3, &[]).await;
    let all = [0, 1, 2];
    for round in 1..=ROUNDS {
        write_round(round, cluster.clients(&all)).await;
    }

    assert_eq!(read_all(cluster.clients(&all), Consistency::Quorum, AT_ONCE).await, PERFECT, "right after the writes");
    let brief = read_all(cluster.clients(&all), Consistency::One, AT_ONCE).await;
    assert_eq!((brief.missing, brief.wrong, brief.errors.len()), (0, 0, 0), "right after the writes: {brief:?}");
    let settled = async || (read_all(cluster.clients(&all), Consistency::One, AT_ONCE).await == PERFECT).then_some(());
    eventually("no replica to be stale", Duration::from_secs(2), settled).await;

    cluster.node_mut(0).kill();
    let survivors = [1, 2];
    let unnoticed = read_all(cluster.clients(&survivors), Consistency::Quorum, DETECTED_WITHIN).await;
    assert_eq!(unnoticed, PERFECT, "node0 killed, the others about to notice");
    cluster.wait_seen(&survivors, 0, "dead", DETECTED_WITHIN).await;
    for consistency in [Consistency::One, Consistency::Quorum] {
        let noticed = read_all(cluster.clients(&survivors), consistency, AT_ONCE).await;
        assert_eq!(noticed, PERFECT, "node0 dead, {consistency:?}");
    }

    cluster.node_mut(0).start_again();
    cluster.wait_whole(Duration::from_secs(30)).await;
    let refilled = read_all(cluster.clients(&[0]), Consistency::One, AT_ONCE).await;
    assert_eq!(refilled, PERFECT, "through node0 as soon as it is ready again");

    cluster.node_mut(1).kill();
    let survivors = [0, 2];
    let unnoticed = read_all(cluster.clients(&survivors), Consistency::Quorum, DETECTED_WITHIN).await;
    assert_eq!(unnoticed, PERFECT, "node0 back and node1 killed, the others about to notice");
    cluster.wait_seen(&survivors, 1, "dead", DETECTED_WITHIN).await;
    for consistency in [Consistency::One, Consistency::Quorum] {
        let noticed = read_all(cluster.clients(&survivors), consistency, AT_ONCE).await;
        assert_eq!(noticed, PERFECT, "node0 back and node1 dead, {consistency:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_stays_deleted_through_a_restart() {
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.node(0).client();
    for key in 0..100 {
        assert_eq!(client.set(&format!("gone{key}"), "here").await.status, 200);
        assert_eq!(client.delete(&format!("gone{key}")).await.status, 200);
    }
    cluster.node_mut(2).kill();
    cluster.node_mut(2).start_again();
    cluster.wait_whole(Duration::from_secs(30)).await;
    cluster.node_mut(0).kill();
    for client in cluster.clients(&[1, 2]) {
        for key in 0..100 {
            let reply = client.get(&format!("gone{key}"), Consistency::One).await;
            assert_ne!(reply.status, 200, "gone{key} came back: {}", reply.body);
        }
    }
}
