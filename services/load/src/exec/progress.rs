//! What is seen while a run goes on: a live bar on a terminal, and lines for everyone.

use std::{
    cell::RefCell,
    io::{self, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use settings::fitted;
use tokio::time::MissedTickBehavior;

use super::{
    run::Run,
    sampler::{SAMPLE_EVERY, Sampler},
};
use crate::{
    Cluster, Counter, NodeIndex, Snapshot,
    report::{numbers, without_scheme},
};

/// How many samples pass between two lines.
const SAMPLES_PER_LINE: usize = 10;

/// The bar that is being shown, for everything that is printed meanwhile. A lock, taken for a line at a time.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Prints a line on standard output, from any thread, without tearing a bar that may be there. On a terminal, one that is too
/// long for it continues below, indented.
///
/// Output is best effort: a reader that has gone or a full disk changes neither the run nor its exit code. Styles are removed
/// unless it is a terminal (`NO_COLOR` and `CLICOLOR_FORCE` decide otherwise).
pub fn say(text: &str) {
    show(&fitted(text, io::stdout()));
}

/// The same, of what is laid out already.
pub(crate) fn show(text: &str) {
    print(|| {
        let _ = writeln!(anstream::stdout(), "{text}");
    });
}

/// The same on standard error.
pub fn complain(text: &str) {
    print(|| {
        let _ = writeln!(anstream::stderr(), "{}", fitted(text, io::stderr()));
    });
}

fn print(write: impl FnOnce()) {
    match &*SHOWN.lock() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A bar, and where lines go around it.
pub(crate) struct Console {
    bar: ProgressBar,
}

impl Console {
    /// A bar that counts to `length`; hidden unless stderr is a terminal.
    pub(crate) fn new(what: &'static str, length: u64) -> Self {
        let bar = ProgressBar::new(length);
        let template = format!("{what} {{wide_bar:.cyan/blue}} {{percent:>3}}% {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        SHOWN.lock().replace(bar.clone());
        Self { bar }
    }

    pub(crate) fn at(&self, position: u64, message: String) {
        self.bar.set_message(message);
        self.bar.set_position(position);
    }

    pub(crate) fn clear(&self) {
        let mut shown = SHOWN.lock();
        self.bar.finish_and_clear();
        *shown = None;
    }
}

/// A stage that failed must not leave its bar behind either.
impl Drop for Console {
    fn drop(&mut self) {
        self.clear();
    }
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
        if ticks.is_multiple_of(SAMPLES_PER_LINE * 5) {
            say(&format!("[{what}] {done}/{total} keys"));
        }
    }
}

/// Samples the load until dropped.
pub(crate) async fn show_load(run: &Run, console: &Console, sampler: &RefCell<Sampler>) {
    let mut ticker = tokio::time::interval(SAMPLE_EVERY);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker.tick().await;
    let mut line_before = Snapshot::of(&run.live);
    let mut line_at_before = run.load_elapsed();
    for tick in 1.. {
        ticker.tick().await;
        let at = run.load_elapsed();
        let (ops_per_s, p99_ms) = {
            let mut sampler = sampler.borrow_mut();
            let sample = sampler.take(&run.live, at);
            (sample.ops_per_s, sample.p99_ms)
        };
        run.note_p99(Duration::from_secs_f64(p99_ms / 1e3));
        let now = Snapshot::of(&run.live);
        let position = u64::try_from(run.step_elapsed().min(run.plan.duration).as_millis()).unwrap_or(u64::MAX);
        console.at(
            position,
            format!(
                "{:.0}s  {} ops/s  p99 {p99_ms:.2} ms  {} errors",
                at.as_secs_f64(),
                numbers::grouped(ops_per_s as u64),
                now.get(Counter::Errors)
            ),
        );
        if tick % SAMPLES_PER_LINE == 0 {
            let rate =
                (now.get(Counter::Ops) - line_before.get(Counter::Ops)) as f64 / (at - line_at_before).as_secs_f64();
            say(&format!(
                "[PROGRESS] t={:.0}s ops={} ops/s={rate:.0} err={} wrong={} p99={}ms",
                at.as_secs_f64(),
                now.get(Counter::Ops),
                now.get(Counter::Errors),
                now.wrong_values(),
                numbers::millis(now.percentile_since(&line_before, 99.0)),
            ));
            (line_before, line_at_before) = (now, at);
        }
    }
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
