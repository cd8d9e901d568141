//! What a mesh node is told, whether `node` puts HTTP in front of it or `direct-runner` runs three of them: names, parsers
//! and defaults are the same. A crate of its own because `settings` knows no mesh, and `mesh` no settings.

mod budget;

use std::time::Duration;

use self::budget::{CAPACITY_MIN, Capacity};
pub use budget::Host;
use clap::Args;
use mesh::Config;
use mesh_proto::{HintLimits, ReplicationFactor, StoreConfig, WriteConcern};
use settings::{Mistakes, bytes, default_ttl, hedge_delay, millis, millis_to, positive_duration, whole};

/// A store of so many bytes keeps one tombstone at most: about an eighth of it, with keys of the usual size.
const BYTES_PER_TOMBSTONE_MIN: u64 = 1024;

/// The longest age of a hint: one that outlives the tombstones could bring back what was deleted.
const HINT_AGE_MS_MAX: u64 = 600_000;

/// Settings of one node's part in the mesh.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Mesh")]
pub struct MeshSettings {
    /// The secret that all nodes of the mesh share; node requires it unless CACHE_BIND is a loopback address, direct-runner draws one
    #[arg(long, env, hide_env_values = true, value_name = "SECRET")]
    pub cache_auth: Option<String>,
    /// The mesh's name, the same on all nodes: nodes of others are not let in, even with the same secret
    #[arg(long, env, default_value = "mesh", value_name = "NAME", value_parser = mesh_name)]
    cache_name: String,
    /// How many owners each key has, 1 to 8; the same on all nodes
    #[arg(long, env, default_value = "3", value_name = "COUNT", value_parser = whole::<u64>(1, ReplicationFactor::MAX as u64))]
    replication_factor: u64,
    /// How many owners must have applied a write before it is acknowledged; the same on all nodes
    #[arg(long, env, default_value = "2", value_name = "COUNT", value_parser = whole::<u64>(1, ReplicationFactor::MAX as u64))]
    write_concern: u64,
    /// One gossip round per this time, in milliseconds
    #[arg(long, env, default_value = "500", value_name = "MS", value_parser = millis)]
    gossip_interval_ms: Duration,
    /// From suspect to dead, in milliseconds
    #[arg(long, env, default_value = "2000", value_name = "MS", value_parser = millis)]
    suspicion_after_ms: Duration,
    /// How long a member is gone before it is forgotten, with its hints and metrics, and deletions no longer wait for it
    #[arg(long, env, default_value = "24h", value_name = "DURATION", value_parser = positive_duration)]
    forget_after: Duration,
    /// How often a node's share of the ring is sampled, in milliseconds
    #[arg(long, env, default_value = "1000", value_name = "MS", value_parser = millis)]
    weight_update_ms: Duration,
    /// How long a graceful stop waits for its turn, and for others to take over what the node holds, in milliseconds
    #[arg(long, env, default_value = "8000", value_name = "MS", value_parser = millis)]
    drain_timeout_ms: Duration,
    #[command(flatten)]
    operation: OperationSettings,
}

/// Settings of reads, writes and what is stored.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Operations and storage")]
struct OperationSettings {
    /// Owners asked at one time by one read, 1 to 8
    #[arg(long, env, default_value = "2", value_name = "COUNT", value_parser = whole::<usize>(1, ReplicationFactor::MAX as u64))]
    read_max_fanout: usize,
    /// When one leg of a read is given up, in milliseconds; later if all peers are slow
    #[arg(long, env, default_value = "200", value_name = "MS", value_parser = millis)]
    read_per_try_ms: Duration,
    /// When a second owner is asked: adaptive, or milliseconds
    #[arg(long, env, default_value = "adaptive", value_name = "MS", value_parser = hedge_delay)]
    read_hedge_delay_ms: std::option::Option<Duration>,
    /// Time between further owners, in milliseconds; unset, it is the hedge delay
    #[arg(long, env, value_name = "MS", value_parser = millis)]
    read_hedge_interval_ms: Option<Duration>,
    /// When a read is given up, in milliseconds
    #[arg(long, env, default_value = "3000", value_name = "MS", value_parser = millis)]
    read_timeout_ms: Duration,
    /// When a write is given up, in milliseconds
    #[arg(long, env, default_value = "3000", value_name = "MS", value_parser = millis)]
    write_timeout_ms: Duration,
    /// Bound on the store, book-keeping included, in bytes; also the node's share of the ring; unset, it is what the memory limit
    /// of the process has room for, and without one 1GiB or half of the machine's memory, whichever is less
    #[arg(long, env, value_name = "BYTES", value_parser = bytes::<u64>(CAPACITY_MIN, 1 << 46))]
    capacity_bytes: Option<u64>,
    /// Bound on the number of entries
    #[arg(long, env, default_value = "16000000", value_name = "COUNT", value_parser = whole::<u64>(1, 1 << 40))]
    capacity_entries: u64,
    /// Bound on the writes kept for one peer that has missed them, book-keeping included, in bytes; beyond it they are dropped
    /// and both compare everything; unset, it is 64MiB or a 32nd of the memory limit, whichever is less
    #[arg(long, env, value_name = "BYTES", value_parser = bytes::<u64>(1 << 10, 1 << 40))]
    hint_bytes_max: Option<u64>,
    /// How long such writes are kept at most, in milliseconds; not above 600000, after which deletions are forgotten
    #[arg(long, env, default_value = "600000", value_name = "MS", value_parser = millis_to(HINT_AGE_MS_MAX))]
    hint_age_max_ms: Duration,
    /// Expiry of values written with ttl_ms 0, in milliseconds; -1 never
    #[arg(long, env, default_value = "-1", value_name = "MS", allow_hyphen_values = true, value_parser = default_ttl)]
    default_ttl_ms: std::option::Option<Duration>,
    // A key is half a request's head at most, and a value one frame between peers.
    /// Longest key, in bytes
    #[arg(long, env, default_value = "4KiB", value_name = "BYTES", value_parser = bytes::<usize>(1, 16 << 10))]
    key_bytes_max: usize,
    /// Largest value, in bytes
    #[arg(long, env, default_value = "2MiB", value_name = "BYTES", value_parser = bytes::<usize>(1, 64 << 20))]
    value_bytes_max: usize,
}

/// A request in flight to a peer takes about so much beside its frame, its value being small.
const FLIGHT_BYTES: usize = 1 << 10;

impl MeshSettings {
    /// The configuration of a node reached at `public_addr`, which is also its name, without seeds. Nothing after a mistake.
    pub fn config(&self, public_addr: &str, host: &Host, mistakes: &mut Mistakes) -> Option<Config> {
        let (operation, base) = (&self.operation, Config::new(public_addr));
        let replicas = ReplicationFactor::new(self.replication_factor).ok()?;
        let Ok(concern) = WriteConcern::new(self.write_concern, replicas) else {
            let expected = format!("expected 1 to REPLICATION_FACTOR, which is {}", replicas.get());
            mistakes.refuse("WRITE_CONCERN", self.write_concern, expected);
            return None;
        };
        let Capacity { bytes: bytes_max, hint_bytes_max } =
            host.capacity(operation.capacity_bytes, operation.hint_bytes_max, mistakes);
        // Tombstones may have to be kept for as long as a member is away: they must not take all of a small store.
        let tombstones_max = base.store.tombstones_max.min(bytes_max / BYTES_PER_TOMBSTONE_MIN);
        let peer_queue_bytes_max = host.peer_queue_bytes_max(base.peer_queue_bytes_max);
        Some(Config {
            mesh: self.cache_name.clone(),
            replicas,
            concern,
            gossip_interval: self.gossip_interval_ms,
            suspicion: self.suspicion_after_ms,
            forget_after: self.forget_after,
            weight_update: self.weight_update_ms,
            drain_timeout: self.drain_timeout_ms,
            read_fanout_max: operation.read_max_fanout,
            read_per_try: operation.read_per_try_ms,
            hedge_delay: operation.read_hedge_delay_ms,
            hedge_interval: operation.read_hedge_interval_ms,
            read_timeout: operation.read_timeout_ms,
            write_timeout: operation.write_timeout_ms,
            store: StoreConfig {
                bytes_max,
                entries_max: operation.capacity_entries,
                tombstones_max,
                ..base.store.clone()
            },
            hints: HintLimits { bytes_max: hint_bytes_max, age_max: operation.hint_age_max_ms },
            default_ttl: operation.default_ttl_ms,
            key_bytes_max: operation.key_bytes_max,
            value_bytes_max: operation.value_bytes_max,
            peer_in_flight_max: base.peer_in_flight_max.min(peer_queue_bytes_max / FLIGHT_BYTES),
            peer_queue_bytes_max,
            seed: rand::random(),
            ..base
        })
    }
}

/// 1 to 64 letters, digits, dots, dashes and underscores.
fn mesh_name(text: &str) -> Result<String, &'static str> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_name = (1..=64).contains(&text.len()) && text.bytes().all(is_good);
    is_name.then(|| text.to_owned()).ok_or("expected 1 to 64 letters, digits, dots, dashes and underscores")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use settings::Exit;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        mesh: MeshSettings,
    }

    fn config(arguments: &[&str]) -> Result<Config, Exit> {
        let arguments = ["test"].iter().chain(arguments).map(OsString::from);
        settings::parse(arguments, |flags: Flags, mistakes| flags.mesh.config("a:1", &Host::unlimited(), mistakes))
    }

    #[test]
    fn defaults_are_those_of_the_mesh() {
        let ours = config(&[]).map(|config| format!("{:?}", Config { seed: 0, ..config }));
        assert_eq!(ours.ok(), Some(format!("{:?}", Config::new("a:1"))));
        let age_max = Config::new("a:1").store.tombstone_age_min;
        assert_eq!(age_max, Duration::from_millis(HINT_AGE_MS_MAX), "hints go before tombstones");
    }

    #[test]
    fn a_mesh_has_a_name() {
        assert_eq!(config(&["--cache-name=blue-2"]).map(|config| config.mesh).ok().as_deref(), Some("blue-2"));
        for bad in ["a b", "ä", &"x".repeat(65)] {
            assert!(config(&["--cache-name", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_small_store_keeps_fewer_tombstones() {
        let tombstones = config(&["--capacity-bytes=1MiB"]).map(|config| config.store.tombstones_max);
        assert_eq!(tombstones.ok(), Some(1024));
    }

    #[test]
    fn a_write_concern_has_to_fit_its_replication_factor() {
        let message = |arguments: &[&str]| config(arguments).err().map(|exit| exit.to_string()).unwrap_or_default();
        let expected = "WRITE_CONCERN=3: expected 1 to REPLICATION_FACTOR, which is 2";
        assert_eq!(message(&["--replication-factor=2", "--write-concern=3"]), expected);
        // What it has to fit is unknown.
        let expected = "REPLICATION_FACTOR=9: expected a whole number from 1 to 8";
        assert_eq!(message(&["--replication-factor=9", "--write-concern=4"]), expected);
    }
}
