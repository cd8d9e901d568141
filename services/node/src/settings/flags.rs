//! Every setting as it is typed: a flag and an environment variable of the same name, all text. What they mean is decided
//! in one place, `settings`, so that all mistakes are reported together.

use std::ffi::OsString;

use clap::{Args, CommandFactory, FromArgMatches, Parser};

/// One node of a cache mesh, with HTTP in front.
///
/// Every setting is a flag and an environment variable of the same name; the flag wins. An empty variable counts as
/// unset. *_MS are whole milliseconds; sizes are bytes, or 64KiB, 64MiB, 1GiB; booleans are true, false, 1 or 0.
#[derive(Parser)]
#[command(name = "node", version, max_term_width = 120)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) http: HttpFlags,
    #[command(flatten)]
    pub(super) mesh: MeshFlags,
    #[command(flatten)]
    pub(super) operation: OperationFlags,
    #[command(flatten)]
    pub(super) traces: TraceFlags,
    #[command(flatten)]
    pub(super) process: ProcessFlags,
}

/// Settings of the HTTP side.
#[derive(Args)]
#[command(next_help_heading = "HTTP")]
pub(super) struct HttpFlags {
    /// TCP port for HTTP; 0 lets the system choose one, which the log then tells
    #[arg(long, env = "PORT", default_value = "8081", value_name = "PORT")]
    pub(super) port: String,
    /// IP address for HTTP
    #[arg(long, env = "HTTP_BIND", default_value = "0.0.0.0", value_name = "IP")]
    pub(super) http_bind: String,
    /// Time a client has to send a request's head, from the end of the answer before it; milliseconds
    #[arg(long, env = "HEADER_TIMEOUT_MS", default_value = "30000", value_name = "MS")]
    pub(super) header_timeout_ms: String,
    /// Time a client has to send a request's body, in milliseconds
    #[arg(long, env = "REQUEST_TIMEOUT_MS", default_value = "10000", value_name = "MS")]
    pub(super) request_timeout_ms: String,
    /// Open HTTP connections in the whole process; further ones are answered 503
    #[arg(long, env = "CONNECTIONS_MAX", default_value = "4096", value_name = "COUNT")]
    pub(super) connections_max: String,
    /// Request bodies held in memory at one time, in bytes; beyond it requests are answered 503
    #[arg(long, env = "REQUEST_BYTES_MAX", default_value = "64MiB", value_name = "BYTES")]
    pub(super) request_bytes_max: String,
    /// Time a client has to read an answer once it has begun to wait for it, in milliseconds
    #[arg(long, env = "ANSWER_TIMEOUT_MS", default_value = "30000", value_name = "MS")]
    pub(super) answer_timeout_ms: String,
    /// Reads and writes in flight in the whole process; further ones are answered 503
    #[arg(long, env = "REQUESTS_MAX", default_value = "4096", value_name = "COUNT")]
    pub(super) requests_max: String,
    /// How long reads and writes may wait for a thread, in milliseconds; a second later the excess is answered 503
    #[arg(long, env = "QUEUE_DELAY_MAX_MS", default_value = "250", value_name = "MS")]
    pub(super) queue_delay_max_ms: String,
    /// Whether POST /kill is allowed
    #[arg(long, env = "ALLOW_KILL", default_value = "false", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) allow_kill: String,
    /// The token that POST /kill must bring; required if ALLOW_KILL
    #[arg(long, env = "KILL_TOKEN", hide_env_values = true, value_name = "SECRET")]
    pub(super) kill_token: Option<String>,
}

/// Settings of the mesh side.
#[derive(Args)]
#[command(next_help_heading = "Mesh")]
pub(super) struct MeshFlags {
    /// UDP address to listen on for peers; :5011 means every interface
    #[arg(long, env = "CACHE_BIND", default_value = "0.0.0.0:5011", value_name = "IP:PORT")]
    pub(super) cache_bind: String,
    /// Where peers reach this node over UDP
    #[arg(long, env = "CACHE_PUBLIC", default_value = "node1:5011", value_name = "HOST:PORT")]
    pub(super) cache_public: String,
    /// Where to look for the mesh, comma-separated [default: CACHE_PUBLIC, which makes this the first node]
    #[arg(long, env = "CACHE_SEEDS", value_name = "HOST:PORT,…")]
    pub(super) cache_seeds: Option<String>,
    /// The secret that all nodes of the mesh share; required unless CACHE_BIND is a loopback address
    #[arg(long, env = "CACHE_AUTH", hide_env_values = true, value_name = "SECRET")]
    pub(super) cache_auth: Option<String>,
    /// This node's name, the same after a restart [default: CACHE_PUBLIC]
    #[arg(long, env = "NODE_ID", value_name = "NAME")]
    pub(super) node_id: Option<String>,
    /// PEM file with the certificate authority of all peers, instead of CACHE_AUTH; needs TLS_CERT and TLS_KEY
    #[arg(long, env = "TLS_CA", value_name = "FILE")]
    pub(super) tls_ca: Option<String>,
    /// PEM file with this node's certificate chain, its node id as SAN
    #[arg(long, env = "TLS_CERT", value_name = "FILE")]
    pub(super) tls_cert: Option<String>,
    /// PEM file with this node's private key
    #[arg(long, env = "TLS_KEY", value_name = "FILE")]
    pub(super) tls_key: Option<String>,
    /// How many owners each key has, 1 to 8; the same on all nodes
    #[arg(long, env = "REPLICATION_FACTOR", default_value = "3", value_name = "COUNT")]
    pub(super) replication_factor: String,
    /// How many owners must have applied a write before it is acknowledged; the same on all nodes
    #[arg(long, env = "WRITE_CONCERN", default_value = "2", value_name = "COUNT")]
    pub(super) write_concern: String,
    /// One gossip round per this time, in milliseconds
    #[arg(long, env = "GOSSIP_INTERVAL_MS", default_value = "500", value_name = "MS")]
    pub(super) gossip_interval_ms: String,
    /// From suspect to dead, in milliseconds
    #[arg(long, env = "SUSPICION_AFTER_MS", default_value = "2000", value_name = "MS")]
    pub(super) suspicion_after_ms: String,
    /// How often this node's share of the ring is sampled, in milliseconds
    #[arg(long, env = "WEIGHT_UPDATE_MS", default_value = "1000", value_name = "MS")]
    pub(super) weight_update_ms: String,
    /// How long a graceful stop waits for its turn, and for others to take over what this node holds, in milliseconds
    #[arg(long, env = "DRAIN_TIMEOUT_MS", default_value = "8000", value_name = "MS")]
    pub(super) drain_timeout_ms: String,
}

/// Settings of reads, writes and what is stored.
#[derive(Args)]
#[command(next_help_heading = "Operations and storage")]
pub(super) struct OperationFlags {
    /// Owners asked at one time by one read, 1 to 8
    #[arg(long, env = "READ_MAX_FANOUT", default_value = "2", value_name = "COUNT")]
    pub(super) read_max_fanout: String,
    /// When one leg of a read is given up, in milliseconds
    #[arg(long, env = "READ_PER_TRY_MS", default_value = "200", value_name = "MS")]
    pub(super) read_per_try_ms: String,
    /// When a second owner is asked: adaptive, or milliseconds
    #[arg(long, env = "READ_HEDGE_DELAY_MS", default_value = "adaptive", value_name = "MS")]
    pub(super) read_hedge_delay_ms: String,
    /// Time between further owners, in milliseconds [default: the hedge delay]
    #[arg(long, env = "READ_HEDGE_INTERVAL_MS", value_name = "MS")]
    pub(super) read_hedge_interval_ms: Option<String>,
    /// When a read is given up, in milliseconds
    #[arg(long, env = "READ_TIMEOUT_MS", default_value = "3000", value_name = "MS")]
    pub(super) read_timeout_ms: String,
    /// When a write is given up, in milliseconds
    #[arg(long, env = "WRITE_TIMEOUT_MS", default_value = "3000", value_name = "MS")]
    pub(super) write_timeout_ms: String,
    /// Bound on the store, book-keeping included, in bytes; also this node's share of the ring
    #[arg(long, env = "CAPACITY_BYTES", default_value = "1GiB", value_name = "BYTES")]
    pub(super) capacity_bytes: String,
    /// Bound on the number of entries
    #[arg(long, env = "CAPACITY_ENTRIES", default_value = "16000000", value_name = "COUNT")]
    pub(super) capacity_entries: String,
    /// Bound on the writes kept for one peer that has missed them, book-keeping included, in bytes; beyond it they are dropped
    /// and both compare everything
    #[arg(long, env = "HINT_BYTES_MAX", default_value = "64MiB", value_name = "BYTES")]
    pub(super) hint_bytes_max: String,
    /// How long such writes are kept at most, in milliseconds; not above 600000, after which deletions are forgotten
    #[arg(long, env = "HINT_AGE_MAX_MS", default_value = "600000", value_name = "MS")]
    pub(super) hint_age_max_ms: String,
    /// Life-time of values written with ttl_ms 0, in milliseconds; -1 means for ever
    #[arg(long, env = "DEFAULT_TTL_MS", default_value = "-1", value_name = "MS", allow_hyphen_values = true)]
    pub(super) default_ttl_ms: String,
    /// Longest key, in bytes
    #[arg(long, env = "KEY_BYTES_MAX", default_value = "4KiB", value_name = "BYTES")]
    pub(super) key_bytes_max: String,
    /// Largest value, in bytes
    #[arg(long, env = "VALUE_BYTES_MAX", default_value = "2MiB", value_name = "BYTES")]
    pub(super) value_bytes_max: String,
}

/// Settings of traces. Without a collector nothing is recorded.
#[derive(Args)]
#[command(next_help_heading = "Traces")]
pub(super) struct TraceFlags {
    /// Collector that takes OTLP over gRPC, such as http://localhost:4317 [default: none, which means no traces]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(super) otel_exporter_otlp_endpoint: Option<String>,
    /// The service's name in traces [default: mesh-node]
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    pub(super) otel_service_name: Option<String>,
    /// More about the service, as key=value pairs
    #[arg(long, env = "OTEL_RESOURCE_ATTRIBUTES", value_name = "KEY=VALUE,…")]
    pub(super) otel_resource_attributes: Option<String>,
    /// Which requests are kept: all; tail for sampled, slow, hedged and failed ones; or off
    #[arg(long, env = "TRACE_MODE", default_value = "tail", value_name = "MODE")]
    pub(super) trace_mode: String,
    /// Share of requests that is kept whatever becomes of them, 0 to 1; a traceparent header decides for itself
    #[arg(long, env = "TRACE_SAMPLE_RATIO", default_value = "0.01", value_name = "RATIO")]
    pub(super) trace_sample_ratio: String,
    /// Requests that take longer are kept, in milliseconds
    #[arg(long, env = "TRACE_SLOW_MS", default_value = "50", value_name = "MS")]
    pub(super) trace_slow_ms: String,
}

/// Settings of the process.
#[derive(Args)]
#[command(next_help_heading = "Process")]
pub(super) struct ProcessFlags {
    /// Threads that answer requests [default: the number of cores]
    #[arg(long, env = "WORKERS", value_name = "COUNT")]
    pub(super) workers: Option<String>,
    /// What is logged, such as info or warn,mesh=debug
    #[arg(long, env = "LOG", default_value = "info", value_name = "FILTER")]
    pub(super) log: String,
    /// What a log line looks like: text or json
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(super) log_format: String,
}

impl Flags {
    /// Reads arguments and the environment.
    ///
    /// # Errors
    /// An unknown flag, or a request for help.
    pub(super) fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        // An empty variable counts as unset: compose files pass `KEY=${KEY:-}`.
        let command = <Self as CommandFactory>::command().mut_args(|arg| {
            let is_empty = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|v| v.is_empty()));
            if is_empty { arg.env(clap::builder::Resettable::<clap::builder::OsStr>::Reset) } else { arg }
        });
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }
}
