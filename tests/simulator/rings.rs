//! Scenes of rings that change, each of which kills a planted defect that random seeds would meet too rarely.

use std::time::Duration;

use bytes::Bytes;
use mesh::{GetOptions, Lookup, Node, WriteError, WriteOptions, transport::LinkFault};
use mesh_proto::{Consistency, KeyHash, Slot, Version, Weight};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cluster::Cluster,
    links::Links,
    promises::{key, play, scene, set},
};

pub const KEYS: usize = 300;

/// How a node with all its links is to be: everything takes so much longer.
pub fn slow(cluster: &Cluster, delay: Duration) {
    let links = Links { delay, ..Links::default() };
    links.apply(&cluster.network, &cluster.ids());
}

/// Of three owners one has missed a write, and a second one gives its slots to a fourth node, which does not have them yet. What
/// those two acknowledge is newer than the write: with a lower version it would be lost as soon as they meet the others.
#[test]
fn an_owner_that_is_catching_up_does_not_confirm_the_order_of_writes() {
    let mut plan = scene(4, 3, 2);
    plan.clock_offsets_ms = vec![450, 0, 0, 0];
    play(&plan, async |cluster| {
        let ids = cluster.ids();
        let mut links = Links::default();
        links.cut(&[0], &[1]);
        links.cut(&[1], &[0]);
        links.apply(&cluster.network, &ids);
        for (from, to) in [(0, 3), (3, 0), (2, 3), (3, 2)] {
            let fault = LinkFault { delay: Duration::from_millis(300), ..LinkFault::default() };
            cluster.network.set_fault(ids[from], ids[to], fault);
        }
        let (ahead, behind, new) = (cluster.node(0).unwrap(), cluster.node(1).unwrap(), cluster.node(3).unwrap());
        // Of no other keys: a node that hears of one such write has its clock set.
        let ring = cluster.ring();
        let is_old = |number: &usize| !ring.owns(ids[3], Slot::of(KeyHash::of(&key(*number))));
        let numbers: Vec<usize> = (0..KEYS * 4).filter(is_old).collect();
        let first = write_all(&ahead, &numbers, Duration::from_millis(50)).await;
        let ring = behind.view().ring;
        cluster.weigh(2, Weight::MIN);
        let changed = |_: &Cluster| behind.view().ring != ring && behind.view().ring == new.view().ring;
        let changed = cluster.wait(Duration::from_millis(200), changed).await;
        assert!(changed.is_ok(), "the ring has not changed: {:?}", behind.view());
        assert!(new.view().sync.slots_in_sync < new.view().sync.slots_owned, "it has caught up already");
        let second = write_all(&behind, &numbers, Duration::from_secs(3)).await;
        let mut both = 0;
        for (number, (first, second)) in numbers.iter().zip(first.into_iter().zip(second)) {
            if let (Some(first), Some(second)) = (first, second) {
                assert!(second > first, "key {number}: {second} was acknowledged after {first}");
                both += 1;
            }
        }
        println!("{both} keys were written twice");
        assert!(both > 0, "nothing was tried");
    });
}

/// Writes these keys at the same time; the versions of those that were acknowledged within `patience`.
pub async fn write_all(node: &Node, numbers: &[usize], patience: Duration) -> Vec<Option<Version>> {
    let writes: Vec<_> = numbers
        .iter()
        .map(|&number| {
            let node = node.clone();
            let write = async move { node.set(key(number), Bytes::from_static(b"v"), WriteOptions::default()).await };
            tokio::spawn(timeout(patience, write))
        })
        .collect();
    let mut versions = Vec::new();
    for write in writes {
        versions.push(write.await.unwrap().ok().and_then(|written| Some(written.ok()?.version)));
    }
    versions
}

/// A write is under way to its owner when a node joins that will own it. The newcomer has asked that owner before the write comes
/// there, and enters the ring after: it has to ask again.
#[test]
fn who_enters_the_ring_learns_what_came_while_it_caught_up() {
    let mut plan = scene(3, 1, 1);
    plan.places = 4;
    plan.clock_offsets_ms = vec![0; 4];
    play(&plan, async |cluster| {
        let ids = cluster.ids();
        for (from, to, ms) in [(0, 1, 150), (2, 3, 300), (3, 2, 300)] {
            let fault = LinkFault { delay: Duration::from_millis(ms), ..LinkFault::default() };
            cluster.network.set_fault(ids[from], ids[to], fault);
        }
        let (node, numbers) = (cluster.node(0).unwrap(), (0..KEYS).collect::<Vec<_>>());
        let ring = cluster.ring();
        let writes = write_all(&node, &numbers, Duration::from_secs(3));
        let (written, ()) = tokio::join!(writes, async {
            sleep(Duration::from_millis(1)).await;
            cluster.start(3);
        });
        let slow = |number: &usize| ring.owns(ids[1], Slot::of(KeyHash::of(&key(*number))));
        assert!(numbers.iter().any(|number| slow(number) && written[*number].is_some()), "nothing was under way");
        let ready = cluster.wait(Duration::from_secs(10), Cluster::is_ready).await;
        assert!(ready.is_ok(), "not ready: {:?}", cluster.unsettled());
        let numbers = numbers.into_iter().filter(|number| written[*number].is_some());
        hits(cluster, numbers, "after a node has joined").await;
    });
}

/// A write is under way to its owner while another node takes the slot over from that one: it comes too late to count.
#[test]
fn a_write_of_another_ring_is_not_acknowledged() {
    play(&scene(5, 1, 1), async |cluster| {
        let (ids, numbers) = (cluster.ids(), (0..KEYS).collect::<Vec<_>>());
        let fault = LinkFault { delay: Duration::from_millis(700), ..LinkFault::default() };
        cluster.network.set_fault(ids[0], ids[2], fault);
        let (before, node) = (cluster.ring(), cluster.node(0).unwrap());
        let writes = write_all(&node, &numbers, Duration::from_secs(3));
        let (written, ()) = tokio::join!(writes, async {
            sleep(Duration::from_millis(1)).await;
            cluster.weigh(1, Weight::MAX);
        });
        let ready = cluster.wait(Duration::from_secs(10), Cluster::is_ready).await;
        assert!(ready.is_ok(), "not ready: {:?}", cluster.unsettled());
        let after = cluster.ring();
        let has_moved = |number: &usize| {
            let slot = Slot::of(KeyHash::of(&key(*number)));
            before.owns(ids[2], slot) && after.owns(ids[1], slot) && written[*number].is_some()
        };
        assert!(numbers.iter().any(has_moved), "nothing was under way");
        let numbers = numbers.into_iter().filter(|number| written[*number].is_some());
        hits(cluster, numbers, "after a weight has changed").await;
    });
}

/// Two nodes come to a mesh where everything takes long. Nobody notices: who asks for keys that are not there is told so.
#[test]
fn nodes_that_join_cost_nobody_an_answer() {
    let mut plan = scene(3, 3, 2);
    plan.places = 5;
    plan.clock_offsets_ms = vec![0; 5];
    play(&plan, async |cluster| {
        let node = cluster.node(0).unwrap();
        for number in 0..KEYS {
            set(&node, number, "v").await.unwrap();
        }
        slow(cluster, Duration::from_millis(200));
        cluster.start(3);
        cluster.start(4);
        let (started, mut asked) = (Instant::now(), 0);
        while started.elapsed() < Duration::from_secs(10) {
            for number in (0..KEYS * 2).step_by(7) {
                let options = GetOptions { consistency: Consistency::Quorum, ..GetOptions::default() };
                let found = node.get(&key(number), options).await;
                let is_right = match &found {
                    Ok(Lookup::Local(_) | Lookup::Remote(_)) => number < KEYS,
                    Ok(Lookup::Miss { .. }) => number >= KEYS,
                    Err(_) => false,
                };
                assert!(is_right, "key {number} after {:?}: {found:?}", started.elapsed());
                asked += 1;
            }
        }
        assert!(cluster.is_ready(), "they have not joined: {:?}", cluster.unsettled());
        println!("{asked} keys asked for meanwhile");
    });
}

/// Two clocks are an hour ahead: that of a coordinator, and that of a node that is joining, which finds nothing wrong with the other.
#[test]
fn what_all_owners_refuse_is_not_held_by_one_that_joins() {
    const HOUR_MS: i64 = 3_600_000;
    let mut plan = scene(4, 3, 2);
    plan.places = 5;
    plan.clock_offsets_ms = vec![0; 5];
    play(&plan, async |cluster| {
        let node = cluster.node(3).unwrap();
        [3, 4].iter().for_each(|at| cluster.move_clock(*at, HOUR_MS));
        cluster.start(4);
        let joins = |_: &Cluster| node.view().members.iter().any(|member| member.state == "joining");
        assert!(cluster.wait(Duration::from_secs(2), joins).await.is_ok(), "{:?}", node.view());
        // They are being connected to.
        sleep(Duration::from_millis(100)).await;
        for number in 0..KEYS {
            assert_eq!(set(&node, number, "v").await, Err(WriteError::Drift));
        }
        assert!(cluster.wait(Duration::ZERO, joins).await.is_ok(), "it has joined too early");
        [3, 4].iter().for_each(|at| cluster.move_clock(*at, -HOUR_MS));
        let ready = cluster.wait(Duration::from_secs(10), Cluster::is_ready).await;
        assert!(ready.is_ok(), "{:?}", cluster.unsettled());
        for number in 0..KEYS {
            for consistency in [Consistency::One, Consistency::Quorum] {
                let options = GetOptions { consistency, ..GetOptions::default() };
                let found = cluster.node(4).unwrap().get(&key(number), options).await;
                assert!(matches!(found, Ok(Lookup::Miss { .. })), "key {number}: {found:?}");
            }
        }
    });
}

/// Every node finds these keys.
pub async fn hits(cluster: &Cluster, numbers: impl Iterator<Item = usize>, what: &str) {
    for number in numbers {
        for (via, node, _) in cluster.running() {
            let options = GetOptions { consistency: Consistency::Quorum, ..GetOptions::default() };
            let found = node.get(&key(number), options).await;
            let is_hit = matches!(found, Ok(Lookup::Local(_) | Lookup::Remote(_)));
            assert!(is_hit, "{what}: key {number} via {via}: {found:?}");
        }
    }
}

/// One acknowledgement makes a write, and two of five nodes leave at once: they go when the others have what they held.
#[test]
fn who_leaves_hands_over_what_it_held() {
    play(&scene(5, 2, 1), async |cluster| {
        let node = cluster.node(0).unwrap();
        for number in 0..KEYS {
            set(&node, number, "v").await.unwrap();
        }
        let (third, fourth) = tokio::join!(cluster.stop(3), cluster.stop(4));
        assert!(third && fourth, "they left before all was handed over");
        let ready = cluster.wait(Duration::from_secs(10), Cluster::is_ready).await;
        assert!(ready.is_ok(), "not ready: {:?}", cluster.unsettled());
        hits(cluster, 0..KEYS, "after two have left").await;
    });
}

/// With one replica a change of weight moves keys to nodes that have none of them: these come from who had them, which forgets
/// them only then.
#[test]
fn slots_that_move_take_their_keys_along() {
    play(&scene(5, 1, 1), async |cluster| {
        let node = cluster.node(0).unwrap();
        for number in 0..KEYS {
            set(&node, number, "v").await.unwrap();
        }
        slow(cluster, Duration::from_millis(30));
        for round in 0..4 {
            cluster.weigh(round, Weight::new(16).unwrap());
            cluster.weigh((round + 1) % 5, Weight::new(1).unwrap());
            sleep(Duration::from_millis(700)).await;
        }
        let ready = cluster.wait(Duration::from_secs(20), Cluster::is_ready).await;
        assert!(ready.is_ok(), "not ready: {:?}", cluster.unsettled());
        sleep(Duration::from_secs(5)).await;
        let given_up: u64 = cluster.running().iter().map(|(_, node, _)| node.stats().given_up).sum();
        assert!(given_up > 0, "nothing has moved");
        hits(cluster, 0..KEYS, "after the weights have changed").await;
    });
}
