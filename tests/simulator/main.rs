//! Whole clusters of real nodes on the simulated network, under paused time, by the thousand: every seed is another cluster,
//! load and schedule of faults, and its whole history is held against the guarantee.
//!
//! `make sim` says which: SEEDS and FROM many new ones, SEED one alone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "the whole tree is private to this test")]

mod changes;
mod check;
mod cluster;
mod convergence;
mod full;
mod history;
mod leaving;
mod life;
mod links;
mod many;
mod mutants;
mod names;
mod narrator;
mod overlap;
mod plan;
mod printed;
mod promises;
mod rings;
mod rounds;
mod seeds;
mod sessions;
mod shrink;
mod simulation;
mod storm;
mod swarm;
mod tally;

use plan::Plan;
use seeds::{Seed, Seeds};

#[test]
fn seeds_keep_the_guarantee() {
    mutants::plant();
    simulation::watch_panics();
    let seeds = Seeds::chosen();
    let sum = many::simulate(&seeds);
    assert!(sum.failed.is_empty(), "{} of {} seeds failed", sum.failed.len(), sum.seeds);
    // Seeds of one kind cannot meet everything.
    let untouched = if seeds.step == 1 { sum.untouched() } else { Vec::new() };
    assert!(untouched.is_empty(), "the run is void, since these never happened: {untouched:?}");
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 8, 21] {
        let hashes: Vec<u64> = (0..2).map(|_| simulation::simulate(&Plan::of(Seed::new(seed))).hash).collect();
        assert_eq!(hashes[0], hashes[1], "seed {seed} had two histories");
    }
}
