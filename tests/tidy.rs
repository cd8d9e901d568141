//! The house rules, enforced: which crate may know which, what the core may not touch, how long a file or a function may
//! be, and what must not be left lying about.
//!
//! Each rule is a function from sources to complaints. It runs over the repository in one test, and over a sample that
//! breaks it in another, so that a rule which has stopped seeing anything is found out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod tidy {
    pub(crate) mod layers;
    pub(crate) mod leftovers;
    pub(crate) mod limits;
    pub(crate) mod metric_names;
    pub(crate) mod modules;
    pub(crate) mod purity;
    pub(crate) mod size;
    pub(crate) mod sources;
    pub(crate) mod span_names;
    pub(crate) mod tokens;
    pub(crate) mod type_names;
}

use tidy::{
    layers::{self, Graph},
    leftovers, limits, metric_names, modules, purity, size,
    sources::Sources,
    span_names, type_names,
};

/// Fails with all complaints at once, one a line.
#[track_caller]
fn nothing_to_say(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n  {}", complaints.len(), complaints.join("\n  "));
}

#[test]
fn the_repository_is_where_we_think_it_is() {
    let sources = Sources::of_repository();
    assert!(sources.file("services/mesh-proto/src/lib.rs").is_some());
    assert!(sources.file("tests/tidy.rs").is_some());
    assert!(sources.file("README.md").is_some());
}

#[test]
fn crates_depend_one_way() {
    nothing_to_say(&layers::members_one_way(&Graph::of_workspace()));
}

#[test]
fn crates_keep_clear_of_what_they_must_not_know() {
    nothing_to_say(&layers::forbidden_reach(&Graph::of_workspace()));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    nothing_to_say(&layers::lints_inherited(&Sources::of_repository()));
}

#[test]
fn the_core_has_no_clock_and_no_dice() {
    nothing_to_say(&purity::clock_and_dice(&Sources::of_repository()));
}

#[test]
fn the_mesh_is_not_instrumented_by_macros() {
    nothing_to_say(&purity::instrumentation(&Sources::of_repository()));
}

#[test]
fn output_is_best_effort() {
    nothing_to_say(&purity::printing(&Sources::of_repository()));
}

#[test]
fn files_are_short() {
    nothing_to_say(&size::files(&Sources::of_repository()));
}

#[test]
fn functions_are_short() {
    nothing_to_say(&size::functions(&Sources::of_repository()));
}

#[test]
fn functions_take_few_parameters() {
    nothing_to_say(&size::parameters(&Sources::of_repository()));
}

#[test]
fn files_say_what_they_are() {
    nothing_to_say(&modules::headers(&Sources::of_repository()));
}

#[test]
fn files_are_named_after_something() {
    nothing_to_say(&modules::names(&Sources::of_repository()));
}

#[test]
fn no_two_types_share_a_name() {
    nothing_to_say(&type_names::shared(&Sources::of_repository()));
}

#[test]
fn no_module_is_dead() {
    nothing_to_say(&modules::unreached(&Sources::of_repository()));
}

#[test]
fn metric_names_stand_in_one_file() {
    nothing_to_say(&metric_names::in_two_files(&Sources::of_repository()));
}

#[test]
fn the_documentation_lists_all_spans() {
    nothing_to_say(&span_names::differing(&Sources::of_repository()));
}

#[test]
fn the_documentation_names_limits_that_exist() {
    nothing_to_say(&limits::stale(&Sources::of_repository()));
}

#[test]
fn nothing_is_left_unfinished() {
    nothing_to_say(&leftovers::unfinished(&Sources::of_repository()));
}

#[test]
fn no_test_is_switched_off() {
    nothing_to_say(&leftovers::ignored_tests(&Sources::of_repository()));
}

#[test]
fn nothing_names_a_machine() {
    nothing_to_say(&leftovers::machine_names(&Sources::of_repository()));
}
