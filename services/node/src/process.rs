//! What the operating system knows about this process, for `/stats`: the runner turns it into CPU per operation.

use rustix::time::{ClockId, clock_gettime};

/// CPU time of all threads, user and system, in milliseconds.
pub(crate) fn cpu_ms() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Resident memory; nothing where there is no `/proc`.
pub(crate) fn rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_cpu_and_memory() {
        let before = cpu_ms();
        while cpu_ms() < before + 2 {
            std::hint::spin_loop();
        }
        assert!(rss_bytes().is_none_or(|bytes| bytes > 100_000));
    }
}
