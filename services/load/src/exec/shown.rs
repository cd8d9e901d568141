//! How much is shown while a run goes on, and where: a live view or a bar on a terminal, a row per second without one, or one JSON
//! object per second for programs.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicU8, Ordering},
};

use clap::ValueEnum;

/// What PROGRESS can be, and what it comes to.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A live view where standard output and standard error are a terminal, else as `plain`.
    #[default]
    Auto,
    /// A bar on a terminal; elsewhere no more than a line every five seconds, which scripts look for.
    Plain,
    /// A row per second, on standard error.
    Rows,
    /// One JSON object per second on standard output; everything else goes to standard error.
    Ndjson,
    /// Nothing.
    Off,
    /// Made of `auto` where there is a terminal that can be drawn on.
    #[value(skip)]
    Live,
}

/// What is known of the place that output goes to.
#[derive(Clone, Copy, Debug)]
struct Output {
    stdout: bool,
    stderr: bool,
    /// It can be drawn on: it is no dumb terminal, and no log of a build.
    draws: bool,
}

/// What this process shows, as its number. A place of its own, since lines are printed before a run begins and after it ended.
static SHOWS: AtomicU8 = AtomicU8::new(Progress::Plain as u8);

impl Progress {
    /// From here on, this is shown. `is_plain` is for a terminal that is not to be drawn on.
    pub(crate) fn begin(self, is_plain: bool) {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_dumb = set("TERM").is_none_or(|term| term == "dumb");
        let is_build = set("CI").is_some_and(|ci| !matches!(ci.as_str(), "0" | "false" | "no" | "off"));
        let place = Output {
            stdout: io::stdout().is_terminal(),
            stderr: io::stderr().is_terminal(),
            draws: !is_plain && !is_dumb && !is_build,
        };
        // Relaxed: one value, set before anything is shown.
        SHOWS.store(self.at(place) as u8, Ordering::Relaxed);
    }

    const fn at(self, place: Output) -> Self {
        match self {
            Self::Auto if place.stdout && place.stderr && place.draws => Self::Live,
            Self::Auto => Self::Plain,
            other => other,
        }
    }

    /// What is shown.
    pub(crate) fn shown() -> Self {
        let number = SHOWS.load(Ordering::Relaxed);
        let all = [Self::Auto, Self::Plain, Self::Rows, Self::Ndjson, Self::Off, Self::Live];
        all.into_iter().find(|one| *one as u8 == number).unwrap_or(Self::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_drawn_on_only_if_all_output_goes_to_it() {
        let at = |progress: Progress, stdout, stderr, draws| progress.at(Output { stdout, stderr, draws });
        assert_eq!(at(Progress::Auto, true, true, true), Progress::Live);
        assert_eq!(at(Progress::Auto, true, true, false), Progress::Plain, "dumb, CI or --plain");
        assert_eq!(at(Progress::Auto, false, true, true), Progress::Plain, "a pipe with a terminal beside it");
        assert_eq!(at(Progress::Auto, true, false, true), Progress::Plain);
        assert_eq!(at(Progress::Auto, false, false, true), Progress::Plain, "scripts see what they always did");
        for asked in [Progress::Plain, Progress::Rows, Progress::Ndjson, Progress::Off] {
            assert_eq!(at(asked, true, true, true), asked);
        }
    }
}
