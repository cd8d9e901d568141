//! One mesh node on tokio, quinn and rustls. Read `node` first.

mod config;
mod node;
mod observer;
mod operation;
mod view;

pub mod transport;

pub use config::{Config, Ttl};
pub use node::{Node, StartError, Worker};
pub use observer::{NoObserver, Observer};
pub use operation::{GetError, GetOptions, Hit, Lookup, WriteError, WriteOptions, Written};
pub use view::{ClusterView, MemberView, Readiness, Stats, SyncView};
