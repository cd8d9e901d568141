//! The mesh over QUIC.
use super::{Credentials, Endpoint, Transport, TransportError};
use mesh_proto::NodeId;
use std::{net::SocketAddr, sync::Arc, time::Duration};
/// How to speak QUIC.
#[derive(Clone)]
pub struct QuicConfig {
    /// This node.
    pub id: NodeId,
    /// CACHE_BIND.
    pub bind: SocketAddr,
    /// Keys.
    pub credentials: Credentials,
    /// A silent peer's connection is given up after this time (2 s).
    pub idle_timeout: Duration,
    /// A quiet connection is kept alive this often (500 ms).
    pub keep_alive: Duration,
    /// How many packets a peer may collect before it acknowledges; 1 acknowledges as the standard says (10).
    pub ack_frequency: u32,
    /// The most streams a peer may have open (64).
    pub streams_max: u32,
    /// The most handshakes under way (256).
    pub handshakes_max: usize,
}
impl QuicConfig {
    /// The defaults named at each field.
    #[must_use]
    pub fn new(_id: NodeId, _bind: SocketAddr, _credentials: Credentials) -> Self {
        todo!()
    }
}
/// A mesh transport over QUIC. All endpoints that listen share one UDP port (SO_REUSEPORT); each dials from a port of its own.
pub struct QuicTransport {
    _todo: (),
}
impl QuicTransport {
    /// Prepares keys and binds the port, so that a port in use is an error now, and port 0 gets its number.
    ///
    /// # Errors
    /// [`TransportError`] if the port is in use or the keys are unusable.
    pub fn new(_config: QuicConfig) -> Result<Self, TransportError> {
        todo!()
    }
    /// The UDP address that is listened on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }
}
impl Transport for QuicTransport {
    fn open(&self, _listen: bool) -> Result<Arc<dyn Endpoint>, TransportError> {
        todo!()
    }
}
