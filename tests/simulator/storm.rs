//! A storm: many nodes start at once on one machine, where work that is slow makes more work.

use std::time::Duration;

use mesh_sim::WorkCosts;

use crate::{
    cluster::Cluster,
    promises::{play, scene},
};

const NODES: usize = 24;

/// Handshakes and datagrams take time, as on cores that have much else to do. A dial that waits for its turn longer than it may is
/// given up, and made again. With as many dials at once as there are peers all would wait for ever; rationed, none waits too long.
#[test]
fn many_nodes_that_start_at_once_settle() {
    play(&scene(NODES, 3, 2), async |cluster| {
        (0..NODES).for_each(|at| cluster.crash(at));
        let costs = WorkCosts { handshake: Duration::from_millis(2), datagram: Duration::from_micros(50) };
        cluster.network.set_work_costs(costs);
        let before = cluster.tally.counts().get("suspicions");
        (0..NODES).for_each(|at| cluster.start(at));
        let ready = cluster.wait(Duration::from_secs(60), Cluster::is_ready).await;
        let suspicions = cluster.tally.counts().get("suspicions") - before;
        println!("ready: {ready:?}, {suspicions} suspicions");
        assert!(ready.is_ok(), "{suspicions} suspicions: {:?}", cluster.unsettled());
        // 243 when this was written, 1425 where rounds are no longer than usual, and 7904 where dials are not rationed.
        let pairs = (NODES * (NODES - 1)) as u64;
        assert!(suspicions <= pairs, "{suspicions} suspicions among {pairs} pairs");
    });
}
