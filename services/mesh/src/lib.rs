//! One mesh node on tokio, quinn and rustls. Read `node` first. As a library:
//!
//! ```
#![doc = include_str!("../examples/embedded_cache.rs")]
//! ```

mod node;
mod worker;

mod links;
mod membership;
mod repair;

mod announced;
mod call;
mod core;
mod evicted;
mod faults;
mod group;
mod recorder;
mod replica;

mod clock;
mod config;
mod observer;
mod operation;
mod view;

pub mod transport;

pub use clock::WallClock;
pub use config::{Config, Ttl};
pub use faults::{FaultOrderError, FaultView};
pub use mesh_proto::{
    Consistency, FaultStats, HintLimits, NodeId, ReplicationFactor, Stats, StoreConfig, Version, WriteConcern,
};
pub use node::{Node, StartError};
pub use observer::{NoObserver, Observer};
pub use operation::{GetError, GetOptions, Hit, Lookup, WriteError, WriteOptions, Written};
pub use view::{ClusterView, MemberView, PathView, Readiness, SyncView};
pub use worker::Worker;
