//! Where a request waited, by the kernel's clock: a node that could not look at what it had been sent says so.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::harness::{Cluster, eventually};

const ALONE: [(&str, &str); 2] = [("REPLICATION_FACTOR", "1"), ("WRITE_CONCERN", "1")];

/// A connection to the only node. What was written to it has been received by the node's kernel.
async fn connection(cluster: &Cluster) -> TcpStream {
    TcpStream::connect(cluster.node(0).spec().http).await.unwrap()
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /get?k=a HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
}

/// The server's queue as `Server-Timing` tells it, in milliseconds.
async fn queue_ms(stream: &mut TcpStream) -> Option<f64> {
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    let timing = answer.lines().find_map(|line| line.strip_prefix("server-timing: ")).expect("the answer's timing");
    timing.split(", ").find_map(|part| part.strip_prefix("queue;dur=")).map(|ms| ms.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_in_which_a_node_was_stopped_is_its_queue() {
    let cluster = Cluster::start(1, &ALONE).await;
    let mut stream = connection(&cluster).await;
    // The kernel begins to take timestamps a moment after the first socket has asked for them.
    let told = async || {
        ask(&mut stream).await;
        queue_ms(&mut stream).await
    };
    assert!(eventually("the queue to be told", Duration::from_secs(5), told).await.0 < 1000.0);
    for _ in 0..2 {
        ask(&mut stream).await;
        assert!(queue_ms(&mut stream).await.is_some_and(|ms| ms < 1000.0));
    }
    for stopped_ms in [50, 200] {
        cluster.node(0).freeze();
        // A signal takes a moment.
        sleep(Duration::from_millis(10)).await;
        ask(&mut stream).await;
        let sent = Instant::now();
        sleep(Duration::from_millis(stopped_ms)).await;
        let waited_ms = sent.elapsed().as_secs_f64() * 1e3;
        cluster.node(0).thaw();
        let queue_ms = queue_ms(&mut stream).await.unwrap();
        assert!(queue_ms >= 0.95 * waited_ms, "{queue_ms} ms of {waited_ms} ms");
    }
    let metrics = cluster.clients(&[0])[0].text("/metrics").await;
    assert!(metrics.contains("mesh_http_queue_duration_seconds_count"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_timestamps_nothing_is_told() {
    let cluster = Cluster::start(1, &[ALONE[0], ALONE[1], ("KERNEL_TIMESTAMPS", "off")]).await;
    let mut stream = connection(&cluster).await;
    for _ in 0..2 {
        ask(&mut stream).await;
        assert_eq!(queue_ms(&mut stream).await, None);
    }
}
