//! What this machine allows, asked before the first operation.

/// Files that are open besides the connections of operations: logs, timers, control calls.
const FILES_BESIDES: u64 = 64;

/// Whether so many operations in flight can have a connection each. Idle ones to other nodes are as many again.
///
/// # Errors
/// One line: the variable, its value and what was expected.
pub fn check_files(concurrency: usize, files: u64) -> Result<(), String> {
    let possible = files.saturating_sub(FILES_BESIDES) / 2;
    if concurrency as u64 <= possible {
        return Ok(());
    }
    Err(format!(
        "CONCURRENCY={concurrency}: expected at most {possible}, because this process may have only {files} files open: raise \
         `ulimit -n`"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn operations_in_flight_need_files() {
        assert_eq!(check_files(32, 128), Ok(()));
        let reason = check_files(33, 128).unwrap_err();
        assert!(
            reason.starts_with("CONCURRENCY=33: expected at most 32, because") && reason.contains("128"),
            "{reason}"
        );
    }
}
