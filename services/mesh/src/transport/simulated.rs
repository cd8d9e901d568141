//! A network in memory, under tokio's (paused) time: delays, loses, reorders and partitions by seed.
use super::Transport;
use mesh_proto::NodeId;
use std::{sync::Arc, time::Duration};
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
/// The network.
#[derive(Clone)]
pub struct SimulatedNetwork {
    _todo: (),
}
impl SimulatedNetwork {
    /// A network whose random choices follow from `seed`.
    #[must_use]
    pub fn new(_seed: u64) -> Self {
        todo!()
    }
    /// A transport for the node `id`, listening at `addr`.
    #[must_use]
    pub fn transport(&self, _id: NodeId, _addr: &str) -> Arc<dyn Transport> {
        todo!()
    }
    /// Sets what happens to traffic from `from` to `to`, from now on.
    pub fn set_fault(&self, _from: NodeId, _to: NodeId, _fault: LinkFault) {
        todo!()
    }
    /// Removes all faults.
    pub fn heal(&self) {
        todo!()
    }
}
