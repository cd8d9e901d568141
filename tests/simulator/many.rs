//! Many seeds, as many at a time as there are cores.

use std::{
    env,
    ops::Range,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    mutants,
    plan::{Plan, changes_percent},
    simulation::{Verdict, simulate as simulate_one},
    tally::Counts,
};

/// How many seeds are simulated if nothing else is said.
const SEEDS: u64 = 2000;

/// How many findings of one seed are printed.
const FINDINGS_PRINTED: usize = 8;

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
];

/// These too, if nodes join and leave.
const TRACES_OF_CHANGES: &[&str] = &[
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

/// Which seeds to simulate: MESH_SEED alone, or SEEDS of them from there on; by default the first ones.
pub fn chosen() -> Range<u64> {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a whole number")))
    };
    match (number("MESH_SEED"), number("SEEDS")) {
        (Some(seed), seeds) => seed..seed + seeds.unwrap_or(1),
        (None, seeds) => 0..seeds.unwrap_or(SEEDS),
    }
}

/// All verdicts together.
#[derive(Debug, Default)]
pub struct Sum {
    /// Seeds with findings.
    pub failed: Vec<u64>,
    /// What happened in all of them.
    pub counts: Counts,
    took: Duration,
    /// Of all histories.
    hash: u64,
}

/// Simulates every seed and prints what came of them.
pub fn simulate(seeds: Range<u64>) -> Sum {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let stops_early = mutants::planted().is_some();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end || (stops_early && !lock(&sum).failed.is_empty()) {
                        return;
                    }
                    let verdict = simulate_one(&Plan::of(seed));
                    let done = seed + 1 - seeds.start;
                    lock(&sum).take(seed, &verdict);
                    if done.is_multiple_of(250) {
                        println!("{done} seeds after {:.0} s", started.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().expect("nobody panics under this lock");
    sum.failed.sort_unstable();
    sum.print(seeds.end - seeds.start, started.elapsed());
    sum
}

fn lock(sum: &Mutex<Sum>) -> MutexGuard<'_, Sum> {
    sum.lock().expect("nobody panics under this lock")
}

impl Sum {
    /// What should have happened in so many seeds and did not.
    pub fn untouched(&self, seeds: u64) -> Vec<&'static str> {
        let of_changes = if changes_percent() > 0 { TRACES_OF_CHANGES } else { &[] };
        let missing = TRACES.iter().chain(of_changes).copied().filter(|name| self.counts.get(name) == 0);
        if seeds < SEEDS_SOUND_MIN { Vec::new() } else { missing.collect() }
    }

    fn take(&mut self, seed: u64, verdict: &Verdict) {
        self.counts.merge(&verdict.counts);
        self.took += verdict.took;
        self.hash = self.hash.wrapping_add(verdict.hash);
        if verdict.findings.is_empty() {
            return;
        }
        self.failed.push(seed);
        let plan = Plan::of(seed);
        let (found, percent) = (verdict.findings.len(), changes_percent());
        println!("seed {seed}: {found} findings; replay it with `make sim SEED={seed} CHANGES={percent}`");
        println!("  {plan:?}");
        for finding in verdict.findings.iter().take(FINDINGS_PRINTED) {
            println!("  {finding}");
        }
    }

    fn print(&self, seeds: u64, took: Duration) {
        println!(
            "{seeds} seeds, {:.0} s simulated in {:.1} s, histories {:016x}:",
            self.took.as_secs_f64(),
            took.as_secs_f64(),
            self.hash
        );
        for (name, count) in self.counts.iter() {
            println!("  {count:>9} {name}");
        }
        println!("  {:>9} seeds with findings", self.failed.len());
    }
}
