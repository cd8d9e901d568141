//! One authenticated QUIC connection, and in words why one ended.

use std::sync::Arc;

use bytes::Bytes;
use mesh_proto::NodeId;
use quinn::{ConnectionError, VarInt};
use rustls::pki_types::CertificateDer;

use super::{timed::Arrivals, wire::Wire};
use crate::transport::{BoxFuture, Connection, ConnectionLost, PathStats, ReceiveHalf, SendHalf, Waited, tls};

/// The only application error code; the reason is in the words.
pub(super) const CLOSED: VarInt = VarInt::from_u32(0);

/// Below that of all other streams: of two that have something to send, the one with small frames goes first.
const APART_PRIORITY: i32 = -1;

/// One authenticated QUIC connection.
pub(super) struct QuicConnection {
    inner: quinn::Connection,
    peer: NodeId,
    /// Of its socket, which it has in common with others.
    arrivals: Arrivals,
}

impl QuicConnection {
    /// Wraps a connection whose handshake is done. The certificate was verified in it; here it is read.
    pub(super) fn new(inner: quinn::Connection, arrivals: &Arrivals, wire: &Wire) -> Result<Arc<Self>, String> {
        let identity =
            inner.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
        let certificate = identity.as_deref().and_then(|chain| chain.first());
        let peer = tls::peer_id(certificate.ok_or("the peer has shown no certificate")?)?;
        wire.learn(inner.remote_address(), peer);
        Ok(Arc::new(Self { inner, peer, arrivals: arrivals.clone() }))
    }
}

/// An address as people write it: not `::ffff:10.0.0.1`, which is what a socket for both families reports.
pub(super) fn written(addr: std::net::SocketAddr) -> String {
    std::net::SocketAddr::new(addr.ip().to_canonical(), addr.port()).to_string()
}

/// Why a connection ended.
pub(super) fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "the peer is silent".to_owned(),
        ConnectionError::Reset => "the peer was restarted".to_owned(),
        ConnectionError::LocallyClosed => "closed here".to_owned(),
        ConnectionError::ApplicationClosed(close) => {
            format!("closed by the peer: {}", String::from_utf8_lossy(&close.reason))
        }
        other => other.to_string(),
    }
}

/// Whether a connection ended because of keys: QUIC carries TLS alerts as the codes 0x100 to 0x1ff (RFC 9001, 4.8).
pub(super) fn is_about_trust(error: &ConnectionError) -> bool {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => return false,
    };
    (0x100..0x200).contains(&code)
}

fn lost(error: ConnectionError) -> ConnectionLost {
    ConnectionLost { reason: reason(&error) }
}

fn boxed((send, receive): (quinn::SendStream, quinn::RecvStream)) -> (SendHalf, ReceiveHalf) {
    (Box::new(send), Box::new(receive))
}

impl Connection for QuicConnection {
    fn peer(&self) -> NodeId {
        self.peer
    }

    fn remote_addr(&self) -> String {
        written(self.inner.remote_address())
    }

    fn open_stream(&self) -> BoxFuture<'_, Result<(SendHalf, ReceiveHalf), ConnectionLost>> {
        Box::pin(async { self.inner.open_bi().await.map(boxed).map_err(lost) })
    }

    fn send_apart(&self, mut parts: [Bytes; 2]) -> BoxFuture<'_, Result<ReceiveHalf, ConnectionLost>> {
        Box::pin(async move {
            let (mut send, receive) = self.inner.open_bi().await.map_err(lost)?;
            let sent = async {
                send.set_priority(APART_PRIORITY)?;
                // By chunks, quinn sends the bytes from where they lie.
                send.write_all_chunks(&mut parts).await?;
                Ok::<_, std::io::Error>(send.finish()?)
            };
            sent.await.map_err(|error| ConnectionLost { reason: error.to_string() })?;
            Ok(Box::new(receive) as ReceiveHalf)
        })
    }

    fn accept_stream(&self) -> BoxFuture<'_, Result<(SendHalf, ReceiveHalf), ConnectionLost>> {
        Box::pin(async { self.inner.accept_bi().await.map(boxed).map_err(lost) })
    }

    fn send_datagram(&self, datagram: Bytes) {
        let bytes = datagram.len();
        if let Err(error) = self.inner.send_datagram(datagram) {
            tracing::debug!(peer = %self.peer, bytes, %error, "datagram dropped");
        }
    }

    fn receive_datagram(&self) -> BoxFuture<'_, Result<Bytes, ConnectionLost>> {
        Box::pin(async { self.inner.read_datagram().await.map_err(lost) })
    }

    fn closed(&self) -> BoxFuture<'_, ConnectionLost> {
        Box::pin(async { lost(self.inner.closed().await) })
    }

    fn close(&self, reason: &str) {
        self.inner.close(CLOSED, reason.as_bytes());
    }

    fn waited(&self) -> Option<Waited> {
        self.arrivals.waited()
    }

    fn path(&self) -> PathStats {
        let path = self.inner.stats().path;
        PathStats {
            rtt: path.rtt,
            cwnd_bytes: path.cwnd,
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
            congestion_events: path.congestion_events,
        }
    }
}
