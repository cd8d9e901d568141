//! What the pure core and the request path must not call.

use super::{sources::Sources, tokens::complain};

const CLOCK_AND_DICE: &[(&str, &str)] = &[
    ("Instant : : now", "the core is told the time, it does not look at a clock"),
    ("SystemTime : : now", "the core is told the time, it does not look at a clock"),
    ("thread_rng", "the core is handed its random numbers"),
    ("rand : : rng", "the core is handed its random numbers"),
    ("rand : : random", "the core is handed its random numbers"),
    ("from_os_rng", "the core is handed its random numbers"),
    ("OsRng", "the core is handed its random numbers"),
    ("thread : : sleep", "the core does not wait"),
    ("async fn", "the core does not wait"),
];

const INSTRUMENTATION: &[(&str, &str)] = &[
    ("instrument ]", "telemetry is events: see the crate observability"),
    ("instrument (", "telemetry is events: see the crate observability"),
    ("counter !", "telemetry is events: see the crate observability"),
    ("gauge !", "telemetry is events: see the crate observability"),
    ("histogram !", "telemetry is events: see the crate observability"),
];

const PRINTING: &[(&str, &str)] = &[
    ("println !", "it panics when nobody reads: use `load::say`"),
    ("eprintln !", "it panics when nobody reads: use `load::complain`"),
    ("print !", "it panics when nobody reads: use `load::say`"),
    ("eprint !", "it panics when nobody reads: use `load::complain`"),
];

/// What the binaries are made of.
const BINARIES: &[&str] = &[
    "observability/src/",
    "services/mesh-proto/src/",
    "services/mesh/src/",
    "services/node/src/",
    "services/load/src/",
    "services/runner/src/",
    "services/direct-runner/src/",
];

/// Macros that panic if standard output or standard error is closed or full.
pub(crate) fn printing(sources: &Sources) -> Vec<String> {
    BINARIES.iter().flat_map(|folder| sources.rust_below(folder)).flat_map(|file| complain(file, PRINTING)).collect()
}

/// Clocks, randomness and waiting in `mesh-proto`.
pub(crate) fn clock_and_dice(sources: &Sources) -> Vec<String> {
    sources.rust_below("services/mesh-proto/src/").flat_map(|file| complain(file, CLOCK_AND_DICE)).collect()
}

/// Metric and span macros in `mesh-proto` and `mesh`.
pub(crate) fn instrumentation(sources: &Sources) -> Vec<String> {
    ["services/mesh-proto/src/", "services/mesh/src/"]
        .iter()
        .flat_map(|folder| sources.rust_below(folder))
        .flat_map(|file| complain(file, INSTRUMENTATION))
        .collect()
}

#[test]
fn a_clock_in_the_core_is_seen() {
    let line = |text: &str| Sources::sample(&[("services/mesh-proto/src/a.rs", text)]);
    assert!(clock_and_dice(&line("// Instant::now\nfn f(now: Instant) {}")).is_empty());
    for bad in ["std::time::Instant::now()", "SystemTime::now()", "rand::rng()", "thread_rng()"] {
        let text = format!("fn f() {{ let x = {bad}; }}");
        assert_eq!(clock_and_dice(&line(&text)).len(), 1, "{bad}");
    }
    let driver = Sources::sample(&[("services/mesh/src/a.rs", "fn f() { Instant::now(); }")]);
    assert!(clock_and_dice(&driver).is_empty());
}

#[test]
fn a_print_that_can_panic_is_seen() {
    let printed =
        |path: &str| printing(&Sources::sample(&[(path, "fn f() { println!(\"a\"); eprint!(\"b\"); }")])).len();
    assert_eq!([printed("services/runner/src/a.rs"), printed("tests/a.rs")], [2, 0]);
}

#[test]
fn a_metric_macro_on_the_path_is_seen() {
    let text = "#[instrument]\nfn f() { metrics::counter!(\"a\"); }";
    assert_eq!(instrumentation(&Sources::sample(&[("services/mesh/src/a.rs", text)])).len(), 2);
    assert!(instrumentation(&Sources::sample(&[("observability/src/a.rs", text)])).is_empty());
}
