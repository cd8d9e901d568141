//! What is wrong with the network at one moment: all faults of links together, as the simulated network is told of them.

use std::{collections::BTreeSet, time::Duration};

use mesh::transport::LinkFault;
use mesh_proto::NodeId;
use mesh_sim::SimulatedNetwork;

/// What a healthy link takes one way, and up to how much more.
const DELAY: Duration = Duration::from_micros(200);
const JITTER: Duration = Duration::from_micros(300);

/// The network between the nodes, named by their places.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// From, to.
    pub cuts: BTreeSet<(usize, usize)>,
    /// A slow node.
    pub slow: Option<(usize, Duration)>,
    /// On all links.
    pub loss: f64,
    /// On all links.
    pub duplicate: f64,
    /// On all links, added.
    pub delay: Duration,
    /// On all links, up to this much more.
    pub jitter: Duration,
}

impl Links {
    /// Cuts what goes from any of `from` to any of `to`.
    pub fn cut(&mut self, from: &[usize], to: &[usize]) {
        self.cuts.extend(from.iter().flat_map(|from| to.iter().map(|to| (*from, *to))));
    }

    /// Makes the network so, from now on.
    pub fn apply(&self, network: &SimulatedNetwork, ids: &[NodeId]) {
        for (from, from_id) in ids.iter().enumerate() {
            for (to, to_id) in ids.iter().enumerate().filter(|(to, _)| *to != from) {
                let slow = self.slow.filter(|(place, _)| *place == from || *place == to);
                let slow = slow.map_or(Duration::ZERO, |(_, delay)| delay);
                let fault = LinkFault {
                    delay: DELAY + self.delay + slow,
                    jitter: JITTER + self.jitter + slow / 2,
                    loss: self.loss,
                    duplicate: self.duplicate,
                    cut: self.cuts.contains(&(from, to)),
                };
                network.set_fault(*from_id, *to_id, fault);
            }
        }
    }
}
