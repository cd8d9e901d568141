//! One mesh node on tokio, quinn and rustls. Read `node` first.

mod node;
mod worker;

mod announced;
mod bounds;
mod call;
mod core;
mod faults;
mod gossip_routes;
mod group;
mod handover;
mod health;
mod hints;
mod link;
mod peer;
mod peers;
mod pull;
mod reach;
mod reached;
mod recorder;
mod replica;
mod resync;
mod roster;
mod serve;
mod upkeep;

mod clock;
mod collect;
mod config;
mod observer;
mod operation;
mod view;

pub mod transport;

pub use clock::WallClock;
pub use config::{Config, Ttl};
pub use faults::{FaultOrderError, FaultView};
pub use mesh_proto::{FaultStats, Stats};
pub use node::{Node, StartError};
pub use observer::{NoObserver, Observer};
pub use operation::{GetError, GetOptions, Hit, Lookup, WriteError, WriteOptions, Written};
pub use view::{ClusterView, MemberView, PathView, Readiness, SyncView};
pub use worker::Worker;
