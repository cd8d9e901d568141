//! Many seeds, as many at a time as there are cores.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::{
    mutants,
    overlap::Pairs,
    plan::Plan,
    printed,
    seeds::{Seed, Seeds, setting},
    shrink,
    simulation::{Verdict, simulate as simulate_one},
    tally::Counts,
};

/// How many findings of one seed are printed.
const FINDINGS_PRINTED: usize = 8;

/// How often a long run says how far it is.
const PROGRESS: Duration = Duration::from_secs(20);

/// How long the first plan that fails is shrunk, unless it was asked for.
const SHRINK: Duration = Duration::from_secs(60);

/// How long if it was.
const SHRINK_ASKED: Duration = Duration::from_secs(600);

/// With at least this many seeds each of these must have happened: a run in which faults did nothing proves nothing.
const SEEDS_SOUND_MIN: u64 = 500;
const TRACES: &[&str] = &[
    "crash",
    "graceful stop",
    "restart storm",
    "pause",
    "slow node",
    "partition, symmetric",
    "partition, one-way",
    "partition, bridge",
    "partition, flapping",
    "loss",
    "delay",
    "reorder",
    "duplicate",
    "clock +1 h",
    "datagrams cut",
    "datagrams lost",
    "datagrams doubled",
    "datagrams overtaken",
    "dead declarations",
    "departures",
    "refutations",
    "connections lost",
    "missed writes",
    "hints replayed",
    "records repaired",
    "drift refusals",
    "clocks set back",
    "tombstones collected",
    "clocks 450 ms apart",
    "few keys, all clients at once",
    "writes in two rounds",
    "writes carried by others",
    "hints dropped",
    "acknowledged writes",
    "indeterminate writes",
    "refused writes",
    "failed reads",
    "misses",
    "hits",
    "no fault",
    "joins",
    "leaves",
    "leaves and returns",
    "changes of weight",
    "joiners killed",
    "leavers killed",
    "changes beside a fault",
    "records given up",
];

/// All verdicts together.
#[derive(Debug, Default)]
pub struct Sum {
    /// Seeds with findings, and their first ones.
    pub failed: BTreeMap<Seed, String>,
    /// How many seeds were simulated.
    pub seeds: u64,
    /// What happened in all of them.
    counts: Counts,
    pairs: Pairs,
    /// Simulated time.
    took: Duration,
    /// Of all histories.
    hash: u64,
    /// How often a long run has said how far it is.
    reports: u32,
}

/// Simulates every seed and prints what came of them.
pub fn simulate(seeds: &Seeds) -> Sum {
    let started = Instant::now();
    println!("{seeds}");
    let sum = Mutex::new(Sum::default());
    let stops_early = mutants::planted().is_some();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.take() {
                    if stops_early && !lock(&sum).failed.is_empty() {
                        return;
                    }
                    let verdict = simulate_one(&Plan::of(seed));
                    let mut sum = lock(&sum);
                    sum.take(seed, &verdict);
                    if started.elapsed() >= PROGRESS * (sum.reports + 1) {
                        sum.reports += 1;
                        sum.print_progress(seeds, started.elapsed());
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().expect("nobody panics under this lock");
    sum.print(started.elapsed());
    match setting::<u8>("SHRINK") {
        Some(0) => {}
        Some(_) => sum.shrink_first(SHRINK_ASKED),
        None if stops_early => {}
        None => sum.shrink_first(SHRINK),
    }
    sum
}

fn lock(sum: &Mutex<Sum>) -> MutexGuard<'_, Sum> {
    sum.lock().expect("nobody panics under this lock")
}

impl Sum {
    /// What should have happened in so many seeds and did not.
    pub fn untouched(&self) -> Vec<&'static str> {
        let missing = TRACES.iter().copied().filter(|name| self.counts.get(name) == 0);
        if self.seeds < SEEDS_SOUND_MIN { Vec::new() } else { missing.collect() }
    }

    fn take(&mut self, seed: Seed, verdict: &Verdict) {
        self.seeds += 1;
        self.counts.merge(&verdict.counts);
        self.pairs.merge(&verdict.pairs);
        self.took += verdict.took;
        self.hash = self.hash.wrapping_add(verdict.hash);
        let Some(first) = verdict.findings.first() else { return };
        self.failed.insert(seed, first.clone());
        println!("seed {seed}: {} findings; replay it with `make sim SEED={seed}`", verdict.findings.len());
        println!("  {:?}", Plan::of(seed));
        for finding in verdict.findings.iter().take(FINDINGS_PRINTED) {
            println!("  {finding}");
        }
    }

    fn print_progress(&self, seeds: &Seeds, since: Duration) {
        let (done, rate) = (self.seeds, self.seeds as f64 / since.as_secs_f64());
        let left = match seeds.until {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None => Duration::from_secs_f64(seeds.count.saturating_sub(done) as f64 / rate),
        };
        let failed = self.failed.len();
        println!("{done} seeds, {rate:.1} a second, {failed} failed, {} min left", left.as_secs().div_ceil(60));
    }

    fn print(&self, since: Duration) {
        let (simulated, since, seeds) = (self.took.as_secs_f64(), since.as_secs_f64(), self.seeds);
        let rate = seeds as f64 / since;
        println!(
            "{seeds} seeds, {simulated:.0} s simulated in {since:.1} s, {rate:.1} seeds a second, histories {:016x}:",
            self.hash
        );
        for (name, count) in self.counts.iter() {
            println!("  {count:>9} {name}");
        }
        if seeds > 1 {
            println!("{}", self.pairs);
        }
        println!("{} seeds with findings", self.failed.len());
        for (seed, finding) in &self.failed {
            let (plan, finding) = (Plan::of(*seed), finding.chars().take(90).collect::<String>());
            println!("| {seed} | {:?} | {finding} | {} |", plan.promise, printed::line(&plan));
        }
    }

    /// Makes the first plan that failed as small as can be, and prints it.
    fn shrink_first(&self, time: Duration) {
        let Some((seed, first)) = self.failed.first_key_value() else { return };
        println!("shrinking seed {seed} for at most {} s", time.as_secs());
        let kind = shrink::kind(first);
        let is_it = |finding: &String| shrink::kind(finding) == kind;
        let fails = |plan: &Plan| simulate_one(plan).findings.into_iter().find(is_it);
        match shrink::shrink(&Plan::of(*seed), Instant::now() + time, fails) {
            Some((plan, finding)) => println!("// {finding}\n{}", printed::source(&plan)),
            None => println!("it does not fail again"),
        }
    }
}
