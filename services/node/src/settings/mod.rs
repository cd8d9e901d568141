//! What a node can be told, checked: the rest of the program never sees a setting that makes no sense. All mistakes are
//! reported together, each with the variable, its value and what was expected. Secrets are never shown.

mod flags;
mod reader;

use std::{
    ffi::OsString,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    thread,
    time::Duration,
};

use mesh::transport::{ClusterSecret, Credentials};
use mesh_proto::{HintLimits, ReplicationFactor, WriteConcern};
use observability::{LogFormat, TraceSettings};
use thiserror::Error;

use self::{
    flags::{Flags, HttpFlags, MeshFlags, OperationFlags, ProcessFlags, TraceFlags},
    reader::Reader,
};

/// What stands in for CACHE_AUTH on a loopback address, where nobody else can reach the mesh.
const LOOPBACK_SECRET: &str = "mesh-bench on loopback needs no secret";

/// A store of so many bytes keeps one tombstone at most: about an eighth of it, with keys of the usual size.
const BYTES_PER_TOMBSTONE_MIN: u64 = 1024;

/// Everything a node was told.
pub struct Settings {
    /// The HTTP side.
    pub http: HttpSettings,
    /// The mesh side.
    pub mesh: mesh::Config,
    /// Where to listen for peers.
    pub bind: SocketAddr,
    /// How peers know each other.
    pub credentials: Credentials,
    /// Threads that answer requests.
    pub workers: NonZeroUsize,
    /// Which requests are traced, and where the traces go.
    pub traces: TraceSettings,
    /// What is logged.
    pub log: String,
    /// What a log line looks like.
    pub log_format: LogFormat,
}

/// What the HTTP side was told.
pub struct HttpSettings {
    /// Where to listen.
    pub bind: SocketAddr,
    /// Time for a request's head.
    pub header_timeout: Duration,
    /// Time for a request's body.
    pub request_timeout: Duration,
    /// Time for an answer to be read.
    pub answer_timeout: Duration,
    /// Reads and writes in flight in the process.
    pub requests_max: usize,
    /// How long they may wait for a thread.
    pub queue_delay_max: Duration,
    /// Open connections in the process.
    pub connections_max: usize,
    /// Bytes of request bodies in memory at one time.
    pub request_bytes_max: usize,
    /// The token for `/kill`; nothing if killing is not allowed.
    pub kill_token: Option<KillToken>,
}

/// What `POST /kill` must bring. Never printed.
#[derive(Clone)]
pub struct KillToken(String);

impl KillToken {
    /// Wraps a token.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(token.to_owned())
    }

    /// Compares in a time that does not tell how much of a guess was right (but does tell its length).
    #[must_use]
    pub fn matches(&self, guess: &[u8]) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.0.as_bytes(), guess).into()
    }
}

impl fmt::Debug for KillToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KillToken(***)")
    }
}

/// One setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name}={value}: {expected}")]
pub struct SettingError {
    /// The variable.
    pub name: &'static str,
    /// Its value; `***` if it is a secret.
    pub value: String,
    /// What was expected, in words.
    pub expected: String,
}

/// All settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct BadSettings(pub Vec<SettingError>);

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "{} settings cannot be used:", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// An unknown flag, or help or the version was asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Values make no sense.
    #[error("error: {0}\nFor all settings, try '--help'.")]
    Bad(#[from] BadSettings),
}

impl SettingsError {
    /// Tells the user and ends the process: 0 after help, else 2.
    #[expect(clippy::disallowed_methods, reason = "nothing has been started yet")]
    pub fn exit(self) -> ! {
        match self {
            Self::Usage(usage) => usage.exit(),
            Self::Bad(_) => {
                let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{self}\n"));
                std::process::exit(2)
            }
        }
    }
}

impl Settings {
    /// Reads arguments (the first is the program's name) and the environment.
    ///
    /// # Errors
    /// [`SettingsError`], ready to be shown.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, SettingsError> {
        Ok(Self::read(&Flags::from_args(args)?)?)
    }

    fn read(flags: &Flags) -> Result<Self, BadSettings> {
        let mut reader = Reader::default();
        // Each part reads all of its settings before it gives up, so that the reader sees every mistake.
        let http = read_http(&mut reader, &flags.http);
        let peers = read_peers(&mut reader, &flags.mesh);
        let mesh = read_mesh(&mut reader, &flags.mesh, &flags.operation);
        let traces = read_traces(&mut reader, &flags.traces);
        let process = read_process(&mut reader, &flags.process);
        reader.finish()?;
        match (http, peers, mesh, traces, process) {
            (Some(http), Some((bind, credentials)), Some(mesh), Some(traces), Some((workers, log_format))) => {
                Ok(Self { http, mesh, bind, credentials, workers, traces, log: flags.process.log.clone(), log_format })
            }
            // A part is missing only after a mistake, and then the reader has failed already.
            _ => Err(BadSettings(Vec::new())),
        }
    }
}

fn read_http(reader: &mut Reader, flags: &HttpFlags) -> Option<HttpSettings> {
    let port = reader.number("PORT", &flags.port, 0, u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok());
    let ip: Option<IpAddr> = flags.http_bind.parse().ok();
    if ip.is_none() {
        reader.refuse("HTTP_BIND", &flags.http_bind, "expected an IP address, such as 0.0.0.0 or 127.0.0.1");
    }
    let header_timeout = reader.millis("HEADER_TIMEOUT_MS", &flags.header_timeout_ms);
    let request_timeout = reader.millis("REQUEST_TIMEOUT_MS", &flags.request_timeout_ms);
    let answer_timeout = reader.millis("ANSWER_TIMEOUT_MS", &flags.answer_timeout_ms);
    let requests_max = reader.count("REQUESTS_MAX", &flags.requests_max, 1, 1_000_000);
    let queue_delay_max = reader.millis("QUEUE_DELAY_MAX_MS", &flags.queue_delay_max_ms);
    let connections_max = reader.count("CONNECTIONS_MAX", &flags.connections_max, 1, 1_000_000);
    let request_bytes_max = reader.bytes("REQUEST_BYTES_MAX", &flags.request_bytes_max, 1 << 20, 1 << 40);
    let allow_kill = reader.boolean("ALLOW_KILL", &flags.allow_kill);
    let token = flags.kill_token.as_deref().unwrap_or_default();
    if allow_kill == Some(true) && token.is_empty() {
        reader.refuse("KILL_TOKEN", "", "expected a token, because ALLOW_KILL is true and anybody could kill the node");
    }
    Some(HttpSettings {
        bind: SocketAddr::new(ip?, port?),
        header_timeout: header_timeout?,
        request_timeout: request_timeout?,
        answer_timeout: answer_timeout?,
        requests_max: requests_max?,
        queue_delay_max: queue_delay_max?,
        connections_max: connections_max?,
        request_bytes_max: usize::try_from(request_bytes_max?).ok()?,
        kill_token: allow_kill?.then(|| KillToken::new(token)),
    })
}

fn read_peers(reader: &mut Reader, flags: &MeshFlags) -> Option<(SocketAddr, Credentials)> {
    let bind = reader.socket_addr("CACHE_BIND", &flags.cache_bind);
    let files = [("TLS_CA", &flags.tls_ca), ("TLS_CERT", &flags.tls_cert), ("TLS_KEY", &flags.tls_key)];
    let path = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(PathBuf::from);
    if let [(_, Some(ca)), (_, Some(cert)), (_, Some(key))] = files.map(|(name, text)| (name, path(text))) {
        return Some((bind?, Credentials::Files { ca, cert, key }));
    }
    if files.iter().any(|(_, text)| path(text).is_some()) {
        for (name, _) in files.iter().filter(|(_, text)| path(text).is_none()) {
            reader.refuse(name, "", "expected a file: TLS_CA, TLS_CERT and TLS_KEY go together");
        }
        return None;
    }
    let secret = match flags.cache_auth.as_deref().filter(|secret| !secret.is_empty()) {
        Some(secret) => secret,
        None if bind?.ip().is_loopback() => LOOPBACK_SECRET,
        None => {
            let expected = format!(
                "expected the secret that all nodes share, because CACHE_BIND={} is not a loopback address",
                flags.cache_bind
            );
            reader.refuse("CACHE_AUTH", "", expected);
            return None;
        }
    };
    Some((bind?, Credentials::Secret(ClusterSecret::new(secret))))
}

fn read_mesh(reader: &mut Reader, flags: &MeshFlags, operation: &OperationFlags) -> Option<mesh::Config> {
    let public_addr = reader.host_port("CACHE_PUBLIC", &flags.cache_public);
    let seeds = flags.cache_seeds.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|s| !s.is_empty());
    let seeds: Vec<String> = seeds.filter_map(|seed| reader.host_port("CACHE_SEEDS", seed)).collect();
    let name = flags.node_id.clone().filter(|name| !name.is_empty());
    let replicas = reader.number("REPLICATION_FACTOR", &flags.replication_factor, 1, ReplicationFactor::MAX as u64);
    let replicas = replicas.and_then(|replicas| ReplicationFactor::new(replicas).ok());
    let concern = read_concern(reader, &flags.write_concern, replicas);
    let gossip_interval = reader.millis("GOSSIP_INTERVAL_MS", &flags.gossip_interval_ms);
    let suspicion = reader.millis("SUSPICION_AFTER_MS", &flags.suspicion_after_ms);
    let weight_update = reader.millis("WEIGHT_UPDATE_MS", &flags.weight_update_ms);
    let drain_timeout = reader.millis("DRAIN_TIMEOUT_MS", &flags.drain_timeout_ms);
    let defaults = mesh::Config::new(&flags.cache_public);
    let operations = read_operations(reader, operation, defaults);
    let public_addr = public_addr?;
    Some(mesh::Config {
        name: name.unwrap_or_else(|| public_addr.clone()),
        seeds: if seeds.is_empty() { vec![public_addr.clone()] } else { seeds },
        public_addr,
        replicas: replicas?,
        concern: concern?,
        gossip_interval: gossip_interval?,
        suspicion: suspicion?,
        weight_update: weight_update?,
        drain_timeout: drain_timeout?,
        // Keys of the standard hasher are random, which is all that a seed needs.
        seed: RandomState::new().build_hasher().finish(),
        ..operations?
    })
}

fn read_concern(reader: &mut Reader, text: &str, replicas: Option<ReplicationFactor>) -> Option<WriteConcern> {
    let acks = reader.number("WRITE_CONCERN", text, 1, ReplicationFactor::MAX as u64)?;
    let replicas = replicas?;
    let concern = WriteConcern::new(acks, replicas).ok();
    if concern.is_none() {
        let expected = format!("expected 1 to REPLICATION_FACTOR, which is {}", replicas.get());
        reader.refuse("WRITE_CONCERN", text, expected);
    }
    concern
}

fn read_operations(reader: &mut Reader, flags: &OperationFlags, base: mesh::Config) -> Option<mesh::Config> {
    let read_fanout_max = reader.count("READ_MAX_FANOUT", &flags.read_max_fanout, 1, ReplicationFactor::MAX as u64);
    let read_per_try = reader.millis("READ_PER_TRY_MS", &flags.read_per_try_ms);
    let hedge_delay = match flags.read_hedge_delay_ms.as_str() {
        "adaptive" => Some(None),
        millis => read_hedge_delay(reader, millis).map(Some),
    };
    let hedge_interval = match flags.read_hedge_interval_ms.as_deref().filter(|millis| !millis.is_empty()) {
        None => Some(None),
        Some(millis) => reader.millis("READ_HEDGE_INTERVAL_MS", millis).map(Some),
    };
    let read_timeout = reader.millis("READ_TIMEOUT_MS", &flags.read_timeout_ms);
    let write_timeout = reader.millis("WRITE_TIMEOUT_MS", &flags.write_timeout_ms);
    let bytes_max = reader.bytes("CAPACITY_BYTES", &flags.capacity_bytes, 1 << 20, 1 << 46);
    let entries_max = reader.number("CAPACITY_ENTRIES", &flags.capacity_entries, 1, 1 << 40);
    let hint_bytes_max = reader.bytes("HINT_BYTES_MAX", &flags.hint_bytes_max, 1 << 10, 1 << 40);
    // A hint that outlives the tombstones could bring back what was deleted.
    let hint_age_ms_max = u64::try_from(base.store.tombstone_age_min.as_millis()).unwrap_or(u64::MAX);
    let hint_age_max = reader.number("HINT_AGE_MAX_MS", &flags.hint_age_max_ms, 1, hint_age_ms_max);
    let default_ttl = match flags.default_ttl_ms.as_str() {
        "-1" => Some(None),
        millis => read_ttl(reader, millis).map(Some),
    };
    // A key is half a request's head at most, and a value one frame between peers.
    let key_bytes_max = reader.bytes("KEY_BYTES_MAX", &flags.key_bytes_max, 1, 16 << 10);
    let value_bytes_max = reader.bytes("VALUE_BYTES_MAX", &flags.value_bytes_max, 1, 64 << 20);
    let mut store = base.store.clone();
    (store.bytes_max, store.entries_max) = (bytes_max?, entries_max?);
    // Tombstones may have to be kept for as long as a member is away: they must not take all of a small store.
    store.tombstones_max = store.tombstones_max.min(store.bytes_max / BYTES_PER_TOMBSTONE_MIN);
    Some(mesh::Config {
        read_fanout_max: read_fanout_max?,
        read_per_try: read_per_try?,
        hedge_delay: hedge_delay?,
        hedge_interval: hedge_interval?,
        read_timeout: read_timeout?,
        write_timeout: write_timeout?,
        store,
        hints: HintLimits { bytes_max: hint_bytes_max?, age_max: Duration::from_millis(hint_age_max?) },
        default_ttl: default_ttl?,
        key_bytes_max: usize::try_from(key_bytes_max?).ok()?,
        value_bytes_max: usize::try_from(value_bytes_max?).ok()?,
        ..base
    })
}

fn read_hedge_delay(reader: &mut Reader, text: &str) -> Option<Duration> {
    let millis = text.parse().ok().filter(|millis| *millis <= 60_000);
    if millis.is_none() {
        reader.refuse("READ_HEDGE_DELAY_MS", text, "expected adaptive, or whole milliseconds from 0 to 60000");
    }
    millis.map(Duration::from_millis)
}

fn read_ttl(reader: &mut Reader, text: &str) -> Option<Duration> {
    let millis = text.parse().ok().filter(|millis| (1..=crate::routes::TTL_MS_MAX).contains(millis));
    if millis.is_none() {
        reader.refuse("DEFAULT_TTL_MS", text, "expected -1 (for ever) or whole milliseconds from 1");
    }
    millis.map(Duration::from_millis)
}

fn read_traces(reader: &mut Reader, flags: &TraceFlags) -> Option<TraceSettings> {
    let endpoint = flags.otel_exporter_otlp_endpoint.as_deref().filter(|url| !url.is_empty());
    let endpoint = match endpoint {
        Some(url) => reader.parse("OTEL_EXPORTER_OTLP_ENDPOINT", url).map(Some),
        None => Some(None),
    };
    let attributes = flags.otel_resource_attributes.as_deref().unwrap_or_default();
    let attributes = reader.parse("OTEL_RESOURCE_ATTRIBUTES", attributes);
    let mode = reader.parse("TRACE_MODE", &flags.trace_mode);
    let sample_ratio = reader.parse("TRACE_SAMPLE_RATIO", &flags.trace_sample_ratio);
    let slow = reader.millis("TRACE_SLOW_MS", &flags.trace_slow_ms);
    Some(TraceSettings {
        mode: mode?,
        sample_ratio: sample_ratio?,
        slow: slow?,
        endpoint: endpoint?,
        service_name: flags.otel_service_name.clone().filter(|name| !name.is_empty()),
        attributes: attributes?,
    })
}

fn read_process(reader: &mut Reader, flags: &ProcessFlags) -> Option<(NonZeroUsize, LogFormat)> {
    let workers = match flags.workers.as_deref().filter(|count| !count.is_empty()) {
        Some(count) => reader.count("WORKERS", count, 1, 256).and_then(NonZeroUsize::new),
        None => Some(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)),
    };
    if let Err(error) = observability::check_filter(&flags.log) {
        reader.refuse("LOG", &flags.log, error.to_string());
    }
    let format = flags.log_format.parse();
    if let Err(error) = &format {
        let error: &observability::LoggingError = error;
        reader.refuse("LOG_FORMAT", &flags.log_format, error.to_string());
    }
    Some((workers?, format.ok()?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    /// Reads flags; tests run without any of the variables set.
    fn read(args: &[&str]) -> Result<Settings, SettingsError> {
        let base = ["node", "--cache-bind", "127.0.0.1:5011"];
        Settings::from_args(base.iter().chain(args).map(OsString::from))
    }

    fn message(args: &[&str]) -> String {
        read(args).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_defaults_are_those_of_the_table() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.http.bind, "0.0.0.0:8081".parse().unwrap());
        assert!(settings.http.kill_token.is_none());
        let mesh = &settings.mesh;
        assert_eq!(mesh.name, "node1:5011");
        assert_eq!(mesh.seeds, ["node1:5011"]);
        assert_eq!((mesh.replicas.get(), mesh.concern.get(), mesh.read_fanout_max), (3, 2, 2));
        assert_eq!((mesh.hedge_delay, mesh.hedge_interval, mesh.default_ttl), (None, None, None));
        assert_eq!(mesh.read_per_try, Duration::from_millis(200));
        assert_eq!((mesh.read_timeout, mesh.write_timeout), (Duration::from_secs(3), Duration::from_secs(3)));
        assert_eq!((mesh.suspicion, mesh.gossip_interval), (Duration::from_secs(2), Duration::from_millis(500)));
        assert_eq!((mesh.key_bytes_max, mesh.value_bytes_max), (4096, 2 << 20));
        assert_eq!(mesh.store.bytes_max, 1 << 30);
    }

    #[test]
    fn values_are_understood() {
        let auth = ["--cache-bind", ":5012", "--cache-auth", "s3cret"];
        let args = ["node", "--cache-seeds", "a:1, b:2", "--read-hedge-delay-ms", "3", "--default-ttl-ms", "1000"];
        let args = args.into_iter().chain(auth).chain(["--allow-kill", "--kill-token", "t", "--node-id", "n"]);
        let settings = Settings::from_args(args.map(OsString::from)).unwrap();
        assert_eq!(settings.bind, "0.0.0.0:5012".parse().unwrap());
        assert_eq!(settings.mesh.seeds, ["a:1", "b:2"]);
        assert_eq!(settings.mesh.name, "n");
        assert_eq!(settings.mesh.hedge_delay, Some(Duration::from_millis(3)));
        assert_eq!(settings.mesh.default_ttl, Some(Duration::from_secs(1)));
        let token = settings.http.kill_token.unwrap();
        assert!(token.matches(b"t") && !token.matches(b"") && !token.matches(b"tt"));
    }

    #[test]
    fn each_bad_value_is_named_with_what_was_expected() {
        let cases = [
            ("--port", "PORT", "abc"),
            ("--port", "PORT", "70000"),
            ("--http-bind", "HTTP_BIND", "localhost"),
            ("--header-timeout-ms", "HEADER_TIMEOUT_MS", "0"),
            ("--request-timeout-ms", "REQUEST_TIMEOUT_MS", "1s"),
            ("--connections-max", "CONNECTIONS_MAX", "0"),
            ("--answer-timeout-ms", "ANSWER_TIMEOUT_MS", "0"),
            ("--requests-max", "REQUESTS_MAX", "0"),
            ("--queue-delay-max-ms", "QUEUE_DELAY_MAX_MS", "x"),
            ("--hint-bytes-max", "HINT_BYTES_MAX", "64MB"),
            ("--hint-age-max-ms", "HINT_AGE_MAX_MS", "600001"),
            ("--request-bytes-max", "REQUEST_BYTES_MAX", "1"),
            ("--allow-kill", "ALLOW_KILL", "yes"),
            ("--cache-bind", "CACHE_BIND", "5011"),
            ("--cache-bind", "CACHE_BIND", "node1:5011"),
            ("--cache-public", "CACHE_PUBLIC", "node1"),
            ("--cache-seeds", "CACHE_SEEDS", "node2"),
            ("--replication-factor", "REPLICATION_FACTOR", "0"),
            ("--replication-factor", "REPLICATION_FACTOR", "9"),
            ("--write-concern", "WRITE_CONCERN", "0"),
            ("--write-concern", "WRITE_CONCERN", "4"),
            ("--gossip-interval-ms", "GOSSIP_INTERVAL_MS", "0.5"),
            ("--suspicion-after-ms", "SUSPICION_AFTER_MS", "2s"),
            ("--weight-update-ms", "WEIGHT_UPDATE_MS", "0"),
            ("--drain-timeout-ms", "DRAIN_TIMEOUT_MS", "5s"),
            ("--read-max-fanout", "READ_MAX_FANOUT", "0"),
            ("--read-per-try-ms", "READ_PER_TRY_MS", "x"),
            ("--read-hedge-delay-ms", "READ_HEDGE_DELAY_MS", "auto"),
            ("--read-hedge-interval-ms", "READ_HEDGE_INTERVAL_MS", "0"),
            ("--read-timeout-ms", "READ_TIMEOUT_MS", "99999999999"),
            ("--write-timeout-ms", "WRITE_TIMEOUT_MS", "-5"),
            ("--capacity-bytes", "CAPACITY_BYTES", "1GB"),
            ("--capacity-entries", "CAPACITY_ENTRIES", "0"),
            ("--default-ttl-ms", "DEFAULT_TTL_MS", "0"),
            ("--default-ttl-ms", "DEFAULT_TTL_MS", "-2"),
            ("--key-bytes-max", "KEY_BYTES_MAX", "1MiB"),
            ("--value-bytes-max", "VALUE_BYTES_MAX", "1GiB"),
            ("--workers", "WORKERS", "0"),
            ("--log", "LOG", "mesh=loud"),
            ("--log-format", "LOG_FORMAT", "xml"),
            ("--otel-exporter-otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"),
            ("--otel-resource-attributes", "OTEL_RESOURCE_ATTRIBUTES", "env"),
            ("--trace-mode", "TRACE_MODE", "on"),
            ("--trace-sample-ratio", "TRACE_SAMPLE_RATIO", "1%"),
            ("--trace-slow-ms", "TRACE_SLOW_MS", "0"),
        ];
        for (flag, name, value) in cases {
            let text = message(&[&format!("{flag}={value}")]);
            let without_bind = Settings::from_args(["node", &format!("{flag}={value}")].map(OsString::from));
            let text = if flag == "--cache-bind" { without_bind.err().unwrap().to_string() } else { text };
            assert!(text.contains(&format!("{name}={value}: expected ")), "{flag}={value} gave: {text}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let text = message(&["--port=x", "--write-concern=7", "--log-format=xml"]);
        assert!(text.starts_with("error: 3 settings cannot be used:\n"), "{text}");
        for name in ["PORT=x", "WRITE_CONCERN=7: expected 1 to REPLICATION_FACTOR, which is 3", "LOG_FORMAT=xml"] {
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(message(&["--cache-bnd=x"]).contains("--cache-bnd"));
    }

    #[test]
    fn a_secret_is_required_off_loopback_and_never_shown() {
        let open = Settings::from_args(["node", "--cache-bind", ":5011"].map(OsString::from));
        let text = open.err().unwrap().to_string();
        assert!(text.contains("CACHE_AUTH=: expected the secret"), "{text}");
        let text = message(&["--cache-auth=hunter2", "--kill-token=hunter2", "--port=x"]);
        assert!(text.contains("PORT=x") && !text.contains("hunter2"), "{text}");
        assert!(message(&["--allow-kill"]).contains("KILL_TOKEN=: expected a token"));
    }

    #[test]
    fn certificates_come_together() {
        let text = message(&["--tls-ca=ca.pem", "--tls-cert=cert.pem"]);
        assert!(text.contains("TLS_KEY=: expected a file"), "{text}");
        let files = read(&["--tls-ca=ca.pem", "--tls-cert=cert.pem", "--tls-key=key.pem"]).unwrap();
        assert!(matches!(files.credentials, Credentials::Files { .. }));
    }
}
