//! What a peer has missed reaches it: by hints, or by a comparison where hints had to be given up. On the simulated network.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may stop at the first surprise")]

mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::Cluster;
use mesh::{Config, WriteError, WriteOptions};
use mesh_proto::{Consistency, HINT_OVERHEAD_BYTES, Partition};
use tokio::time::Instant;

fn simulate(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test());
}

/// So slow to suspect that a peer which is cut off stays in the ring, and so slow to repair that only hints can have brought
/// what it has missed.
fn only_hints(config: &mut Config) {
    config.suspicion = Duration::from_secs(60);
    config.repair_interval = Duration::from_secs(3600);
}

async fn delete(cluster: &Cluster, via: usize, key: &'static str) {
    cluster.node(via).delete(Bytes::from_static(key.as_bytes()), WriteOptions::default()).await.unwrap();
}

fn queued(cluster: &Cluster) -> u64 {
    cluster.running().iter().map(|index| cluster.node(*index).stats().hints.queued).sum()
}

#[test]
fn a_peer_cut_off_for_5_s_has_all_it_missed_within_a_second() {
    simulate(async || {
        let cluster = Cluster::start_with(1, 3, 3, 2, only_hints).await;
        for key in 0..200 {
            cluster.set(0, &format!("k{key}"), "before").await.unwrap();
        }
        cluster.isolate(2);
        let cut = Instant::now();
        let mut writes = 0;
        while cut.elapsed() < Duration::from_secs(5) {
            cluster.set(writes % 2, &format!("k{}", writes % 500), &format!("during {writes}")).await.unwrap();
            writes += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(queued(&cluster) >= 300, "{} hints", queued(&cluster));
        assert!(!cluster.digests_agree());
        cluster.network.heal();
        let took = cluster.wait(Duration::from_secs(1), "it has all it missed", Cluster::digests_agree).await;
        println!("in sync after {took:?}, {writes} writes");
        cluster.wait(Duration::from_secs(1), "all hints are settled", |cluster| queued(cluster) == 0).await;
        for key in 0..500 {
            let newest = (0..writes).rev().find(|write| write % 500 == key).unwrap();
            let value = cluster.value(2, &format!("k{key}"), Consistency::One).await.unwrap();
            assert_eq!(value, Some(format!("during {newest}")));
        }
        let stats: Vec<_> = (0..3).map(|index| cluster.node(index).stats()).collect();
        assert!(stats[0].hints.replayed + stats[1].hints.replayed >= 300);
        assert!(stats.iter().all(|stats| stats.repaired == 0), "a comparison has helped: {stats:?}");
    });
}

#[test]
fn a_hint_is_not_an_acknowledgement() {
    simulate(async || {
        let cluster = Cluster::start_with(2, 3, 3, 3, only_hints).await;
        cluster.isolate(2);
        let written = cluster.set(0, "key", "value").await;
        assert!(matches!(written, Err(WriteError::Indeterminate { acks: 2, needed: 3, .. })), "{written:?}");
        assert_eq!(cluster.node(0).hints()[0].queued, 1);
        assert_eq!(cluster.node(0).hints()[0].peer, cluster.id(2));
    });
}

#[test]
fn what_was_refused_leaves_no_hint() {
    simulate(async || {
        let mut cluster = Cluster::start_with(3, 3, 3, 2, only_hints).await;
        cluster.crash(1);
        cluster.crash(2);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(matches!(cluster.set(0, "key", "value").await, Err(WriteError::NoQuorum { .. })));
        assert_eq!(queued(&cluster), 0, "the caller was told that nothing was written");
    });
}

#[test]
fn a_write_that_no_owner_has_taken_leaves_no_hint_for_the_one_that_was_away() {
    simulate(async || {
        let cluster = Cluster::start_with(8, 3, 3, 2, |config| {
            only_hints(config);
            config.store.bytes_max = 1 << 20;
        })
        .await;
        cluster.isolate(2);
        tokio::time::sleep(Duration::from_secs(4)).await;
        let too_large = "x".repeat(3 << 19);
        assert_eq!(cluster.set(0, "key", &too_large).await, Err(WriteError::TooLarge));
        assert_eq!(queued(&cluster), 0, "the caller was told that nothing was written");
        cluster.set(0, "key", "small enough").await.unwrap();
        assert_eq!(queued(&cluster), 1);
    });
}

#[test]
fn hints_bring_back_neither_what_was_deleted_nor_what_was_overwritten() {
    simulate(async || {
        let cluster = Cluster::start_with(4, 3, 3, 2, only_hints).await;
        cluster.isolate(2);
        // The older write is queued at one node, and the newer at another.
        for (first, second) in [(0, 1), (1, 0)] {
            cluster.set(first, &format!("overwritten {first}"), "old").await.unwrap();
            cluster.set(second, &format!("overwritten {first}"), "new").await.unwrap();
        }
        cluster.set(0, "deleted 0", "old").await.unwrap();
        delete(&cluster, 1, "deleted 0").await;
        cluster.set(1, "deleted 1", "old").await.unwrap();
        delete(&cluster, 0, "deleted 1").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(queued(&cluster), 8);
        cluster.network.heal();
        cluster.wait(Duration::from_secs(2), "all hints are settled", |cluster| queued(cluster) == 0).await;
        assert!(cluster.digests_agree());
        for via in 0..3 {
            for index in 0..2 {
                let value = async |key: String| cluster.value(via, &key, Consistency::One).await.unwrap();
                assert_eq!(value(format!("overwritten {index}")).await.as_deref(), Some("new"));
                assert_eq!(value(format!("deleted {index}")).await, None);
            }
        }
    });
}

#[test]
fn a_queue_that_overflows_is_made_up_for_by_a_comparison_at_once() {
    simulate(async || {
        let cluster = Cluster::start_with(5, 3, 3, 2, |config| {
            only_hints(config);
            config.hints.bytes_max = 50 * (HINT_OVERHEAD_BYTES + 20);
        })
        .await;
        cluster.isolate(2);
        for key in 0..300 {
            cluster.set(key % 2, &format!("k{key}"), "v").await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        let hints: Vec<_> = (0..2).map(|index| cluster.node(index).stats().hints).collect();
        assert!(hints.iter().all(|hints| hints.dropped_overflow > 0 && hints.queued == 0), "{hints:?}");
        assert!(cluster.node(0).hints().iter().any(|hints| hints.needs_full_sync));
        // It has something that the others lack as well, of a write that nobody acknowledged.
        assert!(cluster.set(2, "alone", "v").await.is_err());
        cluster.network.heal();
        let took = cluster.wait(Duration::from_secs(3), "digests agree", Cluster::digests_agree).await;
        println!("in sync after {took:?}");
        assert!(!cluster.node(0).hints().iter().any(|hints| hints.needs_full_sync));
        assert!(cluster.node(2).stats().repaired >= 300, "{:?}", cluster.node(2).stats());
    });
}

#[test]
fn hints_for_a_slot_that_has_moved_are_dropped() {
    simulate(async || {
        let mut cluster = Cluster::start_with(6, 4, 2, 1, only_hints).await;
        // A graceful leave takes effect at once, and its return moves slots away from the others again.
        cluster.node(3).stop().await;
        cluster.nodes[3] = None;
        cluster.wait(Duration::from_secs(5), "three are left", Cluster::one_ring).await;
        cluster.isolate(2);
        for key in 0..400 {
            cluster.set(0, &format!("k{key}"), "v").await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        let owed = queued(&cluster);
        assert!(owed > 100, "{owed}");
        cluster.start_node(3);
        cluster.network.heal();
        // The hints wait until the fourth has taken over its slots, also from the one that they are for.
        let (first, third) = (cluster.node(0).id(), cluster.node(2).id());
        cluster.network.cut(&Partition::symmetric(&[&[first], &[third]]));
        cluster
            .wait(Duration::from_secs(10), "the fourth is in the ring", |cluster| {
                cluster.one_ring()
                    && cluster.node(0).view().members.iter().any(|m| m.addr == "node3:5011" && m.slots_owned > 0)
            })
            .await;
        cluster.network.heal();
        cluster.wait(Duration::from_secs(10), "all hints are settled", |cluster| queued(cluster) == 0).await;
        let hints = cluster.node(0).stats().hints;
        assert!(hints.dropped_not_owner > 0 && hints.replayed > 0, "{hints:?}");
    });
}

#[test]
fn after_a_partition_20_000_keys_agree_within_10_s() {
    simulate(async || {
        let cluster = Cluster::start(7, 3, 3, 2).await;
        for key in 0..20_000 {
            cluster.set(key % 3, &format!("k{key}"), "before").await.unwrap();
        }
        cluster.isolate(1);
        tokio::time::sleep(Duration::from_secs(4)).await;
        for key in 0..4000 {
            cluster.set([0, 2][key % 2], &format!("k{}", key * 5), "during").await.unwrap();
        }
        cluster.network.heal();
        let took = cluster.wait(Duration::from_secs(10), "digests agree", Cluster::digests_agree).await;
        println!("20 000 keys agree after {took:?}");
    });
}
