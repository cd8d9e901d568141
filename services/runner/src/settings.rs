//! The runner's own settings.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use load::{LoadSettings, duration, positive_duration};

use crate::trace_settings::TraceFlags;

/// Drives GET and SET load over HTTP against a cache mesh, breaks nodes, checks what it reads, and tells what happened.
///
/// Every setting is an environment variable and a flag of the same name. Exit code: 0 pass, 1 a guarantee or an
/// objective was broken, 2 the settings or the run are invalid.
#[derive(Parser, Clone, Debug)]
#[command(version, name = "runner")]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) load: LoadSettings,
    #[command(flatten)]
    pub(crate) http: HttpSettings,
    #[command(flatten)]
    pub(crate) kill: KillSettings,
    #[command(flatten)]
    pub(crate) local: LocalSettings,
    #[command(flatten)]
    pub(crate) traces: TraceFlags,
    /// The TCP port of GET /metrics, for Prometheus; 0 is off
    #[arg(long, env, default_value_t = 0)]
    pub(crate) metrics_port: u16,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What else the binary can do.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Answers every HTTP request with the same 24 bytes, as fast as this machine can: the yardstick for servers
    NullServer {
        /// The TCP port on 127.0.0.1
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Threads that answer
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=255))]
        threads: u16,
    },
}

/// How nodes are reached.
#[derive(Args, Clone, Debug)]
pub(crate) struct HttpSettings {
    /// The nodes, a comma-separated list of http://host:port
    #[arg(long, env, default_value = "http://node1:8081,http://node2:8082,http://node3:8083", value_delimiter = ',',
        value_parser = TargetUrl::from_str)]
    pub(crate) targets: Vec<TargetUrl>,
    /// How many targets must answer at the start; 0 is all of them
    #[arg(long, env, default_value_t = 0)]
    pub(crate) targets_min: usize,
    /// How long to wait at the start until the targets are ready
    #[arg(long, env, default_value = "15s", value_parser = duration)]
    pub(crate) ready_within: Duration,
    /// failover retries once on another node and skips dead ones; strict keeps sending to dead targets and counts errors
    #[arg(long, env, value_enum, default_value_t = Entry::Failover)]
    pub(crate) entry: Entry,
    /// A node that has not answered for this long is tried no further: the request goes to another one
    #[arg(long, env, default_value = "250ms", value_parser = positive_duration)]
    pub(crate) failover_after: Duration,
    /// A request fails after this long
    #[arg(long, env, default_value = "5s", value_parser = positive_duration)]
    pub(crate) request_timeout: Duration,
    /// Expiry of written values in milliseconds: -1 never, above 0 fixed, 0 as the node is configured
    #[arg(long, env, default_value = "0", allow_hyphen_values = true, value_parser = ttl_ms)]
    pub(crate) set_ttl_ms: i64,
}

/// The fault.
#[derive(Args, Clone, Debug)]
pub(crate) struct KillSettings {
    /// Which node is killed at KILL_AFTER
    #[arg(long, env, value_enum, default_value_t = KillMode::None)]
    pub(crate) kill_mode: KillMode,
    /// The node that KILL_MODE=target kills, as written in TARGETS, or its number from 1; empty is the first
    #[arg(long, env, default_value = "", hide_default_value = true)]
    pub(crate) kill_target: String,
    /// The nodes' KILL_TOKEN
    #[arg(long, env, default_value = "", hide_default_value = true, hide_env_values = true)]
    pub(crate) kill_token: String,
}

/// Nodes of our own.
#[derive(Args, Clone, Debug)]
pub(crate) struct LocalSettings {
    /// Start this many nodes on loopback instead of using TARGETS, 1 to 16; 0 is off
    #[arg(long, env, default_value = "0", value_parser = clap::value_parser!(u8).range(0..=16))]
    pub(crate) local: u8,
    /// The node binary; empty is the one beside this program
    #[arg(long, env, default_value = "", hide_default_value = true)]
    pub(crate) node_bin: String,
    /// WORKERS of each node started here
    #[arg(long, env, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=255))]
    pub(crate) node_workers: u16,
    /// Where the logs of the nodes started here go
    #[arg(long, env, default_value = "target/bench")]
    pub(crate) log_dir: PathBuf,
}

/// What happens to a request whose node is gone.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Failover,
    Strict,
}

/// Which node is killed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillMode {
    None,
    Random,
    Target,
}

/// `http://host:port`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetUrl {
    /// `host:port`.
    pub(crate) authority: String,
}

impl TargetUrl {
    pub(crate) fn new(authority: &str) -> Self {
        Self { authority: authority.to_owned() }
    }

    /// As it is shown and asked.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }
}

impl FromStr for TargetUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let authority = text.trim().strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let valid = authority.is_some_and(|authority| {
            let port = authority.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse());
            matches!(port, Some(Ok(1_u16..))) && !authority.contains(['/', '?', '#', '@', ' '])
        });
        match authority {
            Some(authority) if valid => Ok(Self::new(authority)),
            _ => Err("expected http://host:port, comma-separated".to_owned()),
        }
    }
}

fn ttl_ms(text: &str) -> Result<i64, String> {
    text.parse()
        .ok()
        .filter(|ttl_ms| *ttl_ms >= -1)
        .ok_or_else(|| "expected -1, 0 or a number of milliseconds".to_owned())
}

impl Settings {
    /// Which node is to be killed, as a place in a list of `targets`.
    ///
    /// # Errors
    /// One line: the variable, its value and what was expected.
    pub(crate) fn victim(&self, targets: &[TargetUrl], dice: usize) -> Result<Option<usize>, String> {
        if self.kill.kill_mode == KillMode::None {
            return Ok(None);
        }
        let Some(after) = self.load.kill_after.0 else {
            return Err("KILL_AFTER=: expected a duration such as 20s, because KILL_MODE is set".to_owned());
        };
        if after >= self.load.duration {
            return Err(format!(
                "KILL_AFTER={after:?}: expected less than DURATION, which is {:?}",
                self.load.duration
            ));
        }
        if self.kill.kill_mode == KillMode::Random {
            return Ok(Some(dice % targets.len()));
        }
        let wanted = self.kill.kill_target.trim_end_matches('/');
        let number = wanted.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let named = targets.iter().position(|target| target.url() == wanted || target.authority == wanted);
        match named.or(number) {
            _ if wanted.is_empty() => Ok(Some(0)),
            Some(index) if index < targets.len() => Ok(Some(index)),
            _ => Err(format!("KILL_TARGET={wanted}: expected one of TARGETS, or a number from 1 to {}", targets.len())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::ffi::OsString;

    use load::parse_settings;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        parse_settings(["runner"].iter().chain(arguments).map(OsString::from))
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let settings = parse(&[]).unwrap();
        let targets: Vec<_> = settings.http.targets.iter().map(TargetUrl::url).collect();
        assert_eq!(targets, ["http://node1:8081", "http://node2:8082", "http://node3:8083"]);
        assert_eq!((settings.http.set_ttl_ms, settings.kill.kill_mode), (0, KillMode::None));
        assert_eq!(settings.victim(&settings.http.targets, 0), Ok(None));
    }

    #[test]
    fn bad_targets_are_named() {
        for bad in [
            "",
            "node1",
            "node1:80",
            "https://a:1",
            "http://a",
            "http://:80",
            "http://a:0",
            "http://a:99999",
            "http://a:1/x",
        ] {
            let message = parse(&[&format!("--targets=http://a:1,{bad}")]).unwrap_err();
            assert!(
                message.starts_with("TARGETS=") && message.contains("expected http://host:port"),
                "{bad}: {message}"
            );
        }
    }

    #[test]
    fn a_kill_needs_a_time_and_a_target_that_exists() {
        let victim = |arguments: &[&str]| {
            let settings = parse(arguments)?;
            settings.victim(&settings.http.targets, 7)
        };
        assert!(victim(&["--kill-mode=random"]).unwrap_err().starts_with("KILL_AFTER=:"));
        assert!(victim(&["--kill-mode=random", "--kill-after=60s"]).unwrap_err().contains("less than DURATION"));
        assert_eq!(victim(&["--kill-mode=random", "--kill-after=1s"]), Ok(Some(1)));
        assert_eq!(victim(&["--kill-mode=target", "--kill-after=1s"]), Ok(Some(0)));
        let target = |target| victim(&["--kill-mode=target", "--kill-after=1s", "--kill-target", target]);
        assert_eq!(target("http://node2:8082"), Ok(Some(1)));
        assert_eq!(target("3"), Ok(Some(2)));
        assert!(target("4").unwrap_err().starts_with("KILL_TARGET=4:"));
        assert!(parse(&["--kill-mode=sometimes"]).unwrap_err().starts_with("KILL_MODE=sometimes: expected none or"));
        assert!(parse(&["--set-ttl-ms=-2"]).unwrap_err().starts_with("SET_TTL_MS=-2:"));
    }
}
