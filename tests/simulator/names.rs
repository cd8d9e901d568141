//! Scenes of names and addresses: names that stand for several nodes, addresses that change hands, and members that come back
//! elsewhere.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::{Readiness, WriteError, WriteOptions};
use mesh_proto::NodeId;
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    plan::Plan,
    promises::{key, play, scene, set},
};

/// Each node finds itself first, as a resolver may have it.
#[test]
fn a_name_that_stands_for_all_nodes_makes_one_mesh() {
    play(&scene(3, 3, 2), async |cluster| {
        let addrs = (0..3).map(|at| format!("node{at}:5011")).collect();
        cluster.network.set_name("mesh:5011", addrs);
        for at in 0..3 {
            cluster.crash(at);
            cluster.configure(at, |config, _| config.seeds = vec!["mesh:5011".to_owned()]);
            cluster.start(at);
        }
        ready(cluster, "with one name for all").await;
    });
}

/// As where the name server starts later than the nodes do.
#[test]
fn a_name_that_nobody_knows_yet_is_asked_for_again() {
    play(&scene(3, 3, 2), async |cluster| {
        cluster.network.set_name("mesh:5011", Vec::new());
        for at in 0..3 {
            cluster.crash(at);
            cluster.configure(at, |config, _| config.seeds = vec!["mesh:5011".to_owned()]);
            cluster.start(at);
        }
        sleep(Duration::from_secs(60)).await;
        for at in 0..3 {
            let readiness = cluster.node(at).unwrap().readiness();
            assert_ne!(readiness, Readiness::Ready, "node {at} is alone, and can acknowledge nothing");
        }
        cluster.network.set_name("mesh:5011", (0..3).map(|at| format!("node{at}:5011")).collect());
        let ready = cluster.wait(Duration::from_secs(5), Cluster::is_ready).await;
        assert!(ready.is_ok(), "not ready once the name is known: {:?}", cluster.unsettled());
    });
}

/// A node of one mesh has died, and another mesh, with the same secret, has started a node at its address.
#[test]
fn an_address_that_changes_hands_merges_no_meshes() {
    let plan = Plan { places: 6, clock_offsets_ms: vec![0; 6], ..scene(3, 3, 2) };
    play(&plan, async |cluster| {
        cluster.crash(2);
        for at in 3..6 {
            cluster.configure(at, |config, addr| {
                config.mesh = "other".to_owned();
                config.seeds = [3, 4, 2].map(|at| format!("node{at}:5011")).to_vec();
                if at == 5 {
                    config.public_addr = "node2:5011".to_owned();
                    addr.clone_from(&config.public_addr);
                }
            });
            cluster.start(at);
        }
        sleep(Duration::from_secs(20)).await;
        let ids = cluster.ids();
        for (members, node) in [(&ids[..3], 0), (&ids[..3], 1), (&ids[3..], 3), (&ids[3..], 5)] {
            let known = cluster.node(node).unwrap().view().members;
            let is_ours = |id: &str| members.iter().map(NodeId::to_string).any(|ours| ours == id);
            assert!(known.iter().all(|member| is_ours(&member.id)), "node {node}: {known:?}");
            assert_eq!(known.len(), 3, "node {node} does not know its own mesh: {known:?}");
        }
    });
}

/// As a pod does: the process is killed, and the next one has another address, before the others have given up the first.
#[test]
fn a_member_that_comes_back_elsewhere_is_let_in_again() {
    play(&scene(3, 3, 2), async |cluster| {
        cluster.crash(1);
        cluster.configure(1, |config, addr| {
            config.public_addr = "elsewhere:5011".to_owned();
            addr.clone_from(&config.public_addr);
        });
        cluster.start(1);
        ready(cluster, "with one node elsewhere").await;
    });
}

async fn ready(cluster: &Arc<Cluster>, what: &str) {
    let ready = cluster.wait(Duration::from_secs(20), Cluster::is_ready).await;
    assert!(ready.is_ok(), "not ready {what}: {:?}", cluster.unsettled());
}

/// As when CACHE_PUBLIC is copied from CACHE_BIND: all start together, and again beside those that run already.
#[test]
fn a_member_that_nobody_can_reach_holds_nothing_and_nobody_up() {
    play(&scene(3, 3, 2), async |cluster| {
        for together in [true, false] {
            if together {
                (0..3).for_each(|at| cluster.crash(at));
                [0, 1].into_iter().for_each(|at| cluster.start(at));
            } else {
                cluster.crash(2);
                sleep(Duration::from_secs(5)).await;
            }
            cluster.configure(2, |config, _| config.public_addr = "nowhere:5011".to_owned());
            cluster.start(2);
            sleep(Duration::from_secs(12)).await;
            for at in [0, 1] {
                let node = cluster.node(at).unwrap();
                assert_eq!(node.readiness(), Readiness::Ready, "node {at}, together: {together}");
                for number in 0..50 {
                    set(&node, number, "v").await.unwrap();
                }
                assert_eq!(node.stats().missed_writes, 0, "node {at}, together: {together}");
                let view = node.view();
                let unreachable =
                    view.members.iter().filter_map(|member| Some((&*member.addr, member.unreachable.as_ref()?)));
                let addrs: Vec<_> = unreachable.map(|(addr, reason)| (addr, reason.contains("nowhere:5011"))).collect();
                assert_eq!(addrs, [("nowhere:5011", true)], "node {at}, together: {together}");
            }
            let lost = cluster.node(2).unwrap();
            assert_eq!(lost.readiness(), Readiness::Unreachable { addr: "nowhere:5011".to_owned() });
        }
    });
}

/// As in the middle of a rolling change of VALUE_BYTES_MAX.
#[test]
fn what_is_too_large_for_peers_is_refused_and_breaks_nothing() {
    play(&scene(3, 3, 2), async |cluster| {
        cluster.crash(0);
        cluster.configure(0, |config, _| config.value_bytes_max = 16 << 20);
        cluster.start(0);
        ready(cluster, "with one node that takes more").await;
        let (large, node) = (cluster.node(0).unwrap(), cluster.node(1).unwrap());
        let value = Bytes::from(vec![b'v'; 3 << 20]);
        let refused = large.set(key(1), value.clone(), WriteOptions::default()).await;
        assert_eq!(refused, Err(WriteError::TooLarge));
        set(&large, 1, "small").await.unwrap();
        cluster.crash(2);
        // Hints for the one that is away, and what repair brings it when it is back.
        let refused = large.set(key(2), value, WriteOptions::default()).await;
        assert!(refused.is_err(), "{refused:?}");
        set(&large, 2, "small").await.unwrap();
        cluster.start(2);
        ready(cluster, "after one was restarted").await;
        for node in [&large, &node, &cluster.node(2).unwrap()] {
            let stats = node.stats();
            assert_eq!((stats.protocol_violations, stats.store.entries), (0, 2), "{stats:?}");
        }
    });
}

/// Names that never return, as of pods without an identity: nothing is kept of them after a while, or after an order.
#[test]
fn the_dead_are_forgotten_after_a_while_or_by_order() {
    let plan = Plan { places: 5, clock_offsets_ms: vec![0; 5], ..scene(3, 3, 2) };
    play(&plan, async |cluster| {
        for at in 0..3 {
            cluster.crash(at);
            cluster.configure(at, |config, _| config.forget_after = Duration::from_secs(60));
            cluster.start(at);
        }
        ready(cluster, "with a shorter memory").await;
        cluster.start(3);
        cluster.start(4);
        ready(cluster, "with two more").await;
        cluster.crash(3);
        cluster.crash(4);
        sleep(Duration::from_secs(10)).await;
        let known = |at: usize| cluster.node(at).unwrap().view().members.len();
        assert_eq!([known(0), known(1), known(2)], [5; 3], "forgotten too early");
        let third = cluster.ids()[3];
        assert!(cluster.node(0).unwrap().forget(third).await);
        assert!(!cluster.node(0).unwrap().forget(cluster.ids()[1]).await, "it is alive");
        sleep(Duration::from_secs(10)).await;
        assert_eq!([known(0), known(1), known(2)], [4; 3], "by order");
        sleep(Duration::from_secs(60)).await;
        assert_eq!([known(0), known(1), known(2)], [3; 3], "after a while");
        cluster.start(3);
        ready(cluster, "with one that came back after all").await;
        assert_eq!(known(0), 4);
    });
}
