//! Accepting: handshakes run beside each other, at most so many at once, each with a deadline, and what comes of them
//! waits in two bounded queues, so that a flood of refusals cannot hold up a peer.

use std::{net::SocketAddr, sync::Arc};

use quinn::{ConnectionError, Incoming};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{
    connection::{CLOSED, QuicConnection, is_about_trust, reason, written},
    dial::{HANDSHAKE_TIMEOUT, WELCOME},
    socket::Socketed,
    timed::Arrivals,
    wire::Wire,
};
use crate::transport::{Accepted, Connection};

/// Refusals that wait to be told; more are only counted by the log line of the first ones.
const REFUSALS_MAX: usize = 64;

/// What came in and waits for `accept`.
pub(super) struct AcceptQueue {
    // Locks of the async kind, since a caller waits while holding them; only `accept` takes them.
    connections: Mutex<mpsc::Receiver<Arc<QuicConnection>>>,
    refusals: Mutex<mpsc::Receiver<Accepted>>,
    /// Keeps both queues open for an endpoint that only dials: its `accept` waits for the end.
    _senders: Senders,
}

#[derive(Clone)]
struct Senders {
    connections: mpsc::Sender<Arc<QuicConnection>>,
    refusals: mpsc::Sender<Accepted>,
    wire: Arc<Wire>,
}

impl AcceptQueue {
    /// A queue that is fed from `listener`, if there is one, until it is closed.
    pub(super) fn new(
        listener: Option<Socketed>,
        handshakes: &Arc<Semaphore>,
        handshakes_max: usize,
        wire: &Arc<Wire>,
    ) -> Self {
        let (connections, connections_in) = mpsc::channel(handshakes_max.max(1));
        let (refusals, refusals_in) = mpsc::channel(REFUSALS_MAX);
        let senders = Senders { connections, refusals, wire: Arc::clone(wire) };
        if let Some(listener) = listener {
            tokio::spawn(listen(listener, Arc::clone(handshakes), handshakes_max, senders.clone()));
        }
        Self { connections: Mutex::new(connections_in), refusals: Mutex::new(refusals_in), _senders: senders }
    }

    /// The next one, authenticated peers first.
    pub(super) async fn next(&self) -> Option<Accepted> {
        let connection = async { self.connections.lock().await.recv().await };
        let refusal = async { self.refusals.lock().await.recv().await };
        tokio::select! {
            biased;
            connection = connection => connection.map(|connection| Accepted::Connection(connection)),
            refusal = refusal => refusal,
        }
    }
}

/// Starts handshakes until `listener` is closed.
async fn listen(listener: Socketed, handshakes: Arc<Semaphore>, handshakes_max: usize, senders: Senders) {
    while let Some(incoming) = listener.quinn.accept().await {
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            report(&senders.refusals, incoming.remote_address(), format!("{handshakes_max} handshakes are under way"));
            // Who has not proved its address gets no answer either: it may be somebody else's.
            if incoming.remote_address_validated() {
                incoming.refuse()
            } else {
                incoming.ignore()
            }
            continue;
        };
        // When many are under way, first make sure that they come from where they say (RFC 9000, 8.1.2).
        let is_busy = handshakes.available_permits() < handshakes_max / 2;
        if is_busy && !incoming.remote_address_validated() {
            // An error means that it was validated meanwhile, and leads to a second try of the peer.
            let _ = incoming.retry();
            continue;
        }
        let arrivals = listener.socket.arrivals().clone();
        tokio::spawn(admit(incoming, arrivals, permit, senders.clone()));
    }
}

/// Carries one handshake through and reports what came of it.
async fn admit(incoming: Incoming, arrivals: Arrivals, _permit: OwnedSemaphorePermit, senders: Senders) {
    let addr = incoming.remote_address();
    let refusal = match timeout(HANDSHAKE_TIMEOUT, handshake(incoming, &arrivals, &senders.wire)).await {
        Ok(Err(AcceptFailure::GaveUp)) => return,
        // Full only if nobody accepts; then the permit is held, and further peers are refused.
        Ok(Ok(connection)) => match senders.connections.send(connection).await {
            Ok(()) => return,
            Err(mpsc::error::SendError(connection)) => return connection.close("this node is stopping"),
        },
        Ok(Err(AcceptFailure::Refused(reason))) => reason,
        Err(_) => format!("its handshake was not done within {} s", HANDSHAKE_TIMEOUT.as_secs()),
    };
    report(&senders.refusals, addr, refusal);
}

fn report(refusals: &mpsc::Sender<Accepted>, addr: SocketAddr, reason: String) {
    let refused = Accepted::Refused { addr: written(addr), reason };
    if refusals.try_send(refused).is_err() {
        tracing::debug!(%addr, "too many refused connections to report each");
    }
}

enum AcceptFailure {
    /// The dialler went away, as one does that has tried for long enough. Nothing to report.
    GaveUp,
    Refused(String),
}

impl From<ConnectionError> for AcceptFailure {
    fn from(error: ConnectionError) -> Self {
        let reason = reason(&error);
        match error {
            ConnectionError::ConnectionClosed(_) if is_about_trust(&error) => Self::Refused(format!(
                "it does not trust this node: {reason}; another CACHE_AUTH, or another node expected here"
            )),
            ConnectionError::ConnectionClosed(_)
            | ConnectionError::ApplicationClosed(_)
            | ConnectionError::LocallyClosed => Self::GaveUp,
            _ if is_about_trust(&error) => Self::Refused(format!(
                "it is not trusted: {reason}; no certificate, or another CACHE_AUTH, most likely"
            )),
            _ => Self::Refused(reason),
        }
    }
}

async fn handshake(incoming: Incoming, arrivals: &Arrivals, wire: &Wire) -> Result<Arc<QuicConnection>, AcceptFailure> {
    let inner = incoming.accept()?.await?;
    let connection = QuicConnection::new(inner.clone(), arrivals, wire).map_err(|reason| {
        inner.close(CLOSED, reason.as_bytes());
        AcceptFailure::Refused(reason)
    })?;
    let mut welcome = inner.open_uni().await?;
    welcome.write_all(&[WELCOME]).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => error.into(),
        error => AcceptFailure::Refused(error.to_string()),
    })?;
    // Already finished is the only error, and it is not.
    let _ = welcome.finish();
    Ok(connection)
}
