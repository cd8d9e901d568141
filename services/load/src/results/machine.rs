//! The machine that the runner is on, how busy it was before the run, and the versions of those who took part: figures of two machines
//! are not to be compared.

use std::fs;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::NodeStats;

/// What is known of it; on systems without `/proc` only the cores.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The first CPU's model.
    pub cpu_model: Option<String>,
    /// The operating system and its kernel's release.
    pub kernel: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes that ran or waited for a CPU, averaged over 1, 5 and 15 minutes, when the run began.
    pub load_average: Option<[f64; 3]>,
    /// The congestion control of new TCP connections.
    pub tcp_congestion_control: Option<String>,
}

impl Machine {
    /// This one, now.
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok();
        let line = |path| read(path).map(|text| text.trim().to_owned());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_model: read("/proc/cpuinfo").and_then(|text| field(&text, "model name")),
            kernel: line("/proc/sys/kernel/osrelease").map(|release| format!("{} {release}", std::env::consts::OS)),
            memory_bytes: read("/proc/meminfo").and_then(|text| kibibytes(&field(&text, "MemTotal")?)),
            load_average: read("/proc/loadavg").and_then(|text| averages(&text)),
            tcp_congestion_control: line("/proc/sys/net/ipv4/tcp_congestion_control"),
        }
    }
}

/// The versions of those who took part.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Versions {
    /// The runner's.
    pub runner: &'static str,
    /// Each node's, in the order of the targets; nothing if it does not tell.
    pub nodes: Vec<Option<String>>,
}

impl Versions {
    /// Those of the nodes as they told them with their counters.
    pub(crate) fn of(nodes: &[Option<NodeStats>]) -> Self {
        let nodes = nodes.iter().map(|stats| stats.as_ref()?.version()).collect();
        Self { runner: env!("CARGO_PKG_VERSION"), nodes }
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    let (_, value) = text.lines().find(|line| line.starts_with(name))?.split_once(':')?;
    Some(value.trim().to_owned())
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

fn averages(text: &str) -> Option<[f64; 3]> {
    let numbers: Vec<f64> = text.split(' ').take(3).map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        assert_eq!(field("a\t: 1\nmodel name\t: X: 2\n", "model name").as_deref(), Some("X: 2"));
        assert_eq!((kibibytes("16 kB"), kibibytes("16")), (Some(16_384), None));
        assert_eq!(averages("0.50 1.25 2.00 1/2 3\n"), Some([0.5, 1.25, 2.0]));
        assert_eq!(averages("0.50 1.25"), None);
        assert!(Machine::look().cores > 0);
    }
}
