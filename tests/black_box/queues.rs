//! Where a request waited, by the kernel's clock: a node that could not look at what it had been sent says so.

use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::time::sleep;

use crate::harness::Cluster;

/// As `Server-Timing` tells it, in milliseconds.
fn queue_ms(answer: &reqwest::Response) -> Option<f64> {
    let timing = answer.headers()["server-timing"].to_str().unwrap();
    timing.split(", ").find_map(|part| part.strip_prefix("queue;dur=")).map(|ms| ms.parse().unwrap())
}

const ALONE: [(&str, &str); 2] = [("REPLICATION_FACTOR", "1"), ("WRITE_CONCERN", "1")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_in_which_a_node_was_stopped_is_its_queue() {
    let cluster = Cluster::start(1, &ALONE).await;
    let (client, url) = (Client::new(), format!("http://{}/get?k=a", cluster.node(0).spec().http));
    for _ in 0..3 {
        let answer = client.get(&url).send().await.unwrap();
        assert!(queue_ms(&answer).is_some_and(|ms| ms < 1000.0), "{:?}", answer.headers());
        answer.bytes().await.unwrap();
    }
    for stopped in [50, 200] {
        cluster.node(0).freeze();
        let asking = tokio::spawn(client.get(&url).send());
        // It is sent at once.
        sleep(Duration::from_millis(5)).await;
        let (sent, stopped) = (Instant::now(), Duration::from_millis(stopped));
        sleep(stopped).await;
        cluster.node(0).thaw();
        let waited_ms = sent.elapsed().as_secs_f64() * 1e3;
        let answer = asking.await.unwrap().unwrap();
        let queue_ms = queue_ms(&answer).unwrap();
        assert!(queue_ms >= 0.95 * waited_ms, "{queue_ms} ms of {waited_ms} ms");
        answer.bytes().await.unwrap();
    }
    let metrics = cluster.clients(&[0])[0].text("/metrics").await;
    assert!(metrics.contains("mesh_http_queue_duration_seconds_count"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_timestamps_nothing_is_told() {
    let cluster = Cluster::start(1, &[ALONE[0], ALONE[1], ("KERNEL_TIMESTAMPS", "off")]).await;
    for _ in 0..2 {
        let answer = Client::new().get(format!("http://{}/get?k=a", cluster.node(0).spec().http)).send().await.unwrap();
        assert_eq!(queue_ms(&answer), None);
    }
}
