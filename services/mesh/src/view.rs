//! What a node says about itself and its mesh, ready to be written as JSON.

use mesh_proto::StoreStats;
use serde::Serialize;

/// The mesh as one node sees it.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterView {
    /// This node's id, 16 hexadecimal digits.
    pub id: String,
    /// This node's configured name.
    pub name: String,
    /// The ring's 64-bit hash, 16 hexadecimal digits.
    pub ring: String,
    /// REPLICATION_FACTOR.
    pub replication_factor: usize,
    /// WRITE_CONCERN.
    pub write_concern: usize,
    /// Progress of the resync.
    pub sync: SyncView,
    /// All members ever heard of, this node included, sorted by id.
    pub members: Vec<MemberView>,
}

/// One member.
#[derive(Clone, Debug, Serialize)]
pub struct MemberView {
    /// 16 hexadecimal digits.
    pub id: String,
    /// `host:port` over UDP.
    pub addr: String,
    /// `alive`, `suspect`, `dead` or `left`.
    pub state: &'static str,
    /// Its latest incarnation.
    pub incarnation: u64,
    /// Its share, 1 to 16.
    pub weight: u8,
    /// How many of the 4096 slots it owns, as any replica.
    pub slots_owned: usize,
    /// Whether this node has a data connection to it.
    pub connected: bool,
    /// Smoothed round-trip time over QUIC, in microseconds; nothing for this node itself or without a connection.
    pub rtt_us: Option<u64>,
    /// Requests in flight to it.
    pub in_flight: usize,
}

/// Progress of the resync.
#[derive(Clone, Debug, Serialize)]
pub struct SyncView {
    /// Slots this node owns.
    pub slots_owned: usize,
    /// Those of them it can say "miss" for.
    pub slots_in_sync: usize,
    /// Records taken from peers since start.
    pub keys_pulled: u64,
}

/// Whether a node should be given traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Readiness {
    /// Joined (or alone by configuration) and resynced.
    Ready,
    /// No other member has been reached yet.
    Joining,
    /// Joined, but still refilling.
    Resyncing {
        /// Slots in sync.
        done: usize,
        /// Slots owned.
        owned: usize,
    },
    /// Paused by a fault, or about to stop.
    Stopping,
    /// Turned away by the mesh for good; the reason in words.
    Refused(String),
}

/// The local store's counters and the node's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// The local store.
    pub store: StoreStats,
    /// Hedge legs sent.
    pub hedges: u64,
    /// Hedge legs whose answer made the result.
    pub hedge_wins: u64,
    /// Reads that went to another node.
    pub remote_reads: u64,
    /// Write legs that failed or timed out: their owners may lack a write until repaired.
    pub missed_writes: u64,
    /// Requests answered with the member list because the rings differed.
    pub wrong_ring: u64,
    /// Versions refused for being too far in the future.
    pub drift_refused: u64,
    /// Records taken from peers by resync and repair.
    pub repaired: u64,
    /// Handshakes and greetings refused.
    pub peers_refused: u64,
    /// Connections closed for breaking the protocol.
    pub protocol_violations: u64,
}
