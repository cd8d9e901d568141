//! What the tests are written in: clusters of processes, a network that can be broken, and patience with a deadline.

mod address;
mod binary;
mod client;
mod cluster;
mod collector;
mod descendants;
mod load;
mod machine;
mod node;
mod patience;
mod udp_proxy;

pub use address::Loopback;
pub use binary::binary;
pub use client::{Consistency, NodeClient, Reply, http_client};
pub use cluster::Cluster;
pub use collector::{Collector, Received, Span};
pub use descendants::Descendants;
pub use load::{Latencies, in_parallel};
pub use machine::Machine;
pub use node::{NodeProcess, NodeSpec};
pub use patience::{eventually, exit_within};
