//! Dialling: resolve, connect, and wait until the other side has let us in.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::NodeId;
use quinn::ConnectionError;
use tokio::time::{Instant, timeout_at};

use super::{
    connection::{CLOSED, QuicConnection, is_about_trust, reason},
    socket::Socketed,
    wire::Wire,
};
use crate::transport::{DialError, tls};

/// How long a dial may take in all, and an accepted handshake, too.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the accepting side sends on a stream of its own once it has verified our certificate. In TLS 1.3 a client is
/// through with its handshake before the server has even seen its certificate, so without this byte a dialler would
/// take a connection for good that is about to be refused.
pub(super) const WELCOME: u8 = b'w';

/// Dials `addr` from `endpoint`.
pub(super) async fn dial(
    endpoint: &Socketed,
    wire: &Wire,
    bound: SocketAddr,
    addr: &str,
    expect: Option<NodeId>,
) -> Result<Arc<QuicConnection>, DialError> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let candidates = resolve(addr, bound, deadline).await?;
    let mut last = DialError::Unreachable { addr: addr.to_owned(), reason: "no address to try".to_owned() };
    for (index, &candidate) in candidates.iter().enumerate() {
        // An equal share of what is left, so that one dead address does not use up the time of the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(candidates.len() - index).unwrap_or(1);
        let attempt = connect(endpoint, wire, candidate, expect);
        last = match timeout_at(Instant::now() + share, attempt).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(DialFailure::Untrusted(reason))) => DialError::Untrusted { addr: addr.to_owned(), reason },
            Ok(Err(DialFailure::Unreachable(reason))) => DialError::Unreachable { addr: addr.to_owned(), reason },
            Err(_) => DialError::Unreachable {
                addr: addr.to_owned(),
                reason: format!("no answer within {} ms", share.as_millis()),
            },
        };
    }
    Err(last)
}

/// The addresses that the socket can reach, those of its own family first.
pub(super) async fn resolve(addr: &str, bound: SocketAddr, deadline: Instant) -> Result<Vec<SocketAddr>, DialError> {
    let unresolved = |reason: String| DialError::Resolve { addr: addr.to_owned(), reason };
    let found = timeout_at(deadline, tokio::net::lookup_host(addr))
        .await
        .map_err(|_| unresolved("the resolver did not answer in time".to_owned()))?
        .map_err(|e| unresolved(e.to_string()))?;
    let reachable = |candidate: &SocketAddr| match (bound.is_ipv4(), candidate.is_ipv4()) {
        (true, is_v4) => is_v4,
        (false, true) => bound.ip().is_unspecified(),
        (false, false) => true,
    };
    let mut candidates: Vec<_> = found.filter(reachable).collect();
    candidates.sort_by_key(|candidate| candidate.is_ipv4() != bound.is_ipv4());
    if candidates.is_empty() {
        return Err(unresolved(format!("it has no address that can be reached from {}", bound.ip())));
    }
    Ok(candidates)
}

enum DialFailure {
    Untrusted(String),
    Unreachable(String),
}

impl From<ConnectionError> for DialFailure {
    fn from(error: ConnectionError) -> Self {
        if is_about_trust(&error) { Self::Untrusted(reason(&error)) } else { Self::Unreachable(reason(&error)) }
    }
}

async fn connect(
    endpoint: &Socketed,
    wire: &Wire,
    addr: SocketAddr,
    expect: Option<NodeId>,
) -> Result<Arc<QuicConnection>, DialFailure> {
    if let Some(peer) = expect {
        // Nobody else gets through the handshake, and a fault between us and the peer is there before it.
        wire.learn(addr, peer);
    }
    let connecting =
        endpoint.quinn.connect(addr, &tls::server_name(expect)).map_err(|e| DialFailure::Unreachable(e.to_string()))?;
    let inner = connecting.await?;
    let mut welcome = inner.accept_uni().await?;
    let mut byte = [0; 1];
    match welcome.read_exact(&mut byte).await {
        Ok(()) if byte[0] == WELCOME => {}
        Err(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error))) => return Err(error.into()),
        _ => {
            inner.close(CLOSED, b"expected a welcome");
            return Err(DialFailure::Unreachable("it speaks another protocol".to_owned()));
        }
    }
    QuicConnection::new(inner, endpoint.socket.arrivals(), wire).map_err(DialFailure::Untrusted)
}
