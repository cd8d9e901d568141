//! The settings that both runners have.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Args};
use settings::{Every, Mistakes, boolean, duration, number, off_or, positive_duration, whole};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Guarantee, Measure, Objective, Objectives, Op, Phase, Results, RunnerShard, StartAt,
    exec::{Distribution, FIRST_RATE, KEYS_MAX, KeySpace, Progress, ValueSizes, ValueTtls},
    plan::{Plan, Shown},
    target::ReadConsistency,
};

/// What a search for the highest rate allows where OBJECTIVES does not say it.
const FIND_MAX_P99: &str = "50ms";

/// The longest name of a run.
const RUN_ID_MAX: usize = 64;

/// The load.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub struct LoadSettings {
    /// How long the load lasts, such as 60s or 1m30s; with FIND_MAX each step of it, and then 5s unless it is set
    #[arg(long, env, default_value = "60s", value_parser = positive_duration,
        default_value_ifs = ["on", "true", "yes", "1"].map(|on| ("find_max", on, "5s")))]
    pub duration: Duration,
    /// Requests in flight over all threads, 1 to 65536
    #[arg(long, env, default_value = "512", value_parser = whole::<usize>(1, 65_536))]
    pub concurrency: usize,
    /// How many keys are used, 1 to 20000000
    #[arg(long, env, default_value = "50000", value_parser = whole::<u32>(1, KEYS_MAX.into()))]
    pub keys: u32,
    /// Writes, in percent of all operations, 0 to 100
    #[arg(long, env, default_value = "10", value_parser = whole::<u8>(0, 100))]
    pub set_ratio: u8,
    /// Deletions, in percent of all operations, 0 to 100; with SET_RATIO at most 100
    #[arg(long, env, default_value = "0", value_parser = whole::<u8>(0, 100))]
    pub delete_ratio: u8,
    /// Write what a read did not find, at once and by the same session, as a cache-aside client does. These writes come on top of RATE
    /// and of what CONCURRENCY would have done, and count as SET
    #[arg(long, env, default_value = "off", action = ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "on", value_parser = boolean)]
    pub backfill: bool,
    /// How fresh reads must be: one is what any owner has, session is no older than what this client's thread has met,
    /// quorum is no older than what was acknowledged before
    #[arg(long, env, value_enum, default_value_t = ReadConsistency::One)]
    pub read_consistency: ReadConsistency,
    /// on checks every answer; off is only for measuring what that costs
    #[arg(long, env, default_value = "on", action = ArgAction::Set, value_parser = boolean)]
    pub check: bool,
    /// Operations per second on a fixed schedule (open loop); 0 keeps CONCURRENCY in flight instead (closed loop)
    #[arg(long, env, default_value = "0", value_parser = rate)]
    pub rate: f64,
    /// How often each key is used: uniform; zipf:EXPONENT such as zipf:0.99; hotspot:OPERATIONS/KEYS in percent such as
    /// hotspot:90/10, where the hot keys change every TIME with hotspot:OPERATIONS/KEYS/TIME such as hotspot:90/10/5s; latest, where writes go from key to key and what was written last is read most; or sequential
    #[arg(long, env, default_value = "uniform")]
    pub distribution: Distribution,
    /// Pads written values to this many bytes: one size such as 100 or 64KiB, a range such as 100-4KiB, or sizes with weights
    /// such as 100:70,1KiB:25,64KiB:5; 0 leaves them as short as they are (about 45)
    #[arg(long, env, default_value = "0")]
    pub value_bytes: ValueSizes,
    /// Seeds every random choice; unset, a new seed is drawn, which the summary shows
    #[arg(long, env, value_parser = whole::<u64>(0, u64::MAX))]
    pub seed: Option<u64>,
    /// This much of the beginning is measured apart, as phase `warm`
    #[arg(long, env, default_value = "0s", value_parser = duration)]
    pub warmup: Duration,
    /// Write every key before the load begins
    #[arg(long, env, default_value = "true", action = ArgAction::Set, value_parser = boolean)]
    pub prefill: bool,
    /// After the load, read every key from every node to find lost writes
    #[arg(long, env, default_value = "true", action = ArgAction::Set, value_parser = boolean)]
    pub final_sweep: bool,
    /// How long to leave the mesh alone before the final sweep
    #[arg(long, env, default_value = "2s", value_parser = duration)]
    pub quiescence: Duration,
    /// How often one random key is compared between all nodes, or off
    #[arg(long, env, default_value = "5s", value_parser = Every::from_str)]
    pub check_every: Every,
    /// How often every node's counters are printed, or off
    #[arg(long, env, default_value = "off", value_parser = Every::from_str)]
    pub stats_every: Every,
    /// A line after this many operations of each worker thread; 0 is off
    #[arg(long, env, default_value = "0", value_parser = whole::<u64>(0, u64::MAX))]
    pub log_every: u64,
    /// The run fails (exit code 1) if more operations than this fail, in percent
    #[arg(long, env, default_value = "0.1", value_parser = number(0.0, 100.0))]
    pub errors_max_percent: f64,
    /// What the run is to reach, or it fails (exit code 1): a list such as `get.p99<5ms; errors<0.1%`
    ///
    /// Separated by semicolons or commas; with <= or >= the limit itself is allowed:
    ///
    ///   get.p99<5ms        response time of GET (set, delete): p50, p95, p99, p99.9, max
    ///   errors<0.1%        operations that failed or have an unknown outcome; get.errors
    ///   throughput>10000   operations per second
    ///   recovery<10s       from a fault's end until all replicas are in sync, of each fault
    ///   steady.get.p99<2ms only in a part of the run: warm, steady, in_fault, recovered
    ///
    /// A failed operation counts as slower than any limit. A percentile with fewer than 10
    /// operations beyond it is not judged, and makes the run invalid. errors<X% takes the
    /// place of ERRORS_MAX_PERCENT.
    #[arg(long, env, default_value = "", hide_default_value = true, verbatim_doc_comment)]
    pub objectives: Objectives,
    /// Look for the highest rate of an open loop that meets OBJECTIVES, without any a p99 of 50ms, and ERRORS_MAX_PERCENT: steps
    /// of DURATION each, first of twice the rate before, then between the highest that did and the lowest that did not
    #[arg(long, env, default_value = "off", action = ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "on", value_parser = boolean)]
    pub find_max: bool,
    /// Print to a terminal what a file or a pipe gets: the lines that scripts look for, all tables, and the verdict last
    #[arg(long, env, default_value = "off", action = ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "on", value_parser = boolean, help_heading = "Summary")]
    pub compat: bool,
    /// Print all tables to a terminal, before the first screen
    #[arg(long, env, default_value = "off", action = ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "on", value_parser = boolean, help_heading = "Summary")]
    pub details: bool,
    /// What is shown while the run goes on: auto is a live view where standard output and standard error are a terminal, and plain
    /// elsewhere; plain is a bar on a terminal and a line every 5 s; rows is a row per second on standard error; ndjson a JSON object
    /// per second, alone on standard output; off is nothing
    #[arg(long, visible_alias = "format", env, value_enum, default_value_t, help_heading = "Summary")]
    pub progress: Progress,
    /// A bar instead of the live view on a terminal
    #[arg(long, env, default_value = "off", action = ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "on", value_parser = boolean, help_heading = "Summary")]
    pub plain: bool,
    /// The folder in which each run makes one of its own, with its results, summary and report; or a path that ends in .json for the
    /// machine-readable results alone; or off
    #[arg(long, env, default_value = "results", value_parser = off_or(path))]
    pub results: std::option::Option<PathBuf>,
    /// Threads that make load, 1 to 255; 0 takes as many as suit this machine
    #[arg(long, env, default_value = "0", value_parser = whole::<usize>(0, 255))]
    pub runner_threads: usize,
    /// Which part of the load this runner makes, such as 0/3 for the first of three; each has its own keys and its share of KEYS, RATE and
    /// CONCURRENCY, only the first orders faults, and `runner merge` makes one report of all. Where JOB_COMPLETION_INDEX is set, as in a
    /// Kubernetes Indexed Job, the number of shards is enough
    #[arg(long, env, help_heading = "Shards")]
    pub shard: Option<RunnerShard>,
    /// When the load begins, by the wall clock, such as 2026-11-28T21:00:00Z or Unix seconds: the same for all shards, after their prefill
    #[arg(long, env, help_heading = "Shards")]
    pub start_at: Option<StartAt>,
    /// What all shards call the run: letters, digits, - and _
    #[arg(long, env, default_value = "", hide_default_value = true, value_parser = run_id, help_heading = "Shards")]
    pub run_id: String,
    /// When a node is killed, after the load began; off is never
    #[arg(long, env, default_value = "off", value_parser = Every::from_str, help_heading = "Faults")]
    pub kill_after: Every,
    /// How many kills there are, 1 to 1000, each once every node is ready again; after the last of several the load ends
    #[arg(long, env, default_value = "1", value_parser = whole::<u32>(1, 1000), help_heading = "Faults")]
    pub kill_count: u32,
    /// The least time from one kill to the next
    #[arg(long, env, default_value = "5s", value_parser = duration, help_heading = "Faults")]
    pub kill_every: Duration,
    /// How long a killed node stays away before it is started again, where this process starts it
    #[arg(long, env, default_value = "5s", value_parser = duration, help_heading = "Faults")]
    pub restart_after: Duration,
}

impl LoadSettings {
    /// Checks settings that depend on one another, and on whether there are faults.
    pub fn check_together(&self, has_faults: bool, mistakes: &mut Mistakes) {
        let (sets, deletes) = (self.set_ratio, self.delete_ratio);
        if sets + deletes > 100 {
            let expected = format!("expected at most {}, because SET_RATIO is {sets}", 100 - sets);
            mistakes.refuse("DELETE_RATIO", deletes, expected);
        }
        let unmeasured = |objective| Some((objective, self.missing_for(objective, has_faults)?));
        if let Some((objective, missing)) = self.objectives.as_slice().iter().find_map(unmeasured) {
            mistakes.refuse("OBJECTIVES", &self.objectives, format!("{objective}: expected {missing}"));
        }
        self.check_search(has_faults, mistakes);
        let Some(shard) = self.shard.filter(|shard| shard.is_one_of_many()) else { return };
        if self.run_id.is_empty() {
            mistakes.refuse("RUN_ID", "", "expected a name that all shards are given, because SHARD is set".to_owned());
        }
        for (name, value) in [("KEYS", u64::from(self.keys)), ("CONCURRENCY", self.concurrency as u64)] {
            if value < u64::from(shard.count) {
                mistakes.refuse(name, value, format!("expected at least {}, because SHARD is {shard}", shard.count));
            }
        }
    }

    /// From here on, output is what PROGRESS says.
    pub fn begin_output(&self) {
        self.progress.begin(self.plain || self.compat);
    }

    /// Opens RESULTS for the run that these settings describe.
    ///
    /// # Errors
    /// One line: the variable, its value and why it cannot be written.
    pub fn open_results(&self) -> Result<Option<Results>, String> {
        let run_id = self.shard.unwrap_or(RunnerShard::ALL).run_id(&self.run_id);
        Results::open(self.results.as_deref(), Some(run_id.as_str()).filter(|_| !self.run_id.is_empty()))
    }

    /// Refuses what a search for the highest rate cannot be told from.
    fn check_search(&self, has_faults: bool, mistakes: &mut Mistakes) {
        if !self.find_max {
            return;
        }
        if self.rate > 0.0 {
            mistakes.refuse("RATE", self.rate, "expected 0, because FIND_MAX looks for the rate itself");
        }
        let other = match has_faults {
            true => {
                Some("FAULTS, KILL_MODE and KILL_AFTER are for a fixed load: a fault would pass for the mesh's limit")
            }
            false => {
                self.shard.filter(|shard| shard.is_one_of_many()).map(|_| "SHARD is set, and one runner alone searches")
            }
        };
        if let Some(why) = other {
            mistakes.refuse("FIND_MAX", "on", format!("expected off, because {why}"));
        }
    }

    /// What a run must have for this objective, and lacks.
    fn missing_for(&self, objective: &Objective, has_faults: bool) -> Option<&'static str> {
        let (sets, deletes) = (self.set_ratio, self.delete_ratio);
        let is_of_faults = matches!(objective.phase, Some(Phase::InFault | Phase::Recovered));
        match (objective.op, objective.phase, objective.measure) {
            (Some(Op::Get), ..) if sets + deletes >= 100 => Some("SET_RATIO and DELETE_RATIO below 100 together"),
            (Some(Op::Set), ..) if sets == 0 && !self.backfill => Some("SET_RATIO above 0"),
            (Some(Op::Delete), ..) if deletes == 0 => Some("DELETE_RATIO above 0"),
            (_, Some(Phase::Warm), _) if self.warmup.is_zero() => Some("WARMUP above 0s"),
            (.., Measure::Recovery) if !has_faults => Some("a fault, as by FAULTS or KILL_AFTER"),
            (.., Measure::Throughput) if self.find_max => Some("no throughput, because FIND_MAX looks for it"),
            _ if is_of_faults && !has_faults => Some("a fault, as by FAULTS or KILL_AFTER"),
            _ => None,
        }
    }

    /// What an open loop begins with.
    fn first_rate(&self) -> Option<f64> {
        if self.find_max { Some(FIRST_RATE) } else { (self.rate > 0.0).then_some(self.rate) }
    }

    /// OBJECTIVES, or what a search goes by without any.
    fn objectives(&self) -> Objectives {
        if !self.find_max || !self.objectives.as_slice().is_empty() {
            return self.objectives.clone();
        }
        let (sets, deletes) = (self.set_ratio, self.delete_ratio);
        let made = [("get", sets + deletes < 100), ("set", sets > 0), ("delete", deletes > 0)];
        let made = made.iter().filter(|(_, is_made)| *is_made);
        // What is written here can be read; if not, the search goes by errors alone.
        made.map(|(op, _)| format!("{op}.p99<={FIND_MAX_P99};")).collect::<String>().parse().unwrap_or_default()
    }

    /// The plan for these targets, with `threads` threads unless RUNNER_THREADS says otherwise. `ttls` is
    /// SET_TTL_MS.
    #[must_use]
    pub fn plan(&self, targets: Vec<String>, threads: usize, ttls: &ValueTtls) -> Plan {
        let threads = if self.runner_threads == 0 { threads } else { self.runner_threads };
        let shard = self.shard.unwrap_or(RunnerShard::ALL);
        let concurrency = shard.share(u32::try_from(self.concurrency).unwrap_or(u32::MAX)) as usize;
        // All shards have to draw the same victims.
        let drawn = || if shard.is_one_of_many() { xxh3_64(self.run_id.as_bytes()) } else { rand::random() };
        Plan {
            targets,
            guarantee: Guarantee::Mesh,
            nodes_within: false,
            duration: self.duration,
            warmup: self.warmup,
            concurrency,
            threads: threads.clamp(1, 255).min(concurrency),
            rate: self.first_rate().map(|rate| rate / f64::from(shard.count)),
            find_max: self.find_max,
            keys: KeySpace::of_shard(self.keys, self.distribution, shard),
            set_ratio: self.set_ratio,
            value_sizes: self.value_bytes.clone(),
            delete_ratio: self.delete_ratio,
            consistency: self.read_consistency,
            ttls: ttls.clone(),
            backfill: self.backfill,
            ttl: ttls.longest(),
            check: self.check,
            seed: self.seed.unwrap_or_else(drawn),
            prefill: self.prefill,
            final_sweep: self.final_sweep,
            quiescence: self.quiescence,
            check_every: self.check_every.0,
            stats_every: self.stats_every.0,
            log_every: self.log_every,
            errors_max_percent: self.errors_max_percent,
            objectives: self.objectives(),
            shown: Shown { compat: self.compat, details: self.details },
            // The nodes count what the other shards do, too.
            reconcile: !shard.is_one_of_many(),
            shard,
            start_at: self.start_at,
            run_id: self.run_id.clone(),
            faults: Vec::new(),
        }
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".to_owned()) } else { Ok(text.into()) }
}

fn run_id(text: &str) -> Result<String, String> {
    let is_name = text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
    let fits = is_name && text.len() <= RUN_ID_MAX;
    if fits { Ok(text.to_owned()) } else { Err(format!("expected at most {RUN_ID_MAX} letters, digits, - and _")) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = if text == "0" { Ok(0.0) } else { number(1.0, 1e7)(text) };
    rate.map_err(|_| "expected 0, or operations per second from 1 to 10000000".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use rand::Rng;

    use super::*;

    #[derive(clap::Parser, Debug)]
    struct Settings {
        #[command(flatten)]
        load: LoadSettings,
    }

    fn parse(arguments: &[&str]) -> Result<Settings, String> {
        let arguments = ["test"].iter().chain(arguments).map(Into::into);
        let parsed = settings::parse(arguments, |settings: Settings, mistakes| {
            settings.load.check_together(false, mistakes);
            Some(settings)
        });
        parsed.map_err(|exit| exit.to_string())
    }

    /// The plan that these flags make, for one target.
    pub(crate) fn plan_of(arguments: &[&str]) -> Plan {
        parse(arguments).unwrap().load.plan(vec!["a".to_owned()], 1, &ValueTtls::Fixed(0))
    }

    #[test]
    fn shards_share_the_load_and_draw_alike() {
        let plans: Vec<_> = (0..3)
            .map(|index| plan_of(&[&format!("--shard={index}/3"), "--run-id=r", "--concurrency=10", "--rate=900"]))
            .collect();
        assert_eq!(plans.iter().map(|plan| plan.concurrency).collect::<Vec<_>>(), [4, 3, 3]);
        assert!(plans.iter().all(|plan| plan.rate == Some(300.0) && plan.seed == plans[0].seed && !plan.reconcile));
        assert_ne!(plans[0].dice(0, 0).random::<u64>(), plans[1].dice(0, 0).random::<u64>());
        for (arguments, expected) in [
            (&["--shard=0/3"][..], "RUN_ID=: expected a name that all shards are given"),
            (&["--shard=0/3", "--run-id=r", "--keys=2"], "KEYS=2: expected at least 3, because SHARD is 0/3"),
            (&["--run-id=a b"], "RUN_ID=a b: expected at most 64 letters, digits, - and _"),
            (&["--start-at=soon"], "START_AT=soon: expected a time such as"),
        ] {
            let message = parse(arguments).unwrap_err();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let load = parse(&[]).unwrap().load;
        assert_eq!((load.duration, load.concurrency), (Duration::from_secs(60), 512));
        assert_eq!((load.keys, load.set_ratio, load.log_every), (50_000, 10, 0));
        assert_eq!((load.delete_ratio, load.read_consistency, load.check), (0, ReadConsistency::One, true));
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
            ("check", "maybe", "CHECK=maybe: expected true or false"),
            ("concurrency", "0", "CONCURRENCY=0: expected a whole number from 1 to 65536"),
            ("kill-count", "0", "KILL_COUNT=0: expected a whole number from 1 to 1000"),
            ("kill-every", "often", "KILL_EVERY=often: expected a duration"),
            ("final-sweep", "maybe", "FINAL_SWEEP=maybe: expected true or false"),
            ("stats-every", "x", "STATS_EVERY=x: expected off or a duration"),
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
        assert!(parse(&["--set-ratio=60", "--delete-ratio=40"]).is_ok());
        let message = parse(&["--set-ratio=60", "--delete-ratio=41"]).unwrap_err();
        assert_eq!(message, "DELETE_RATIO=41: expected at most 40, because SET_RATIO is 60");
    }

    #[test]
    fn an_objective_that_nothing_can_be_measured_for_is_refused() {
        let refused = |arguments: &[&str]| parse(arguments).err().unwrap_or_default();
        for (objective, others, missing) in [
            ("delete.p99<5ms", &[][..], "DELETE_RATIO above 0"),
            ("set.errors<5%", &["--set-ratio=0"], "SET_RATIO above 0"),
            ("get.p99<5ms", &["--set-ratio=100"], "SET_RATIO and DELETE_RATIO below 100 together"),
            ("warm.get.p99<5ms", &[], "WARMUP above 0s"),
            ("recovery<5s", &[], "a fault, as by FAULTS or KILL_AFTER"),
            ("in_fault.errors<5%", &[], "a fault, as by FAULTS or KILL_AFTER"),
        ] {
            let objectives = format!("--objectives=get.max<=1s; {objective}");
            let arguments = [&[&*objectives], others].concat();
            let expected = match objective {
                // The first of them needs reads, too.
                "get.p99<5ms" => format!("OBJECTIVES=get.max<=1s; {objective}: get.max<=1s: expected {missing}"),
                _ => format!("OBJECTIVES=get.max<=1s; {objective}: {objective}: expected {missing}"),
            };
            assert_eq!(refused(&arguments), expected);
        }
        assert_eq!(refused(&["--objectives=delete.p99<5ms; warm.errors<1%", "--delete-ratio=1", "--warmup=1s"]), "");
        let message = refused(&["--objectives=gte.p99<5ms"]);
        assert_eq!(message, "OBJECTIVES=gte.p99<5ms: entry 1, `gte.p99<5ms`: `gte` is not known; did you mean get?");
    }

    #[test]
    fn a_search_has_steps_of_its_own_and_neither_rate_nor_faults() {
        let plan = |arguments: &[&str]| plan_of(arguments);
        let found = plan(&["--find-max", "--delete-ratio=5"]);
        assert_eq!((found.find_max, found.rate, found.duration), (true, Some(FIRST_RATE), Duration::from_secs(5)));
        assert_eq!(found.objectives.to_string(), "get.p99<=50ms; set.p99<=50ms; delete.p99<=50ms");
        let found = plan(&["--find-max=true", "--duration=2s", "--objectives=get.p99<1ms", "--set-ratio=0"]);
        assert_eq!((found.objectives.to_string(), found.duration), ("get.p99<1ms".to_owned(), Duration::from_secs(2)));
        assert_eq!(plan(&["--find-max=off"]).duration, Duration::from_secs(60));
        let refused = |arguments: &[&str]| parse(&[&["--find-max"], arguments].concat()).unwrap_err();
        assert_eq!(refused(&["--rate=5"]), "RATE=5: expected 0, because FIND_MAX looks for the rate itself");
        assert!(
            refused(&["--objectives=throughput>5"]).ends_with("expected no throughput, because FIND_MAX looks for it")
        );
        assert!(refused(&["--shard=0/2", "--run-id=r"]).starts_with("FIND_MAX=on: expected off, because SHARD is set"));
        let load = parse(&["--find-max"]).unwrap().load;
        let mut mistakes = Mistakes::default();
        load.check_together(true, &mut mistakes);
        assert!(
            mistakes.to_string().starts_with("FIND_MAX=on: expected off, because FAULTS, KILL_MODE and"),
            "{mistakes}"
        );
    }

    #[test]
    fn operations_in_flight_are_shared_out_completely() {
        let plan =
            parse(&["--concurrency=7", "--runner-threads=3"]).unwrap().load.plan(Vec::new(), 1, &ValueTtls::Fixed(0));
        assert_eq!((0..plan.threads).map(|index| plan.concurrency_of(index)).sum::<usize>(), 7);
        let plan = parse(&["--concurrency=1"]).unwrap().load.plan(Vec::new(), 8, &ValueTtls::Fixed(-1));
        assert_eq!(plan.threads, 1);
    }
}
