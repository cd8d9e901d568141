//! A replica's part of a SET alone: a peer that is made by hand sends write frames to one node, and reads the replies.

use std::sync::Arc;

use bytes::BytesMut;
use mesh::transport::{Connection, Endpoint, ReceiveHalf, SendHalf};
use mesh_proto::{
    Body, Decoder, Expiry, Frame, FrameBody, Hello, HybridClock, KeyHash, NodeId, Record, RecordLimits, RequestId,
    RingHash, WriteAnswer, encode_into, encode_write,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    Operation,
    cluster::{Cluster, VALUE},
};

const FRAME_BYTES_MAX: usize = 4 << 20;

/// A peer's connection to the first node, and records that this one owns.
pub(crate) struct Writes {
    send: SendHalf,
    receive: ReceiveHalf,
    decoder: Decoder,
    ring: RingHash,
    records: Vec<Record>,
    clock: HybridClock,
    wire: BytesMut,
    node: mesh::Node,
    // They end with the last owner.
    _open: (Arc<dyn Endpoint>, Arc<dyn Connection>),
}

impl Writes {
    /// Connects and greets.
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let id = NodeId::from_name("peer");
        let endpoint = cluster.network.transport(id, "peer:5011").open(false).unwrap();
        let connection = endpoint.dial("node0:5011", None).await.unwrap();
        let (send, receive) = connection.open_stream().await.unwrap();
        let record = |key: &bytes::Bytes| Record {
            hash: KeyHash::of(key),
            key: key.clone(),
            version: mesh_proto::Version::ZERO,
            expiry: Expiry::NEVER,
            body: Body::Value(bytes::Bytes::from_static(VALUE)),
        };
        let mut writes = Self {
            send,
            receive,
            decoder: Decoder::new(FRAME_BYTES_MAX),
            ring: RingHash::default(),
            records: cluster.local.iter().map(record).collect(),
            clock: HybridClock::new(id.get()),
            wire: BytesMut::new(),
            node: cluster.nodes[0].clone(),
            _open: (endpoint, connection),
        };
        let limits = RecordLimits { key_bytes_max: 4096, value_bytes_max: 2 << 20 };
        let (addr, mesh) = ("peer:5011".to_owned(), "mesh".to_owned());
        let hello = Hello { protocol: Hello::PROTOCOL, id, addr, start: 1, mesh, replicas: 3, concern: 2, limits };
        let body = FrameBody::Hello(hello);
        let frame = Frame::new(RequestId(0), RingHash::default(), body);
        encode_into(&frame, &mut writes.wire);
        let reply = writes.exchange().await;
        assert!(matches!(reply.body, FrameBody::HelloReply(Ok(_))), "{reply:?}");
        writes.ring = reply.ring;
        writes
    }

    /// Sends what is to be sent, and reads one frame.
    async fn exchange(&mut self) -> Frame {
        self.send.write_all(&self.wire).await.unwrap();
        self.wire.clear();
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return frame;
            }
            self.decoder.buffer().reserve(4096);
            assert!(self.receive.read_buf(self.decoder.buffer()).await.unwrap() > 0, "the stream ended");
        }
    }
}

impl Operation for Writes {
    async fn step(&mut self, number: usize) {
        let at = number % self.records.len();
        self.records[at].version = self.clock.tick(self.node.unix());
        let request = RequestId(u32::try_from(number).unwrap_or(1) + 1);
        encode_write(&mut self.wire, request, self.ring, None, &self.records[at]);
        let reply = self.exchange().await;
        assert!(matches!(reply.body, FrameBody::WriteReply { answer: WriteAnswer::Applied, .. }), "{reply:?}");
    }
}
