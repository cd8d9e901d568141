//! Full stores, of which each evicts for itself: what is gone at one owner is still with another, and that is no fault to be
//! repaired. Each scene also kills a planted defect, see `mutants`.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use mesh::{GetOptions, Lookup, Node, WriteOptions};
use mesh_proto::{Consistency, Version};
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    plan::{Plan, Promise},
    promises::{key, play, scene},
};

/// So many keys are written: eight times what a node has room for.
const KEYS: usize = 2000;

/// Owners may differ for this long, and not be silent, once nobody writes any more.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);

fn full_scene() -> Plan {
    Plan { promise: Promise::Evicting, hedge_delay: Some(Duration::from_millis(20)), ..scene(3, 3, 2) }
}

/// Writes all keys, a third of them twice, and reads at one node or another, so that each spares other keys. Gives the newest
/// version of each.
async fn fill(nodes: &[Node]) -> HashMap<usize, Version> {
    let mut newest = HashMap::new();
    for number in 0..KEYS {
        for number in [Some(number), (number % 3 == 0).then_some(number / 2)].into_iter().flatten() {
            let written = nodes[number % 3].set(key(number), Bytes::from_static(b"v"), WriteOptions::default()).await;
            newest.insert(number, written.unwrap().version);
        }
        // Before others are sent for it: each node keeps what it was asked for.
        let asked = number.saturating_sub(number % 7 + 20);
        let _ = nodes[asked % 3].get(&key(asked), GetOptions::default()).await;
    }
    newest
}

fn nodes(cluster: &Cluster) -> Vec<Node> {
    cluster.running().into_iter().map(|(_, node, _)| node).collect()
}

fn assert_they_differ(nodes: &[Node]) {
    assert!(nodes.iter().all(|node| node.stats().store.evictions > 0), "the stores are not full");
    assert!(nodes[1..].iter().all(|node| node.digests() != nodes[0].digests()), "all have evicted the same keys");
}

fn repaired(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.stats().repaired).sum()
}

#[test]
fn owners_that_have_evicted_different_keys_do_not_compare_for_ever() {
    play(&full_scene(), async |cluster| {
        let nodes = nodes(cluster);
        fill(&nodes).await;
        assert_they_differ(&nodes);
        sleep(SETTLES_WITHIN).await;
        let (pulled, moved) = (cluster.tally.counts().get("slots pulled"), repaired(&nodes));
        assert!(pulled > 0, "no difference was ever looked at");
        sleep(Duration::from_secs(120)).await;
        assert_they_differ(&nodes);
        assert_eq!(cluster.tally.counts().get("slots pulled"), pulled, "they still look at what they differ in");
        assert_eq!(repaired(&nodes), moved, "records still move");
    });
}

/// Deletions make room, which is not for what was evicted before.
#[test]
fn what_an_owner_has_evicted_is_not_brought_back() {
    play(&full_scene(), async |cluster| {
        let nodes = nodes(cluster);
        fill(&nodes).await;
        sleep(SETTLES_WITHIN).await;
        let moved = repaired(&nodes);
        for number in KEYS - 150..KEYS {
            nodes[number % 3].delete(key(number), WriteOptions::default()).await.unwrap();
        }
        assert!(
            nodes.iter().all(|node| node.stats().store.entries < node.stats().store.entries_max),
            "there is no room"
        );
        sleep(Duration::from_secs(60)).await;
        assert_they_differ(&nodes);
        assert_eq!(repaired(&nodes), moved, "evicted keys have come back");
        // What is written now is taken by all.
        for number in 0..20 {
            nodes[0].set(key(number), Bytes::from_static(b"new"), WriteOptions::default()).await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        for node in &nodes {
            let found = node.get(&key(7), GetOptions::default()).await;
            assert!(matches!(&found, Ok(Lookup::Local(hit)) if &hit.value[..] == b"new"), "{found:?}");
        }
    });
}

#[test]
fn a_read_finds_what_any_owner_has_not_evicted() {
    play(&full_scene(), async |cluster| {
        let nodes = nodes(cluster);
        let newest = fill(&nodes).await;
        sleep(SETTLES_WITHIN).await;
        assert_they_differ(&nodes);
        let evictions = |nodes: &[Node]| nodes.iter().map(|node| node.stats().store.evictions).collect::<Vec<_>>();
        let before = evictions(&nodes);
        let (mut held_by_some, mut gone) = (0, 0);
        for number in 0..KEYS {
            for consistency in [Consistency::One, Consistency::Quorum] {
                let (mut local, mut found, mut missed) = (0, 0, 0);
                for node in &nodes {
                    let options = GetOptions { consistency, ..GetOptions::default() };
                    match node.get(&key(number), options).await.unwrap() {
                        Lookup::Local(hit) | Lookup::Remote(hit) if hit.version < newest[&number] => {
                            panic!("key {number} went back to {:?}", hit.version)
                        }
                        Lookup::Local(_) => (local, found) = (local + 1, found + 1),
                        Lookup::Remote(_) => found += 1,
                        Lookup::Miss { .. } => missed += 1,
                    }
                }
                assert!(found == 0 || missed == 0, "{found} nodes find key {number}, {missed} do not, {consistency:?}");
                held_by_some += usize::from((1..3).contains(&local));
                gone += usize::from(found == 0);
            }
        }
        assert!(held_by_some > 50 && gone > 50, "{held_by_some} are with some owners, {gone} with none");
        assert_eq!(evictions(&nodes), before, "reads have evicted");
    });
}
