//! Every interleaving of a few faults, leaves and returns with a quorum read at every instant, on three nodes of which two must have
//! applied a write: the real `RepairPlan`, `Write` and store under a literal model of membership and handover. `state` has what
//! is modelled and `bounds` how much of it. `rounds` is a second model, of the order of writes. `MODEL=1` takes the larger bounds.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "the whole tree is private to this test")]

mod action;
mod bounds;
mod driver;
mod machines;
mod membership;
mod memo;
mod mutants;
mod replica;
mod requests;
mod rounds;
mod search;
mod state;
mod symmetry;
mod sync;

use bounds::Bounds;
use search::{Mesh, search};

/// One write is acknowledged by all at first, and a quorum reads it at every instant.
const READ: Bounds = Bounds { first: true, reads: 1, attempts: 1, high_start: true, ..Bounds::NONE };

/// As `READ`, with all who leave and return.
const LEAVE_TWICE: Bounds = Bounds { leaves: 2, returns: 2, ..READ };

fn holds(bounds: Bounds) {
    search(Mesh { bounds }).assert_holds();
}

fn is_large() -> bool {
    std::env::var_os("MODEL").is_some()
}

#[test]
fn two_that_leave_and_return_in_turn_lose_nothing() {
    holds(LEAVE_TWICE);
}

#[test]
fn two_that_crash_and_return_one_after_the_other_lose_nothing() {
    holds(Bounds { crashes: 2, returns: 2, ..READ });
}

#[test]
fn a_cut_beside_a_crash_loses_nothing() {
    holds(Bounds { cuts: 1, crashes: 1, returns: 1, ..READ });
    if is_large() {
        holds(Bounds { cuts: 1, leaves: 1, returns: 1, ..READ });
        holds(Bounds { cuts: 2, ..READ });
    }
}

/// They may meet before they have heard of the member that holds everything.
#[test]
fn newcomers_alone_are_not_in_sync() {
    let crash_and_leave = Bounds { crashes: 1, leaves: 1, returns: 2, ..READ };
    holds(Bounds { reads: 0, ..crash_and_leave });
    if is_large() {
        holds(crash_and_leave);
        holds(Bounds { impatient: true, ..LEAVE_TWICE });
    }
}

/// Two writes of one key by two coordinators that are no owners, and an owner that crashes.
const WRITES: rounds::Bounds =
    rounds::Bounds { own: false, outlast: false, writes: 2, crashes: 1, held_max: 2, clock_max: 1 };

fn writes_hold(bounds: rounds::Bounds) {
    search(bounds).assert_holds();
}

#[test]
fn no_acknowledged_write_is_superseded_by_one_that_was_before_it() {
    mutants::plant();
    writes_hold(WRITES);
    writes_hold(rounds::Bounds { own: true, ..WRITES });
    if is_large() {
        let three = rounds::Bounds { writes: 3, held_max: 0, clock_max: 0, ..WRITES };
        for own in [false, true] {
            writes_hold(rounds::Bounds { own, ..three });
            writes_hold(rounds::Bounds { own, crashes: 0, held_max: 1, ..three });
        }
    }
}

/// Why a node that starts waits for as long as a write may take: an owner's answer outlives its process.
#[test]
fn a_write_that_outlasts_the_return_of_an_owner_that_answered_may_be_lost() {
    let bounds = rounds::Bounds { outlast: true, writes: 1, ..WRITES };
    assert_eq!(search(bounds).broken, ["a quorum of owners in sync knows what was acknowledged"]);
}
