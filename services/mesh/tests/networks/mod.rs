//! The two networks, and what every test of a transport needs of them.

#![allow(dead_code, unreachable_pub, reason = "each test that includes this uses a part of it")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh::transport::{
    Accepted, ClusterSecret, Connection, Credentials, Endpoint, QuicConfig, QuicTransport, ReceiveHalf, SendHalf,
    Transport,
};
use mesh_proto::NodeId;
use mesh_sim::SimulatedNetwork;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

/// A silent peer is noticed after 2 s; in real time a busy machine may need more.
pub const SILENCE_MAX: Duration = Duration::from_secs(4);

/// A way to make nodes that can reach each other.
pub trait Harness {
    /// A transport for the node called `name`, listening at `addr` if it has listened there before.
    fn transport(&self, name: &str, addr: Option<&str>) -> (Arc<dyn Transport>, String);

    fn node(&self, name: &str) -> TestNode {
        self.node_at(name, None)
    }

    fn node_at(&self, name: &str, addr: Option<&str>) -> TestNode {
        let (transport, addr) = self.transport(name, addr);
        let (endpoint, upkeep) = (transport.open(true).unwrap(), transport.open(false).unwrap());
        TestNode { id: NodeId::from_name(name), addr, transport, endpoint, upkeep }
    }
}

pub struct TestNode {
    pub id: NodeId,
    pub addr: String,
    pub transport: Arc<dyn Transport>,
    /// A worker's.
    pub endpoint: Arc<dyn Endpoint>,
    pub upkeep: Arc<dyn Endpoint>,
}

impl TestNode {
    pub async fn accept(&self) -> Arc<dyn Connection> {
        match self.endpoint.accept().await.expect("the endpoint is open") {
            Accepted::Connection(connection) => connection,
            Accepted::Refused { addr, reason } => panic!("{addr} was refused: {reason}"),
        }
    }
}

pub struct Quic;

impl Harness for Quic {
    fn transport(&self, name: &str, addr: Option<&str>) -> (Arc<dyn Transport>, String) {
        let bind: SocketAddr = addr.unwrap_or("127.0.0.1:0").parse().unwrap();
        let credentials = Credentials::Secret(ClusterSecret::new("conformance"));
        let transport = QuicTransport::new(QuicConfig::new(NodeId::from_name(name), bind, credentials)).unwrap();
        let addr = transport.local_addr().to_string();
        (Arc::new(transport), addr)
    }
}

pub struct Simulated(pub SimulatedNetwork);

impl Harness for Simulated {
    fn transport(&self, name: &str, addr: Option<&str>) -> (Arc<dyn Transport>, String) {
        let addr = addr.map_or_else(|| format!("{name}:5011"), str::to_owned);
        (self.0.transport(NodeId::from_name(name), &addr), addr)
    }
}

macro_rules! conformance {
    ($($test:ident)*) => {
        mod quic {
            $(#[tokio::test]
            async fn $test() {
                let test = super::$test(&crate::networks::Quic);
                tokio::time::timeout(std::time::Duration::from_secs(30), test).await.expect("it hangs");
            })*
        }
        mod simulated {
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                let harness = crate::networks::Simulated(mesh_sim::SimulatedNetwork::new(1));
                let test = super::$test(&harness);
                tokio::time::timeout(std::time::Duration::from_secs(30), test).await.expect("it hangs");
            })*
        }
    };
}

pub(crate) use conformance;

/// Two nodes and a connection, as its dialler, which is upkeep, and its accepter see it.
pub async fn connect(from: &TestNode, to: &TestNode) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let (dialled, accepted) = tokio::join!(from.upkeep.dial(&to.addr, Some(to.id)), to.accept());
    (dialled.unwrap(), accepted)
}

/// A stream that carried its first bytes, as its opener and its accepter see it.
pub async fn stream(
    opener: &Arc<dyn Connection>,
    accepter: &Arc<dyn Connection>,
) -> ((SendHalf, ReceiveHalf), (SendHalf, ReceiveHalf)) {
    let mut near = opener.open_stream().await.unwrap();
    near.0.write_all(b"hello").await.unwrap();
    let mut far = accepter.accept_stream().await.unwrap();
    let mut first = [0; 5];
    far.1.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"hello");
    (near, far)
}

/// The peer of `near` has just fallen silent.
pub async fn expect_silence_to_be_noticed(near: &Arc<dyn Connection>, mut receive: ReceiveHalf) {
    let begun = Instant::now();
    let mut buf = [0; 8];
    let (read, datagram, accepted, lost) =
        tokio::join!(receive.read(&mut buf), near.receive_datagram(), near.accept_stream(), near.closed());
    let noticed = begun.elapsed();
    assert!(read.is_err() && datagram.is_err() && accepted.is_err(), "pending calls end");
    assert!(lost.reason.contains("silent"), "{lost}");
    assert!(noticed > Duration::from_millis(1200), "somebody has told: {noticed:?}");
    assert!(noticed < SILENCE_MAX, "{noticed:?}");
}
