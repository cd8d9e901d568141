//! Scenes of members that leave and return, alone, at once and beside a crash. Each kills a planted defect.

use std::{sync::Arc, time::Duration};

use mesh::Node;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    cluster::Cluster,
    plan::Plan,
    promises::{play, scene, set},
    rings::{KEYS, hits, slow},
};

/// Three nodes of which each is an owner of every key.
fn three() -> Plan {
    scene(3, 3, 2)
}

async fn fill(cluster: &Cluster) {
    let nodes: Vec<Node> = cluster.running().into_iter().map(|(_, node, _)| node).collect();
    for number in 0..KEYS {
        set(&nodes[number % nodes.len()], number, "v").await.unwrap();
    }
}

async fn ready(cluster: &Cluster, what: &str) {
    let ready = cluster.wait(Duration::from_secs(20), Cluster::is_ready).await;
    assert!(ready.is_ok(), "not ready {what}: {:?}", cluster.unsettled());
}

/// Stops these at once, each to come back after a while; whether each handed over all that it held.
async fn restart(cluster: &Arc<Cluster>, places: &[usize], absent: Duration) -> Vec<bool> {
    let mut restarts = JoinSet::new();
    for &at in places {
        let cluster = Arc::clone(cluster);
        restarts.spawn(async move {
            let is_handed_over = cluster.stop(at).await;
            sleep(absent).await;
            cluster.start(at);
            is_handed_over
        });
    }
    restarts.join_all().await
}

/// What an impatient operator does. Whoever hears last that the others leave is the only one left; it waits until one is back.
#[test]
fn all_members_restarted_at_once_lose_nothing() {
    for delay_ms in [0, 1, 20, 60] {
        for absent_ms in [0, 60, 500] {
            play(&three(), async |cluster| {
                slow(cluster, Duration::from_millis(delay_ms));
                fill(cluster).await;
                let handed_over = restart(cluster, &[0, 1, 2], Duration::from_millis(absent_ms)).await;
                assert_eq!(handed_over, [true; 3], "delay {delay_ms} ms, absent {absent_ms} ms");
                ready(cluster, "after all were restarted").await;
                hits(cluster, 0..KEYS, "after all were restarted").await;
            });
        }
    }
}

/// One of three has crashed, another one leaves, and the last is told to leave, too, before the first is back.
#[test]
fn a_member_that_is_alone_takes_over_and_waits_for_another_one() {
    play(&three(), async |cluster| {
        fill(cluster).await;
        cluster.crash(1);
        sleep(Duration::from_secs(4)).await;
        let leaves = Arc::clone(cluster);
        let first = tokio::spawn(async move { leaves.stop(0).await });
        sleep(Duration::from_millis(2600)).await;
        let leaves = Arc::clone(cluster);
        let second = tokio::spawn(async move { leaves.stop(2).await });
        sleep(Duration::from_millis(1000)).await;
        cluster.start(1);
        assert!(first.await.unwrap() && second.await.unwrap(), "they left before all was handed over");
        let held = cluster.node(1).unwrap().stats().store.entries;
        assert_eq!(held, KEYS as u64, "the one that is back holds {held} of {KEYS} keys");
    });
}

/// Where nobody comes, what the last one held is lost when it goes; it does not say that it was handed over.
#[test]
fn the_last_member_waits_for_somebody_and_then_says_that_its_content_is_lost() {
    play(&three(), async |cluster| {
        fill(cluster).await;
        assert!(cluster.stop(0).await, "two others stay");
        let started = Instant::now();
        assert!(cluster.stop(1).await, "one other stays");
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(2500), "it waited only {waited:?} for a second one");
        let started = Instant::now();
        assert!(!cluster.stop(2).await, "nobody was there to hand over to");
        assert!(started.elapsed() >= Duration::from_secs(5), "it waited only {:?}", started.elapsed());
    });
}

/// A member leaves, returns, takes new writes that another one misses, and leaves again: that one takes over again.
#[test]
fn what_was_taken_over_from_a_former_process_does_not_count() {
    play(&three(), async |cluster| {
        fill(cluster).await;
        assert!(cluster.stop(2).await);
        cluster.start(2);
        ready(cluster, "after one was restarted").await;
        let ids = cluster.ids();
        let mut links = crate::links::Links::default();
        links.cut(&[0], &[1]);
        links.apply(&cluster.network, &ids);
        let node = cluster.node(0).unwrap();
        for number in KEYS..KEYS * 2 {
            set(&node, number, "v").await.unwrap();
        }
        // Its hints go with it, and so does the other owner that took the writes.
        cluster.crash(0);
        crate::links::Links::default().apply(&cluster.network, &ids);
        sleep(Duration::from_millis(50)).await;
        assert!(cluster.stop(2).await);
        let node = cluster.node(1).unwrap();
        let held = node.stats().store.entries;
        assert_eq!(held, KEYS as u64 * 2, "the last one holds {held} of {} keys", KEYS * 2);
    });
}
