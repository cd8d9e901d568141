//! What the allocator knows about this process, and what the operating system lets it have: open files.

use observability::AllocatorUse;
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
}
