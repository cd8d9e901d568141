//! A network in memory, under tokio's (paused) time: delays, loses, reorders and partitions by seed. It behaves as QUIC
//! does, down to its timeouts, so that what is tested on it holds on the real one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_proto::NodeId;

use super::{Endpoint, Transport, TransportError};

mod connection;
mod endpoint;
mod network;
mod pipe;

use endpoint::SimulatedEndpoint;
use network::Network;

/// A silent peer's connection is given up after this time, and a dial that nobody answers.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// What happens to traffic from one node to another.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkFault {
    /// Added to every message.
    pub delay: Duration,
    /// Up to this much more, at random; datagrams may overtake each other, streams keep their order.
    pub jitter: Duration,
    /// The share of datagrams that are lost, 0 to 1. Streams are delayed instead, as a retransmission would.
    pub loss: f64,
    /// The share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Nothing gets through, in this direction. Connections break after the idle timeout (2 s).
    pub cut: bool,
}

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
        Arc::new(SimulatedTransport { network: Arc::clone(&self.network), id, addr: addr.to_owned(), serial })
    }

    /// Sets what happens to traffic from `from` to `to`, from now on.
    pub fn set_fault(&self, from: NodeId, to: NodeId, fault: LinkFault) {
        self.network.set_fault(from, to, fault);
    }

    /// Cuts all links between nodes of different groups, in both directions. Other faults stay.
    pub fn partition(&self, groups: &[&[NodeId]]) {
        for (index, group) in groups.iter().enumerate() {
            for other in groups.iter().enumerate().filter(|&(other, _)| other != index).flat_map(|(_, nodes)| *nodes) {
                for &node in *group {
                    self.network.cut(node, *other);
                }
            }
        }
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.network.heal();
    }
}

struct SimulatedTransport {
    network: Arc<Network>,
    id: NodeId,
    addr: String,
    serial: u64,
}

impl Transport for SimulatedTransport {
    fn open(&self, listen: bool) -> Result<Arc<dyn Endpoint>, TransportError> {
        let endpoint = SimulatedEndpoint::new(Arc::clone(&self.network), self.id, &self.addr);
        if listen {
            self.network.listen(&self.addr, self.id, self.serial, endpoint.core()).map_err(|()| {
                TransportError::Bind { addr: self.addr.clone(), source: std::io::ErrorKind::AddrInUse.into() }
            })?;
        }
        Ok(Arc::new(endpoint))
    }

    fn set_silent(&self, silent: bool) {
        self.network.set_silent(self.id, silent);
    }
}
