//! Operations as a caller of the mesh makes them, without HTTP.

use bytes::Bytes;
use mesh::{GetOptions, Lookup, Worker, WriteOptions};

use crate::{
    Operation,
    cluster::{Cluster, VALUE},
};

/// Reads of keys that are all in the same place.
pub(crate) struct Get {
    worker: Worker,
    keys: Vec<Bytes>,
    is_local: bool,
}

impl Get {
    /// From the node's own replica.
    pub(crate) fn local(cluster: &Cluster) -> Self {
        Self { worker: cluster.worker.clone(), keys: cluster.local.clone(), is_local: true }
    }

    /// From another owner.
    pub(crate) fn remote(cluster: &Cluster) -> Self {
        Self { worker: cluster.worker.clone(), keys: cluster.remote.clone(), is_local: false }
    }
}

impl Operation for Get {
    async fn step(&mut self, number: usize) {
        let key = &self.keys[number % self.keys.len()];
        let found = self.worker.get(key, GetOptions::default(), &mut None).await.unwrap();
        assert!(matches!((&found, self.is_local), (Lookup::Local(_), true) | (Lookup::Remote(_), false)));
    }
}

/// Overwrites keys of which the node is one of three owners: it coordinates, and two replicas are elsewhere.
pub(crate) struct Set {
    worker: Worker,
    keys: Vec<Bytes>,
}

impl Set {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self { worker: cluster.worker.clone(), keys: cluster.local.clone() }
    }
}

impl Operation for Set {
    async fn step(&mut self, number: usize) {
        let key = self.keys[number % self.keys.len()].clone();
        self.worker.set(key, Bytes::from_static(VALUE), WriteOptions::default(), &mut None).await.unwrap();
    }
}
