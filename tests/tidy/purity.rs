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

const METRICS: &[(&str, &str)] = &[
    ("counter !", "telemetry is events: see the crate observability"),
    ("gauge !", "telemetry is events: see the crate observability"),
    ("histogram !", "telemetry is events: see the crate observability"),
];

const SPANS: &[(&str, &str)] = &[
    ("instrument ]", "a request has a flight record: see the crate observability"),
    ("instrument (", "a request has a flight record: see the crate observability"),
    ("info_span !", "a request has a flight record: see the crate observability"),
    ("debug_span !", "a request has a flight record: see the crate observability"),
    ("span !", "a request has a flight record: see the crate observability"),
];

/// Where the mesh does what no request waits for: there are spans of `tracing`.
const NO_REQUESTS: &[&str] = &[
    "services/mesh/src/membership/",
    "services/mesh/src/repair/",
    "services/mesh/src/core.rs",
    "services/mesh/src/faults.rs",
    "services/mesh/src/node.rs",
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

/// Macros of metrics in `mesh-proto` and `mesh`, and of spans on the request path.
pub(crate) fn instrumentation(sources: &Sources) -> Vec<String> {
    let files = ["services/mesh-proto/src/", "services/mesh/src/"].map(|folder| sources.rust_below(folder));
    let complaints = files.into_iter().flatten().flat_map(|file| {
        let has_requests = !NO_REQUESTS.iter().any(|place| file.path.starts_with(place));
        let spans = has_requests.then(|| complain(file, SPANS));
        complain(file, METRICS).into_iter().chain(spans.into_iter().flatten())
    });
    complaints.collect()
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
    let text = "#[instrument]\nfn f() { metrics::counter!(\"a\"); info_span!(\"b\"); }";
    assert_eq!(instrumentation(&Sources::sample(&[("services/mesh/src/worker/get.rs", text)])).len(), 3);
    assert_eq!(instrumentation(&Sources::sample(&[("services/mesh/src/repair/pull.rs", text)])).len(), 1);
    assert!(instrumentation(&Sources::sample(&[("observability/src/a.rs", text)])).is_empty());
}
