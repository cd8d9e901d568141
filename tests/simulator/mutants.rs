//! The proof of the proof: every defect of [`Mutant`], planted in a process of its own, makes the tests that are meant to
//! notice it fail. The same tests without a defect pass, or the defect would have proven nothing.

use std::{
    env,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use mesh_proto::Mutant;

/// Names the defect to plant.
const VARIABLE: &str = "MESH_MUTANT";

/// How many seeds, at most, have the chance to notice a defect.
const SEEDS: &str = "60";

/// The table that people read.
const TABLE: &str = include_str!("../../docs/MUTANTS.md");

/// The defect that this process is to have, if any.
pub fn planted() -> Option<Mutant> {
    let name = env::var(VARIABLE).ok()?;
    Some(Mutant::named(&name).unwrap_or_else(|| panic!("{VARIABLE}={name}: there is no such defect")))
}

/// Plants it. To be called first thing by every test that kills one.
pub fn plant() {
    if let Some(mutant) = planted() {
        mutant.plant();
    }
}

/// The test of this binary that is to fail.
const fn killer(mutant: Mutant) -> &'static str {
    match mutant {
        Mutant::SerialHedge => "promises::an_owner_that_falls_silent_costs_reads_next_to_nothing",
        Mutant::HashTimesWeight => "promises::shares_of_the_ring_follow_weights",
        Mutant::DriftAccepted => "promises::a_clock_an_hour_ahead_is_refused_and_counted_and_poisons_nobody",
        Mutant::MissWhenEmpty => "promises::an_empty_node_does_not_say_that_there_is_nothing",
        Mutant::DigestsWithoutTombstones => "promises::a_deletion_reaches_an_owner_that_missed_it_and_its_hint",
        Mutant::RepairUnchecked => "promises::repair_replaces_nothing_newer",
        Mutant::HintIsAck => "promises::a_write_that_reaches_nobody_else_is_not_acknowledged",
        Mutant::DeathForgotten => "promises::a_node_back_from_the_dead_does_not_speak_for_what_it_missed",
        Mutant::CollectsUnconfirmed => "promises::an_owner_that_was_away_for_long_brings_back_nothing_that_was_deleted",
        Mutant::AckTooEarly => "promises::a_write_that_lacks_one_owner_is_not_acknowledged",
        Mutant::ImportPastCapacity => "promises::a_full_store_takes_no_more_than_it_can_hold",
        Mutant::UnconfirmedCounts => "rings::an_owner_that_is_catching_up_does_not_confirm_the_order_of_writes",
        Mutant::EntersEmpty => "rings::nodes_that_join_cost_nobody_an_answer",
        Mutant::LeavesAtOnce => "rings::who_leaves_hands_over_what_it_held",
        Mutant::LastLeaves => "leaving::all_members_restarted_at_once_lose_nothing",
        Mutant::AloneTakesNothing => "leaving::a_member_that_is_left_alone_takes_over_from_the_one_that_leaves",
        Mutant::LeaversUnasked => "leaving::a_new_owner_asks_those_that_are_leaving",
        Mutant::NewcomersSuffice => "leaving::newcomers_that_meet_first_do_not_speak_for_the_mesh",
        Mutant::ReturnsInHaste => "rounds::who_returns_empty_waits_for_the_writes_that_it_may_have_answered",
        Mutant::FirstAddressOnly => "names::a_name_that_stands_for_all_nodes_makes_one_mesh",
        Mutant::UnreachableCounts => "names::a_member_that_nobody_can_reach_holds_nothing_and_nobody_up",
        Mutant::MeshesMerge => "names::an_address_that_changes_hands_merges_no_meshes",
        Mutant::DeadUnsought => "leaving::the_dead_are_looked_for_though_no_seed_comes",
        Mutant::DialledAreAccused => "leaving::who_is_being_connected_to_is_not_suspected",
        Mutant::JoinersFirst => "rings::what_all_owners_refuse_is_not_held_by_one_that_joins",
        Mutant::FirstContactIsSilent => "leaving::who_leaves_while_another_one_returns_is_known_to_have_left",
        Mutant::SilenceUnnoticed => "leaving::who_is_silent_is_given_up_by_workers_too",
        Mutant::ArrivalsCostNothing => "storm::many_nodes_that_start_at_once_settle",
        Mutant::DialsUnrationed => "storm::many_nodes_that_start_at_once_settle",
        Mutant::ForgottenTooEarly => "leaving::the_dead_are_looked_for_though_no_seed_comes",
        Mutant::RoundsNeverStretch => "leaving::slow_answers_are_no_silence",
        Mutant::ForgetsTooEarly => "rings::slots_that_move_take_their_keys_along",
        Mutant::AsksOwnersOnly => "rings::slots_that_move_take_their_keys_along",
        Mutant::EnteredAndTrusted => "rings::who_enters_the_ring_learns_what_came_while_it_caught_up",
        Mutant::RingUnchecked => "rings::a_write_of_another_ring_is_not_acknowledged",
        Mutant::StaleCountsInRoundOne => "rounds::a_refusal_in_round_one_is_no_acknowledgement",
        Mutant::FewerAnswersThanNeeded => "rounds::one_owner_does_not_say_what_was_acknowledged_before",
        Mutant::StaleOutOfSyncCounts => {
            "rounds::an_owner_that_is_catching_up_does_not_say_what_was_acknowledged_before"
        }
        Mutant::CarriedRegardless => "rounds::a_write_that_another_carries_is_acknowledged_only_if_that_one_is",
        Mutant::EvictedComesBack => "full::what_an_owner_has_evicted_is_not_brought_back",
        Mutant::ComparesForEver => "full::owners_that_have_evicted_different_keys_do_not_compare_for_ever",
        Mutant::EvictorsSuffice => "full::a_read_finds_what_any_owner_has_not_evicted",
        _ => "seeds_keep_the_guarantee",
    }
}

/// Runs a test in a process of its own; what it prints.
fn output_of(test: &str, mutant: Option<Mutant>, shrinks: bool) -> String {
    let mut command = Command::new(env::current_exe().expect("this binary has a path"));
    command.args(["--exact", test, "--nocapture"]).env("SEEDS", SEEDS).env("FROM", "0").stderr(Stdio::null());
    command.env("SHRINK", if shrinks { "1" } else { "0" }).env_remove("MESH_SEED").env_remove(VARIABLE);
    if let Some(mutant) = mutant {
        command.env(VARIABLE, format!("{mutant:?}"));
    }
    let output = command.output().expect("this binary can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A name that matches nothing is no test that passes.
    assert!(text.contains("running 1 test"), "there is no test {test}: {text}");
    text
}

/// Runs a killer; whether it failed, and its last words.
fn fails(test: &str, mutant: Option<Mutant>) -> (bool, String) {
    let text = output_of(test, mutant, false);
    let words: Vec<&str> = text.lines().filter(|line| line.starts_with("seed ") || line.starts_with("  ")).collect();
    let words = words.get(2).map_or_else(String::new, |line| line.trim().chars().take(110).collect());
    (text.contains("test result: FAILED"), words)
}

#[test]
fn every_mutant_is_killed_and_the_control_lives() {
    let mut controls: Vec<&str> = Mutant::ALL.into_iter().map(killer).collect();
    controls.sort_unstable();
    controls.dedup();
    let controls = controls.into_iter().map(|test| (test, None));
    let runs: Vec<_> = controls.chain(Mutant::ALL.map(|mutant| (killer(mutant), Some(mutant)))).collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((test, mutant)) = runs.get(next.fetch_add(1, Relaxed)) {
                    let started = Instant::now();
                    let (failed, words) = fails(test, *mutant);
                    report(test, *mutant, failed, started.elapsed(), &words);
                    if failed != mutant.is_some() {
                        wrong.lock().expect("nobody panics under this lock").push((test, mutant));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("nobody panics under this lock");
    assert!(wrong.is_empty(), "survivors, or controls that died: {wrong:?}");
    println!("{} of {} mutants killed", Mutant::ALL.len(), Mutant::ALL.len());
}

/// A deletion that leaves no tombstone needs neither a fault nor a change to be noticed.
#[test]
fn a_failing_seed_is_shrunk_to_the_plan_that_the_defect_needs() {
    let text = output_of("seeds_keep_the_guarantee", Some(Mutant::NoTombstone), true);
    let plan = text.split("#[test]").nth(1).unwrap_or_else(|| panic!("nothing was shrunk: {text}"));
    // How many clients are left depends on which seed fails first, and so on how fast the machine is.
    assert!(plan.contains("operations: ") && !plan.contains("steps: "), "{plan}");
}

fn report(test: &str, mutant: Option<Mutant>, failed: bool, took: Duration, words: &str) {
    let what = match (mutant, failed) {
        (Some(mutant), true) => format!("{mutant:?} killed by {test}"),
        (Some(mutant), false) => format!("{mutant:?} SURVIVES {test}"),
        (None, false) => format!("without a defect: {test} passes"),
        (None, true) => format!("without a defect: {test} FAILS"),
    };
    println!("{what} ({:.1} s) {words}", took.as_secs_f64());
}

#[test]
fn the_table_lists_every_mutant_and_what_kills_it() {
    let rows: Vec<Vec<&str>> = TABLE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    for mutant in Mutant::ALL {
        let name = format!("{mutant:?}");
        let row = rows.iter().find(|row| row[1] == name).unwrap_or_else(|| panic!("docs/MUTANTS.md has no {name}"));
        let test = killer(mutant).rsplit("::").next().unwrap_or_default();
        assert_eq!(row[4], test, "docs/MUTANTS.md names another killer of {name}");
    }
    assert_eq!(rows.len(), Mutant::ALL.len(), "docs/MUTANTS.md has rows that nobody knows");
}
