//! The runner's own settings.

use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use load::{FaultPlan, LoadSettings, NodeIndex, PlannedFault, StoredRuns, ValueTtls};
use observability::TraceSettings;
use settings::{
    Exit, Mistake, Mistakes, bearer_token, boolean, check_https_files, duration, positive_duration, url, whole,
};

use crate::recorded;
pub(crate) use crate::target_url::{Login, Scheme, TargetUrl};

/// memcached takes a longer time to live for a date.
const MEMCACHED_TTL_MS_MAX: i64 = 30 * 24 * 60 * 60 * 1000;

/// Drives GET and SET load over HTTP against a cache mesh, breaks nodes, checks what it reads, and tells what happened.
///
/// Every setting is an environment variable and a flag of the same name. Exit code: 0 pass, 1 a guarantee or an
/// objective was broken, 2 the settings or the run are invalid.
#[derive(Parser, Clone, Debug)]
#[command(version = env!("MESH_BENCH_VERSION"), name = "runner", max_term_width = 80, args_override_self = true)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) load: LoadSettings,
    #[command(flatten)]
    pub(crate) http: TargetSettings,
    #[command(flatten)]
    pub(crate) kill: KillSettings,
    #[command(flatten)]
    pub(crate) local: LocalSettings,
    #[command(flatten)]
    pub(crate) traces: TraceSettings,
    #[command(flatten)]
    pub(crate) observers: ObserverSettings,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What else the binary can do.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Runs as a file says: TOML, in which keys are settings in lower case; flags and the environment win over it
    Run {
        /// The file
        file: PathBuf,
        /// Further flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
    /// Runs as a stored run did, with its seed; only flags win over it
    Rerun {
        /// Its folder, its result.json, or its id or the end of that in RESULTS
        run: String,
        /// Further flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
    /// Makes the load with several runners on this machine, each a shard, and one report of all
    LocalShards {
        /// How many
        #[arg(value_parser = whole::<u32>(1, 64))]
        count: u32,
    },
    /// Makes one report of the shards of a run, from their folders or files
    Merge {
        /// Where their results are
        #[arg(required = true)]
        shards: Vec<PathBuf>,
    },
    #[command(flatten)]
    Stored(StoredRuns),
    /// Answers every HTTP request with the same bytes, as fast as this machine can: the yardstick for servers
    NullServer {
        /// The TCP port on 127.0.0.1
        #[arg(long, default_value = "8080", value_parser = whole::<u16>(1, u16::MAX.into()))]
        port: u16,
        /// Threads that answer
        #[arg(long, default_value = "1", value_parser = whole::<u16>(1, 255))]
        threads: u16,
        /// Bytes of each answer's body, 1 to 16 MiB
        #[arg(long, default_value = "24", value_parser = whole::<usize>(1, 16 << 20))]
        value_bytes: usize,
    },
}

/// How nodes are reached.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Nodes")]
pub(crate) struct TargetSettings {
    /// What is loaded, a comma-separated list: nodes, http://host:port or https://host:port; a Redis server or nodes of one Redis Cluster,
    /// redis://host:port or redis://user:password@host:port; or memcached servers, memcached://host:port
    #[arg(long, env, default_value = "http://node1:8081,http://node2:8082,http://node3:8083", value_delimiter = ',',
        value_parser = TargetUrl::from_str)]
    pub(crate) targets: Vec<TargetUrl>,
    /// The user of redis:// targets that name none; empty is Redis's default user
    #[arg(long, env, default_value = "", hide_default_value = true)]
    pub(crate) target_user: String,
    /// The password of redis:// targets that name none
    #[arg(long, env, default_value = "", hide_default_value = true, hide_env_values = true)]
    pub(crate) target_password: String,
    /// PEM file with the authorities that certificates of https:// targets and PROMETHEUS_URL come from; unset, the system's
    #[arg(long, env, value_name = "FILE")]
    pub(crate) http_tls_ca: Option<PathBuf>,
    /// The nodes' HTTP_TOKEN, sent with each GET, SET and DELETE
    #[arg(long, env, hide_env_values = true, value_name = "SECRET", value_parser = bearer_token)]
    pub(crate) http_token: Option<String>,
    /// The nodes' HTTP_ADMIN_TOKEN, sent with all other requests
    #[arg(long, env, hide_env_values = true, value_name = "SECRET", value_parser = bearer_token)]
    pub(crate) http_admin_token: Option<String>,
    /// How many targets must answer at the start; 0 is all of them
    #[arg(long, env, default_value = "0", value_parser = whole::<usize>(0, 255))]
    pub(crate) targets_min: usize,
    /// How long to wait at the start until the targets are ready
    #[arg(long, env, default_value = "15s", value_parser = duration)]
    pub(crate) ready_within: Duration,
    /// failover retries once on another node and skips dead ones; strict keeps sending to dead targets and counts errors
    #[arg(long, env, value_enum, default_value_t = Entry::Failover)]
    pub(crate) entry: Entry,
    /// Whether the kernel is asked when it received each answer, so that the time from then on is told as the client's queue
    #[arg(long, env, action = ArgAction::Set, default_value = "on", value_name = "BOOL", num_args = 0..=1, default_missing_value = "on", value_parser = boolean)]
    pub(crate) kernel_timestamps: bool,
    /// A node that has not answered for this long, nor for three times what 99 % of such requests take now, is tried no further:
    /// the request goes to another one
    #[arg(long, env, default_value = "250ms", value_parser = positive_duration)]
    pub(crate) failover_after: Duration,
    /// How many requests may go to another node because theirs is slow, in percent of all operations, 0 to 100; those whose
    /// node is gone always do
    #[arg(long, env, default_value = "10", value_parser = whole::<u32>(0, 100))]
    pub(crate) extra_tries_max_percent: u32,
    /// A request fails after this long
    #[arg(long, env, default_value = "5s", value_parser = positive_duration)]
    pub(crate) request_timeout: Duration,
    /// strict makes the run invalid if a node counts other operations than the client; report only says so, for nodes that
    /// others use too
    #[arg(long, env, value_enum, default_value_t = Reconcile::Strict)]
    pub(crate) reconcile: Reconcile,
    /// Expiry of written values in milliseconds: -1 never, above 0 fixed, 0 as the node is configured; or lifetimes with weights such
    /// as 1000:20,60000:30,-1:50
    #[arg(long, env, default_value = "0", allow_hyphen_values = true, value_parser = ValueTtls::from_str)]
    pub(crate) set_ttl_ms: ValueTtls,
}

/// The fault.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Faults")]
pub(crate) struct KillSettings {
    /// Which node is killed at KILL_AFTER
    #[arg(long, env, value_enum, default_value_t = KillMode::None)]
    pub(crate) kill_mode: KillMode,
    /// The node that KILL_MODE=target kills, as written in TARGETS, or its number from 1; unset, it is the first
    #[arg(long, env)]
    pub(crate) kill_target: Option<String>,
    /// Faults, each at its time: a list such as `at=10s partition node2 for=5s; at=20s slow node1 50ms for=5s`
    ///
    /// Separated by semicolons or commas; at= is after the load began, for= is how long:
    ///
    ///   partition WHERE for=TIME           nothing gets through
    ///   one_way NODE->NODE for=TIME        nothing gets through this way
    ///   bridge NODE<->NODE for=TIME        the two hear each other only through others
    ///   flap WHERE every=TIME for=TIME     a partition in the first half of each period
    ///   loss WHERE PERCENT% for=TIME       packets are lost
    ///   delay WHERE TIME for=TIME          packets are late
    ///   reorder WHERE TIME for=TIME        packets are late by up to this: they overtake
    ///   duplicate WHERE PERCENT% for=TIME  packets arrive twice
    ///   slow NODE TIME for=TIME            all that it sends is late, to clients too
    ///   clock NODE +TIME for=TIME          its clock is ahead, or behind with -TIME
    ///   pause NODE for=TIME                it answers nobody
    ///   crash NODE                         it dies at once
    ///   stop NODE                          it ends as on SIGTERM
    ///   storm NODE TIMES                   it dies, and again as soon as it answers
    ///
    /// With times=TIMES apart=TIME a fault strikes several times, each at the earliest so long
    /// after the one before and once the mesh has been in sync for 5s.
    ///
    /// NODE is one of TARGETS, its host, or its place there, as 2 or node2. WHERE is NODE
    /// for all its links, NODE+NODE for a group and the rest, NODE<->NODE for one link, or
    /// NODE->NODE for one way of it. The nodes need ALLOW_KILL, and KILL_TOKEN must be
    /// theirs. What is in force when the load ends is healed. A fault that leaves no trace
    /// in the nodes' own counters makes the run invalid.
    #[arg(long, env, default_value = "", value_parser = FaultPlan::from_str, hide_default_value = true, verbatim_doc_comment)]
    pub(crate) faults: FaultPlan,
    /// The nodes' KILL_TOKEN
    #[arg(long, env, default_value = "", hide_default_value = true, hide_env_values = true)]
    pub(crate) kill_token: String,
}

/// Nodes of our own.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Local nodes")]
pub(crate) struct LocalSettings {
    /// Start this many nodes on loopback instead of using TARGETS, 1 to 16; 0 is off
    #[arg(long, env, default_value = "0", value_parser = whole::<u8>(0, 16))]
    pub(crate) local: u8,
    /// The node binary; unset, it is the one beside this program
    #[arg(long, env)]
    pub(crate) node_bin: Option<PathBuf>,
    /// WORKERS of each node started here; unset, it is an equal share of the cores
    #[arg(long, env, value_parser = whole::<u16>(1, 255))]
    pub(crate) node_workers: Option<u16>,
    /// HTTP_TLS_CERT of the nodes started here, for 127.0.0.1; needs HTTP_TLS_KEY, and HTTP_TLS_CA unless the system knows its authority
    #[arg(long, env, value_name = "FILE")]
    pub(crate) http_tls_cert: Option<PathBuf>,
    /// HTTP_TLS_KEY of the nodes started here
    #[arg(long, env, value_name = "FILE")]
    pub(crate) http_tls_key: Option<PathBuf>,
    /// Where the logs of the nodes started here go
    #[arg(long, env, default_value = "target/bench")]
    pub(crate) log_dir: PathBuf,
}

/// Who looks on.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Metrics and links")]
pub(crate) struct ObserverSettings {
    /// The TCP port of GET /metrics, for Prometheus; 0 is off
    #[arg(long, env, default_value = "0", value_parser = whole::<u16>(0, u16::MAX.into()))]
    pub(crate) metrics_port: u16,
    /// The Prometheus that scrapes the nodes under the addresses in TARGETS, to compare its p99 with the client's, such as
    /// http://localhost:9090; unset, nothing is compared
    #[arg(long, env, value_parser = url)]
    pub(crate) prometheus_url: Option<String>,
    /// Where a browser finds the traces, for links in the summary
    #[arg(long, env, default_value = "http://localhost:16686", value_parser = url)]
    pub(crate) jaeger_url: String,
}

/// What happens to a request whose node is gone.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Failover,
    Strict,
}

/// What counts of client and nodes are for that do not agree.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reconcile {
    Strict,
    Report,
}

/// Which node is killed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillMode {
    None,
    Random,
    Target,
}

impl KillMode {
    /// As it is written.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Random => "random",
            Self::Target => "target",
        }
    }
}

impl Settings {
    /// Reads arguments (the first is the program's name) and the environment.
    ///
    /// # Errors
    /// [`Exit`], ready to be shown.
    pub(crate) fn from_args(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let settings = Self::parse_all(arguments.clone())?;
        let (name, recorded, flags) = match &settings.command {
            Some(Command::Run { file, flags }) => ("run", recorded::of_file::<Self>(file)?, flags),
            Some(Command::Rerun { run, flags }) => {
                ("rerun", recorded::of_run::<Self>(run, settings.load.results.as_deref())?, flags)
            }
            _ => return Ok(settings),
        };
        let mut own = arguments.into_iter().take_while(|argument| argument != name);
        let program = own.next();
        Self::parse_all(program.into_iter().chain(recorded).chain(own).chain(flags.iter().cloned()))
    }

    fn parse_all(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        settings::parse(arguments, |settings: Self, mistakes| {
            settings.check_together(mistakes);
            Some(settings)
        })
    }

    /// Checks settings that depend on one another.
    fn check_together(&self, mistakes: &mut Mistakes) {
        let has_faults = self.kill.kill_mode != KillMode::None || !self.kill.faults.is_empty();
        self.load.check_together(has_faults, mistakes);
        check_other_caches(self, mistakes);
        check_https_files(self.local.http_tls_cert.as_deref(), self.local.http_tls_key.as_deref(), mistakes);
        let nobody = vec![TargetUrl::new("127.0.0.1:1"); self.local.local.into()];
        let targets = if nobody.is_empty() { &self.http.targets } else { &nobody };
        self.victim(targets).err().into_iter().for_each(|mistake| mistakes.push(mistake));
        self.faults(targets).err().into_iter().for_each(|mistake| mistakes.push(mistake));
    }

    /// Which node is to be killed, as a place in a list of `targets`.
    ///
    /// # Errors
    /// What was expected.
    pub(crate) fn victim(&self, targets: &[TargetUrl]) -> Result<Option<NodeIndex>, Mistake> {
        if self.kill.kill_mode == KillMode::None {
            return Ok(None);
        }
        let Some(after) = self.load.kill_after.0 else {
            return Err(Mistake::new("KILL_AFTER", "off", "expected a duration such as 20s, because KILL_MODE is set"));
        };
        if after >= self.load.duration {
            let expected = format!("expected less than DURATION, which is {:?}", self.load.duration);
            return Err(Mistake::new("KILL_AFTER", format!("{after:?}"), expected));
        }
        if self.kill.kill_mode == KillMode::Random {
            return Ok(None);
        }
        let Some(wanted) = &self.kill.kill_target else { return Ok(Some(NodeIndex(0))) };
        let expected = || format!("expected one of TARGETS, or a number from 1 to {}", targets.len());
        find_target(targets, wanted)
            .map(|node| Some(NodeIndex(node)))
            .ok_or_else(|| Mistake::new("KILL_TARGET", wanted, expected()))
    }

    /// The faults of FAULTS, with the nodes that they are about as places in a list of `targets`.
    ///
    /// # Errors
    /// The fault, and what was expected.
    pub(crate) fn faults(&self, targets: &[TargetUrl]) -> Result<Vec<PlannedFault>, Mistake> {
        let KillSettings { faults, kill_token, .. } = &self.kill;
        if !faults.is_empty() && kill_token.is_empty() && self.local.local == 0 {
            return Err(Mistake::new("KILL_TOKEN", "", "expected the nodes' token, because FAULTS is set"));
        }
        let names: Vec<_> = targets.iter().map(TargetUrl::url).collect();
        let found = faults.resolve(&names, self.load.duration, |name| find_target(targets, name));
        found.map_err(|reason| Mistake::new("FAULTS", faults, reason.trim_start_matches("FAULTS: ")))
    }
}

/// Refuses what these targets cannot be told, and targets that are of several kinds.
fn check_other_caches(settings: &Settings, mistakes: &mut Mistakes) {
    let targets = &settings.http.targets;
    let Some(first) = targets.first().filter(|_| settings.local.local == 0) else { return };
    if let Some(other) = targets.iter().find(|target| target.scheme != first.scheme) {
        let all = targets.iter().map(TargetUrl::url).collect::<Vec<_>>().join(",");
        let expected = format!("expected one kind of target, not {} and {}", first.scheme.name(), other.scheme.name());
        return mistakes.refuse("TARGETS", all, expected);
    }
    if first.scheme.is_node() {
        return;
    }
    let name = first.scheme.name();
    let faults = &settings.kill.faults;
    if !faults.is_empty() {
        let expected = format!("expected none, because a {name} target has no HTTP API that orders faults");
        mistakes.refuse("FAULTS", faults, expected);
    }
    if settings.kill.kill_mode != KillMode::None {
        let expected = format!("expected none, because a {name} target has no HTTP API that ends its process");
        mistakes.refuse("KILL_MODE", settings.kill.kill_mode.name(), expected);
    }
    if settings.traces.are_wanted() {
        let expected = format!("expected none, because a {name} target records no traces");
        mistakes.refuse("OTEL_EXPORTER_OTLP_ENDPOINT", "", expected);
    }
    if let Some(url) = &settings.observers.prometheus_url {
        let expected = format!("expected none, because a {name} target counts nothing that could be compared");
        mistakes.refuse("PROMETHEUS_URL", url, expected);
    }
    let ttls = &settings.http.set_ttl_ms;
    let is_taken = |ttl_ms: i64| ttl_ms <= 0 || (ttl_ms % 1000 == 0 && ttl_ms <= MEMCACHED_TTL_MS_MAX);
    if first.scheme == Scheme::Memcached && !ttls.all().all(is_taken) {
        let expected = "expected whole seconds up to 30 days, because memcached counts in these";
        mistakes.refuse("SET_TTL_MS", ttls, expected);
    }
}

/// The target that is meant: by its URL, `host:port`, host if no other has it, or its place from 1 as `2` or `node2`.
fn find_target(targets: &[TargetUrl], name: &str) -> Option<usize> {
    let name = name.trim_end_matches('/');
    let whole = targets.iter().position(|target| target.authority == name || target.url() == name);
    let hosts = || targets.iter().enumerate().filter(|(_, target)| target.host() == name).map(|(index, _)| index);
    let alone = || hosts().next().filter(|_| hosts().count() == 1);
    let place = || name.strip_prefix("node").unwrap_or(name).parse::<usize>().ok()?.checked_sub(1);
    whole.or_else(alone).or_else(place).filter(|index| *index < targets.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use load::NodeIndex;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        let arguments = ["runner"].iter().chain(arguments).map(OsString::from);
        Settings::from_args(arguments).map_err(|exit| exit.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let settings = parse(&[]).unwrap();
        let targets: Vec<_> = settings.http.targets.iter().map(TargetUrl::url).collect();
        assert_eq!(targets, ["http://node1:8081", "http://node2:8082", "http://node3:8083"]);
        assert_eq!((&settings.http.set_ttl_ms, settings.kill.kill_mode), (&ValueTtls::Fixed(0), KillMode::None));
        assert_eq!(settings.victim(&settings.http.targets), Ok(None));
    }

    #[test]
    fn bad_targets_are_named() {
        for bad in ["", "node1", "node1:80", "http://a", "http://:80", "http://a:0", "http://a:99999", "http://a:1/x"] {
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
            Ok::<_, String>(settings.victim(&settings.http.targets).unwrap())
        };
        assert!(victim(&["--kill-mode=random"]).unwrap_err().starts_with("KILL_AFTER=off:"));
        assert!(victim(&["--kill-mode=random", "--kill-after=60s"]).unwrap_err().contains("less than DURATION"));
        assert_eq!(victim(&["--kill-mode=random", "--kill-after=1s"]), Ok(None));
        assert_eq!(victim(&["--kill-mode=target", "--kill-after=1s"]), Ok(Some(NodeIndex(0))));
        let target = |target| victim(&["--kill-mode=target", "--kill-after=1s", "--kill-target", target]);
        assert_eq!(target("http://node2:8082"), Ok(Some(NodeIndex(1))));
        assert_eq!(target("3"), Ok(Some(NodeIndex(2))));
        assert!(target("4").unwrap_err().starts_with("KILL_TARGET=4:"));
        let url = parse(&["--prometheus-url=http://p:9090/"]).unwrap().observers.prometheus_url;
        assert_eq!(url.as_deref(), Some("http://p:9090"));
        let message = parse(&["--prometheus-url=p:9090"]).unwrap_err();
        assert_eq!(message, "PROMETHEUS_URL=p:9090: expected a URL such as http://localhost:9090");
        assert_eq!(target("node3"), Ok(Some(NodeIndex(2))));
        assert!(parse(&["--kill-mode=sometimes"]).unwrap_err().starts_with("KILL_MODE=sometimes: expected none or"));
        assert!(parse(&["--set-ttl-ms=-2"]).unwrap_err().starts_with("SET_TTL_MS=-2:"));
    }
    #[test]
    fn a_target_has_many_names() {
        let targets = |urls: &[&str]| urls.iter().map(|url| TargetUrl::from_str(url).unwrap()).collect::<Vec<_>>();
        let named = targets(&["http://node3:1", "http://b:2", "http://node1:3"]);
        for (name, index) in [
            ("http://node3:1", Some(0)),
            ("http://node3:1/", Some(0)),
            ("b:2", Some(1)),
            ("b", Some(1)),
            // A host's name comes before a place.
            ("node3", Some(0)),
            ("node1", Some(2)),
            ("node2", Some(1)),
            ("3", Some(2)),
            ("4", None),
            ("node0", None),
            ("c", None),
            ("", None),
        ] {
            assert_eq!(find_target(&named, name), index, "{name}");
        }
        let local = targets(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        assert_eq!(find_target(&local, "127.0.0.1"), None, "two have it");
        assert_eq!(find_target(&local, "node2"), Some(1));
    }

    #[test]
    fn faults_are_checked_at_the_start() {
        let faults = |arguments: &[&str]| {
            let settings = parse(arguments)?;
            Ok::<_, String>(settings.faults(&settings.http.targets).unwrap())
        };
        assert_eq!(faults(&[]), Ok(Vec::new()));
        let slow = "--faults=at=10s slow node1 50ms for=5s";
        assert_eq!(faults(&[slow]), Err("KILL_TOKEN=: expected the nodes' token, because FAULTS is set".to_owned()));
        assert_eq!(faults(&[slow, "--local=1"]).unwrap().len(), 1);
        let token = "--kill-token=x";
        assert_eq!(faults(&[slow, token]).unwrap()[0].nodes, [NodeIndex(0)]);
        let short = faults(&[slow, token, "--duration=15s"]).unwrap_err();
        let expected = "FAULTS=at=10s slow node1 50ms for=5s: entry 1 `slow node1 50ms for=5s`: expected it to be over before \
                        DURATION=15s is";
        assert_eq!(short, expected);
        let bad = faults(&[token, "--faults=at=1s crash node1; at=2s slow node1"]).unwrap_err();
        let expected = "FAULTS=at=1s crash node1; at=2s slow node1: entry 2, `at=2s slow node1`, at character 36: expected \
                        a time such as 50ms, as in `slow NODE TIME for=TIME`";
        assert_eq!(bad, expected);
    }

    #[test]
    fn help_shows_every_fault_in_80_columns() {
        let help = <Settings as clap::CommandFactory>::command().render_long_help().to_string();
        let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:#?}");
        for (_, form) in load::FAULT_FORMS {
            assert!(help.contains(&format!(" {form} ")), "{form} is not in --help:\n{help}");
        }
    }
    #[test]
    fn the_readme_shows_every_fault() {
        let readme = include_str!("../../../README.md");
        let commands: Vec<_> = readme.split("FAULTS='").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
        let nodes: Vec<_> = (1..4).map(|port| TargetUrl::new(&format!("127.0.0.1:{port}"))).collect();
        for command in &commands {
            let settings = parse(&["--local=3", "--duration=30s", &format!("--faults={command}")]).unwrap();
            assert!(!settings.faults(&nodes).unwrap().is_empty(), "{command}");
        }
        for (name, _) in load::FAULT_FORMS {
            assert!(commands.iter().any(|command| command.starts_with(&format!("at=5s {name} "))), "{name}");
        }
    }
}
