//! A finished run becomes results and a summary: a first screen on a terminal, what programs look for in a file or a pipe.

use settings::columns_of;

use super::{Page, Report, ResultsFile, first_screen, summary};
use crate::exec::show;

impl Report {
    /// Writes the machine-readable results and prints the summary, which ends in the verdict. Gives the exit code.
    ///
    /// # Errors
    /// One line, if the results cannot be written.
    pub fn publish(&self, results: Option<ResultsFile>) -> Result<u8, String> {
        let place = results.as_ref().map(|results| results.path().display().to_string());
        let saved = results.map_or(Ok(()), |results| results.save(self));
        let place = place.filter(|_| saved.is_ok()).unwrap_or_default();
        let terminal = columns_of(std::io::stdout()).filter(|_| !self.setup.shown.compat);
        let text = match terminal {
            Some(columns) => self.for_terminal(&place, columns),
            None => {
                let place = if place.is_empty() { place } else { format!("Results: {place}") };
                summary::render(self, &place, Page::new(columns_of(std::io::stdout())))
            }
        };
        show(&format!("\n{}", text.trim_end()));
        if let Some(shard) = &self.shard_line() {
            show(shard);
        }
        saved.map(|()| if self.shard.is_some() && self.verdict.broken.is_empty() { 0 } else { self.verdict.exit_code })
    }

    /// All that this shard measured, if there are others.
    pub(crate) fn shard(&self) -> Option<&[u8]> {
        self.shard.as_deref()
    }

    /// What a shard's own verdict is not.
    fn shard_line(&self) -> Option<String> {
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
