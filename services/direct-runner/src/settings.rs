//! The direct runner's settings: the load, and what its three nodes are told.

use std::ffi::OsString;

use clap::Parser;
use load::{LoadSettings, ValueTtls};
use mesh::Config;
use mesh_settings::{Host, MeshSettings};
use settings::{Exit, Memory, Mistakes};

/// Nodes in this process.
const NODES: u64 = 3;

/// Drives GET and SET load against three cache nodes in this process, over real QUIC on loopback but without HTTP.
///
/// Every setting is an environment variable and a flag of the same name. Exit code: 0 pass, 1 a guarantee or an
/// objective was broken, 2 the settings or the run are invalid.
#[derive(Parser)]
#[command(version = env!("MESH_BENCH_VERSION"), name = "direct-runner", max_term_width = 80)]
struct Flags {
    #[command(flatten)]
    load: LoadSettings,
    /// Expiry of written values in milliseconds: -1 never, above 0 fixed, 0 as the node is configured; or lifetimes with weights such
    /// as 1000:20,60000:30,-1:50
    #[arg(long, env, default_value = "-1", allow_hyphen_values = true, value_parser = <ValueTtls as std::str::FromStr>::from_str, help_heading = "Load")]
    set_ttl_ms: ValueTtls,
    #[command(flatten)]
    mesh: MeshSettings,
}

/// Everything the direct runner was told.
pub(crate) struct Settings {
    /// The load.
    pub(crate) load: LoadSettings,
    /// Expiry of written values.
    pub(crate) set_ttl_ms: ValueTtls,
    /// CACHE_AUTH, or one drawn, since nobody else can join.
    pub(crate) secret: String,
    /// What each node is told, but for its name, its address and its seeds.
    pub(crate) node: Config,
}

impl Settings {
    /// Reads arguments (the first is the program's name) and the environment.
    ///
    /// # Errors
    /// [`Exit`], ready to be shown.
    pub(crate) fn from_args(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        settings::parse(arguments, Flags::build)
    }
}

impl Flags {
    fn build(self, mistakes: &mut Mistakes) -> Option<Settings> {
        let Self { load, set_ttl_ms, mesh } = self;
        load.check_together(load.kill_after.0.is_some(), mistakes);
        if let Some(after) = load.kill_after.0.filter(|after| *after >= load.duration) {
            let expected = format!("expected less than DURATION, which is {:?}", load.duration);
            mistakes.refuse("KILL_AFTER", format!("{after:?}"), expected);
        }
        if load.shard.is_some() {
            mistakes.refuse(
                "SHARD",
                "set",
                "expected none: the nodes of this process are loaded by it alone".to_owned(),
            );
        }
        let host =
            Host { memory: Memory::of_this_process(), nodes: NODES, connections_max: 0, body_bytes_max: Some(0) };
        let node = mesh.config("", &host, mistakes)?;
        let secret = mesh.cache_auth.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        Some(Settings { load, set_ttl_ms, secret, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(arguments: &[&str]) -> String {
        let parsed = Settings::from_args(["direct-runner"].iter().chain(arguments).map(OsString::from));
        parsed.err().map(|exit| exit.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_nodes_take_what_nodes_take() {
        for value in ["adaptive", "0", "3"] {
            assert_eq!(message(&[&format!("--read-hedge-delay-ms={value}")]), "");
        }
        assert!(message(&["--write-concern=4"]).starts_with("WRITE_CONCERN=4: expected"));
        assert!(message(&["--read-timeout-ms=0"]).starts_with("READ_TIMEOUT_MS=0: expected"));
    }

    #[test]
    fn help_fits_80_columns() {
        let help = message(&["--help-all"]);
        let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(help.contains("--rate <RATE>") && wide.is_empty(), "{wide:#?}");
    }

    #[test]
    fn mistakes_of_all_parts_are_reported_together() {
        let text =
            message(&["--kill-after=60s", "--write-concern=4", "--set-ratio=60", "--delete-ratio=60", "--keys=0"]);
        for part in
            ["4 settings", "KEYS=0: ", "DELETE_RATIO=60: ", "WRITE_CONCERN=4: ", "KILL_AFTER=60s: expected less"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
