//! The seam for everything that is not load: counters, views, faults. Calls are rare, so they need not be cheap.

use std::{future::Future, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{FaultRequest, NodeIndex, Op, OutcomeClass, Run, ServerCounts, WriteVersion};

/// What a target that can only be killed says to everything else.
const NO_FAULTS: &str = "there is no way to do that to this target";

/// A node's counters, with the field names of `GET /stats`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeStats {
    /// Look-ups in the local store that found a live value.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Live entries dropped to make room.
    pub evictions: u64,
    /// Entries that reached their expiry.
    pub expirations: u64,
    /// Live entries.
    pub size: u64,
    /// The bound on entries.
    pub capacity: u64,
    /// The node's own counters, by name.
    #[serde(rename = "mesh")]
    pub mesh: serde_json::Map<String, serde_json::Value>,
}

impl NodeStats {
    /// CPU time the node has used, in milliseconds, if it says so.
    #[must_use]
    pub fn cpu_ms(&self) -> Option<f64> {
        self.mesh.get("cpu_ms").and_then(serde_json::Value::as_f64)
    }

    /// The version of its program, if it says so.
    pub(crate) fn version(&self) -> Option<String> {
        self.mesh.get("version").and_then(serde_json::Value::as_str).map(str::to_owned)
    }

    /// Whether these are of the process that `before` was of, and not of one that has taken its place.
    pub(crate) fn is_same_process(&self, before: &Self) -> bool {
        ["pid", "started"].iter().all(|name| self.mesh.get(*name) == before.mesh.get(*name))
    }

    /// One of the node's own counters, if it has it.
    #[must_use]
    pub fn own(&self, name: &str) -> Option<u64> {
        self.mesh.get(name).and_then(serde_json::Value::as_u64)
    }
}

/// The mesh as one node sees it, from `GET /cluster`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeView {
    /// The node's own id.
    pub id: String,
    /// Everyone it has heard of.
    #[serde(default)]
    pub members: Vec<MemberSeen>,
    /// What its wall clock says, in milliseconds of the Unix clock.
    #[serde(default)]
    pub unix_ms: Option<u64>,
    /// How many owners must have applied a write before it is acknowledged.
    #[serde(default)]
    pub write_concern: Option<usize>,
}

/// One member in a [`NodeView`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MemberSeen {
    /// Its id.
    pub id: String,
    /// `alive`, `suspect`, `dead` or `left`.
    pub state: String,
    /// Where its peers reach it.
    #[serde(default)]
    pub addr: String,
    /// Its latest incarnation.
    #[serde(default)]
    pub incarnation: u64,
}

/// What a node has for a key: a version, or nothing.
pub(crate) type HeldVersion = Option<WriteVersion>;

/// Control over the nodes under load. Every error is a sentence.
pub trait Cluster {
    /// A run against these nodes begins; an observer can keep it.
    fn begins(&self, run: &Arc<Run>) {
        let _ = run;
    }

    /// Reads a node's counters.
    fn stats(&self, node: NodeIndex) -> impl Future<Output = Result<NodeStats, String>>;

    /// Reads what a node has counted of its operations, if it tells.
    fn server_counts(&self, node: NodeIndex) -> impl Future<Output = Result<ServerCounts, String>> {
        let _ = node;
        std::future::ready(Err("in-process nodes expose no /metrics".to_owned()))
    }

    /// Asks a Prometheus for the nodes' p99 of each operation over the last `window`, in seconds; nothing for those that nobody
    /// asked for. Nothing at all if there is no Prometheus to ask.
    fn watched_p99(
        &self,
        window: Duration,
    ) -> impl Future<Output = Option<Result<[Option<f64>; Op::ALL.len()], String>>> {
        let _ = window;
        std::future::ready(None)
    }

    /// Asks a node how it sees the mesh.
    fn view(&self, node: NodeIndex) -> impl Future<Output = Result<NodeView, String>>;

    /// Whether a node takes traffic; an error if it does not answer at all.
    fn ready(&self, node: NodeIndex) -> impl Future<Output = Result<bool, String>>;

    /// The addresses that a node's name has now; none if it has none, or is no name.
    fn addresses(&self, node: NodeIndex) -> impl Future<Output = Vec<String>> {
        let _ = node;
        std::future::ready(Vec::new())
    }

    /// Kills a node: no graceful shutdown.
    fn kill(&self, node: NodeIndex) -> impl Future<Output = Result<(), String>>;

    /// Tells a node to leave and end, as on SIGTERM.
    fn stop(&self, node: NodeIndex) -> impl Future<Output = Result<(), String>> {
        let _ = node;
        async { Err(NO_FAULTS.to_owned()) }
    }

    /// Pauses a node for a while, as by SIGSTOP.
    fn pause(&self, node: NodeIndex, time: Duration) -> impl Future<Output = Result<(), String>> {
        let _ = (node, time);
        async { Err(NO_FAULTS.to_owned()) }
    }

    /// Lays faults on a node; they end by themselves.
    fn lay(&self, node: NodeIndex, order: &FaultRequest) -> impl Future<Output = Result<(), String>> {
        let _ = (node, order);
        async { Err(NO_FAULTS.to_owned()) }
    }

    /// Ends all faults that were laid on a node. One whose process is gone has none.
    fn heal(&self, node: NodeIndex) -> impl Future<Output = Result<(), String>> {
        let _ = node;
        async { Ok(()) }
    }

    /// Reads a key through one node, and says how it ended: with a hit or a miss, or else it is an error.
    fn read(&self, node: NodeIndex, key: &[u8]) -> impl Future<Output = Result<(OutcomeClass, HeldVersion), String>>;

    /// Reads it under a trace that is kept, and says how that ended; without traces nothing is read.
    fn traced_read(
        &self,
        node: NodeIndex,
        key: &[u8],
    ) -> impl Future<Output = Option<(u128, Result<OutcomeClass, String>)>> {
        let _ = (node, key);
        std::future::ready(None)
    }
}
