//! One runtime's way into the node. What happens for a GET, a SET and a DELETE stands in a file each.

mod delete;
mod get;
mod set;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mesh_proto::{ControlRequest, FrameBody, NodeId};

use crate::{core::Core, group::Groups, links::peers::Peers};

/// One runtime's way into the node: its own peer connections, the shared store. Its futures must be polled on the runtime
/// that it was made on.
#[derive(Clone)]
pub struct Worker {
    core: Arc<Core>,
    pub(crate) peers: Arc<Peers>,
    in_flight: Arc<AtomicUsize>,
    groups: Arc<Groups>,
}

impl Worker {
    pub(crate) fn new(core: Arc<Core>, peers: Arc<Peers>) -> Self {
        Self { core, peers, in_flight: Arc::default(), groups: Groups::new() }
    }

    /// Operations in flight on this worker.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        // Relaxed: a figure for people.
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Owners see another ring: tell them whom this node knows, ahead of the next attempt on the same streams. Their own
    /// lists have come with their answers.
    fn share_members(&self, owners: &[NodeId]) {
        let frame = self.core.frame(FrameBody::Control(ControlRequest::Members(self.core.roster.members())));
        for owner in owners.iter().filter(|owner| **owner != self.core.id) {
            if let Some(link) = self.peers.link(*owner) {
                link.tell(&frame);
            }
        }
    }

    /// Asks these peers to keep what they recorded of a trace: its fate is known only now.
    pub fn keep_trace(&self, trace: u128, peers: impl IntoIterator<Item = NodeId>) {
        let frame = self.core.frame(FrameBody::Control(ControlRequest::KeepTrace(trace.to_be_bytes())));
        for link in peers.into_iter().filter_map(|peer| self.peers.link(peer)) {
            link.tell(&frame);
        }
    }

    /// Waits while the node is paused; nothing if it has stopped.
    async fn admit(&self) -> Option<()> {
        if *self.core.paused.borrow() {
            self.core.unpaused().await;
        }
        (!self.core.stopped.is_cancelled()).then_some(())
    }
}
