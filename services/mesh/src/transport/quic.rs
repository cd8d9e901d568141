//! The mesh over QUIC: quinn on UDP sockets that can be silenced, with mutual TLS. All listeners share one port, one for
//! each worker; the kernel spreads peers over them by address.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Endpoint, FaultSwitch, Transport, TransportError};

mod accept;
mod config;
mod connection;
mod dial;
mod endpoint;
mod held;
mod socket;
mod timed;
mod wire;

pub use config::QuicConfig;

use config::QuinnConfigs;
use endpoint::QuicEndpoint;
use wire::Wire;

/// A mesh transport over QUIC. All endpoints that listen share one UDP port (SO_REUSEPORT); each dials from a port of its own.
pub struct QuicTransport {
    local_addr: SocketAddr,
    configs: QuinnConfigs,
    /// The sockets of endpoints that are still to be opened. All of them join the port before the first packet: one
    /// that joined later would change which socket the kernel gives a connected peer's packets to.
    listeners: Mutex<Vec<UdpSocket>>,
    handshakes: Arc<Semaphore>,
    wire: Arc<Wire>,
}

impl QuicTransport {
    /// Prepares keys and binds the port for one listener, or as many as [`QuicConfig::listeners`] says, so that a port
    /// in use is an error now, and port 0 gets its number.
    ///
    /// Each listener must be opened: peers that the kernel assigns to one that is not are never answered.
    ///
    /// # Errors
    /// [`TransportError`] if the port is in use or the keys are unusable.
    pub fn new(config: QuicConfig) -> Result<Self, TransportError> {
        let configs = QuinnConfigs::new(&config)?;
        let (listeners, local_addr) = socket::bind_listeners(config.bind, config.listeners)
            .map_err(|reason| TransportError::Bind { addr: config.bind.to_string(), reason })?;
        Ok(Self {
            local_addr,
            configs,
            listeners: Mutex::new(listeners),
            handshakes: Arc::new(Semaphore::new(config.handshakes_max)),
            wire: Arc::new(Wire::new()),
        })
    }

    /// The UDP address that is listened on.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// While `silent`, whatever any of its endpoints sends or receives is lost, as if the network were cut.
    pub fn set_silent(&self, silent: bool) {
        self.wire.set_silent(silent);
    }
}

impl Transport for QuicTransport {
    fn open(&self, listen: bool) -> Result<Arc<dyn Endpoint>, TransportError> {
        let unusable = |addr: SocketAddr| move |reason| TransportError::Bind { addr: addr.to_string(), reason };
        let client_addr = SocketAddr::new(self.local_addr.ip(), 0);
        let client = socket::bind(client_addr, false).map_err(unusable(client_addr))?;
        let listener = if listen {
            // Taken only after the client's socket is there, so that a failure there costs no listener.
            let none_left = || std::io::Error::other("all of its listeners are open already");
            Some(self.listeners.lock().pop().ok_or_else(none_left).map_err(unusable(self.local_addr))?)
        } else {
            None
        };
        let endpoint = QuicEndpoint::open(&self.configs, client, listener, &self.handshakes, &self.wire)
            .map_err(unusable(self.local_addr))?;
        Ok(Arc::new(endpoint))
    }

    fn set_silent(&self, silent: bool) {
        Self::set_silent(self, silent);
    }

    fn faults(&self) -> &Arc<FaultSwitch> {
        &self.wire.faults
    }
}
