//! One worker's peer: where it is, the connection to it, and its health.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mesh_proto::{Monotonic, NodeId};
use parking_lot::Mutex;

use crate::links::{health::Health, link::Link};

/// One peer.
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    pub(crate) addr: Mutex<String>,
    pub(crate) link: ArcSwapOption<Link>,
    pub(crate) health: Arc<Health>,
}

impl Peer {
    pub(crate) fn new(id: NodeId, addr: String, now: Monotonic) -> Arc<Self> {
        let health = Health::new(id, now);
        Arc::new(Self { id, addr: Mutex::new(addr), link: ArcSwapOption::empty(), health })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.link.load().is_some()
    }

    /// What it costs to ask this peer next; infinite without a connection.
    pub(crate) fn cost(&self, now: Monotonic) -> f64 {
        let Some(link) = &*self.link.load() else { return f64::INFINITY };
        self.health.cost(now, link.in_flight())
    }
}
