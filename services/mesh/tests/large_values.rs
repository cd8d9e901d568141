//! Large values on the simulated network: what is sent of them when callers go away.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may stop at the first surprise")]

mod cluster;

use std::{pin::pin, task::Poll, time::Duration};

use bytes::Bytes;
use cluster::Cluster;
use mesh::{Config, WriteOptions};

const LARGE: usize = 1_000_000;

fn simulate(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(test());
}

/// Only writes and hints bring anything to an owner.
fn no_repair(config: &mut Config) {
    config.repair_interval = Duration::from_secs(3600);
    config.store.bytes_max = 256 << 20;
}

/// How many entries a node holds.
fn entries(cluster: &Cluster, index: usize) -> u64 {
    cluster.node(index).stats().store.entries
}

/// Begins a write of a large value at the first node, and gives it up at once if `is_abandoned`.
async fn write(cluster: &Cluster, key: usize, is_abandoned: bool) {
    let (key, value) = (Bytes::from(format!("key {key}")), Bytes::from(vec![b'v'; LARGE]));
    let mut write = pin!(cluster.node(0).set(key, value, WriteOptions::default()));
    if !is_abandoned {
        write.await.unwrap();
        return;
    }
    let is_under_way = std::future::poll_fn(|context| Poll::Ready(write.as_mut().poll(context).is_pending())).await;
    assert!(is_under_way);
}

#[test]
fn what_waits_to_be_sent_is_not_when_its_caller_has_gone() {
    simulate(async || {
        let cluster = Cluster::start_with(1, 3, 3, 2, no_repair).await;
        // Another owner has found nothing wrong with this node's clock: from now on it applies its writes without waiting for one.
        write(&cluster, 20, false).await;
        for key in 0..20 {
            write(&cluster, key, true).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!((entries(&cluster, 0), entries(&cluster, 1), entries(&cluster, 2)), (21, 1, 1));
        // Nobody knows whether they were written; this node has them, so the others get them, but as hints, at their pace.
        let agree = Cluster::digests_agree;
        cluster.wait(Duration::from_secs(20), "all owners have what one has", agree).await;
        assert_eq!(entries(&cluster, 1), 21);
    });
}

#[test]
fn more_than_are_sent_at_a_time_arrive_in_turn() {
    simulate(async || {
        let cluster = Cluster::start_with(2, 3, 3, 3, no_repair).await;
        let writes = (0..40).map(|key| write(&cluster, key, false));
        let mut writes: Vec<_> = writes.map(Box::pin).collect();
        while !writes.is_empty() {
            std::future::poll_fn(|context| {
                let before = writes.len();
                writes.retain_mut(|write| write.as_mut().poll(context).is_pending());
                if writes.len() < before { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        assert!(cluster.digests_agree());
        assert_eq!(entries(&cluster, 2), 40);
    });
}
