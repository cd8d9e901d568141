//! The settings that both runners have, and how any setting is read, checked and complained about.

use std::{ffi::OsString, str::FromStr, time::Duration};

use clap::{
    ArgAction, Args, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    exec::{Distribution, KEYS_MAX, KeySpace, ValueSizes},
    plan::Plan,
    target::Consistency,
};

/// The load.
#[derive(Args, Clone, Debug)]
pub struct LoadSettings {
    /// How long the load lasts, such as 60s or 1m30s
    #[arg(long, env, default_value = "60s", value_parser = positive_duration)]
    pub duration: Duration,
    /// Requests in flight over all threads, 1 to 65536
    #[arg(long, env, default_value = "512", value_parser = concurrency)]
    pub concurrency: usize,
    /// How many keys are used, 1 to 20000000
    #[arg(long, env, default_value = "50000", value_parser = keys)]
    pub keys: u32,
    /// Writes, in percent of all operations, 0 to 100
    #[arg(long, env, default_value = "10", value_parser = percent)]
    pub set_ratio: u8,
    /// Deletions, in percent of all operations, 0 to 100; with SET_RATIO at most 100
    #[arg(long, env, default_value = "0", value_parser = percent)]
    pub delete_ratio: u8,
    /// How fresh reads must be: one is what any owner has, session is no older than what this client's thread has met,
    /// quorum is no older than what was acknowledged before
    #[arg(long, env, value_enum, default_value_t = Consistency::One)]
    pub read_consistency: Consistency,
    /// on checks every answer; off is only for measuring what that costs
    #[arg(long, env, default_value = "on", action = ArgAction::Set, value_parser = switch)]
    pub check: bool,
    /// Operations per second on a fixed schedule (open loop); 0 keeps CONCURRENCY in flight instead (closed loop)
    #[arg(long, env, default_value = "0", value_parser = rate)]
    pub rate: f64,
    /// How often each key is used: uniform; zipf:EXPONENT such as zipf:0.99; hotspot:OPERATIONS/KEYS in percent such as
    /// hotspot:90/10; latest, where writes go from key to key and what was written last is read most; or sequential
    #[arg(long, env, default_value = "uniform")]
    pub distribution: Distribution,
    /// Pads written values to this many bytes: one size such as 100 or 64KiB, a range such as 100-4KiB, or sizes with weights
    /// such as 100:70,1KiB:25,64KiB:5; 0 leaves them as short as they are (about 45)
    #[arg(long, env, default_value = "0")]
    pub value_bytes: ValueSizes,
    /// Seeds every random choice; empty draws a new seed, which the summary shows
    #[arg(long, env, default_value = "", value_parser = Optional::<u64>::from_str, hide_default_value = true)]
    pub seed: Optional<u64>,
    /// This much of the beginning is measured apart, as phase `warm`
    #[arg(long, env, default_value = "0s", value_parser = duration)]
    pub warmup: Duration,
    /// Write every key before the load begins
    #[arg(long, env, default_value_t = true, action = ArgAction::Set)]
    pub prefill: bool,
    /// After the load, read every key from every node to find lost writes
    #[arg(long, env, default_value_t = true, action = ArgAction::Set)]
    pub final_sweep: bool,
    /// How long to leave the mesh alone before the final sweep
    #[arg(long, env, default_value = "2s", value_parser = duration)]
    pub quiescence: Duration,
    /// How often one random key is compared between all nodes; empty is off
    #[arg(long, env, default_value = "5s", value_parser = Every::from_str)]
    pub check_every: Every,
    /// How often every node's counters are printed; empty is off
    #[arg(long, env, default_value = "", value_parser = Every::from_str, hide_default_value = true)]
    pub stats_every: Every,
    /// A line after this many operations of each worker thread; 0 is off
    #[arg(long, env, default_value = "0", value_parser = count)]
    pub log_every: u64,
    /// The run fails (exit code 1) if more operations than this fail, in percent
    #[arg(long, env, default_value = "0.1", value_parser = share)]
    pub errors_max_percent: f64,
    /// Where machine-readable results are written; empty is off
    #[arg(long, env, default_value = "target/bench/results.json")]
    pub results: String,
    /// Threads that make load, 1 to 255; 0 takes as many as suit this machine
    #[arg(long, env, default_value = "0", value_parser = threads)]
    pub runner_threads: usize,
    /// When a node is killed, after the load began; empty is never
    #[arg(long, env, default_value = "", value_parser = Every::from_str, hide_default_value = true)]
    pub kill_after: Every,
    /// How many kills there are, 1 to 1000, each once every node is ready again; after the last of several the load ends
    #[arg(long, env, default_value = "1", value_parser = kills)]
    pub kill_count: u32,
    /// The least time from one kill to the next
    #[arg(long, env, default_value = "5s", value_parser = duration)]
    pub kill_every: Duration,
    /// How long a killed node stays away before it is started again, where this process starts it
    #[arg(long, env, default_value = "5s", value_parser = duration)]
    pub restart_after: Duration,
}

impl LoadSettings {
    /// Checks settings that depend on one another.
    ///
    /// # Errors
    /// One line: the variable, its value and what was expected.
    pub fn check_together(&self) -> Result<(), String> {
        let (sets, deletes) = (self.set_ratio, self.delete_ratio);
        if sets + deletes > 100 {
            let rest = 100 - sets;
            return Err(format!("DELETE_RATIO={deletes}: expected at most {rest}, because SET_RATIO is {sets}"));
        }
        Ok(())
    }

    /// The plan for these targets, with `threads` threads unless RUNNER_THREADS says otherwise. `set_ttl_ms` is
    /// SET_TTL_MS.
    #[must_use]
    pub fn plan(&self, targets: Vec<String>, threads: usize, set_ttl_ms: i64) -> Plan {
        let threads = if self.runner_threads == 0 { threads } else { self.runner_threads };
        Plan {
            targets,
            nodes_within: false,
            duration: self.duration,
            warmup: self.warmup,
            concurrency: self.concurrency,
            threads: threads.clamp(1, 255).min(self.concurrency),
            rate: (self.rate > 0.0).then_some(self.rate),
            keys: KeySpace::new(self.keys, self.distribution),
            set_ratio: self.set_ratio,
            value_sizes: self.value_bytes.clone(),
            delete_ratio: self.delete_ratio,
            consistency: self.read_consistency,
            ttl: u64::try_from(set_ttl_ms).ok().filter(|ttl_ms| *ttl_ms > 0).map(Duration::from_millis),
            check: self.check,
            seed: self.seed.0.unwrap_or_else(rand::random),
            prefill: self.prefill,
            final_sweep: self.final_sweep,
            quiescence: self.quiescence,
            check_every: self.check_every.0,
            stats_every: self.stats_every.0,
            log_every: self.log_every,
            errors_max_percent: self.errors_max_percent,
            reconcile: true,
            faults: Vec::new(),
        }
    }
}

/// A duration, or nothing for an empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every(pub Option<Duration>);

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(Self(None)) } else { positive_duration(text).map(|every| Self(Some(every))) }
    }
}

/// A whole number, or nothing for an empty text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Optional<T>(pub Option<T>);

impl<T: FromStr> FromStr for Optional<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|number| Self(Some(number))).map_err(|_| "expected a whole number, or nothing".to_owned())
    }
}

/// Reads settings from arguments and environment. `--help` and `--version` print and end the process.
///
/// # Errors
/// One line: the variable, its value and what was expected.
pub fn parse_settings<S: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<S, String> {
    S::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
        _ => explain(&error),
    })
}

fn explain(error: &clap::Error) -> String {
    let (Some(ContextValue::String(flag)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        let text = error.to_string();
        return text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    };
    let name = flag.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default();
    let name = name.replace('-', "_").to_uppercase();
    let possible = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => Some(format!("expected {}", values.join(" or "))),
        _ => None,
    };
    let source = std::error::Error::source(error).map(ToString::to_string);
    let value = value.replace(char::is_whitespace, " ");
    format!("{name}={value}: {}", possible.or(source).unwrap_or_else(|| "expected another value".to_owned()))
}

/// A duration that may be zero.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration such as 60s, 1m30s or 250ms".to_owned())
}

/// A duration above zero.
///
/// # Errors
/// What was expected.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a duration above zero, such as 60s, 1m30s or 250ms".to_owned())
}

fn whole<T: FromStr + PartialOrd>(text: &str, from: T, to: T, expected: &str) -> Result<T, String> {
    text.parse().ok().filter(|n| *n >= from && *n <= to).ok_or_else(|| format!("expected a whole number {expected}"))
}

fn concurrency(text: &str) -> Result<usize, String> {
    whole(text, 1, 65_536, "from 1 to 65536")
}

fn keys(text: &str) -> Result<u32, String> {
    whole(text, 1, KEYS_MAX, "from 1 to 20000000")
}

fn kills(text: &str) -> Result<u32, String> {
    whole(text, 1, 1000, "from 1 to 1000")
}

fn percent(text: &str) -> Result<u8, String> {
    whole(text, 0, 100, "from 0 to 100")
}

fn threads(text: &str) -> Result<usize, String> {
    whole(text, 0, 255, "from 0 to 255")
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}

fn count(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX, "that is not negative")
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=100.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 100".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| *rate == 0.0 || (1.0..=1e7).contains(rate));
    rate.ok_or_else(|| "expected 0, or operations per second from 1 to 10000000".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[derive(Parser, Debug)]
    struct Settings {
        #[command(flatten)]
        load: LoadSettings,
    }

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        parse_settings(["test"].iter().chain(arguments).map(OsString::from))
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let load = parse(&[]).unwrap().load;
        assert_eq!((load.duration, load.concurrency), (Duration::from_secs(60), 512));
        assert_eq!((load.keys, load.set_ratio, load.log_every), (50_000, 10, 0));
        assert_eq!((load.delete_ratio, load.read_consistency, load.check), (0, Consistency::One, true));
        assert_eq!((load.stats_every, load.kill_after), (Every(None), Every(None)));
    }

    #[test]
    fn a_bad_value_is_named_with_what_was_expected() {
        for (flag, value, expected) in [
            ("duration", "0", "DURATION=0: expected a duration above zero"),
            ("duration", "0s", "DURATION=0s: expected a duration above zero"),
            ("duration", "soon", "DURATION=soon: expected a duration above zero"),
            ("keys", "0", "KEYS=0: expected a whole number from 1 to 20000000"),
            ("set-ratio", "101", "SET_RATIO=101: expected a whole number from 0 to 100"),
            ("delete-ratio", "101", "DELETE_RATIO=101: expected a whole number from 0 to 100"),
            ("read-consistency", "two", "READ_CONSISTENCY=two: expected one or session or quorum"),
            ("check", "maybe", "CHECK=maybe: expected on or off"),
            ("concurrency", "0", "CONCURRENCY=0: expected a whole number from 1 to 65536"),
            ("kill-count", "0", "KILL_COUNT=0: expected a whole number from 1 to 1000"),
            ("kill-every", "often", "KILL_EVERY=often: expected a duration"),
            ("final-sweep", "maybe", "FINAL_SWEEP=maybe: expected true or false"),
            ("stats-every", "x", "STATS_EVERY=x: expected a duration"),
            ("rate", "-3", "RATE=-3: expected 0, or operations per second"),
            ("distribution", "zipf:0", "DISTRIBUTION=zipf:0: expected uniform, zipf:EXPONENT with an exponent above 0"),
            ("value-bytes", "3MiB", "VALUE_BYTES=3MiB: expected bytes from 0 to 2MiB, as one size such as 100"),
        ] {
            let message = parse(&[&format!("--{flag}={value}")]).unwrap_err();
            assert!(message.starts_with(expected), "{message:?} should start with {expected:?}");
            assert_eq!(message.lines().count(), 1);
        }
        assert!(parse(&["--durtion=1s"]).unwrap_err().contains("--durtion"));
    }

    #[test]
    fn writes_and_deletions_together_are_at_most_all_operations() {
        let load = |arguments: &[&str]| parse(arguments).unwrap().load.check_together();
        assert_eq!(load(&["--set-ratio=60", "--delete-ratio=40"]), Ok(()));
        let message = load(&["--set-ratio=60", "--delete-ratio=41"]).unwrap_err();
        assert_eq!(message, "DELETE_RATIO=41: expected at most 40, because SET_RATIO is 60");
    }

    #[test]
    fn operations_in_flight_are_shared_out_completely() {
        let plan = parse(&["--concurrency=7", "--runner-threads=3"]).unwrap().load.plan(Vec::new(), 1, 0);
        assert_eq!((0..plan.threads).map(|index| plan.concurrency_of(index)).sum::<usize>(), 7);
        let plan = parse(&["--concurrency=1"]).unwrap().load.plan(Vec::new(), 8, -1);
        assert_eq!(plan.threads, 1);
    }
}
