//! Tombstones go once they are not needed any more, and what was deleted stays gone. On the simulated network.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may stop at the first surprise")]

mod cluster;

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use bytes::Bytes;
use cluster::Cluster;
use mesh::{Config, Ttl, WallClock, WriteOptions};
use mesh_proto::{Consistency, StoreStats};

const KEYS: usize = 50;

/// Longer than tombstones are kept if nothing is in the way.
const LONG: Duration = Duration::from_secs(30);

fn simulate(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test());
}

/// Tombstones are kept for 8 s.
fn short_lived(config: &mut Config) {
    config.hints.age_max = Duration::from_secs(2);
    config.write_timeout = Duration::from_secs(3);
    config.store.tombstone_age_min = Duration::from_secs(1);
}

fn name(number: usize) -> String {
    format!("key{number}")
}

async fn fill(cluster: &Cluster) {
    for number in 0..KEYS {
        cluster.set(number % 2, &name(number), "v").await.unwrap();
    }
}

async fn delete(cluster: &Cluster, via: usize, numbers: std::ops::Range<usize>) {
    for number in numbers {
        cluster.node(via).delete(Bytes::from(name(number)), WriteOptions::default()).await.unwrap();
    }
}

fn store(cluster: &Cluster, index: usize) -> StoreStats {
    cluster.node(index).stats().store
}

fn tombstones(cluster: &Cluster) -> Vec<u64> {
    cluster.running().into_iter().map(|index| store(cluster, index).tombstones).collect()
}

async fn all_are_gone(cluster: &Cluster) {
    for via in cluster.running() {
        for number in 0..KEYS {
            for consistency in [Consistency::One, Consistency::Quorum] {
                let value = cluster.value(via, &name(number), consistency).await.unwrap();
                assert_eq!(value, None, "key {number} is back, says node {via} ({consistency:?})");
            }
        }
    }
}

fn repaired(cluster: &Cluster) -> u64 {
    cluster.running().into_iter().map(|index| cluster.node(index).stats().repaired).sum()
}

#[test]
fn a_deletion_that_everybody_has_is_collected() {
    simulate(async || {
        let cluster = Cluster::start_with(1, 3, 3, 2, short_lived).await;
        fill(&cluster).await;
        delete(&cluster, 0, 0..KEYS).await;
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(tombstones(&cluster), [KEYS as u64; 3], "something may be under way");
        cluster.wait(LONG, "all is collected", |cluster| tombstones(cluster) == [0; 3]).await;
        assert!(cluster.digests_agree());
        all_are_gone(&cluster).await;
        for index in 0..3 {
            let stats = store(&cluster, index);
            assert_eq!((stats.tombstones_collected, stats.tombstones_dropped), (KEYS as u64, 0));
            assert_eq!((stats.entries, stats.bytes), (0, 0));
        }
        fill(&cluster).await;
        assert_eq!(cluster.value(2, &name(0), Consistency::Quorum).await.unwrap().as_deref(), Some("v"));
    });
}

#[test]
fn stubs_of_expired_values_are_collected_as_well() {
    simulate(async || {
        let cluster = Cluster::start_with(2, 3, 3, 2, short_lived).await;
        let options = WriteOptions { ttl: Ttl::After(Duration::from_secs(5)), ..WriteOptions::default() };
        for number in 0..KEYS {
            cluster.node(0).set(Bytes::from(name(number)), Bytes::from_static(b"v"), options).await.unwrap();
        }
        cluster.wait(LONG, "all have expired", |cluster| tombstones(cluster) == [KEYS as u64; 3]).await;
        cluster.wait(LONG, "all is collected", |cluster| tombstones(cluster) == [0; 3]).await;
        all_are_gone(&cluster).await;
    });
}

/// It holds the old values, and nobody's hints for it have lasted.
#[test]
fn an_owner_that_was_away_for_long_brings_nothing_back() {
    for seed in 0..5 {
        simulate(async || {
            let cluster = Cluster::start_with(seed, 3, 3, 2, short_lived).await;
            fill(&cluster).await;
            cluster.isolate(2);
            tokio::time::sleep(Duration::from_secs(4)).await;
            delete(&cluster, 0, 0..KEYS).await;
            tokio::time::sleep(LONG * 4).await;
            let kept = [KEYS as u64; 2];
            assert_eq!(tombstones(&cluster)[..2], kept, "the one that is away still has what they deleted");
            assert_eq!(store(&cluster, 2).entries, KEYS as u64);
            cluster.network.heal();
            cluster.all_ready(LONG).await;
            cluster.wait(LONG, "the owners agree", Cluster::digests_agree).await;
            all_are_gone(&cluster).await;
            cluster.wait(LONG, "all is collected", |cluster| tombstones(cluster) == [0; 3]).await;
            all_are_gone(&cluster).await;
            assert_eq!(store(&cluster, 2).entries, 0);
        });
    }
}

/// A stopped process is not even aware that it was away.
#[test]
fn an_owner_that_stood_still_for_long_brings_nothing_back() {
    simulate(async || {
        let cluster = Cluster::start_with(6, 3, 3, 2, short_lived).await;
        fill(&cluster).await;
        cluster.node(2).pause(LONG * 3);
        tokio::time::sleep(Duration::from_secs(4)).await;
        delete(&cluster, 0, 0..KEYS).await;
        tokio::time::sleep(LONG * 2).await;
        assert_eq!(tombstones(&cluster)[..2], [KEYS as u64; 2]);
        tokio::time::sleep(LONG).await;
        cluster.all_ready(LONG).await;
        cluster.wait(LONG, "all is collected", |cluster| tombstones(cluster) == [0; 3]).await;
        all_are_gone(&cluster).await;
    });
}

#[test]
fn for_one_that_never_returns_tombstones_stay_up_to_their_cap() {
    simulate(async || {
        let mut cluster = Cluster::start_with(3, 3, 3, 2, |config| {
            short_lived(config);
            config.store.tombstones_max = 20;
        })
        .await;
        cluster.crash(2);
        tokio::time::sleep(Duration::from_secs(4)).await;
        delete(&cluster, 0, 0..KEYS).await;
        tokio::time::sleep(LONG * 2).await;
        for index in 0..2 {
            let stats = store(&cluster, index);
            assert!((10..=20).contains(&stats.tombstones), "{stats:?}");
            assert_eq!(stats.tombstones + stats.tombstones_dropped, KEYS as u64, "what was forced out is counted");
            assert_eq!(stats.tombstones_collected, 0);
        }
        cluster.start_node(2);
        cluster.all_ready(LONG).await;
        cluster.wait(LONG, "all is collected", |cluster| tombstones(cluster) == [0; 3]).await;
    });
}

/// The clock of one is ahead, so it collects before the others do.
#[test]
fn collecting_at_different_moments_repairs_nothing() {
    simulate(async || {
        let epoch = tokio::time::Instant::now();
        let cluster = Cluster::start_with(4, 3, 3, 2, |config| {
            short_lived(config);
            let ahead_ms = if config.public_addr.starts_with("node1") { 450 } else { 0 };
            config.wall_clock = WallClock::Simulated { epoch, offset_ms: Arc::new(AtomicI64::new(ahead_ms)) };
        })
        .await;
        let before = repaired(&cluster);
        for round in 0..400 {
            let key = name(round);
            cluster.set(round % 3, &key, "v").await.unwrap();
            cluster.node((round + 1) % 3).delete(Bytes::from(key), WriteOptions::default()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let collected: Vec<u64> = (0..3).map(|index| store(&cluster, index).tombstones_collected).collect();
        assert!(collected.iter().all(|collected| *collected >= 100), "{collected:?}");
        cluster.wait(LONG, "all is collected", |cluster| tombstones(cluster) == [0; 3]).await;
        assert_eq!(repaired(&cluster), before, "collecting has made them differ");
        all_are_gone(&cluster).await;
    });
}

/// Who enters the ring takes over tombstones as well, and the wait begins anew.
#[test]
fn a_ring_that_changes_brings_nothing_back() {
    simulate(async || {
        let mut cluster = Cluster::start_some(5, (4, 3), (3, 2), short_lived).await;
        fill(&cluster).await;
        delete(&cluster, 0, 0..KEYS).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        cluster.start_node(3);
        cluster.all_ready(LONG).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(tombstones(&cluster).iter().sum::<u64>() >= 3 * KEYS as u64, "not agreed on in this ring");
        cluster.wait(LONG, "all is collected", |cluster| tombstones(cluster) == [0; 4]).await;
        all_are_gone(&cluster).await;
    });
}
