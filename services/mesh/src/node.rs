//! One mesh node.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_proto::NodeId;
use thiserror::Error;

use crate::{
    ClusterView, Config, GetError, GetOptions, Lookup, Observer, Readiness, Stats, WriteError, WriteOptions, Written,
    transport::{Transport, TransportError},
};

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The transport's sockets could not be opened.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A running node. Dropping it is a crash.
#[derive(Clone)]
pub struct Node {
    worker: Worker,
}

/// One thread's way into the node: its own peer connections, the shared store. Its futures must be polled on the runtime
/// that it was made on.
#[derive(Clone)]
pub struct Worker {
    _todo: Arc<()>,
}

impl Node {
    /// Starts a node with one worker on the current runtime; upkeep (gossip, resync, sweep) runs on this runtime too.
    ///
    /// # Errors
    /// [`StartError`] if the transport cannot be opened, such as for a port in use.
    pub async fn start(
        _config: Config,
        _transport: Arc<dyn Transport>,
        _observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        todo!()
    }

    /// Adds a worker on the current runtime, which must not be the one that has one already.
    ///
    /// # Errors
    /// [`StartError`] if the transport cannot be opened.
    pub async fn add_worker(&self) -> Result<Worker, StartError> {
        todo!()
    }

    /// The worker that was made at the start.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// This node's identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        todo!()
    }

    /// [`Worker::get`] on the first worker.
    ///
    /// # Errors
    /// As there.
    pub async fn get(&self, key: &Bytes, options: GetOptions) -> Result<Lookup, GetError> {
        self.worker.get(key, options).await
    }

    /// [`Worker::set`] on the first worker.
    ///
    /// # Errors
    /// As there.
    pub async fn set(&self, key: Bytes, value: Bytes, options: WriteOptions) -> Result<Written, WriteError> {
        self.worker.set(key, value, options).await
    }

    /// [`Worker::delete`] on the first worker.
    ///
    /// # Errors
    /// As there.
    pub async fn delete(&self, key: Bytes, options: WriteOptions) -> Result<Written, WriteError> {
        self.worker.delete(key, options).await
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// The mesh as this node sees it.
    #[must_use]
    pub fn view(&self) -> ClusterView {
        todo!()
    }

    /// Whether it should be given traffic.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        todo!()
    }

    /// Says good-bye, waits for writes in flight, closes connections.
    pub async fn stop(&self) {
        todo!()
    }

    /// Stops at once, without a word to anyone.
    pub fn crash(&self) {
        todo!()
    }

    /// Answers no peer and no caller for a while, as a stopped process would.
    pub fn pause(&self, _time: Duration) {
        todo!()
    }
}

impl Worker {
    /// Reads a key.
    ///
    /// # Errors
    /// [`GetError`]; nothing was changed.
    pub async fn get(&self, _key: &Bytes, _options: GetOptions) -> Result<Lookup, GetError> {
        todo!()
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`WriteError`]; each variant says whether anything was written.
    pub async fn set(&self, _key: Bytes, _value: Bytes, _options: WriteOptions) -> Result<Written, WriteError> {
        todo!()
    }

    /// Deletes a key, whether or not it is there.
    ///
    /// # Errors
    /// [`WriteError`]; each variant says whether anything was written.
    pub async fn delete(&self, _key: Bytes, _options: WriteOptions) -> Result<Written, WriteError> {
        todo!()
    }
}
