//! How QUIC is spoken: the settings, and what they mean in quinn's terms.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_proto::NodeId;
use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rand::RngCore;

use crate::transport::{
    Credentials,
    tls::{TlsError, TlsSetup},
};

/// The largest UDP payload to try for, and to accept: on loopback it saves a good part of the CPU. The *initial* one
/// stays at QUIC's minimum, since a first flight of this size is lost on most networks.
pub(super) const MTU_MAX: u16 = 16_384;

/// How close to the largest possible payload the search for it ends, in bytes. Each probe costs its receiver as many steps as it has
/// bytes, and there are probes on every connection.
const MTU_STEP_MIN: u16 = 256;

/// A guess that suits a local network with busy nodes: quinn's own 333 ms would make the first lost packet cost a second, and a much
/// shorter one would send everything twice where handshakes wait for a thread.
const INITIAL_RTT: Duration = Duration::from_millis(20);

/// What may be under way before the first acknowledgements, in bytes. QUIC's own ten packets are filled by a single
/// probe for a larger MTU, and then nothing else leaves, not even the word that the connection is closed.
const INITIAL_CWND_BYTES: u64 = 256 << 10;

/// What a peer may send on one stream before we have read it, in bytes.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// Datagrams that wait to be sent or read, in bytes; beyond it the oldest are dropped.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;

/// How to speak QUIC.
#[derive(Clone, Debug)]
pub struct QuicConfig {
    /// This node.
    pub id: NodeId,
    /// CACHE_BIND.
    pub bind: SocketAddr,
    /// Keys.
    pub credentials: Credentials,
    /// How many endpoints will listen: as many as workers (1).
    pub listeners: usize,
    /// Upkeep's connection to a silent peer is given up after this time (2 s).
    pub upkeep_idle_timeout: Duration,
    /// A worker's connection to a silent peer is given up after this time (30 s), if nobody has closed it before.
    pub worker_idle_timeout: Duration,
    /// How many packets a peer may collect before it acknowledges; 1 acknowledges as the standard says (10).
    pub ack_frequency: u32,
    /// How many bytes may be on their way to a peer and not acknowledged yet, for each connection (16 MiB).
    pub send_window_bytes: usize,
    /// The most streams a peer may have open (64).
    pub streams_max: u32,
    /// The most handshakes under way, on all listeners together (256).
    pub handshakes_max: usize,
    /// Whether the kernel is asked when it received each packet, if it can tell (yes).
    pub are_timestamps: bool,
}

impl QuicConfig {
    /// The defaults named at each field.
    #[must_use]
    pub const fn new(id: NodeId, bind: SocketAddr, credentials: Credentials) -> Self {
        Self {
            id,
            bind,
            credentials,
            listeners: 1,
            upkeep_idle_timeout: Duration::from_secs(2),
            worker_idle_timeout: Duration::from_secs(30),
            ack_frequency: 10,
            send_window_bytes: 16 << 20,
            streams_max: 64,
            handshakes_max: 256,
            are_timestamps: true,
        }
    }
}

/// quinn's configurations.
#[derive(Clone)]
pub(super) struct QuinnConfigs {
    pub(super) endpoint: EndpointConfig,
    pub(super) server: ServerConfig,
    pub(super) upkeep: ClientConfig,
    pub(super) worker: ClientConfig,
    pub(super) handshakes_max: usize,
    pub(super) are_timestamps: bool,
}

impl QuinnConfigs {
    /// Derives or loads the keys and translates the settings.
    pub(super) fn new(config: &QuicConfig) -> Result<Self, TlsError> {
        let tls = TlsSetup::new(&config.credentials, config.id)?;
        let no_cipher = |e: quinn::crypto::rustls::NoInitialCipherSuite| TlsError { reason: e.to_string() };
        // The shorter of the two ends' idle timeouts counts: the accepting side leaves it to the other one.
        let accepting = transport_config(config, config.worker_idle_timeout);

        let crypto = QuicServerConfig::try_from(tls.server).map_err(no_cipher)?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(accepting));
        server.max_incoming(config.handshakes_max);
        // Peers stay where they are; and one that moved would be another listener's by the kernel's choice.
        server.migration(false);

        let crypto = QuicClientConfig::try_from(tls.client).map_err(no_cipher)?;
        let crypto = Arc::new(crypto);
        let client = |idle_timeout: Duration| {
            let mut transport = transport_config(config, idle_timeout);
            // The dialling side keeps a connection alive: one ping keeps both ends awake, and leaves time for another one.
            transport.keep_alive_interval(Some(idle_timeout * 9 / 20));
            let mut client = ClientConfig::new(Arc::clone(&crypto) as _);
            client.transport_config(Arc::new(transport));
            client
        };
        let (upkeep, worker) = (client(config.upkeep_idle_timeout), client(config.worker_idle_timeout));

        let mut endpoint = EndpointConfig::new(tls.reset_key);
        endpoint.cid_generator(|| Box::new(RandomCids));
        endpoint.max_udp_payload_size(MTU_MAX).map_err(|e| TlsError { reason: e.to_string() })?;
        let QuicConfig { handshakes_max, are_timestamps, .. } = *config;
        Ok(Self { endpoint, server, upkeep, worker, handshakes_max, are_timestamps })
    }
}

fn transport_config(config: &QuicConfig, idle_timeout: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX).minimum_change(MTU_STEP_MIN);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_CWND_BYTES);
    transport
        .max_idle_timeout(IdleTimeout::try_from(idle_timeout).ok())
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(config.streams_max))
        // One, for the accepting side's welcome.
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(config.send_window_bytes as u64)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion));
    if config.ack_frequency > 1 {
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(config.ack_frequency));
        transport.ack_frequency_config(Some(acks));
    }
    transport
}

/// Connection ids without a mark of the process that made them. quinn's own carry one, and packets that lack it are
/// dropped before they could be answered with a stateless reset: a restarted node would leave its predecessor's peers
/// to their idle timeout.
struct RandomCids;

impl ConnectionIdGenerator for RandomCids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        rand::rng().fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
