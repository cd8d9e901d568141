//! Peers that are let in, because they know the secret, and then do not keep to the rules: over real QUIC, against one node.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use mesh::{
    Config, NoObserver, Node, Stats, WriteOptions,
    transport::{ClusterSecret, Connection, Credentials, QuicConfig, QuicTransport, ReceiveHalf, SendHalf, Transport},
};
use mesh_proto::{
    Decoder, Frame, FrameBody, Hello, KeyHash, NodeId, RecordLimits, RejectReason, ReplicationFactor, RequestId,
    RingHash, WriteConcern, encode_into,
};
use mesh_sim::SimulatedNetwork;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

/// The longest that a node waits for a peer is ten seconds; the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const KEY: &[u8] = b"key";

fn quic(name: &str) -> QuicTransport {
    let secret = Credentials::Secret(ClusterSecret::new("the same for all"));
    QuicTransport::new(QuicConfig::new(NodeId::from_name(name), "127.0.0.1:0".parse().unwrap(), secret)).unwrap()
}

/// A node that is a mesh by itself, with one large value.
async fn victim() -> (Node, SocketAddr) {
    let transport = quic("victim");
    let addr = transport.local_addr();
    (start(&addr.to_string(), Arc::new(transport)).await, addr)
}

async fn start(addr: &str, transport: Arc<dyn Transport>) -> Node {
    let mut config = Config::new(addr);
    config.name = "victim".to_owned();
    config.replicas = ReplicationFactor::new(1).unwrap();
    config.concern = WriteConcern::new(1, config.replicas).unwrap();
    let node = Node::start(config, transport, Arc::new(NoObserver)).unwrap();
    let value = Bytes::from(vec![b'v'; 1 << 20]);
    node.set(Bytes::from_static(KEY), value, WriteOptions::default()).await.unwrap();
    node
}

/// A connection of somebody called `name`.
async fn connect(to: SocketAddr, name: &str) -> Arc<dyn Connection> {
    let endpoint = quic(name).open(false).unwrap();
    let connection = endpoint.dial(&to.to_string(), None).await.unwrap();
    // An endpoint that is dropped crashes, and these end with the test.
    std::mem::forget(endpoint);
    connection
}

fn hello(id: NodeId) -> FrameBody {
    let addr = "127.0.0.1:1".to_owned();
    let limits = RecordLimits { key_bytes_max: 4096, value_bytes_max: 2 << 20 };
    let mesh = "mesh".to_owned();
    FrameBody::Hello(Hello { protocol: Hello::PROTOCOL, id, addr, start: 1, mesh, replicas: 1, concern: 1, limits })
}

fn frame(request: u32, ring: RingHash, body: FrameBody) -> BytesMut {
    let mut wire = BytesMut::new();
    encode_into(&Frame::new(RequestId(request), ring, body), &mut wire);
    wire
}

async fn read_frame(receive: &mut ReceiveHalf) -> Frame {
    let mut decoder = Decoder::new(4 << 20);
    loop {
        if let Some(frame) = decoder.next_frame().unwrap() {
            return frame;
        }
        assert!(receive.read_buf(decoder.buffer()).await.unwrap() > 0, "the stream ended");
    }
}

/// Greets as one should; gives the node's ring as well.
async fn greet(connection: &Arc<dyn Connection>, name: &str) -> (SendHalf, ReceiveHalf, RingHash) {
    let (mut send, mut receive) = connection.open_stream().await.unwrap();
    send.write_all(&frame(0, RingHash::default(), hello(NodeId::from_name(name)))).await.unwrap();
    let reply = read_frame(&mut receive).await;
    assert!(matches!(reply.body, FrameBody::HelloReply(Ok(_))), "{reply:?}");
    (send, receive, reply.ring)
}

async fn until(what: &str, node: &Node, condition: impl Fn(&Stats) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(&node.stats()) {
        assert!(Instant::now() < deadline, "{what}: {:?}", node.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_claims_to_be_somebody_else_is_turned_away() {
    let (node, addr) = victim().await;
    let connection = connect(addr, "mallory").await;
    let (mut send, mut receive) = connection.open_stream().await.unwrap();
    // Its certificate says mallory.
    send.write_all(&frame(0, RingHash::default(), hello(NodeId::from_name("alice")))).await.unwrap();
    let reply = read_frame(&mut receive).await;
    assert!(matches!(reply.body, FrameBody::HelloReply(Err(RejectReason::Identity))), "{reply:?}");
    until("it is counted", &node, |stats| stats.peers_refused == 1).await;
}

#[tokio::test]
async fn who_breaks_the_protocol_is_cut_off_and_counted() {
    let (node, addr) = victim().await;
    let violations: [&[u8]; 4] = [
        // Twice as long as may be, shorter than a head, of no kind that there is, and no request.
        &[255; 64],
        &[1, 0, 0, 0, 0],
        &[14, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &frame(1, RingHash::default(), hello(NodeId::from_name("mallory"))),
    ];
    for (before, violation) in violations.iter().enumerate() {
        let connection = connect(addr, "mallory").await;
        let (mut send, _receive, _) = greet(&connection, "mallory").await;
        send.write_all(violation).await.unwrap();
        timeout(PATIENCE, connection.closed()).await.expect("it is closed");
        until("it is counted", &node, |stats| stats.protocol_violations == before as u64 + 1).await;
    }
}

#[tokio::test]
async fn who_does_not_greet_is_cut_off() {
    let (node, addr) = victim().await;
    let connection = connect(addr, "mallory").await;
    let (mut send, _receive) = connection.open_stream().await.unwrap();
    send.write_all(&[9]).await.unwrap();
    timeout(PATIENCE, connection.closed()).await.expect("it is closed");
    until("it is counted", &node, |stats| stats.protocol_violations == 1).await;
}

/// Over the simulated network, whose time runs by itself.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_held_back_and_cut_off() {
    let network = SimulatedNetwork::new(1);
    let node = start("victim:1", network.transport(NodeId::from_name("victim"), "victim:1")).await;
    let endpoint = network.transport(NodeId::from_name("mallory"), "mallory:1").open(false).unwrap();
    let connection = endpoint.dial("victim:1", None).await.unwrap();
    let (mut send, _receive, ring) = greet(&connection, "mallory").await;
    let read = frame(1, ring, FrameBody::Read { hash: KeyHash::of(KEY), key: Bytes::from_static(KEY) });
    // A hundred thousand answers of a megabyte each, if they were made.
    let requests = BytesMut::from_iter(std::iter::repeat_n(&read[..], 100_000).flatten());
    let written = async {
        let _ = send.write_all(&requests).await;
    };
    let (lost, ()) = tokio::join!(timeout(PATIENCE, connection.closed()), written);
    lost.expect("it is closed");
    until("it is counted", &node, |stats| stats.protocol_violations == 1).await;
    let answered = node.stats().store.hits;
    assert!((1..100).contains(&answered), "{answered} answers were made");
}
