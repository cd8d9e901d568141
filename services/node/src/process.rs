//! What the operating system knows about this process, for `/stats`: the runner turns it into CPU per operation. And what it
//! lets this process have: open files.

use observability::AllocatorUse;
use rustix::time::{ClockId, clock_gettime};
use settings::raise_file_limit;
use tikv_jemalloc_ctl::{epoch, stats};

/// Files that a node has open besides HTTP connections: for itself, its log, its collector and its signals, and for each
/// thread.
const FILES_BESIDES: u64 = 24;
const FILES_PER_WORKER: u64 = 8;

/// Allows this process as many open files as the system lets it have, and gives how many HTTP connections fit into that, at most
/// `connections_max`.
///
/// # Errors
/// If none does.
pub fn connections_within_file_limit(connections_max: usize, workers: usize) -> anyhow::Result<usize> {
    let files = raise_file_limit();
    let besides = FILES_BESIDES + FILES_PER_WORKER * workers as u64;
    let possible = usize::try_from(files.saturating_sub(besides)).unwrap_or(usize::MAX);
    anyhow::ensure!(
        possible > 0,
        "this process may have only {files} files open, and needs {besides} besides HTTP connections: raise `ulimit -n`"
    );
    if possible < connections_max {
        tracing::warn!(files, "CONNECTIONS_MAX is {possible}, because of the limit on open files: raise `ulimit -n`");
    }
    Ok(possible.min(connections_max))
}

/// CPU time of all threads, user and system, in milliseconds.
pub(crate) fn cpu_ms() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Resident memory, and how much of it are pages of files; zeros where there is no `/proc`.
pub(crate) fn resident_bytes() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        Some(kibibytes * 1024)
    };
    (bytes("VmRSS:").unwrap_or(0), bytes("RssFile:").unwrap_or(0))
}

/// What the allocator says of itself; zeros if it is another than the node's.
pub(crate) fn allocator_use() -> AllocatorUse {
    let read = || -> Result<AllocatorUse, tikv_jemalloc_ctl::Error> {
        // Its figures are those of the last epoch.
        epoch::advance()?;
        Ok(AllocatorUse { allocated: stats::allocated::read()? as u64, resident: stats::resident::read()? as u64 })
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is configured when it is built, by `.cargo/config.toml`.
    #[test]
    fn the_allocator_is_built_as_a_node_needs_it() {
        use tikv_jemalloc_ctl::opt;
        assert_eq!(opt::narenas::read().ok(), Some(2), "each arena keeps what its threads have freed");
        assert_eq!(opt::background_thread::read().ok(), Some(true), "an idle node gives memory back, too");
        assert!(allocator_use().resident > 0);
    }

    #[test]
    fn a_busy_process_uses_cpu_and_memory() {
        let before = cpu_ms();
        while cpu_ms() < before + 2 {
            std::hint::spin_loop();
        }
        let (resident, code) = resident_bytes();
        assert!(resident == 0 || (resident > 100_000 && code < resident), "{resident}, {code}");
    }
}
