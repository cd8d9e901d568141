//! More requests than three nodes can answer, from clients that never wait: what can be done is done, the rest is told so in
//! time, and nobody takes a busy node for a dead one.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    task::JoinSet,
};

use crate::harness::{Cluster, Latencies};

/// Enough to keep three nodes busy, and few enough for each to be let in.
const FEW: usize = 12;

/// Each wants an answer at once: with a write in flight on each, far more than REQUESTS_MAX.
const MANY: usize = 900;

const CALM: Duration = Duration::from_secs(4);
const STORM: Duration = Duration::from_secs(12);

/// What the answered may take, on a machine that does four times as much as it can: well below the time-out of a write.
const ANSWERED_WITHIN: Duration = Duration::from_millis(2500);

/// What one client, or all of them, saw.
#[derive(Default)]
struct Seen {
    answered: Vec<Duration>,
    turned_away: usize,
    /// Anything else, in words.
    others: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_is_turned_away_and_nobody_is_declared_dead() {
    let cluster = Cluster::start(3, &[("REQUESTS_MAX", "100")]).await;
    let nodes: Vec<SocketAddr> = (0..3).map(|index| cluster.node(index).spec().http).collect();
    let calm = load(&nodes, FEW, CALM).await;
    assert!(calm.others.is_empty(), "{:?}", calm.others.first());
    assert_eq!(calm.turned_away, 0, "{FEW} clients are no overload");

    let watch = watch_members(&cluster, STORM);
    let (storm, deaths) = tokio::join!(load(&nodes, MANY, STORM), watch);
    let per_second = |seen: &Seen, time: Duration| seen.answered.len() as f64 / time.as_secs_f64();
    let goodput = per_second(&storm, STORM) / per_second(&calm, CALM);
    let p99 = Latencies::new(storm.answered.iter().copied()).percentile(99);
    println!(
        "{:.0} requests/s of {FEW} clients, {:.0} of {MANY} ({:.0} %), p99 {p99:?}, {} shed",
        per_second(&calm, CALM),
        per_second(&storm, STORM),
        goodput * 100.0,
        storm.turned_away
    );
    assert_eq!(deaths, 0, "a busy node was taken for a dead one");
    // A write may take three seconds, and on a machine that is slow enough a few do.
    let few = storm.answered.len() / 100;
    assert!(storm.others.len() <= few, "{} others, such as {:?}", storm.others.len(), storm.others.first());
    assert!(storm.turned_away > 0, "{MANY} clients that never wait are too much");
    assert!(goodput >= 0.5, "{:.0} % of what could be done was done", goodput * 100.0);
    assert!(p99 <= ANSWERED_WITHIN, "the answered took {p99:?}");

    // Everybody is let in again.
    let after = load(&nodes, FEW, Duration::from_secs(1)).await;
    assert!(after.others.is_empty() && !after.answered.is_empty(), "{:?}", after.others.first());
    for index in 0..3 {
        let metrics = cluster.node(index).client().text("/metrics").await;
        let shed = metrics.lines().filter(|line| line.starts_with("mesh_http_requests_shed_total{"));
        let shed: f64 = shed.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
        assert!(shed > 0.0, "node{index} turned nobody away");
    }
}

/// How often, until the time is over, somebody believed a member to be dead.
async fn watch_members(cluster: &Cluster, time: Duration) -> usize {
    let (end, mut deaths) = (Instant::now() + time, 0);
    while Instant::now() < end {
        for whom in 0..3 {
            deaths += cluster.states_of(whom).await.iter().filter(|state| *state == "dead").count();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    deaths
}

/// So many clients, spread over the nodes, each with one request after another for so long.
async fn load(nodes: &[SocketAddr], clients: usize, time: Duration) -> Seen {
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for client in 0..clients {
        running.spawn(visit(nodes[client % nodes.len()], client, end));
    }
    let mut all = Seen::default();
    while let Some(seen) = running.join_next().await {
        let seen = seen.expect("a client does not panic");
        all.answered.extend(seen.answered);
        all.turned_away += seen.turned_away;
        all.others.extend(seen.others);
    }
    all
}

async fn visit(node: SocketAddr, client: usize, end: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut connection = match Connection::open(node).await {
        Ok(connection) => connection,
        Err(error) => return Seen { others: vec![format!("cannot connect: {error}")], ..seen },
    };
    let mut number = client;
    while Instant::now() < end {
        number += 1;
        let body = format!("{{\"k\":\"key{}\",\"v\":\"value\"}}", number % 500);
        let request = match number % 3 {
            0 => format!("GET /get?k=key{} HTTP/1.1\r\nhost: n\r\n\r\n", number % 500),
            _ => format!("POST /set HTTP/1.1\r\nhost: n\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        };
        let asked = Instant::now();
        match connection.exchange(&request).await {
            Ok((200 | 404, _)) => seen.answered.push(asked.elapsed()),
            Ok((503, answer)) if answer.contains("\r\nretry-after: 1\r\n") && answer.contains(":overloaded\"") => {
                seen.turned_away += 1;
            }
            Ok((_, answer)) => seen.others.push(answer),
            Err(error) => {
                seen.others.push(error.to_string());
                return seen;
            }
        }
    }
    seen
}

/// A client's connection that stays open.
pub struct Connection(BufStream<TcpStream>);

impl Connection {
    /// Connects.
    pub async fn open(node: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(node).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufStream::new(stream)))
    }

    /// One request and its answer: the status, and all of it.
    pub async fn exchange(&mut self, request: &str) -> std::io::Result<(u16, String)> {
        let stream = &mut self.0;
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&answer).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.and_then(|text| text.parse().ok()).unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok((status, head + &String::from_utf8_lossy(&body)))
    }
}
