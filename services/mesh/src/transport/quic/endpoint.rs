//! One runtime's sockets: a listener on the shared port, if it listens, and a client on a port of its own.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use mesh_proto::NodeId;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use super::{
    accept::AcceptQueue,
    config::QuinnConfigs,
    connection::CLOSED,
    dial::{HANDSHAKE_TIMEOUT, dial, resolve},
    socket::Socketed,
    wire::Wire,
};
use crate::transport::{Accepted, BoxFuture, Connection, DialError, Endpoint};

/// How long a closing endpoint's sockets stay open, for the close frames.
const LINGER: Duration = Duration::from_millis(300);

/// One runtime's sockets.
pub(super) struct QuicEndpoint {
    client: Socketed,
    listener: Option<Socketed>,
    client_addr: SocketAddr,
    accepted: AcceptQueue,
    wire: Arc<Wire>,
    closed: watch::Sender<bool>,
}

impl QuicEndpoint {
    /// Hands the sockets to the current runtime.
    pub(super) fn open(
        configs: &QuinnConfigs,
        client: UdpSocket,
        listener: Option<UdpSocket>,
        handshakes: &Arc<Semaphore>,
        wire: &Arc<Wire>,
    ) -> io::Result<Self> {
        let client_addr = client.local_addr()?;
        let mut client = Socketed::new(client, configs, None, wire)?;
        let dialling = if listener.is_some() { &configs.worker } else { &configs.upkeep };
        client.quinn.set_default_client_config(dialling.clone());
        let server = |socket| Socketed::new(socket, configs, Some(configs.server.clone()), wire);
        let listener = listener.map(server).transpose()?;
        let accepted = AcceptQueue::new(listener.clone(), handshakes, configs.handshakes_max, wire);
        Ok(Self { client, listener, client_addr, accepted, wire: Arc::clone(wire), closed: watch::Sender::new(false) })
    }

    fn sockets(&self) -> impl Iterator<Item = &Socketed> {
        std::iter::once(&self.client).chain(&self.listener)
    }
}

impl Endpoint for QuicEndpoint {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, DialError>> {
        Box::pin(async move {
            let found = resolve(name, self.client_addr, Instant::now() + HANDSHAKE_TIMEOUT).await?;
            Ok(found.iter().map(ToString::to_string).collect())
        })
    }

    fn dial<'a>(
        &'a self,
        addr: &'a str,
        expect: Option<NodeId>,
    ) -> BoxFuture<'a, Result<Arc<dyn Connection>, DialError>> {
        Box::pin(async move {
            let connection = dial(&self.client, &self.wire, self.client_addr, addr, expect).await?;
            Ok(connection as Arc<dyn Connection>)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Accepted>> {
        Box::pin(async {
            let mut closed = self.closed.subscribe();
            tokio::select! {
                biased;
                _ = closed.wait_for(|&closed| closed) => None,
                accepted = self.accepted.next() => accepted,
            }
        })
    }

    fn close(&self, notify: bool) {
        let was_closed = self.closed.send_replace(true);
        for Socketed { quinn, socket } in self.sockets() {
            if !notify {
                socket.detach();
            }
            quinn.close(CLOSED, b"this node is stopping");
        }
        // Outside a runtime nothing could be sent any more; the sockets then go with the endpoint.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if notify && !was_closed {
            for socketed in self.sockets() {
                let Socketed { quinn, socket } = socketed.clone();
                runtime.spawn(async move {
                    let _ = timeout(LINGER, quinn.wait_idle()).await;
                    socket.detach();
                });
            }
        }
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for Socketed { quinn, .. } in self.sockets() {
                let _ = timeout(LINGER, quinn.wait_idle()).await;
            }
        })
    }
}

/// Dropping an endpoint that was not closed is a crash: nobody is told.
impl Drop for QuicEndpoint {
    fn drop(&mut self) {
        if !*self.closed.borrow() {
            self.close(false);
        }
    }
}
