//! What is seen while a run goes on: a live view or a bar on a terminal, rows or objects without one, and lines for everyone.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde::Serialize;
use settings::fitted;
use tokio::time::MissedTickBehavior;

use super::{
    interval::{Interval, IntervalMark},
    run::Run,
    sampler::{ProgressSampler, SAMPLE_EVERY},
    shown::Progress,
};
use crate::{
    Cluster, Counter, NodeIndex, Snapshot, all_of,
    faults::FaultRecord,
    live::{self, LiveView, Model, RunStage},
    plan::Plan,
    report::numbers::{self, without_scheme},
};

/// How many samples pass between two lines.
const SAMPLES_PER_LINE: usize = 10;

/// The same of rows, and rows between two headings.
const SAMPLES_PER_ROW: usize = 2;
const ROWS_PER_HEADING: usize = 20;

/// What is being shown, for everything that is printed meanwhile. A lock, taken for a line at a time.
static SHOWN: Mutex<OnTerminal> = Mutex::new(OnTerminal::Nothing);

enum OnTerminal {
    Nothing,
    Bar(ProgressBar),
    View(Arc<live::Shared>),
}

/// Prints a line on standard output, from any thread, without tearing a bar that may be there. On a terminal, one that is too
/// long for it continues below, indented. With PROGRESS=ndjson it goes to standard error.
///
/// Output is best effort: a reader that has gone or a full disk changes neither the run nor its exit code. Styles are removed
/// unless it is a terminal (`NO_COLOR` and `CLICOLOR_FORCE` decide otherwise).
pub fn say(text: &str) {
    if Progress::shown() == Progress::Ndjson {
        complain(text);
    } else {
        show(&fitted(text, io::stdout()));
    }
}

/// The same, of what is laid out already.
pub(crate) fn show(text: &str) {
    print(text, || {
        if Progress::shown() == Progress::Ndjson {
            let _ = writeln!(anstream::stderr(), "{text}");
        } else {
            let _ = writeln!(anstream::stdout(), "{text}");
        }
    });
}

/// The same on standard error.
pub fn complain(text: &str) {
    let text = fitted(text, io::stderr());
    print(&text, || {
        let _ = writeln!(anstream::stderr(), "{text}");
    });
}

/// One object for programs, with PROGRESS=ndjson.
pub(crate) fn emit(object: &impl Serialize) {
    if Progress::shown() == Progress::Ndjson
        && let Ok(line) = serde_json::to_string(object)
    {
        let _ = writeln!(io::stdout(), "{line}");
    }
}

fn print(text: &str, write: impl FnOnce()) {
    match &*SHOWN.lock() {
        OnTerminal::Bar(bar) => bar.suspend(write),
        OnTerminal::View(view) => view.set(|model| model.print(text)),
        OnTerminal::Nothing => write(),
    }
}

/// The live view of a run, where there is one: it draws until it is dropped.
pub(crate) struct View(Option<LiveView>);

impl View {
    /// Opens it if PROGRESS and the terminal say so. A terminal that cannot be drawn on shows bars.
    pub(crate) fn open(plan: &Plan) -> Self {
        let wanted = Progress::shown() == Progress::Live && !plan.shown.compat;
        let view = wanted.then(|| LiveView::open(Model::new(plan)).ok()).flatten();
        if let Some(view) = &view {
            *SHOWN.lock() = OnTerminal::View(view.shared());
        }
        Self(view)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let Some(view) = self.0.take() else { return };
        *SHOWN.lock() = OnTerminal::Nothing;
        view.close().iter().for_each(|line| show(line));
    }
}

/// Sets what the live view shows, if there is one.
fn set_view(change: impl FnOnce(&mut Model)) {
    if let OnTerminal::View(view) = &*SHOWN.lock() {
        view.set(change);
    }
}

fn has_view() -> bool {
    matches!(&*SHOWN.lock(), OnTerminal::View(_))
}

/// A stage's bar, and where lines go around it; or its place in the live view.
pub(crate) struct Console {
    bar: ProgressBar,
    began: Instant,
}

impl Console {
    /// A bar that counts to `length`; hidden unless stderr is a terminal.
    pub(crate) fn new(stage: RunStage, length: u64) -> Self {
        let name = match stage {
            RunStage::Prefill => "prefill",
            RunStage::Sweep => "sweep",
            RunStage::Start | RunStage::Load | RunStage::Rest => "load",
        };
        let began = Instant::now();
        set_view(|model| model.begin(stage, length));
        if has_view() || Progress::shown() != Progress::Plain {
            return Self { bar: ProgressBar::hidden(), began };
        }
        let bar = ProgressBar::new(length);
        let template = format!("{name} {{wide_bar:.cyan/blue}} {{percent:>3}}% {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        *SHOWN.lock() = OnTerminal::Bar(bar.clone());
        Self { bar, began }
    }

    pub(crate) fn at(&self, position: u64, message: String) {
        self.bar.set_message(message);
        self.bar.set_position(position);
        set_view(|model| model.at(position, self.began.elapsed()));
    }

    pub(crate) fn clear(&self) {
        let mut shown = SHOWN.lock();
        self.bar.finish_and_clear();
        match &*shown {
            OnTerminal::View(view) => view.set(|model| model.begin(RunStage::Rest, 0)),
            _ => *shown = OnTerminal::Nothing,
        }
    }
}

/// A stage that failed must not leave its bar behind either.
impl Drop for Console {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How far a stage that counts keys has come, for programs.
#[derive(Serialize)]
struct Keys<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    keys: u64,
    of: u64,
}

/// Shows how far a stage that counts keys has come, until dropped. Without a terminal, a line every five seconds.
pub(crate) async fn show_keys(run: &Run, what: &str, counter: Counter, console: &Console) {
    let total = run.plan.keys.count().into();
    let mut ticks: usize = 0;
    loop {
        tokio::time::sleep(SAMPLE_EVERY / 5).await;
        ticks += 1;
        let done = Snapshot::of(&run.live).get(counter);
        console.at(done, format!("{} / {} keys", numbers::grouped(done), numbers::grouped(total)));
        if ticks.is_multiple_of(10) {
            emit(&Keys { kind: &what.to_lowercase(), keys: done, of: total });
        }
        if ticks.is_multiple_of(SAMPLES_PER_LINE * 5) && Progress::shown() != Progress::Off && !has_view() {
            say(&format!("[{what}] {done}/{total} keys"));
        }
    }
}

/// Samples the load until dropped, and shows it.
pub(crate) async fn show_load(
    run: &Run,
    console: &Console,
    sampler: &RefCell<ProgressSampler>,
    rows: &RefCell<Rows>,
    faults: &RefCell<Vec<FaultRecord>>,
) {
    let mut ticker = tokio::time::interval(SAMPLE_EVERY);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker.tick().await;
    let begins = IntervalMark { counted: Snapshot::of(&run.live), at: run.load_elapsed() };
    *rows.borrow_mut() = Rows { from: begins.clone(), shown: 0 };
    let mut line = begins;
    for tick in 1.. {
        ticker.tick().await;
        let now = sample(run, console, sampler);
        if has_view() || tick % SAMPLES_PER_ROW == 0 {
            rows.borrow_mut().show(run, &faults.borrow(), &now);
        }
        if tick % SAMPLES_PER_LINE == 0 {
            if Progress::shown() != Progress::Off && !has_view() {
                say(&line_of(&line, &now));
            }
            line = now;
        }
    }
}

/// Takes a sample, and shows how far the load has come.
fn sample(run: &Run, console: &Console, sampler: &RefCell<ProgressSampler>) -> IntervalMark {
    let at = run.load_elapsed();
    let mut sampler = sampler.borrow_mut();
    let sample = sampler.take(&run.live, at);
    let (ops_per_s, p99_ms) = (sample.ops_per_s, sample.p99_ms);
    run.note_p99(Duration::from_secs_f64(p99_ms / 1e3));
    let counted = sampler.latest().clone();
    let position = u64::try_from(run.step_elapsed().min(run.plan.duration).as_millis()).unwrap_or(u64::MAX);
    console.at(
        position,
        format!(
            "{:.0}s  {} ops/s  p99 {p99_ms:.2} ms  {} errors",
            at.as_secs_f64(),
            numbers::grouped(ops_per_s as u64),
            counted.get(Counter::Errors)
        ),
    );
    IntervalMark { counted, at }
}

/// What is shown of the load, in rows or objects or by the live view.
#[derive(Default)]
pub(crate) struct Rows {
    /// Where the next one begins.
    from: IntervalMark,
    shown: usize,
}

impl Rows {
    /// Shows what has happened since the last one.
    fn show(&mut self, run: &Run, faults: &[FaultRecord], now: &IntervalMark) {
        let interval = Interval::between(&self.from, now, run.phase.get(), FaultRecord::in_force(faults));
        self.from = now.clone();
        emit(&interval);
        if Progress::shown() == Progress::Rows {
            if self.shown.is_multiple_of(ROWS_PER_HEADING) {
                let _ = writeln!(anstream::stderr(), "{}", Interval::heading());
            }
            self.shown += 1;
            let _ = writeln!(anstream::stderr(), "{}", interval.row());
        }
        set_view(|model| {
            model.passed(interval, &now.counted);
            model.set_faults(faults.iter().map(|fault| fault.state(run.load_s())).collect());
        });
    }

    /// The same at the end of the load, unless that is too short a time to give a rate.
    pub(crate) fn finish(&mut self, run: &Run, faults: &[FaultRecord]) {
        let now = IntervalMark { counted: Snapshot::of(&run.live), at: run.load_elapsed() };
        if now.at.saturating_sub(self.from.at) >= SAMPLE_EVERY / 2 {
            self.show(run, faults, &now);
        }
    }
}

/// The line that scripts look for.
fn line_of(before: &IntervalMark, now: &IntervalMark) -> String {
    let (then, counted) = (&before.counted, &now.counted);
    let rate = (counted.get(Counter::Ops) - then.get(Counter::Ops)) as f64 / (now.at - before.at).as_secs_f64();
    format!(
        "[PROGRESS] t={:.0}s ops={} ops/s={rate:.0} err={} wrong={} p99={}ms",
        now.at.as_secs_f64(),
        counted.get(Counter::Ops),
        counted.get(Counter::Errors),
        counted.wrong_values(),
        numbers::millis(counted.percentile_since(then, 99.0)),
    )
}

/// Asks the nodes how they are, once a second until dropped, if somebody looks on.
pub(crate) async fn show_nodes(run: &Run, cluster: &impl Cluster) {
    while has_view() {
        let nodes = || (0..run.plan.targets.len()).map(NodeIndex);
        let ready = all_of(nodes().map(|node| cluster.ready(node))).await;
        let states = ready.into_iter().map(|ready| match ready {
            Ok(true) => "ready".to_owned(),
            Ok(false) => "not ready".to_owned(),
            Err(_) => "no answer".to_owned(),
        });
        set_view(|model| model.set_nodes(states));
        tokio::time::sleep(2 * SAMPLE_EVERY).await;
    }
    std::future::pending().await
}

/// Prints every node's counters every `every`, until dropped.
pub(crate) async fn show_stats(run: &Run, cluster: &impl Cluster, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        for node in (0..run.plan.targets.len()).map(NodeIndex) {
            // Without its scheme, a node's line fits a terminal.
            let target = &run.plan.targets[node.0];
            let target = without_scheme(target);
            say(&match cluster.stats(node).await {
                Ok(stats) => format!(
                    "[STATS] {target} hits={} misses={} evictions={} expirations={} size={} capacity={}",
                    stats.hits, stats.misses, stats.evictions, stats.expirations, stats.size, stats.capacity
                ),
                Err(reason) => format!("[STATS] {target} unavailable: {reason}"),
            });
        }
    }
}
