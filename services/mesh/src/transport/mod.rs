//! What the mesh needs of a network, and QUIC as one. The simulated network of tests, `mesh-sim`, is another; both pass the same
//! conformance suite, `tests/transport.rs`.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_proto::NodeId;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

mod fault_switch;
mod quic;
mod tls;

pub use fault_switch::{FaultCounts, FaultSwitch};
pub use mesh_proto::LinkFault;
pub use quic::{QuicConfig, QuicTransport};
pub use tls::{ClusterSecret, Credentials, TlsError};

/// A boxed future, so that transports can be chosen at run time. None of them is on the request path.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The sending half of a stream.
pub type SendHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// The receiving half of a stream.
pub type ReceiveHalf = Box<dyn AsyncRead + Send + Unpin>;

/// A network to be part of.
pub trait Transport: Send + Sync {
    /// Opens sockets on the current runtime: once per worker with `listen`, once for upkeep without. A connection that upkeep
    /// dials is given up when the peer has been silent for 2 s, one that a worker dials after 30 s: it is for upkeep to find out
    /// who is silent, with packets that a worker need not send as well.
    ///
    /// # Errors
    /// [`TransportError`] if that is impossible.
    fn open(&self, listen: bool) -> Result<Arc<dyn Endpoint>, TransportError>;

    /// While `silent`, whatever any of its endpoints sends or receives is lost, as if the process were stopped or the
    /// network cut.
    fn set_silent(&self, silent: bool);

    /// What breaks the traffic between this node and its peers, in all of its endpoints.
    fn faults(&self) -> &Arc<FaultSwitch>;
}

/// One runtime's sockets.
pub trait Endpoint: Send + Sync {
    /// All addresses that a name stands for now, as `dial` takes them.
    ///
    /// # Errors
    /// [`DialError::Resolve`] if there is none.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, DialError>>;

    /// Connects and authenticates both ways, with the first of the name's addresses at which that succeeds. `expect` is who must be there, if that is known.
    fn dial<'a>(
        &'a self,
        addr: &'a str,
        expect: Option<NodeId>,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, DialError>>;

    /// The next authenticated connection, or a refused attempt; nothing once the endpoint is closed. Handshakes run
    /// beside it, so that a slow one holds up nobody.
    fn accept(&self) -> BoxFuture<'_, Option<Accepted>>;

    /// Closes all connections and sockets. Tells the peers if `notify`, else falls silent like a killed process.
    fn close(&self, notify: bool);

    /// Waits, for well under a second, until the close frames of `close(true)` are on their way. A runtime that is dropped
    /// before keeps them.
    fn drained(&self) -> BoxFuture<'_, ()>;
}

/// What came in.
pub enum Accepted {
    /// An authenticated peer.
    Connection(Arc<dyn Connection>),
    /// Somebody who could not be let in.
    Refused {
        /// The other side's address.
        addr: String,
        /// Why, in words.
        reason: String,
    },
}

/// One connection to an authenticated peer.
pub trait Connection: Send + Sync {
    /// Who is at the other end, as its certificate says.
    fn peer(&self) -> NodeId;

    /// The other side's address.
    fn remote_addr(&self) -> String;

    /// Opens a two-way stream. The other side sees it once something was written.
    fn open_stream(&self) -> BoxFuture<'_, Result<(SendHalf, ReceiveHalf), ConnectionLost>>;

    /// Sends these parts on a stream of their own, which gives way to all others, and ends it. Its other half is for replies;
    /// where that is dropped by the peer, what is left is not sent.
    fn send_apart(&self, parts: [Bytes; 2]) -> BoxFuture<'_, Result<ReceiveHalf, ConnectionLost>> {
        Box::pin(async move {
            let (mut send, receive) = self.open_stream().await?;
            let sent = async {
                for part in &parts {
                    send.write_all(part).await?;
                }
                send.shutdown().await
            };
            sent.await.map_err(|error| ConnectionLost { reason: error.to_string() })?;
            Ok(receive)
        })
    }

    /// The next stream that the other side has opened.
    fn accept_stream(&self) -> BoxFuture<'_, Result<(SendHalf, ReceiveHalf), ConnectionLost>>;

    /// Sends one datagram, at most once, unordered; drops it if it cannot be sent now.
    fn send_datagram(&self, datagram: Bytes);

    /// The next datagram.
    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, ConnectionLost>>;

    /// Waits until the connection is gone.
    fn closed(&self) -> BoxFuture<'_, ConnectionLost>;

    /// Closes it, telling the peer why.
    fn close(&self, reason: &str);

    /// How long what was read last has lain in this host's queue; nothing if the network does not tell.
    fn waited(&self) -> Option<Waited> {
        None
    }

    /// Figures of the path.
    fn path(&self) -> PathStats;
}

/// How long something has lain in this host's queue, from when the host received it. Packets are taken off the network many at a time, so
/// it lies between what the last and the first of them waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Since the last of them came.
    pub at_least: Duration,
    /// Since the first of them came.
    pub at_most: Duration,
}

/// Figures of a connection's path since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Congestion window, in bytes.
    pub cwnd_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets lost.
    pub lost_packets: u64,
    /// Times that the window shrank.
    pub congestion_events: u64,
}

/// The connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("connection lost: {reason}")]
pub struct ConnectionLost {
    /// Why, in words.
    pub reason: String,
}

/// Sockets could not be opened.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The address cannot be used.
    #[error("cannot listen for peers on udp {addr}: {reason}; set CACHE_BIND to a free address")]
    Bind {
        /// CACHE_BIND.
        addr: String,
        /// What the system said. Not named `source`: the message holds it, and a chain of errors would print it twice.
        reason: std::io::Error,
    },
    /// Keys or certificates are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A connection could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DialError {
    /// The address does not resolve.
    #[error("cannot resolve {addr}: {reason}")]
    Resolve {
        /// What was asked for.
        addr: String,
        /// What the resolver said.
        reason: String,
    },
    /// Nobody answered.
    #[error("no answer from {addr}: {reason}")]
    Unreachable {
        /// Who was asked.
        addr: String,
        /// Why, in words.
        reason: String,
    },
    /// Somebody answered whom we do not trust, or who does not trust us: another CACHE_AUTH, most likely.
    #[error("{addr} is not of this mesh: {reason}; do all nodes have the same CACHE_AUTH?")]
    Untrusted {
        /// Who was asked.
        addr: String,
        /// Why, in words.
        reason: String,
    },
}
