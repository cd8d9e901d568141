//! What this program can be told, in the manner of the others: flags, and environment variables of the same names.

use std::net::SocketAddr;

use clap::Parser;

const MIB: usize = 1 << 20;

/// Takes traces over OTLP (gRPC) and shows them in Jaeger's UI; keeps the newest in memory, and nothing on disk.
#[derive(Parser, Clone, Debug)]
#[command(version, name = "trace-ui")]
pub(crate) struct Settings {
    /// Where spans are taken, OTLP over gRPC. There is no authentication: keep it on loopback
    #[arg(long, env, default_value = "127.0.0.1:4317")]
    pub(crate) otlp_bind: SocketAddr,
    /// Where the UI and Jaeger's query API are, over HTTP. There is no authentication: keep it on loopback
    #[arg(long, env, default_value = "127.0.0.1:16686")]
    pub(crate) ui_bind: SocketAddr,
    /// Traces kept; the ones not touched for longest go first
    #[arg(long, env, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) traces_max: u32,
    /// Memory for traces in MiB, as estimated; the ones not touched for longest go first
    #[arg(long, env, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) memory_max_mib: u32,
}

impl Settings {
    pub(crate) const fn memory_max_bytes(&self) -> usize {
        self.memory_max_mib as usize * MIB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_is_named_with_its_setting() {
        let said =
            |flag: &str| Settings::try_parse_from(["trace-ui", flag]).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(said("--traces-max=1"), Ok(()));
        for bad in ["--otlp-bind=4317", "--ui-bind=localhost", "--traces-max=0", "--memory-max-mib=lots"] {
            let (flag, value) = bad.split_once('=').unwrap_or_default();
            assert!(said(bad).is_err_and(|error| error.contains(flag) && error.contains(value)), "{bad}");
        }
    }
}
