//! What a node has to be told. Defaults are those of the settings.

use std::{sync::Arc, time::Duration};

use mesh_proto::{
    DRIFT_MAX, HintLimits, KEY_BYTES_MAX, NodeId, RecordLimits, ReplicationFactor, Rings, StoreConfig, VALUE_BYTES_MAX,
    WriteConcern,
};

use crate::WallClock;

/// How much less than the time in an entry may have passed, which is kept in whole seconds.
const ROUNDING: Duration = Duration::from_secs(2);

/// A node's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name (NODE_ID, by default CACHE_PUBLIC). Its hash is the [`NodeId`].
    pub name: String,
    /// Which mesh it belongs to (CACHE_NAME): nodes of others are not let in.
    pub mesh: String,
    /// Where peers reach it over UDP, `host:port` (CACHE_PUBLIC).
    pub public_addr: String,
    /// Where to look for the mesh (CACHE_SEEDS). Only itself, or nothing: it is the first node.
    pub seeds: Vec<String>,
    /// REPLICATION_FACTOR.
    pub replicas: ReplicationFactor,
    /// WRITE_CONCERN.
    pub concern: WriteConcern,
    /// READ_MAX_FANOUT.
    pub read_fanout_max: usize,
    /// READ_PER_TRY_MS.
    pub read_per_try: Duration,
    /// READ_HEDGE_DELAY_MS; nothing means adaptive.
    pub hedge_delay: Option<Duration>,
    /// READ_HEDGE_INTERVAL_MS; nothing means the hedge delay.
    pub hedge_interval: Option<Duration>,
    /// READ_TIMEOUT_MS.
    pub read_timeout: Duration,
    /// WRITE_TIMEOUT_MS.
    pub write_timeout: Duration,
    /// SUSPICION_AFTER_MS.
    pub suspicion: Duration,
    /// GOSSIP_INTERVAL_MS.
    pub gossip_interval: Duration,
    /// How long a member is gone before it is forgotten (FORGET_AFTER).
    pub forget_after: Duration,
    /// WEIGHT_UPDATE_MS.
    pub weight_update: Duration,
    /// How long a graceful stop waits for its turn, and for others to take over what this node holds (DRAIN_TIMEOUT_MS).
    pub drain_timeout: Duration,
    /// The longest key, in bytes.
    pub key_bytes_max: usize,
    /// The largest value, in bytes.
    pub value_bytes_max: usize,
    /// The most requests in flight to one peer per worker; beyond it legs fail at once.
    pub peer_in_flight_max: usize,
    /// The most bytes of small frames that wait to be written to one peer per worker; beyond it legs fail at once.
    pub peer_queue_bytes_max: usize,
    /// The most bytes of large values under way to one peer per worker, and to it in answers; beyond it legs fail at once.
    pub large_bytes_max: usize,
    /// The store's bounds.
    pub store: StoreConfig,
    /// The bounds of each peer's queue of hints.
    pub hints: HintLimits,
    /// The expiry of a write that asks for the node's default; nothing means never.
    pub default_ttl: Option<Duration>,
    /// How often a node compares its digests with another owner's.
    pub repair_interval: Duration,
    /// Where wall-clock time comes from.
    pub wall_clock: WallClock,
    /// Rings that were worked out. Nodes in one process can share them.
    pub rings: Arc<Rings>,
    /// Seeds all random choices of this node; 0 draws a seed from the system.
    pub seed: u64,
}

impl Config {
    /// The defaults of the settings, for a node reached at `public_addr`.
    ///
    /// # Panics
    /// Never: 3 replicas and a write concern of 2 are valid.
    #[must_use]
    #[expect(clippy::expect_used, reason = "constants, checked by every test that starts a node")]
    pub fn new(public_addr: &str) -> Self {
        let replicas = ReplicationFactor::new(3).expect("3 is between 1 and 8");
        Self {
            name: public_addr.to_owned(),
            mesh: "mesh".to_owned(),
            public_addr: public_addr.to_owned(),
            seeds: Vec::new(),
            replicas,
            concern: WriteConcern::new(2, replicas).expect("2 is not above 3"),
            read_fanout_max: 2,
            read_per_try: Duration::from_millis(200),
            hedge_delay: None,
            hedge_interval: None,
            read_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(3),
            suspicion: Duration::from_secs(2),
            gossip_interval: Duration::from_millis(500),
            forget_after: Duration::from_secs(24 * 60 * 60),
            weight_update: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(8),
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            peer_in_flight_max: 16_384,
            peer_queue_bytes_max: 16 << 20,
            large_bytes_max: 64 << 20,
            store: StoreConfig {
                bytes_max: 1 << 30,
                entries_max: 16_000_000,
                tombstones_max: 1_000_000,
                tombstone_age_min: Duration::from_secs(600),
            },
            hints: HintLimits::default(),
            default_ttl: None,
            repair_interval: Duration::from_secs(1),
            wall_clock: WallClock::System,
            rings: Arc::default(),
            seed: 0,
        }
    }

    /// The largest record that it takes.
    #[must_use]
    pub const fn record_limits(&self) -> RecordLimits {
        RecordLimits { key_bytes_max: self.key_bytes_max as u64, value_bytes_max: self.value_bytes_max as u64 }
    }

    /// The identity that follows from the name.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId::from_name(&self.name)
    }

    /// How long whatever is older than a tombstone may be under way when it comes.
    pub(crate) fn tombstone_margin(&self) -> Duration {
        let hinted = self.hints.age_max + self.write_timeout;
        hinted.max(self.store.tombstone_age_min) + DRIFT_MAX * 2 + ROUNDING
    }
}

/// How long a value is to live, as a write asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// As the node is configured (`ttl_ms` 0).
    #[default]
    NodeDefault,
    /// For ever (`ttl_ms` -1).
    Never,
    /// This long from now.
    After(Duration),
}
