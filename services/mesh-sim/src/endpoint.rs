//! A simulated node's sockets: dialling with QUIC's round trips and timeouts, and the queue of accepted connections.

use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mesh::transport::{Accepted, BoxFuture, Connection, DialError, Endpoint};
use mesh_proto::NodeId;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    DIAL_TIMEOUT, UPKEEP_IDLE_TIMEOUT, WORKER_IDLE_TIMEOUT,
    connection::{Pair, Side, SimulatedConnection},
    network::Network,
};

/// Connections that wait to be accepted; more are refused.
const ACCEPT_QUEUE_MAX: usize = 256;

/// What the network knows of an endpoint.
pub(crate) struct EndpointCore {
    accepted: mpsc::Sender<Accepted>,
    connections: Mutex<Vec<(Weak<Pair>, Side)>>,
    is_closed: AtomicBool,
    closed: Notify,
}

impl EndpointCore {
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    fn adopt(&self, pair: &Arc<Pair>, side: Side) {
        let mut connections = self.connections.lock();
        connections.retain(|(pair, _)| pair.strong_count() > 0);
        connections.push((Arc::downgrade(pair), side));
    }
}

/// A simulated node's sockets.
pub(crate) struct SimulatedEndpoint {
    network: Arc<Network>,
    id: NodeId,
    addr: String,
    idle_timeout: Duration,
    core: Arc<EndpointCore>,
    // Async, since `accept` waits while holding it; nobody else takes it.
    accepted: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
}

impl SimulatedEndpoint {
    pub(crate) fn new(network: Arc<Network>, id: NodeId, addr: &str, listens: bool) -> Self {
        let idle_timeout = if listens { WORKER_IDLE_TIMEOUT } else { UPKEEP_IDLE_TIMEOUT };
        let (sender, accepted) = mpsc::channel(ACCEPT_QUEUE_MAX);
        let core = EndpointCore {
            accepted: sender,
            connections: Mutex::default(),
            is_closed: AtomicBool::new(false),
            closed: Notify::new(),
        };
        Self { network, id, addr: addr.to_owned(), idle_timeout, core: Arc::new(core), accepted: accepted.into() }
    }

    pub(crate) const fn core(&self) -> &Arc<EndpointCore> {
        &self.core
    }

    /// Waits until somebody at `addr` can be talked to in both directions.
    async fn reach(&self, addr: &str) -> (NodeId, Arc<EndpointCore>) {
        loop {
            let mut changed = pin!(self.network.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = self.network.find(addr).filter(|(id, _)| self.can_talk_to(*id)) {
                return found;
            }
            changed.await;
        }
    }

    fn can_talk_to(&self, peer: NodeId) -> bool {
        !self.network.is_cut(self.id, peer) && !self.network.is_cut(peer, self.id)
    }

    async fn connect(&self, addr: &str, expect: Option<NodeId>) -> Result<Arc<SimulatedConnection>, DialError> {
        let unreachable = |reason: &str| DialError::Unreachable { addr: addr.to_owned(), reason: reason.to_owned() };
        loop {
            let (peer, core) = self.reach(addr).await;
            // One round trip for the handshake, one for the welcome.
            let round_trip = self.network.mean_delay(self.id, peer) + self.network.mean_delay(peer, self.id);
            sleep(round_trip * 2).await;
            if let Some(done) = self.network.handshake_done() {
                sleep_until(done).await;
            }
            if self.core.is_closed() {
                return Err(unreachable("closed here"));
            }
            if core.is_closed() || !self.can_talk_to(peer) {
                continue;
            }
            if let Some(expected) = expect.filter(|&expected| expected != peer) {
                let reason = "it does not trust this node: another node is expected here".to_owned();
                let _ = core.accepted.try_send(Accepted::Refused { addr: self.addr.clone(), reason });
                let reason = format!("it is node {peer}, and node {expected} is expected there");
                return Err(DialError::Untrusted { addr: addr.to_owned(), reason });
            }
            let ends = [(self.id, self.addr.clone()), (peer, addr.to_owned())];
            let pair = Pair::new(Arc::clone(&self.network), ends, self.idle_timeout);
            let [dialler, accepter] = SimulatedConnection::both(&pair);
            if core.accepted.try_send(Accepted::Connection(accepter)).is_err() {
                return Err(unreachable("refused: too many connections wait to be accepted"));
            }
            self.core.adopt(&pair, Side::Dialler);
            core.adopt(&pair, Side::Accepter);
            tokio::spawn(pair.watch());
            return Ok(dialler);
        }
    }
}

impl Endpoint for SimulatedEndpoint {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, DialError>> {
        let addrs = self.network.resolve(name, &self.addr);
        let unknown = || DialError::Resolve { addr: name.to_owned(), reason: "no such name".to_owned() };
        Box::pin(std::future::ready(if addrs.is_empty() { Err(unknown()) } else { Ok(addrs) }))
    }

    fn dial<'a>(
        &'a self,
        addr: &'a str,
        expect: Option<NodeId>,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, DialError>> {
        Box::pin(async move {
            let unreachable = |reason: &str| DialError::Unreachable { addr: addr.to_owned(), reason: reason.into() };
            if self.core.is_closed() {
                return Err(unreachable("closed here"));
            }
            match timeout_at(Instant::now() + DIAL_TIMEOUT, self.connect(addr, expect)).await {
                Ok(connected) => connected.map(|connection| connection as Arc<dyn Connection>),
                Err(_) => Err(unreachable("no answer within 2000 ms")),
            }
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Accepted>> {
        Box::pin(async {
            let mut closed = pin!(self.core.closed.notified());
            closed.as_mut().enable();
            if self.core.is_closed() {
                return None;
            }
            let accepted = async { self.accepted.lock().await.recv().await };
            tokio::select! {
                biased;
                () = closed => None,
                accepted = accepted => accepted,
            }
        })
    }

    fn close(&self, notify: bool) {
        if self.core.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        self.core.closed.notify_waiters();
        let connections = std::mem::take(&mut *self.core.connections.lock());
        for (pair, side) in connections {
            let Some(pair) = pair.upgrade() else { continue };
            if notify { pair.close(side, "this node is stopping") } else { pair.vanish(side) }
        }
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(sleep_until(Instant::now()))
    }
}

/// Dropping an endpoint that was not closed is a crash: nobody is told.
impl Drop for SimulatedEndpoint {
    fn drop(&mut self) {
        self.close(false);
    }
}
