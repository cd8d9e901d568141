//! What a node can be told, checked: the rest of the program never sees a setting that makes no sense.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::{ArgAction, Args, Parser};
use mesh::transport::{ClusterSecret, Credentials};
use mesh_settings::{Host, MeshSettings};
use observability::{LogFormat, TraceSettings, check_filter};
use settings::{
    Exit, Memory, Mistakes, bearer_token, boolean, bytes, check_https_files, host_port, millis, socket_addr, whole,
};

use crate::{
    body::body_bytes_max,
    tls::{HttpTls, TlsFileError},
    token::Token,
};

/// What stands in for CACHE_AUTH on a loopback address, where nobody else can reach the mesh.
const LOOPBACK_SECRET: &str = "mesh-bench on loopback needs no secret";

/// The most connections or requests that a process can be told to allow.
const COUNT_MAX: u64 = 1_000_000;

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

/// One node of a cache mesh, with HTTP in front.
///
/// Every setting is a flag and an environment variable of the same name; the flag wins. An empty variable counts as
/// unset. *_MS are whole milliseconds; sizes are bytes, or 64KiB, 64MiB, 1GiB.
#[derive(Parser)]
#[command(name = "node", version = env!("MESH_BENCH_VERSION"), max_term_width = 80)]
struct Flags {
    #[command(flatten)]
    http: HttpSettings,
    #[command(flatten)]
    peers: PeerFlags,
    #[command(flatten)]
    mesh: MeshSettings,
    #[command(flatten)]
    traces: TraceSettings,
    #[command(flatten)]
    process: ProcessFlags,
}

/// What the HTTP side was told.
#[derive(Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// TCP port for HTTP; 0 lets the system choose one, which the log then tells
    #[arg(long, env, default_value = "8081", value_name = "PORT", value_parser = whole::<u16>(0, u16::MAX.into()))]
    port: u16,
    /// IP address for HTTP
    #[arg(long, env, default_value = "0.0.0.0", value_name = "IP", value_parser = ip)]
    http_bind: IpAddr,
    /// Time a client has to send a request's head, from the end of the answer before it; milliseconds
    #[arg(long = "header-timeout-ms", env = "HEADER_TIMEOUT_MS", default_value = "30000", value_name = "MS", value_parser = millis)]
    pub header_timeout: Duration,
    /// Time a client has to send a request's body, in milliseconds
    #[arg(long = "request-timeout-ms", env = "REQUEST_TIMEOUT_MS", default_value = "10000", value_name = "MS", value_parser = millis)]
    pub request_timeout: Duration,
    /// Time a client has to read an answer once it has begun to wait for it, in milliseconds
    #[arg(long = "answer-timeout-ms", env = "ANSWER_TIMEOUT_MS", default_value = "30000", value_name = "MS", value_parser = millis)]
    pub answer_timeout: Duration,
    /// Whether the kernel is asked when it received each request and each packet of a peer, so that the time from then on is told as the
    /// node's queue
    #[arg(long, env, action = ArgAction::Set, default_value = "on", value_name = "BOOL", num_args = 0..=1, default_missing_value = "on", value_parser = boolean)]
    pub kernel_timestamps: bool,
    /// Open HTTP connections in the whole process; further ones are answered 503
    #[arg(long, env, default_value = "4096", value_name = "COUNT", value_parser = whole::<usize>(1, COUNT_MAX))]
    pub connections_max: usize,
    /// Reads and writes in flight in the whole process; further ones are answered 503
    #[arg(long, env, default_value = "4096", value_name = "COUNT", value_parser = whole::<usize>(1, COUNT_MAX))]
    pub requests_max: usize,
    /// How long reads and writes may wait for a thread, in milliseconds; a second later the excess is answered 503
    #[arg(long = "queue-delay-max-ms", env = "QUEUE_DELAY_MAX_MS", default_value = "250", value_name = "MS", value_parser = millis)]
    pub queue_delay_max: Duration,
    /// Request bodies and large values held in memory at one time for clients, in bytes; beyond it requests are answered 503. Without it
    /// 64 MiB, or a sixteenth of the memory limit if that is less
    #[arg(long = "request-bytes-max", env = "REQUEST_BYTES_MAX", value_name = "BYTES", value_parser = bytes::<usize>(1 << 20, 1 << 40))]
    request_bytes: Option<usize>,
    /// What follows from that.
    #[arg(skip)]
    pub request_bytes_max: usize,
    /// Whether POST /kill and /fault are allowed
    #[arg(long, env, action = ArgAction::Set, default_value = "false", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = boolean)]
    allow_kill: bool,
    /// The token that POST /kill and /fault must bring; required if ALLOW_KILL, else ignored
    #[arg(long, env, hide_env_values = true, value_name = "SECRET")]
    pub kill_token: Option<Token>,
    /// PEM file with the certificate chain for HTTPS instead of HTTP; read again when it changes; needs HTTP_TLS_KEY
    #[arg(long, env, value_name = "FILE")]
    http_tls_cert: Option<PathBuf>,
    /// PEM file with the private key of HTTP_TLS_CERT
    #[arg(long, env, value_name = "FILE")]
    http_tls_key: Option<PathBuf>,
    /// What is in these files, once they are read.
    #[arg(skip)]
    pub(crate) tls: Option<Arc<HttpTls>>,
    /// The bearer token that GET /get, POST /set and DELETE /del must bring
    #[arg(long, env, hide_env_values = true, value_name = "SECRET", value_parser = token)]
    pub(crate) http_token: Option<Token>,
    /// The bearer token that all other routes must bring, but for /ready, /metrics, /kill and /fault
    #[arg(long, env, hide_env_values = true, value_name = "SECRET", value_parser = token)]
    pub(crate) http_admin_token: Option<Token>,
}

/// Where peers are, and how they know each other.
#[derive(Args)]
#[command(next_help_heading = "Mesh")]
struct PeerFlags {
    /// UDP address to listen on for peers; :5011 means every interface
    #[arg(long, env, default_value = "0.0.0.0:5011", value_name = "IP:PORT", value_parser = socket_addr)]
    cache_bind: SocketAddr,
    /// Where peers reach this node over UDP
    #[arg(long, env, default_value = "node1:5011", value_name = "HOST:PORT", value_parser = host_port)]
    cache_public: String,
    /// Where to look for the mesh, comma-separated; unset, it is CACHE_PUBLIC, which makes this the first node
    #[arg(long, env, value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = host_port)]
    cache_seeds: Vec<String>,
    /// This node's name, the same after a restart; unset, it is CACHE_PUBLIC
    #[arg(long, env, value_name = "NAME")]
    node_id: Option<String>,
    /// PEM file with the certificate authority of all peers, instead of CACHE_AUTH; needs TLS_CERT and TLS_KEY
    #[arg(long, env, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// PEM file with this node's certificate chain, its node id as SAN
    #[arg(long, env, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM file with this node's private key
    #[arg(long, env, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

/// Settings of the process.
#[derive(Args)]
#[command(next_help_heading = "Process")]
struct ProcessFlags {
    /// Nodes that share the memory and the cores of this machine or container: CAPACITY_BYTES, HINT_BYTES_MAX and WORKERS are a
    /// share of them where they are not set
    #[arg(long, env, default_value = "1", value_name = "COUNT", value_parser = whole::<u64>(1, 1024))]
    host_nodes: u64,
    /// Threads that answer requests, 1 to 256; unset, it is the number of cores that the process may use
    #[arg(long, env, value_name = "COUNT", value_parser = whole::<usize>(1, 256))]
    workers: Option<usize>,
    /// What is logged, such as info or warn,mesh=debug
    #[arg(long, env, default_value = "info", value_name = "FILTER", value_parser = check_filter)]
    log: String,
    /// What a log line looks like
    #[arg(long, env, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

impl HttpSettings {
    /// Where to listen.
    #[must_use]
    pub const fn bind(&self) -> SocketAddr {
        SocketAddr::new(self.http_bind, self.port)
    }

    /// Reads the files of HTTPS, if it is on.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn load_tls(&mut self) -> Result<(), TlsFileError> {
        if let (Some(cert), Some(key)) = (&self.http_tls_cert, &self.http_tls_key) {
            self.tls = Some(Arc::new(HttpTls::load(cert.clone(), key.clone())?));
        }
        Ok(())
    }
}

impl Settings {
    /// Reads arguments (the first is the program's name) and the environment.
    ///
    /// # Errors
    /// [`Exit`], ready to be shown.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        Self::from_args_on(&Memory::of_this_process(), args)
    }

    /// As [`Settings::from_args`], where a process may take this memory.
    fn from_args_on(memory: &Memory, args: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        settings::parse(args, |flags: Flags, mistakes| flags.build(memory, mistakes))
    }
}

impl Flags {
    fn build(self, memory: &Memory, mistakes: &mut Mistakes) -> Option<Settings> {
        let Self { mut http, peers, mesh, traces, process } = self;
        if !http.allow_kill {
            http.kill_token = None;
        } else if http.kill_token.is_none() {
            let expected = "expected a token, because ALLOW_KILL is true and anybody could kill the node";
            mistakes.refuse("KILL_TOKEN", "", expected);
        }
        check_https_files(http.http_tls_cert.as_deref(), http.http_tls_key.as_deref(), mistakes);
        if let Some(expected) = unreachable(&peers.cache_public) {
            mistakes.refuse("CACHE_PUBLIC", &peers.cache_public, expected);
        }
        // Each part is checked before any is missed, so that all mistakes are found.
        let credentials = peers.credentials(mesh.cache_auth.as_deref(), mistakes);
        let (nodes, connections_max) = (process.host_nodes, http.connections_max as u64);
        let body_bytes = http.request_bytes.map(|bytes| bytes as u64);
        let host = Host { memory: memory.clone(), nodes, connections_max, body_bytes_max: body_bytes };
        let config = mesh.config(&peers.cache_public, &host, mistakes);
        let least = config.as_ref().map_or(0, |config| body_bytes_max(config.key_bytes_max, config.value_bytes_max));
        http.request_bytes_max = usize::try_from(host.body_bytes_max()).unwrap_or(usize::MAX);
        match http.request_bytes {
            Some(bytes) if bytes < least => {
                let expected = format!(
                    "expected at least {least}, the largest request that VALUE_BYTES_MAX and KEY_BYTES_MAX allow"
                );
                mistakes.refuse("REQUEST_BYTES_MAX", bytes, expected);
            }
            _ => http.request_bytes_max = http.request_bytes_max.max(least),
        }
        let seeds = if peers.cache_seeds.is_empty() { vec![peers.cache_public.clone()] } else { peers.cache_seeds };
        // So that a slow peer leaves room for writes to the others.
        let large_bytes_max = http.request_bytes_max / 2;
        Some(Settings {
            http,
            mesh: mesh::Config { name: peers.node_id.unwrap_or(peers.cache_public), seeds, large_bytes_max, ..config? },
            bind: peers.cache_bind,
            credentials: credentials?,
            workers: process.workers(),
            traces,
            log: process.log,
            log_format: process.log_format,
        })
    }
}

impl ProcessFlags {
    /// As many as there are cores by affinity and by the quota of control groups, of both versions: the standard library looks at
    /// all three.
    fn workers(&self) -> NonZeroUsize {
        let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = self.workers.unwrap_or_else(|| cores() / usize::try_from(self.host_nodes).unwrap_or(usize::MAX));
        NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN)
    }
}

impl PeerFlags {
    fn credentials(&self, secret: Option<&str>, mistakes: &mut Mistakes) -> Option<Credentials> {
        let files = [("TLS_CA", &self.tls_ca), ("TLS_CERT", &self.tls_cert), ("TLS_KEY", &self.tls_key)];
        if let [(_, Some(ca)), (_, Some(cert)), (_, Some(key))] = files {
            return Some(Credentials::Files { ca: ca.clone(), cert: cert.clone(), key: key.clone() });
        }
        if files.iter().any(|(_, file)| file.is_some()) {
            for (name, _) in files.iter().filter(|(_, file)| file.is_none()) {
                mistakes.refuse(name, "", "expected a file: authority, certificate and key go together");
            }
            return None;
        }
        match secret {
            Some(secret) => Some(Credentials::Secret(ClusterSecret::new(secret))),
            None if self.cache_bind.ip().is_loopback() => {
                Some(Credentials::Secret(ClusterSecret::new(LOOPBACK_SECRET)))
            }
            None => {
                let why = format!("because CACHE_BIND={} is not a loopback address", self.cache_bind);
                mistakes.refuse("CACHE_AUTH", "", format!("expected the secret that all nodes share, {why}"));
                None
            }
        }
    }
}

/// Why peers cannot reach an address that is announced to them, if that is certain.
fn unreachable(addr: &str) -> Option<&'static str> {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host).trim_matches(['[', ']']);
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Some("expected where peers reach this node: no address stands for all of its interfaces");
    }
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
    let is_name = host.len() <= 253 && host.trim_end_matches('.').split('.').all(is_label);
    (host.parse::<IpAddr>().is_err() && !is_name)
        .then_some("expected a host name of at most 253 characters, 63 between dots")
}

fn token(text: &str) -> Result<Token, String> {
    bearer_token(text).map(|token| Token::new(&token))
}

fn ip(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "expected an IP address, such as 0.0.0.0 or 127.0.0.1")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use clap::CommandFactory;
    use settings::MemoryLimit;

    use super::*;

    /// Reads flags; tests run without any of the variables set.
    fn read(args: &[&str]) -> Result<Settings, Exit> {
        let base = ["node", "--cache-bind", "127.0.0.1:5011"];
        Settings::from_args_on(&Memory::default(), base.iter().chain(args).map(OsString::from))
    }

    fn message(args: &[&str]) -> String {
        read(args).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_defaults_are_those_of_the_table() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.http.bind(), "0.0.0.0:8081".parse().unwrap());
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
    fn a_node_fits_into_its_container_and_shares_its_cores() {
        let limit = MemoryLimit { bytes: 192 << 20, set_by: "memory.max".to_owned() };
        let memory = Memory { limit: Some(limit), machine_bytes: None };
        let read = |args: &[&str]| {
            let base = ["node", "--cache-bind", "127.0.0.1:5011"];
            Settings::from_args_on(&memory, base.iter().chain(args).map(OsString::from))
        };
        let (alone, shared) = (read(&[]).unwrap(), read(&["--host-nodes=3"]).unwrap());
        assert_eq!((alone.mesh.store.bytes_max >> 20, alone.mesh.hints.bytes_max >> 20), (110, 6));
        assert_eq!((shared.mesh.store.bytes_max >> 20, shared.mesh.hints.bytes_max >> 20), (11, 2));
        let cores = thread::available_parallelism().unwrap().get();
        assert_eq!((alone.workers.get(), shared.workers.get()), (cores, (cores / 3).max(1)));
        let message = read(&["--capacity-bytes=1GiB"]).err().map(|exit| exit.to_string()).unwrap_or_default();
        assert!(
            message.starts_with("CAPACITY_BYTES=1073741824: expected at most 110MiB, which fits into"),
            "{message}"
        );
        let fewer = read(&["--connections-max=1"]).unwrap();
        assert_eq!(fewer.mesh.store.bytes_max >> 20, 121, "connections that cannot be take nothing");
    }

    #[test]
    fn help_fits_80_columns() {
        let help = Flags::command().render_long_help().to_string();
        let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(help.contains("--cache-bind <") && wide.is_empty(), "{wide:#?}");
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
            ("--allow-kill", "ALLOW_KILL", "maybe"),
            ("--cache-bind", "CACHE_BIND", "5011"),
            ("--cache-bind", "CACHE_BIND", "node1:5011"),
            ("--cache-public", "CACHE_PUBLIC", "node1"),
            ("--cache-public", "CACHE_PUBLIC", "0.0.0.0:5011"),
            ("--cache-public", "CACHE_PUBLIC", "[::]:5011"),
            ("--cache-public", "CACHE_PUBLIC", "a..b:5011"),
            ("--request-bytes-max", "REQUEST_BYTES_MAX", "2097152"),
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
        assert!(text.starts_with("3 settings cannot be used:\n"), "{text}");
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
    fn https_needs_both_files() {
        let text = message(&["--http-tls-cert=cert.pem"]);
        assert_eq!(text, "HTTP_TLS_KEY=: expected a file: HTTP_TLS_CERT and HTTP_TLS_KEY go together");
        assert!(message(&["--http-tls-key=key.pem"]).starts_with("HTTP_TLS_CERT=: expected a file"));
        let mut http = read(&["--http-tls-cert=/no/cert.pem", "--http-tls-key=/no/key.pem"]).unwrap().http;
        let text = http.load_tls().unwrap_err().to_string();
        assert!(text.starts_with("HTTP_TLS_CERT=/no/cert.pem: cannot read it: No such file"), "{text}");
        assert!(read(&[]).unwrap().http.load_tls().is_ok());
    }

    #[test]
    fn bearer_tokens_fit_into_a_header_and_are_never_shown() {
        for bad in ["two words", "ümlaut", "line\n"] {
            let text = message(&[&format!("--http-token={bad}")]);
            assert!(text.starts_with("HTTP_TOKEN=***: expected ") && !text.contains(bad), "{text}");
        }
        let http = read(&["--http-token=sesame", "--http-admin-token=a.b-c~d+/="]).unwrap().http;
        assert!(!format!("{:?}{:?}", http.http_token, http.http_admin_token).contains("sesame"));
        assert!(http.http_admin_token.unwrap().matches(b"a.b-c~d+/="));
    }

    #[test]
    fn certificates_come_together() {
        let text = message(&["--tls-ca=ca.pem", "--tls-cert=cert.pem"]);
        assert!(text.contains("TLS_KEY=: expected a file"), "{text}");
        let files = read(&["--tls-ca=ca.pem", "--tls-cert=cert.pem", "--tls-key=key.pem"]).unwrap();
        assert!(matches!(files.credentials, Credentials::Files { .. }));
    }
}
