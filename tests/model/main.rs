//! Every interleaving of a few writes and a read with a few faults, on three nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "the whole tree is private to this test")]

mod action;
mod bounds;
mod diag;
mod driver;
mod machines;
mod membership;
mod memo;
mod replica;
mod rounds;
mod search;
mod state;
mod symmetry;
mod sync;

#[test]
fn run() {
    if let Ok(name) = std::env::var("MESH_MUTANT") {
        mesh_proto::Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name).unwrap().plant();
    }
    search::from_environment();
}

#[test]
fn rounds_run() {
    use stateright::{Checker, HasDiscoveries, Model};
    if let Ok(name) = std::env::var("MESH_MUTANT") {
        mesh_proto::Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name).unwrap().plant();
    }
    let started = std::time::Instant::now();
    let checker = rounds::Rounds.checker().finish_when(HasDiscoveries::Any).target_state_count(20_000_000).spawn_bfs().join();
    println!("{} {} {:?}", checker.unique_state_count(), checker.state_count(), started.elapsed());
    for (name, path) in checker.discoveries() {
        println!("{name}");
        for (_, action) in path.into_vec() {
            println!("{action:?}");
        }
    }
}
