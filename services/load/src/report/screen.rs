//! A screenful of lines: what matters less gives way where there is no room for everything.

use settings::wrapped;

use super::Page;

/// A screen has 25 lines; the last one says where the rest is.
const LINES_MAX: usize = 24;

/// Where a field's text begins.
const FIELD_INDENT: usize = 13;

/// One sentence takes no more lines; the details have the whole of it.
const SENTENCE_LINES_MAX: usize = 2;

/// What gives way when, the last one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Always,
    Service,
    Curves,
    Parts,
    Cpu,
    Errors,
    Legend,
    Reasons,
    SecondOperation,
    Outcomes,
    Nodes,
    /// Of a search, the first one first.
    Steps,
    Gap,
}

/// A screen in the making.
pub(super) struct Screen {
    page: Page,
    groups: Vec<(Rank, Vec<String>)>,
}

impl Screen {
    pub(super) const fn new(page: Page) -> Self {
        Self { page, groups: Vec::new() }
    }

    /// A line of a table.
    pub(super) fn line(&mut self, rank: Rank, text: &str) {
        self.groups.push((rank, vec![text.to_owned()]));
    }

    /// A name, or none, and a sentence about it.
    pub(super) fn field(&mut self, rank: Rank, name: &str, text: &str) {
        self.sentence(rank, &format!("{name:<FIELD_INDENT$}{text}"));
    }

    /// A sentence whose further lines begin below a field's text.
    pub(super) fn sentence(&mut self, rank: Rank, text: &str) {
        let indent = text.len() - text.trim_start().len();
        let wrapped = wrapped(text, self.page.columns(), FIELD_INDENT.saturating_sub(indent));
        let mut lines: Vec<_> = wrapped.lines().map(str::to_owned).collect();
        if lines.len() > SENTENCE_LINES_MAX {
            lines.truncate(SENTENCE_LINES_MAX);
            let columns = self.page.columns();
            if let Some(last) = lines.last_mut() {
                while textwrap::core::display_width(last) + 2 > columns {
                    let end = last.trim_end().rfind(' ').unwrap_or_default();
                    last.truncate(end);
                }
                last.push_str(" …");
            }
        }
        self.groups.push((rank, lines));
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.line(Rank::Gap, "");
    }

    /// What fits.
    pub(super) fn finish(mut self) -> String {
        while self.groups.iter().map(|(_, lines)| lines.len()).sum::<usize>() > LINES_MAX {
            let place = |at: usize, rank: Rank| if rank == Rank::Steps { usize::MAX - at } else { at };
            let least = self.groups.iter().enumerate().max_by_key(|(at, (rank, _))| (*rank, place(*at, *rank)));
            let Some((at, (rank, _))) = least.filter(|(_, (rank, _))| *rank != Rank::Always) else { break };
            match *rank {
                // A part of a table would pass for the whole.
                rank @ (Rank::Nodes | Rank::Outcomes | Rank::Service | Rank::Curves) => {
                    self.groups.retain(|(other, _)| *other != rank)
                }
                _ => drop(self.groups.remove(at)),
            }
        }
        self.groups.into_iter().flat_map(|(_, lines)| lines).for_each(|line| self.page.line(&line));
        self.page.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_less_gives_way() {
        let mut screen = Screen::new(Page::new(Some(40)));
        (0..20).for_each(|line| screen.line(Rank::Always, &format!("always {line}")));
        screen.gap();
        (0..3).for_each(|line| screen.line(Rank::Nodes, &format!("node {line}")));
        screen.field(Rank::Cpu, "CPU", "one two three four five six seven eight nine ten eleven twelve thirteen");
        let out = screen.finish();
        assert!(!out.contains("node") && !out.contains("\n\n"), "{out}");
        assert!(
            out.ends_with("always 19\nCPU          one two three four five six\n             seven eight nine ten …\n"),
            "{out}"
        );
    }
}
