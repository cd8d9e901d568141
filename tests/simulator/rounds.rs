//! Scenes of writes that compete for a key: each ends after two rounds at most, those that wait at one node go out as one, and none is
//! acknowledged below what was acknowledged before it began. All but the first kill a planted defect.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh::{GetOptions, Lookup, Node, WriteError, WriteOptions, Written, transport::LinkFault};
use mesh_proto::{Consistency, KeyHash, NodeId, ReplicationFactor, Ring, Slot, Version, Weight};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    cluster::Cluster,
    links::Links,
    promises::{isolate, key, play, scene},
    rings::write_all,
};

/// How long a write may take here, one way, on a link that is made slow.
const SLOW: Duration = Duration::from_millis(20);

/// Makes a link slow, both ways.
fn slow(cluster: &Cluster, one: NodeId, other: NodeId, delay: Duration) {
    for (from, to) in [(one, other), (other, one)] {
        cluster.network.set_fault(from, to, LinkFault { delay, ..LinkFault::default() });
    }
}

fn cut(cluster: &Cluster, pairs: &[(usize, usize)]) {
    let mut links = Links::default();
    pairs.iter().for_each(|(one, other)| {
        links.cut(&[*one], &[*other]);
        links.cut(&[*other], &[*one]);
    });
    links.apply(&cluster.network, &cluster.ids());
}

/// Which of the first keys are owned by exactly these nodes.
fn owned_by(cluster: &Cluster, places: &[usize]) -> Vec<usize> {
    let (ids, ring) = (cluster.ids(), cluster.ring());
    let is_owned = |number: &usize| {
        let owners = ring.owners(Slot::of(KeyHash::of(&key(*number))));
        places.iter().all(|place| owners.contains(&ids[*place])) && owners.len() == places.len()
    };
    (0..1000).filter(is_owned).take(100).collect()
}

/// Whether each key's second write is above its first. At least one key was written twice.
fn assert_above(numbers: &[usize], first: &[Option<Version>], second: &[Option<Version>]) {
    let mut both = 0;
    for (number, (first, second)) in numbers.iter().zip(first.iter().zip(second)) {
        if let (Some(first), Some(second)) = (first, second) {
            assert!(second > first, "key {number}: {second} was acknowledged after {first}");
            both += 1;
        }
    }
    println!("{both} keys were written twice");
    assert!(both > 0, "nothing was tried");
}

/// One acknowledged write: its place in the order of all beginnings and ends, and its version.
struct Acknowledged {
    begun: u64,
    ended: u64,
    version: Version,
}

async fn write_often(node: Node, writes: usize, moments: Arc<AtomicU64>) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for number in 0..writes {
        let begun = moments.fetch_add(1, Relaxed);
        let written = match number % 5 {
            4 => node.delete(key(0), WriteOptions::default()).await,
            _ => node.set(key(0), Bytes::from_static(b"v"), WriteOptions::default()).await,
        };
        let Written { version } = written.unwrap();
        acknowledged.push(Acknowledged { begun, ended: moments.fetch_add(1, Relaxed), version });
    }
    acknowledged
}

#[test]
fn one_key_with_many_writers_at_every_node_takes_two_rounds_at_most() {
    let mut plan = scene(4, 3, 2);
    plan.clock_offsets_ms = vec![450, 0, 200, 100];
    play(&plan, async |cluster| {
        let moments = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for (_, node, _) in cluster.running() {
            for _ in 0..16 {
                writers.spawn(write_often(node.clone(), 25, Arc::clone(&moments)));
            }
        }
        let all: Vec<Acknowledged> = writers.join_all().await.into_iter().flatten().collect();
        assert_eq!(all.len(), 4 * 16 * 25);
        let mut by_end: Vec<&Acknowledged> = all.iter().collect();
        by_end.sort_by_key(|write| write.ended);
        let newest = by_end.iter().scan(Version::ZERO, |newest, write| {
            *newest = write.version.max(*newest);
            Some((write.ended, *newest))
        });
        let newest: Vec<(u64, Version)> = newest.collect();
        for write in &all {
            let before = newest.partition_point(|(ended, _)| *ended < write.begun);
            let floor = before.checked_sub(1).map_or(Version::ZERO, |last| newest[last].1);
            assert!(write.version > floor, "{} is not above {floor}", write.version);
        }
        let mut versions: Vec<Version> = all.iter().map(|write| write.version).collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), all.len(), "two writes have one version");
        let options = GetOptions { consistency: Consistency::Quorum, ..GetOptions::default() };
        let found = match cluster.node(3).unwrap().get(&key(0), options).await.unwrap() {
            Lookup::Local(hit) | Lookup::Remote(hit) => Some(hit.version),
            Lookup::Miss { version } => version,
        };
        assert_eq!(found, versions.last().copied(), "the newest write is there, and nothing newer");
        let sum = |of: fn(&mesh::Stats) -> u64| -> u64 {
            cluster.running().iter().map(|(_, node, _)| of(&node.stats())).sum()
        };
        let (second, carried) = (sum(|stats| stats.second_rounds), sum(|stats| stats.carried_writes));
        println!("{} writes, {second} of them in two rounds, {carried} carried by others", all.len());
        assert!(second > 20 && carried > 200, "there was no competition: {second} second rounds, {carried} carried");
        assert_eq!(sum(|stats| stats.further_rounds), 0, "more than two rounds");
    });
}

/// The second writer owns nothing of the keys and its clock is behind, so owners refuse its first round.
#[test]
fn a_refusal_in_round_one_is_no_acknowledgement() {
    let mut plan = scene(4, 3, 2);
    plan.clock_offsets_ms = vec![450, 450, 450, 0];
    play(&plan, async |cluster| {
        let numbers = owned_by(cluster, &[0, 1, 2]);
        let first = write_all(&cluster.node(0).unwrap(), &numbers, Duration::from_millis(50)).await;
        let second = write_all(&cluster.node(3).unwrap(), &numbers, Duration::from_secs(3)).await;
        assert_above(&numbers, &first, &second);
    });
}

/// One owner has missed the first writes and holds something older, and it answers the second writer long before the others.
#[test]
fn one_owner_does_not_say_what_was_acknowledged_before() {
    let mut plan = scene(4, 3, 2);
    plan.clock_offsets_ms = vec![450, 450, 450, 0];
    play(&plan, async |cluster| {
        let (ids, numbers) = (cluster.ids(), owned_by(cluster, &[0, 1, 2]));
        write_all(&cluster.node(0).unwrap(), &numbers, Duration::from_millis(50)).await;
        sleep(Duration::from_millis(10)).await;
        cut(cluster, &[(0, 2), (1, 2)]);
        slow(cluster, ids[3], ids[0], SLOW);
        slow(cluster, ids[3], ids[1], SLOW);
        let first = write_all(&cluster.node(0).unwrap(), &numbers, Duration::from_millis(50)).await;
        let second = write_all(&cluster.node(3).unwrap(), &numbers, Duration::from_secs(3)).await;
        assert_above(&numbers, &first, &second);
    });
}

/// The same, where a second owner answers as fast, and holds as little: it has just taken over the slot of one that held the first
/// writes.
#[test]
fn an_owner_that_is_catching_up_does_not_say_what_was_acknowledged_before() {
    let mut plan = scene(5, 3, 2);
    plan.clock_offsets_ms = vec![450, 100, 100, 100, 0];
    play(&plan, async |cluster| {
        let (ids, node) = (cluster.ids(), |at| cluster.node(at).unwrap());
        // Only what that one takes over: another node that pulls one of the first writes has its clock set.
        let ring = cluster.ring();
        let light = |(id, weight): &(NodeId, Weight)| (*id, if *id == ids[2] { Weight::MIN } else { *weight });
        let members: Vec<_> = ring.members().iter().map(light).collect();
        let next = Ring::new(&members, ReplicationFactor::new(3).unwrap());
        let moves =
            |number: &usize| [0, 1, 3].iter().all(|at| next.owns(ids[*at], Slot::of(KeyHash::of(&key(*number)))));
        let numbers: Vec<usize> = owned_by(cluster, &[0, 1, 2]).into_iter().filter(moves).collect();
        cut(cluster, &[(0, 1)]);
        slow(cluster, ids[0], ids[3], Duration::from_millis(300));
        slow(cluster, ids[2], ids[3], Duration::from_millis(300));
        slow(cluster, ids[2], ids[1], Duration::from_millis(300));
        slow(cluster, ids[0], ids[4], SLOW);
        let first = write_all(&node(0), &numbers, Duration::from_millis(30)).await;
        let ring = node(1).view().ring;
        cluster.weigh(2, Weight::MIN);
        let same = |_: &Cluster| {
            let now = node(1).view().ring;
            now != ring && [3, 4].iter().all(|at| node(*at).view().ring == now)
        };
        assert!(cluster.wait(Duration::from_millis(200), same).await.is_ok(), "the ring has not changed");
        // Both of these owners take it, but one of them may lack anything: it is not acknowledged.
        let unconfirmed = write_all(&node(1), &numbers, Duration::from_millis(20)).await;
        assert!(unconfirmed.iter().all(Option::is_none), "an owner has caught up already");
        for at in [1, 3] {
            for (number, first) in numbers.iter().zip(&first) {
                let found = node(at).get(&key(*number), GetOptions::default()).await;
                let Ok(Lookup::Local(hit)) = found else { panic!("node {at} has no key {number}: {found:?}") };
                assert!(first.is_none_or(|first| hit.version < first), "node {at} has the first write of key {number}");
            }
        }
        let second = write_all(&node(4), &numbers, Duration::from_secs(3)).await;
        assert_above(&numbers, &first, &second);
    });
}

/// A write is in flight, others wait for it, and the one that carries them then reaches nobody.
#[test]
fn a_write_that_another_carries_is_acknowledged_only_if_that_one_is() {
    play(&scene(3, 3, 2), async |cluster| {
        let (ids, node) = (cluster.ids(), cluster.node(0).unwrap());
        slow(cluster, ids[0], ids[1], SLOW);
        slow(cluster, ids[0], ids[2], SLOW);
        let mut writes = JoinSet::new();
        let begin = |writes: &mut JoinSet<Result<Written, WriteError>>| {
            let node = node.clone();
            writes.spawn(async move { node.set(key(0), Bytes::from_static(b"v"), WriteOptions::default()).await });
        };
        begin(&mut writes);
        sleep(Duration::from_millis(1)).await;
        (0..8).for_each(|_| begin(&mut writes));
        let first = writes.join_next().await.unwrap().unwrap();
        assert!(first.is_ok(), "{first:?}");
        isolate(cluster, 0);
        for written in writes.join_all().await {
            assert!(matches!(written, Err(WriteError::Indeterminate { .. })), "{written:?}");
        }
        assert_eq!(node.stats().carried_writes, 7);
    });
}

/// An owner answers a write, crashes and returns empty, while the coordinator, which is no owner, still waits for the others. Had it caught up
/// before one of them gets the write, two of the three would not know what was acknowledged.
#[test]
fn who_returns_empty_waits_for_the_writes_that_it_may_have_answered() {
    play(&scene(4, 3, 2), async |cluster| {
        let ids = cluster.ids();
        let name = key(owned_by(cluster, &[0, 1, 2])[0]);
        cluster.network.set_fault(
            ids[3],
            ids[1],
            LinkFault { delay: Duration::from_millis(1500), ..LinkFault::default() },
        );
        cluster.network.set_fault(ids[3], ids[2], LinkFault::CUT);
        let writer = cluster.node(3).unwrap();
        let write = tokio::spawn({
            let name = name.clone();
            async move { writer.set(name, Bytes::from("x"), WriteOptions::default()).await }
        });
        sleep(Duration::from_millis(20)).await;
        cluster.crash(0);
        cluster.start(0);
        let written = write.await.unwrap();
        // From now on nobody learns it from whom it reached.
        for (from, to) in [(1, 0), (1, 2), (3, 0), (3, 2)] {
            cluster.network.set_fault(ids[from], ids[to], LinkFault::CUT);
        }
        for at in [0, 2] {
            let options = GetOptions { consistency: Consistency::Quorum, ..GetOptions::default() };
            let found = cluster.node(at).unwrap().get(&name, options).await;
            let is_denied = written.is_ok() && matches!(found, Ok(Lookup::Miss { .. }));
            assert!(!is_denied, "via {at}: {found:?} after {written:?}");
        }
    });
}
