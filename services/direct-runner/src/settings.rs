//! The direct runner's settings: the load, and what its three nodes are told.

use std::{str::FromStr, time::Duration};

use clap::{Args, Parser};
use load::{LoadSettings, Optional};
use mesh::Config;
use mesh_proto::{ReplicationFactor, WriteConcern};

/// Drives GET and SET load against three cache nodes in this process, over real QUIC on loopback but without HTTP.
///
/// Every setting is an environment variable and a flag of the same name. Exit code: 0 pass, 1 a guarantee or an
/// objective was broken, 2 the settings or the run are invalid.
#[derive(Parser, Clone, Debug)]
#[command(version, name = "direct-runner")]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) load: LoadSettings,
    #[command(flatten)]
    pub(crate) node: NodeSettings,
}

/// What the nodes are told; names and defaults are those of the node.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeSettings {
    /// Expiry of written values in milliseconds: -1 never, above 0 fixed, 0 as the node is configured (never)
    #[arg(long, env, default_value = "-1", allow_hyphen_values = true, value_parser = ttl_ms)]
    pub(crate) set_ttl_ms: i64,
    /// The cluster secret; empty draws one, since nobody else can join
    #[arg(long, env, default_value = "", hide_default_value = true, hide_env_values = true)]
    pub(crate) cache_auth: String,
    /// Owners of each key, 1 to 8
    #[arg(long, env, default_value = "3")]
    replication_factor: u64,
    /// Owners that must have applied a write before it is acknowledged, 1 to REPLICATION_FACTOR
    #[arg(long, env, default_value = "2")]
    write_concern: u64,
    /// Reads under way at one time for one GET
    #[arg(long, env, default_value = "2", value_parser = clap::value_parser!(u8).range(1..=8))]
    read_max_fanout: u8,
    /// How long one owner may take for a read, in milliseconds
    #[arg(long, env, default_value = "200", value_parser = millis)]
    read_per_try_ms: Duration,
    /// When a second owner is asked, in milliseconds; empty adapts to what the owners usually take
    #[arg(long, env, default_value = "", hide_default_value = true, value_parser = Optional::<u64>::from_str)]
    read_hedge_delay_ms: Optional<u64>,
    /// When further owners are asked, in milliseconds; empty is the hedge delay
    #[arg(long, env, default_value = "", hide_default_value = true, value_parser = Optional::<u64>::from_str)]
    read_hedge_interval_ms: Optional<u64>,
    /// How long a GET may take, in milliseconds
    #[arg(long, env, default_value = "3000", value_parser = millis)]
    read_timeout_ms: Duration,
    /// How long a SET may take, in milliseconds
    #[arg(long, env, default_value = "3000", value_parser = millis)]
    write_timeout_ms: Duration,
    /// How long a suspect has to answer before it is called dead, in milliseconds
    #[arg(long, env, default_value = "2000", value_parser = millis)]
    suspicion_after_ms: Duration,
    /// How often nodes publish their weight, in milliseconds
    #[arg(long, env, default_value = "1000", value_parser = millis)]
    weight_update_ms: Duration,
    /// The gossip round, in milliseconds
    #[arg(long, env, default_value = "500", value_parser = millis)]
    gossip_interval_ms: Duration,
}

impl NodeSettings {
    /// One node's configuration.
    ///
    /// # Errors
    /// One line: the variable, its value and what was expected.
    pub(crate) fn config(&self, name: &str, addr: &str, seeds: &[String]) -> Result<Config, String> {
        let replicas = ReplicationFactor::new(self.replication_factor).map_err(|error| error.to_string())?;
        let concern = WriteConcern::new(self.write_concern, replicas).map_err(|error| error.to_string())?;
        Ok(Config {
            name: name.to_owned(),
            seeds: seeds.to_vec(),
            replicas,
            concern,
            read_fanout_max: self.read_max_fanout.into(),
            read_per_try: self.read_per_try_ms,
            hedge_delay: self.read_hedge_delay_ms.0.map(Duration::from_millis),
            hedge_interval: self.read_hedge_interval_ms.0.map(Duration::from_millis),
            read_timeout: self.read_timeout_ms,
            write_timeout: self.write_timeout_ms,
            suspicion: self.suspicion_after_ms,
            weight_update: self.weight_update_ms,
            gossip_interval: self.gossip_interval_ms,
            seed: rand::random(),
            ..Config::new(addr)
        })
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    let millis = text.parse().ok().filter(|millis| *millis > 0).map(Duration::from_millis);
    millis.ok_or_else(|| "expected a whole number of milliseconds above 0".to_owned())
}

fn ttl_ms(text: &str) -> Result<i64, String> {
    text.parse()
        .ok()
        .filter(|ttl_ms| *ttl_ms >= -1)
        .ok_or_else(|| "expected -1, 0 or a number of milliseconds".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::ffi::OsString;

    use load::parse_settings;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        parse_settings(["direct-runner"].iter().chain(arguments).map(OsString::from))
    }

    #[test]
    fn defaults_are_the_nodes() {
        let settings = parse(&[]).unwrap();
        let (ours, theirs) = (settings.node.config("a:1", "a:1", &[]).unwrap(), Config::new("a:1"));
        assert_eq!(settings.node.set_ttl_ms, -1);
        assert_eq!(format!("{:?}", Config { seed: 0, ..ours }), format!("{theirs:?}"));
    }

    #[test]
    fn more_acknowledgements_than_replicas_are_refused() {
        let settings = parse(&["--write-concern=4"]).unwrap();
        let message = settings.node.config("a:1", "a:1", &[]).unwrap_err();
        assert!(message.starts_with("WRITE_CONCERN=4: expected"), "{message}");
        assert!(parse(&["--read-timeout-ms=0"]).unwrap_err().starts_with("READ_TIMEOUT_MS=0: expected"));
    }
}
