//! A network in memory, under tokio's (paused) time: delays, loses, reorders and partitions by seed. It behaves as QUIC
//! does, down to its timeouts, so that what is tested on it holds on the real one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh::transport::{Endpoint, FaultSwitch, Transport, TransportError};
use mesh_proto::{LinkFault, NodeId, Partition};

mod connection;
mod endpoint;
mod machine;
mod network;
mod pipe;

pub use machine::WorkCosts;

use endpoint::SimulatedEndpoint;
use network::Network;

/// A connection to a silent peer is given up after this time: one that upkeep has dialled, and one that a worker has dialled.
const UPKEEP_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
const WORKER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A dial that nobody answers is given up after this time.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The network. Its random choices are made in the order of events, so one seed gives one course of events on a
/// current-thread runtime.
#[derive(Clone)]
pub struct SimulatedNetwork {
    network: Arc<Network>,
    transports: Arc<AtomicU64>,
}

impl SimulatedNetwork {
    /// A network whose random choices follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { network: Arc::new(Network::new(seed)), transports: Arc::default() }
    }

    /// A transport for the node `id`, listening at `addr`. Once the endpoints of an earlier one are closed, it takes
    /// the place of that one: a restart.
    #[must_use]
    pub fn transport(&self, id: NodeId, addr: &str) -> Arc<dyn Transport> {
        let serial = self.transports.fetch_add(1, Ordering::Relaxed);
        let faults = self.network.fault_switch(id);
        Arc::new(SimulatedTransport { network: Arc::clone(&self.network), id, addr: addr.to_owned(), serial, faults })
    }

    /// Sets what happens to traffic from `from` to `to`, from now on.
    pub fn set_fault(&self, from: NodeId, to: NodeId, fault: LinkFault) {
        self.network.set_fault(from, to, fault);
    }

    /// Cuts all links between nodes of different groups, in both directions. Other faults stay.
    pub fn partition(&self, groups: &[&[NodeId]]) {
        self.cut(&Partition::symmetric(groups));
    }

    /// Cuts these links until [`SimulatedNetwork::heal`]. Other faults stay. Links that come and go are the business of
    /// the rules of [`Transport::faults`], which have an end.
    pub fn cut(&self, partition: &Partition) {
        for &(from, to) in &partition.links {
            self.network.cut(from, to);
        }
    }

    /// From now on a name stands for these addresses; a node at one of them finds that one first.
    pub fn set_name(&self, name: &str, addrs: Vec<String>) {
        self.network.set_name(name, addrs);
    }

    /// From now on all nodes share one machine, whose work takes time.
    pub fn set_work_costs(&self, costs: WorkCosts) {
        self.network.set_work_costs(costs);
    }

    /// What faults have done to datagrams so far: those that ran into a cut, were lost, doubled, and overtaken.
    #[must_use]
    pub fn traces(&self) -> FaultTraces {
        // Relaxed: each figure stands alone.
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let traces = &self.network.traces;
        FaultTraces {
            cut: read(&traces.cut),
            lost: read(&traces.lost),
            duplicated: read(&traces.duplicated),
            overtaken: read(&traces.overtaken),
        }
    }

    /// Removes all faults that were set here; rules of the nodes end by themselves.
    pub fn heal(&self) {
        self.network.heal();
    }
}

/// Datagrams that faults of the network have met with: a test in which they are none has tested nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultTraces {
    /// Sent into a cut.
    pub cut: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Sent before others, and due after them.
    pub overtaken: u64,
}

struct SimulatedTransport {
    network: Arc<Network>,
    id: NodeId,
    addr: String,
    serial: u64,
    faults: Arc<FaultSwitch>,
}

impl Transport for SimulatedTransport {
    fn open(&self, listen: bool) -> Result<Arc<dyn Endpoint>, TransportError> {
        let endpoint = SimulatedEndpoint::new(Arc::clone(&self.network), self.id, &self.addr, listen);
        if listen {
            self.network.listen(&self.addr, self.id, self.serial, endpoint.core()).map_err(|()| {
                TransportError::Bind { addr: self.addr.clone(), reason: std::io::ErrorKind::AddrInUse.into() }
            })?;
        }
        Ok(Arc::new(endpoint))
    }

    fn set_silent(&self, silent: bool) {
        self.network.set_silent(self.id, silent);
    }

    fn faults(&self) -> &Arc<FaultSwitch> {
        &self.faults
    }
}

/// Adds one. Relaxed: counters order nothing.
fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
