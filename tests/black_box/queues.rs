//! Where a request waited, by the kernels' clocks: a node or a runner that could not look at what it had been sent says so, and what was
//! neither's is the network's.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::sleep,
};

use crate::{
    harness::{Cluster, Latencies, eventually},
    runner_cli::Runner,
};

const ALONE: [(&str, &str); 2] = [("REPLICATION_FACTOR", "1"), ("WRITE_CONCERN", "1")];

/// A connection to the only node. What was written to it has been received by the node's kernel.
async fn connection(cluster: &Cluster) -> TcpStream {
    TcpStream::connect(cluster.node(0).spec().http).await.unwrap()
}

async fn ask_for(stream: &mut TcpStream, key: &str) {
    stream.write_all(format!("GET /get?k={key} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes()).await.unwrap();
}

async fn ask(stream: &mut TcpStream) {
    ask_for(stream, "a").await;
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

async fn timing(stream: &mut TcpStream) -> String {
    let answer = answer(stream).await;
    answer.lines().find_map(|line| line.strip_prefix("server-timing: ")).expect("the answer's timing").to_owned()
}

/// The server's queue as `Server-Timing` tells it, in milliseconds.
async fn queue_ms(stream: &mut TcpStream) -> Option<f64> {
    let timing = timing(stream).await;
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

/// `leg`'s parameters as `Server-Timing` tells them: its time, what of it was in the peer's queue, and in the node's own, in milliseconds.
async fn leg_ms(stream: &mut TcpStream) -> Option<[f64; 3]> {
    let timing = timing(stream).await;
    let leg = timing.split(", ").find_map(|part| part.strip_prefix("leg;"))?.to_owned();
    let of = |name| leg.split(';').find_map(|part| part.strip_prefix(name)).map_or(0.0, |ms| ms.parse().unwrap());
    Some([of("dur="), of("peer-queue="), of("queue=")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_in_which_a_peer_was_stopped_is_its_queue() {
    const STOPPED: Duration = Duration::from_millis(200);
    let cluster = Cluster::start(2, &ALONE).await;
    let mut stream = connection(&cluster).await;
    let is_remote = async |stream: &mut TcpStream, key: &str| {
        let body = format!(r#"{{"k":"{key}","v":"value"}}"#);
        let head = format!("POST /set HTTP/1.1\r\nHost: node\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
        ask_for(stream, key).await;
        answer(stream).await.contains("x-cache: HIT_REMOTE")
    };
    let mut key = String::new();
    for number in 0.. {
        key = format!("key-{number}");
        if is_remote(&mut stream, &key).await {
            break;
        }
    }
    // On a machine that has much else to do, a node may be late before it has sent anything: one try of a few must be without that.
    let mut tries = Vec::new();
    for _ in 0..5 {
        cluster.node(1).freeze();
        sleep(Duration::from_millis(10)).await;
        ask_for(&mut stream, &key).await;
        sleep(STOPPED).await;
        cluster.node(1).thaw();
        let [leg_ms, peer_ms, own_ms] = leg_ms(&mut stream).await.expect("a slow leg");
        assert!(peer_ms + own_ms <= leg_ms + 0.001, "{peer_ms} ms there and {own_ms} ms here of {leg_ms} ms");
        let least_ms = 0.95 * STOPPED.as_secs_f64() * 1e3;
        if leg_ms >= least_ms && peer_ms >= least_ms && peer_ms + own_ms >= 0.95 * leg_ms {
            return;
        }
        tries.push((leg_ms, peer_ms, own_ms));
    }
    panic!("legs in ms, of that there and here: {tries:?}");
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

/// A way to a node on which everything takes longer: how long is measured, because timers are late.
#[derive(Clone, Debug, Default)]
struct SlowWay(Arc<Mutex<Vec<Duration>>>);

/// On their way at a time: a connection has one request.
const PIECES_MAX: usize = 64;

impl SlowWay {
    async fn open(&self, node: SocketAddr, delay: Duration) -> SocketAddr {
        let listener = TcpListener::bind((node.ip(), 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let way = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(node).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                way.pass(from_client, to_server, delay);
                way.pass(from_server, to_client, delay);
            }
        });
        addr
    }

    fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
        let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
        let way = self.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let _ = sender.send((Instant::now(), buffer[..read].to_vec())).await;
            }
        });
        tokio::spawn(async move {
            while let Some((came, piece)) = receiver.recv().await {
                tokio::time::sleep_until((came + delay).into()).await;
                way.0.lock().unwrap().push(came.elapsed());
                if to.write_all(&piece).await.is_err() {
                    return;
                }
            }
        });
    }

    /// There and back, in milliseconds: the median, and where both ways are among the slowest hundredth.
    fn there_and_back_ms(&self) -> (f64, f64) {
        let delays = Latencies::new(self.0.lock().unwrap().iter().copied());
        let both = |percent| delays.percentile(percent).as_secs_f64() * 2e3;
        (both(50), both(99))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_on_the_way_is_the_network() {
    let cluster = Cluster::start(1, &ALONE).await;
    let way = SlowWay::default();
    let addr = way.open(cluster.node(0).spec().http, Duration::from_millis(10)).await;
    let target = format!("http://{addr}");
    let settings = [
        ("TARGETS", target.as_str()),
        ("CONCURRENCY", "32"),
        ("DURATION", "14s"),
        ("KEYS", "100"),
        ("SET_RATIO", "0"),
        ("FINAL_SWEEP", "false"),
    ];
    let mut runner = Runner::start_binary("runner", "slow_way", &[], &settings);
    let status = runner.exit_within(Duration::from_secs(60)).await;
    let (output, results) = (runner.output(), runner.results());
    assert_eq!(status.code(), Some(0), "{output}");
    let gets = results["reconciliation"]["ops"]
        .as_array()
        .unwrap()
        .iter()
        .find(|found| found["op"].as_str().is_some_and(|op| op.eq_ignore_ascii_case("get")));
    let p99 = &gets.expect("GETs")["p99"];
    let (network_ms, (median_ms, most_ms)) = (p99["network_ms"].as_f64().expect("a p99"), way.there_and_back_ms());
    assert!(median_ms >= 20.0);
    let is_named = (median_ms * 0.9..=most_ms * 1.1).contains(&network_ms);
    assert!(is_named, "{network_ms} ms of {median_ms} to {most_ms} ms: {p99}\n{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_in_which_a_runner_was_stopped_is_its_queue() {
    const STOPPED: Duration = Duration::from_millis(400);
    let cluster = Cluster::start(1, &ALONE).await;
    let target = format!("http://{}", cluster.node(0).spec().http);
    let settings = [
        ("TARGETS", target.as_str()),
        ("RUNNER_THREADS", "1"),
        ("CONCURRENCY", "16"),
        ("DURATION", "4s"),
        ("KEYS", "100"),
        ("SET_RATIO", "0"),
        ("FINAL_SWEEP", "false"),
    ];
    let mut runner = Runner::start_binary("runner", "stopped", &[], &settings);
    eventually("the load to begin", Duration::from_secs(20), async || {
        cluster.clients(&[0])[0].stats().await.filter(|stats| stats["Hits"].as_u64() > Some(1000))
    })
    .await;
    let pid = Pid::from_child(&runner.child);
    kill_process(pid, Signal::STOP).unwrap();
    sleep(STOPPED).await;
    kill_process(pid, Signal::CONT).unwrap();
    let status = runner.exit_within(Duration::from_secs(60)).await;
    let (output, results) = (runner.output(), runner.results());
    assert_eq!(status.code(), Some(0), "{output}");
    let slowest = results["slowest"].as_array().unwrap();
    // The answers to what was under way came while it was stopped.
    let stopped =
        slowest.iter().filter(|request| request["response_ms"].as_f64() >= Some(STOPPED.as_secs_f64() * 950.0));
    let share_of = |request: &serde_json::Value, part: &str| {
        request[part].as_f64().unwrap() / request["response_ms"].as_f64().unwrap()
    };
    let (queued, others): (Vec<_>, Vec<_>) = stopped.partition(|request| share_of(request, "client_queue_ms") >= 0.95);
    // The only thread may have been stopped between the clock that says when a request is sent and its sending: to the node's clock that
    // one was on its way.
    let is_late = others.iter().all(|request| share_of(request, "network_ms") >= 0.95);
    assert!(others.len() <= 1 && is_late && queued.len() > others.len(), "{others:?}\n{output}");
}
