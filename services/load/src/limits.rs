//! What this machine and the nodes allow, asked before the first operation.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::LoadSettings;

/// Longer than anybody measures, and short enough that no sum of times overflows.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest life of a value that nodes accept: a hundred years.
const TTL_MS_MAX: i64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// Files that are open besides the connections of operations: logs, timers, control calls.
const FILES_BESIDES: u64 = 64;

/// Whether a time that a setting asks for can be waited for.
///
/// # Errors
/// One line: the variable, its value and what was expected.
pub fn check_time(name: &str, time: Duration) -> Result<(), String> {
    if time > TIME_MAX {
        return Err(format!("{name}={}s: expected at most {} days", time.as_secs(), TIME_MAX.as_secs() / 86_400));
    }
    Ok(())
}

impl LoadSettings {
    /// Whether all times can be waited for, and whether nodes accept SET_TTL_MS.
    ///
    /// # Errors
    /// One line: the variable, its value and what was expected.
    pub fn check_limits(&self, set_ttl_ms: i64) -> Result<(), String> {
        let times = [
            ("DURATION", Some(self.duration)),
            ("WARMUP", Some(self.warmup)),
            ("QUIESCENCE", Some(self.quiescence)),
            ("CHECK_EVERY", self.check_every.0),
            ("STATS_EVERY", self.stats_every.0),
            ("KILL_AFTER", self.kill_after.0),
            ("KILL_EVERY", Some(self.kill_every)),
            ("RESTART_AFTER", Some(self.restart_after)),
        ];
        times.into_iter().try_for_each(|(name, time)| check_time(name, time.unwrap_or_default()))?;
        if set_ttl_ms > TTL_MS_MAX {
            return Err(format!("SET_TTL_MS={set_ttl_ms}: expected at most {TTL_MS_MAX}, which is 100 years"));
        }
        Ok(())
    }
}

/// Allows this process as many open files as the system lets it have; the limit that holds then.
pub fn raise_file_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised.clone()).is_ok() {
        limit = raised;
    }
    limit.current.unwrap_or(u64::MAX)
}

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
    fn a_time_or_life_beyond_all_limits_is_refused() {
        let parse = |flag: &str| {
            #[derive(clap::Parser)]
            struct Settings {
                #[command(flatten)]
                load: LoadSettings,
            }
            crate::parse_settings::<Settings>(["test", flag].map(Into::into)).unwrap().load
        };
        for name in ["DURATION", "WARMUP", "QUIESCENCE", "CHECK_EVERY", "STATS_EVERY", "KILL_AFTER", "KILL_EVERY"] {
            let flag = name.to_lowercase().replace('_', "-");
            let reason = parse(&format!("--{flag}={}s", u64::MAX)).check_limits(0).unwrap_err();
            assert_eq!(reason, format!("{name}={}s: expected at most 366 days", u64::MAX));
            assert_eq!(parse(&format!("--{flag}=366days")).check_limits(0), Ok(()));
        }
        let load = parse("--keys=1");
        assert_eq!(load.check_limits(TTL_MS_MAX), Ok(()));
        assert!(
            load.check_limits(i64::MAX).unwrap_err().starts_with("SET_TTL_MS=9223372036854775807: expected at most")
        );
    }

    #[test]
    fn operations_in_flight_need_files() {
        assert_eq!(check_files(32, 128), Ok(()));
        let reason = check_files(33, 128).unwrap_err();
        assert!(
            reason.starts_with("CONCURRENCY=33: expected at most 32, because") && reason.contains("128"),
            "{reason}"
        );
        assert!(raise_file_limit() >= 64);
    }
}
