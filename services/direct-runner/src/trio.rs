//! Three nodes in one process, each with a UDP port of its own. Their upkeep runs on one thread, their
//! workers on the load's threads.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use load::{Cluster, NodeIndex, NodeStats, NodeView, Outcome, OutcomeClass, WriteVersion, say};
use mesh::{
    Config, NoObserver, Node, Readiness,
    transport::{ClusterSecret, Credentials, QuicConfig, QuicTransport},
};
use mesh_proto::NodeId;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};

use crate::{settings::Settings, target::Question};

const NODES: usize = 3;

/// The three nodes.
#[derive(Debug)]
pub(crate) struct Trio {
    addrs: Vec<SocketAddr>,
    /// The running nodes; nothing in the place of a crashed one.
    nodes: Vec<watch::Receiver<Option<Running>>>,
    crash: mpsc::Sender<usize>,
    /// To the load thread that reads for others.
    questions: mpsc::Sender<Question>,
}

/// A running node. (A type of its own because the node says nothing about itself in debug output.)
#[derive(Clone)]
pub(crate) struct Running(pub(crate) Node);

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl Trio {
    /// Starts three nodes. They serve nobody, not even each other, before each of `workers` threads has made its workers
    /// of them. The questions are for one of those threads.
    ///
    /// # Errors
    /// Why one cannot start.
    pub(crate) async fn start(settings: &Settings, workers: usize) -> Result<(Self, mpsc::Receiver<Question>), String> {
        let mut builders = Vec::new();
        for number in 1..=NODES {
            builders.push(Builder::new(number, settings, workers)?);
        }
        let addrs: Vec<_> = builders.iter().map(|builder| builder.addr).collect();
        let seeds: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        let (slots, nodes): (Vec<_>, Vec<_>) = (0..NODES).map(|_| watch::channel(None)).unzip();
        let (crash, crashes) = mpsc::channel(1);
        let (questions, asked) = mpsc::channel(1);
        let upkeep = Upkeep { builders, seeds, slots, restart_after: settings.load.restart_after };
        let (report, started) = oneshot::channel();
        let thread = std::thread::Builder::new().name("upkeep".to_owned());
        let body = move || upkeep.run(report, crashes);
        thread.spawn(body).map_err(|error| format!("cannot start a thread: {error}"))?;
        started.await.map_err(|_| "the upkeep thread has ended".to_owned())??;
        Ok((Self { addrs, nodes, crash, questions }, asked))
    }

    /// Where the nodes listen.
    pub(crate) fn names(&self) -> Vec<String> {
        self.addrs.iter().map(|addr| format!("quic://{addr}")).collect()
    }

    /// The nodes as they come and go.
    pub(crate) fn nodes(&self) -> Vec<watch::Receiver<Option<Running>>> {
        self.nodes.clone()
    }

    fn node(&self, node: NodeIndex) -> Result<Node, String> {
        let running = self.nodes[node.0].borrow().clone();
        running.map(|running| running.0).ok_or_else(|| "the node has crashed".to_owned())
    }
}

impl Cluster for Trio {
    async fn stats(&self, node: NodeIndex) -> Result<NodeStats, String> {
        let stats = self.node(node)?.stats();
        let own = [
            ("hedges", stats.hedges),
            ("evicted_age_ms", stats.store.evicted_age_ms),
            ("hedge_wins", stats.hedge_wins),
            ("remote_reads", stats.remote_reads),
            ("missed_writes", stats.missed_writes),
            ("repaired", stats.repaired),
            ("hints_queued", stats.hints.queued),
            ("hints_replayed", stats.hints.replayed),
            ("hints_dropped", stats.hints.dropped()),
        ];
        Ok(NodeStats {
            hits: stats.store.hits,
            misses: stats.store.misses,
            evictions: stats.store.evictions,
            expirations: stats.store.expirations,
            size: stats.store.entries,
            capacity: stats.store.entries_max,
            mesh: own.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect(),
        })
    }

    async fn view(&self, node: NodeIndex) -> Result<NodeView, String> {
        let view = serde_json::to_value(self.node(node)?.view()).map_err(|error| error.to_string())?;
        serde_json::from_value(view).map_err(|error| error.to_string())
    }

    async fn ready(&self, node: NodeIndex) -> Result<bool, String> {
        Ok(self.node(node)?.readiness() == Readiness::Ready)
    }

    async fn kill(&self, node: NodeIndex) -> Result<(), String> {
        self.crash.send(node.0).await.map_err(|_| "the upkeep thread has ended".to_owned())
    }

    async fn read(&self, node: NodeIndex, key: &[u8]) -> Result<(OutcomeClass, Option<WriteVersion>), String> {
        let ended = || "the load threads have ended".to_owned();
        let (answer, answered) = oneshot::channel();
        let question = Question { node, key: Bytes::copy_from_slice(key), answer };
        self.questions.send(question).await.map_err(|_| ended())?;
        let answer = answered.await.map_err(|_| ended())?;
        let class = OutcomeClass::of(answer.outcome);
        match answer.outcome {
            Outcome::HitLocal | Outcome::HitRemote => Ok((class, Some(answer.version.unwrap_or_default()))),
            Outcome::Miss => Ok((class, None)),
            Outcome::Acknowledged => Err("it answered a read as if it were a write".to_owned()),
            Outcome::Error(kind) => Err(kind.name()),
        }
    }
}

/// How one node is made, and made again on the same port.
struct Builder {
    name: String,
    addr: SocketAddr,
    secret: ClusterSecret,
    config: Config,
    workers: usize,
    /// Bound at the start so that all addresses are known before the first node runs.
    first: Option<QuicTransport>,
}

impl Builder {
    fn new(number: usize, settings: &Settings, workers: usize) -> Result<Self, String> {
        let mut builder = Self {
            name: format!("direct{number}"),
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            secret: ClusterSecret::new(&settings.secret),
            config: settings.node.clone(),
            workers,
            first: None,
        };
        let transport = builder.bind()?;
        builder.addr = transport.local_addr();
        builder.first = Some(transport);
        Ok(builder)
    }

    fn bind(&self) -> Result<QuicTransport, String> {
        let credentials = Credentials::Secret(self.secret.clone());
        let mut config = QuicConfig::new(NodeId::from_name(&self.name), self.addr, credentials);
        config.listeners = self.workers;
        config.send_window_bytes = self.config.peer_queue_bytes_max;
        QuicTransport::new(config).map_err(|error| format!("cannot listen on {}: {error}", self.addr))
    }

    async fn start(&mut self, seeds: &[String]) -> Result<Node, String> {
        let transport = self.first.take().map_or_else(|| self.bind(), Ok)?;
        let config = Config {
            name: self.name.clone(),
            public_addr: self.addr.to_string(),
            seeds: seeds.to_vec(),
            seed: rand::random(),
            rings: Arc::default(),
            ..self.config.clone()
        };
        let node = Node::start_upkeep(config, Arc::new(transport), Arc::new(NoObserver));
        node.map_err(|error| format!("cannot start {}: {error}", self.name))
    }
}

/// What the upkeep thread owns.
struct Upkeep {
    builders: Vec<Builder>,
    seeds: Vec<String>,
    slots: Vec<watch::Sender<Option<Running>>>,
    restart_after: Duration,
}

impl Upkeep {
    fn run(mut self, report: oneshot::Sender<Result<(), String>>, crashes: mpsc::Receiver<usize>) {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = report.send(Err(format!("cannot start a runtime: {error}")));
                return;
            }
        };
        runtime.block_on(async {
            let mut started = Ok(());
            for node in 0..self.builders.len() {
                if started.is_ok() {
                    started = self.start(node).await;
                }
            }
            let _ = report.send(started);
            self.obey(crashes).await;
        });
    }

    async fn start(&mut self, node: usize) -> Result<(), String> {
        let running = self.builders[node].start(&self.seeds).await?;
        self.slots[node].send_replace(Some(Running(running)));
        Ok(())
    }

    /// Crashes nodes when told to, and starts each again some time later.
    async fn obey(&mut self, mut crashes: mpsc::Receiver<usize>) {
        while let Some(node) = crashes.recv().await {
            if let Some(running) = self.slots[node].send_replace(None) {
                running.0.crash();
            }
            tokio::time::sleep(self.restart_after).await;
            match self.start(node).await {
                Ok(()) => say(&format!("[NODE] quic://{} was started again", self.seeds[node])),
                Err(reason) => say(&format!("[NODE] {reason}")),
            }
        }
    }
}
