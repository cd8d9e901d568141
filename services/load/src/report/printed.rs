//! What a finished run prints: a first screen on a terminal, what programs look for in a file or a pipe.

use settings::columns_of;

use super::{Page, Report, first_screen, summary};

impl Report {
    /// What is printed at the end; the results are at `place`, if they are anywhere.
    pub(crate) fn printed(&self, place: &str) -> String {
        let terminal = columns_of(std::io::stdout());
        match terminal.filter(|_| !self.setup.shown.compat) {
            Some(columns) => self.for_terminal(place, columns),
            None => self.summary(place, Page::new(terminal)),
        }
    }

    /// The summary as files and pipes get it, ending in the verdict; before that it says where the results are.
    pub(crate) fn summary(&self, place: &str, page: Page) -> String {
        let place = if place.is_empty() { String::new() } else { format!("Results: {place}") };
        summary::render(self, &place, page).trim_end().to_owned()
    }

    /// All that this shard measured, if there are others.
    pub(crate) fn shard(&self) -> Option<&[u8]> {
        self.shard.as_deref()
    }

    /// What a shard's own verdict is not.
    pub(crate) fn shard_line(&self) -> Option<String> {
        let shard = self.shard.as_ref().map(|_| self.setup.shard)?;
        Some(format!("Shard {shard}: faults, counts and objectives are judged by `runner merge` of all shards"))
    }

    /// The first screen, which is what a reader sees at the end; all tables before it only if they were asked for.
    fn for_terminal(&self, place: &str, columns: usize) -> String {
        let page = || Page::new(Some(columns));
        let mut text = String::new();
        if self.setup.shown.details {
            text.push_str(&format!("{}\n", summary::details(self, page())));
        }
        text.push_str(&first_screen::first_screen(self, page()));
        let rest = if self.setup.shown.details { "" } else { "all tables: --details" };
        let rest: Vec<_> = [place, rest].into_iter().filter(|part| !part.is_empty()).collect();
        text.push_str(&format!("{:<13}{}\n", "Results", rest.join(" · ")));
        text
    }
}
