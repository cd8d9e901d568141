//! One mesh node: start here. A [`Node`] is the shared heart with its upkeep; a [`Worker`] is one runtime's way into it.
//! What a worker does for a GET or a SET stands in `worker`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_proto::{ControlRequest, Digest, FaultOrder, Monotonic, NodeId, PeerHints, Slot, UnixMillis, Weight};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::Instrument;

use crate::{
    ClusterView, Config, FaultOrderError, FaultView, GetError, GetOptions, Lookup, Observer, Readiness, Stats, Worker,
    WriteError, WriteOptions, Written,
    core::{Core, JOINS_WAITING_MAX},
    faults::NodeFaults,
    links::{
        bounds::CONTROL_TIMEOUT,
        peers::{Peers, Purpose},
        serve,
    },
    membership::upkeep,
    repair::{handover, spans},
    transport::{Endpoint, Transport, TransportError},
    view,
};

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The transport's sockets could not be opened.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A running node. It crashes when its last handle is dropped; [`Node::stop`] is the polite way.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    transport: Arc<dyn Transport>,
    upkeep_peers: Arc<Peers>,
    workers: Mutex<Vec<Worker>>,
    endpoints: Mutex<Vec<Arc<dyn Endpoint>>>,
    faults: Arc<NodeFaults>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.halt(false);
    }
}

impl Inner {
    fn halt(&self, notify: bool) {
        self.core.stopped.cancel();
        for endpoint in self.endpoints.lock().iter() {
            endpoint.close(notify);
        }
    }
}

impl Node {
    /// Starts a node with upkeep (gossip, resync, sweep) and one worker on the current runtime.
    ///
    /// # Errors
    /// [`StartError`] if the transport cannot be opened, such as for a port in use.
    pub fn start(
        config: Config,
        transport: Arc<dyn Transport>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let node = Self::start_upkeep(config, transport, observer)?;
        node.add_worker()?;
        Ok(node)
    }

    /// Starts a node with upkeep on the current runtime and no worker yet: it serves nobody until [`Node::add_worker`].
    ///
    /// # Errors
    /// [`StartError`] if the transport cannot be opened.
    pub fn start_upkeep(
        config: Config,
        transport: Arc<dyn Transport>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let endpoint = transport.open(false)?;
        let (joins, joins_wanted) = mpsc::channel(JOINS_WAITING_MAX);
        let core = Arc::new(Core::new(config, observer, joins));
        let upkeep_peers = Peers::start(&core, Arc::clone(&endpoint), Purpose::Upkeep);
        let faults = Arc::clone(transport.faults());
        let faults = NodeFaults::new(core.id, faults, core.clock.clone(), Arc::clone(&core.observer));
        let inner = Inner {
            core: Arc::clone(&core),
            faults,
            transport,
            upkeep_peers: Arc::clone(&upkeep_peers),
            workers: Mutex::default(),
            endpoints: Mutex::new(vec![endpoint]),
        };
        core.build_ring(false);
        upkeep::start(&core, &upkeep_peers, joins_wanted);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Adds a worker on the current runtime: it listens to peers, and has connections of its own to them.
    ///
    /// # Errors
    /// [`StartError`] if the transport cannot be opened.
    pub fn add_worker(&self) -> Result<Worker, StartError> {
        let endpoint = self.inner.transport.open(true)?;
        self.inner.endpoints.lock().push(Arc::clone(&endpoint));
        let core = &self.inner.core;
        tokio::spawn(serve::accept(Arc::clone(core), Arc::clone(&endpoint)));
        let worker = Worker::new(Arc::clone(core), Peers::start(core, endpoint, Purpose::Data));
        self.inner.workers.lock().push(worker.clone());
        Ok(worker)
    }

    /// The first worker, if there is one.
    #[must_use]
    pub fn worker(&self) -> Option<Worker> {
        self.inner.workers.lock().first().cloned()
    }

    /// This node's identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.core.id
    }

    /// [`Worker::get`] on the first worker.
    ///
    /// # Errors
    /// As there; [`GetError::Stopped`] without a worker.
    pub async fn get(&self, key: &Bytes, options: GetOptions) -> Result<Lookup, GetError> {
        let Some(worker) = self.worker() else { return Err(GetError::Stopped) };
        worker.get(key, options, &mut None).await
    }

    /// [`Worker::set`] on the first worker.
    ///
    /// # Errors
    /// As there; [`WriteError::Stopped`] without a worker.
    pub async fn set(&self, key: Bytes, value: Bytes, options: WriteOptions) -> Result<Written, WriteError> {
        let Some(worker) = self.worker() else { return Err(WriteError::Stopped) };
        worker.set(key, value, options, &mut None).await
    }

    /// [`Worker::delete`] on the first worker.
    ///
    /// # Errors
    /// As there; [`WriteError::Stopped`] without a worker.
    pub async fn delete(&self, key: Bytes, options: WriteOptions) -> Result<Written, WriteError> {
        let Some(worker) = self.worker() else { return Err(WriteError::Stopped) };
        worker.delete(key, options, &mut None).await
    }

    /// The zero of the [`Monotonic`] times that the observer is told.
    #[must_use]
    pub fn epoch(&self) -> std::time::Instant {
        self.inner.core.clock.instant(Monotonic::default()).into_std()
    }

    /// What this node's wall clock says.
    #[must_use]
    pub fn unix(&self) -> UnixMillis {
        self.inner.core.clock.unix()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { faults: self.inner.faults.stats(), ..self.inner.core.stats() }
    }

    /// What is queued for each peer that has missed writes.
    #[must_use]
    pub fn hints(&self) -> Vec<PeerHints> {
        let core = &self.inner.core;
        core.hints.lock().by_peer(core.clock.now())
    }

    /// Digest of every slot in this node's own replica, in the order of slots; owners of a slot agree on it once repaired.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.inner.core.replica.store.digests()
    }

    /// Whether this node holds the same in a slot as one with that digest does, but for tombstones and stubs that only one of
    /// them has collected so far.
    #[must_use]
    pub fn agrees_on(&self, slot: Slot, digest: Digest) -> bool {
        let core = &self.inner.core;
        core.replica.store.digest(slot) == digest
            || core.replica.store.is_same_but_for_collected(slot, digest, core.clock.unix())
    }

    /// The mesh as this node sees it.
    #[must_use]
    pub fn view(&self) -> ClusterView {
        let inner = &self.inner;
        view::cluster(&inner.core, &inner.upkeep_peers, &inner.workers.lock(), inner.faults.view())
    }

    /// Whether it should be given traffic.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        view::readiness(&self.inner.core, &self.inner.workers.lock())
    }

    /// Waits until the mesh turns this node away for good, and says why: there is nothing left to do but to stop.
    pub async fn refused(&self) -> String {
        let mut refused = self.inner.core.refused.subscribe();
        match refused.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => reason,
            // The sender lives in the core, which this handle keeps alive.
            _ => std::future::pending().await,
        }
    }

    /// Leaves the ring, in turn with others that are about to stop, and waits until those who stay hold all that this node held.
    /// It still answers clients. Whether they do: after [`Config::drain_timeout`] it is out of the ring in any case.
    pub async fn leave(&self) -> bool {
        handover::leave(&self.inner.core, &self.inner.upkeep_peers).instrument(spans::handover()).await
    }

    /// Tells the others that this node has left, and closes connections.
    pub async fn close(&self) {
        let workers = self.inner.workers.lock().clone();
        handover::say_that_it_has_left(&self.inner.core, &self.inner.upkeep_peers, &workers).await;
        self.inner.halt(true);
        let endpoints = self.inner.endpoints.lock().clone();
        for endpoint in endpoints {
            endpoint.drained().await;
        }
    }

    /// [`Node::leave`], then [`Node::close`].
    pub async fn stop(&self) -> bool {
        let is_handed_over = self.leave().await;
        self.close().await;
        is_handed_over
    }

    /// Asks for another share of the ring than this node's capacity gives it.
    pub fn set_weight(&self, weight: Weight) {
        self.inner.core.with_membership(|membership, now| membership.handle_weight(now, weight));
    }

    /// Forgets a member that is gone, here and at all others that can be reached now. False if it is present or not known.
    pub async fn forget(&self, id: NodeId) -> bool {
        let (core, peers) = (&self.inner.core, &self.inner.upkeep_peers);
        if !core.forget(id) {
            return false;
        }
        let told = peers.links().into_iter().map(|link| async move {
            // One that does not hear of it forgets the member by itself, later.
            let _ = link.control(ControlRequest::Forget { id }, CONTROL_TIMEOUT).await;
        });
        told.collect::<JoinSet<()>>().join_all().await;
        true
    }

    /// Stops at once, without a word to anyone.
    pub fn crash(&self) {
        self.inner.halt(false);
    }

    /// Answers no peer and no caller for a while, as a stopped process would.
    pub fn pause(&self, time: Duration) {
        let core = Arc::clone(&self.inner.core);
        core.paused.send_replace(true);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            core.paused.send_replace(false);
        });
    }

    /// Lays faults on this node: on its links, its clock, its speed. All of them, or none. They end by themselves; a runtime
    /// must be there to see to that.
    ///
    /// # Errors
    /// [`FaultOrderError`], and nothing has changed.
    pub fn order_faults(&self, order: &FaultOrder) -> Result<(), FaultOrderError> {
        self.inner.faults.lay(order, &self.inner.core.roster.members())
    }

    /// Ends all faults that were laid here.
    pub fn heal_faults(&self) {
        self.inner.faults.heal();
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultView> {
        self.inner.faults.view()
    }

    /// How much later than it could this node is to answer clients; peers get everything as late.
    #[must_use]
    pub fn slowness(&self) -> Duration {
        self.inner.faults.slowness()
    }

    /// Waits while the node is paused; at once if it is not.
    pub async fn unpaused(&self) {
        self.inner.core.unpaused().await;
    }
}
