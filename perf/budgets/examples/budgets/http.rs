//! Operations as an HTTP client makes them: the node's own connection code, on a byte stream in memory.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::{
    Operation,
    cluster::{Cluster, VALUE},
};

const BUFFER_BYTES: usize = 16 << 10;

/// One connection, on which the same requests go out again and again.
pub(crate) struct Requests {
    stream: DuplexStream,
    requests: Vec<Vec<u8>>,
    /// What an answer ends in.
    body: &'static [u8],
    answer: Vec<u8>,
}

impl Requests {
    /// Reads from the node's own replica.
    pub(crate) async fn get_local(cluster: &Cluster) -> Self {
        Self::start(cluster, cluster.local.iter().map(|key| get(key)).collect(), (VALUE, "HIT_LOCAL")).await
    }

    /// Reads from another owner.
    pub(crate) async fn get_remote(cluster: &Cluster) -> Self {
        Self::start(cluster, cluster.remote.iter().map(|key| get(key)).collect(), (VALUE, "HIT_REMOTE")).await
    }

    /// Overwrites keys of which the node is an owner, as the runner writes.
    pub(crate) async fn set(cluster: &Cluster) -> Self {
        Self::start(cluster, cluster.local.iter().map(|key| set(key)).collect(), (b"OK", "x-mesh-version")).await
    }

    /// `expected`: what an answer ends in, and what else the first one holds.
    async fn start(cluster: &Cluster, requests: Vec<Vec<u8>>, expected: (&'static [u8], &str)) -> Self {
        let (stream, server) = duplex(BUFFER_BYTES);
        let connections = cluster.connections.clone();
        tokio::spawn(async move { connections.serve(server).await });
        let mut requests = Self { stream, requests, body: expected.0, answer: Vec::with_capacity(BUFFER_BYTES) };
        requests.step(0).await;
        let first = String::from_utf8_lossy(&requests.answer).into_owned();
        assert!(first.contains(expected.1), "{first}");
        requests
    }
}

fn get(key: &[u8]) -> Vec<u8> {
    [b"GET /get?k=", key, b" HTTP/1.1\r\nHost: node0:8081\r\n\r\n"].concat()
}

fn set(key: &[u8]) -> Vec<u8> {
    let body = [b"{\"k\":\"", key, b"\",\"v\":\"", VALUE, b"\",\"ttl_ms\":0}"].concat();
    let head = format!(
        "POST /set HTTP/1.1\r\nHost: node0:8081\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

impl Operation for Requests {
    async fn step(&mut self, number: usize) {
        let request = &self.requests[number % self.requests.len()];
        self.stream.write_all(request).await.unwrap();
        self.answer.clear();
        while !self.answer.ends_with(self.body) {
            assert!(self.stream.read_buf(&mut self.answer).await.unwrap() > 0, "the connection ended");
        }
        assert!(self.answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}
