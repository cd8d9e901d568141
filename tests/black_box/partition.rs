//! A node that is cut off for longer than any time-out of the mesh, and comes back to it.

use std::time::Duration;

use crate::harness::{Cluster, Consistency};

const CUT_FOR: Duration = Duration::from_secs(40);
const WHOLE_AGAIN_WITHIN: Duration = Duration::from_secs(5);
const DETECTED_WITHIN: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healed_partition_is_one_mesh_again() {
    let cluster = Cluster::start_behind_proxies(3, &[]).await;
    let [zero, one, two] = [0, 1, 2].map(|index| cluster.node(index).client());
    for key in 0..100 {
        assert_eq!(zero.set(&format!("key{key}"), "before").await.status, 200);
    }
    cluster.network().assert_senders_known();

    cluster.network().isolate(2);
    let cut_at = tokio::time::Instant::now();
    cluster.wait_seen(&[0, 1], 2, "dead", DETECTED_WITHIN).await;
    cluster.wait_seen(&[2], 0, "dead", DETECTED_WITHIN).await;
    cluster.wait_seen(&[2], 1, "dead", DETECTED_WITHIN).await;
    for key in 0..50 {
        assert_eq!(one.set(&format!("key{key}"), "during").await.status, 200, "the larger side accepts writes");
    }
    for key in 50..60 {
        assert_eq!(one.delete(&format!("key{key}")).await.status, 200, "the larger side accepts deletions");
    }
    assert_eq!(two.set("key0", "alone").await.status, 503, "the smaller side refuses writes");
    assert_eq!(two.get("key99", Consistency::One).await.body, "before", "the smaller side still reads");
    tokio::time::sleep_until(cut_at + CUT_FOR).await;

    cluster.network().heal();
    let healed_at = tokio::time::Instant::now();
    cluster.wait_whole(WHOLE_AGAIN_WITHIN).await;
    println!("one mesh again {:?} after the partition healed", healed_at.elapsed());
    for key in 0..100 {
        let reply = two.get(&format!("key{key}"), Consistency::Quorum).await;
        let expected = match key {
            0..50 => (200, "during"),
            50..60 => (404, ""),
            _ => (200, "before"),
        };
        assert_eq!(reply.status, expected.0, "key{key} through the node that was cut off: {}", reply.body);
        if reply.status == 200 {
            assert_eq!(reply.body, expected.1, "key{key} through the node that was cut off");
        }
    }
}
