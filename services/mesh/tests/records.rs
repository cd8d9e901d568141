//! Every operation hands its caller the record of what it did, also to a caller that goes away before its end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;

use std::time::Duration;

use bytes::Bytes;
use cluster::Cluster;
use mesh::{GetOptions, WriteOptions};
use mesh_proto::{Consistency, LegOutcome, OpOutcome, OpRecord, OperationKind};
use tokio::time::timeout;

#[tokio::test(start_paused = true)]
async fn a_result_comes_with_its_own_record() {
    let cluster = Cluster::start(1, 3, 3, 2).await;
    let worker = cluster.node(0).worker().unwrap();
    let key = Bytes::from_static(b"key");
    // Both are in flight at the same time, on one thread.
    let (mut set, mut get) = (None, None);
    let quorum = GetOptions { consistency: Consistency::Quorum, trace: None };
    let (written, read) = tokio::join!(
        worker.set(key.clone(), Bytes::from_static(b"value"), WriteOptions::default(), &mut set),
        worker.get(&key, quorum, &mut get),
    );
    let (set, get): (OpRecord, OpRecord) = (set.unwrap(), get.unwrap());
    assert_eq!(
        (set.op, set.outcome, set.version),
        (OperationKind::Set, OpOutcome::Acknowledged, Some(written.unwrap().version))
    );
    assert_eq!(set.legs.len(), 3);
    assert_eq!(get.op, OperationKind::Get);
    assert!(read.is_ok() && !get.legs.is_empty(), "{get:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_a_full_record() {
    let cluster = Cluster::start(2, 3, 3, 2).await;
    let worker = cluster.node(0).worker().unwrap();
    let key = Bytes::from_static(b"key");
    let value = Bytes::from_static(b"value");
    worker.set(key.clone(), value.clone(), WriteOptions::default(), &mut None).await.unwrap();
    for other in [1, 2] {
        cluster.isolate(other);
    }
    let soon = Duration::from_millis(3);
    let quorum = GetOptions { consistency: Consistency::Quorum, trace: None };
    let mut record = None;
    assert!(timeout(soon, worker.get(&key, quorum, &mut record)).await.is_err());
    let get: OpRecord = record.take().unwrap();
    assert_eq!((get.op, get.outcome, get.took), (OperationKind::Get, OpOutcome::Abandoned, soon));
    assert!(get.legs.iter().all(|leg| leg.outcome == LegOutcome::Cancelled && leg.ended == soon), "{get:?}");
    assert!(!get.legs.is_empty());
    assert!(timeout(soon, worker.set(key, value, WriteOptions::default(), &mut record)).await.is_err());
    let set = record.unwrap();
    assert_eq!((set.op, set.outcome, set.took), (OperationKind::Set, OpOutcome::Abandoned, soon));
    assert!(set.version.is_some());
    let own = |leg: &&mesh_proto::LegRecord| leg.peer == cluster.id(0);
    assert_eq!(set.legs.iter().filter(own).map(|leg| leg.outcome).collect::<Vec<_>>(), [LegOutcome::Won]);
    let others: Vec<_> = set.legs.iter().filter(|leg| !own(leg)).map(|leg| leg.outcome).collect();
    assert_eq!(others, [LegOutcome::Pending; 2]);
}
