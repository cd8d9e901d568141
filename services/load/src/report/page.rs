//! The summary's lines as they are laid out: tables fit 80 columns, sentences the terminal's width. What programs look for
//! stays in one line where standard output is no terminal.

use settings::{COLUMNS, wrapped};

/// Where a field's text begins.
const FIELD_INDENT: usize = 15;

/// A summary in the making.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    columns: usize,
    is_terminal: bool,
}

impl Page {
    /// A page for a terminal of so many columns, or for a file or a pipe.
    pub(crate) fn new(terminal: Option<usize>) -> Self {
        Self { text: String::new(), columns: terminal.unwrap_or(COLUMNS), is_terminal: terminal.is_some() }
    }

    /// What no line of sentences exceeds.
    pub(crate) const fn columns(&self) -> usize {
        self.columns
    }

    /// Whether people read it, and nothing else.
    pub(crate) const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// A line that fits as it is, such as one of a table.
    pub(crate) fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A line that programs look for by how it begins.
    pub(crate) fn fact(&mut self, text: &str) {
        if self.is_terminal { self.line(&wrapped(text, self.columns, 2)) } else { self.line(text) }
    }

    /// The title of a section.
    pub(crate) fn heading(&mut self, title: &str) {
        let rest = COLUMNS.saturating_sub(title.chars().count() + 4);
        self.line(&format!("\n── {title} {}", "─".repeat(rest)));
    }

    /// A name, or none, and a sentence about it.
    pub(crate) fn field(&mut self, name: &str, text: &str) {
        // Further lines begin below the sentence.
        let further = if name.is_empty() { 0 } else { FIELD_INDENT - 2 };
        self.line(&wrapped(&format!("  {name:<13}{text}"), self.columns, further));
    }

    /// A sentence that begins at a column.
    pub(crate) fn item(&mut self, column: usize, text: &str) {
        self.line(&wrapped(&format!("{:column$}{text}", ""), self.columns, 2));
    }

    /// An empty line, unless there is one.
    pub(crate) fn gap(&mut self) {
        if !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// No empty line at the end.
    pub(crate) fn close(&mut self) {
        while self.text.ends_with("\n\n") {
            self.text.pop();
        }
    }

    /// All of it.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_lines_of_a_field_begin_below_its_sentence() {
        let mut page = Page::new(Some(30));
        page.field("lag", "as long as it takes to wrap");
        page.field("", "as long as it takes to wrap");
        let indent = " ".repeat(FIELD_INDENT);
        let sentence = format!("as long as it\n{indent}takes to wrap\n");
        assert_eq!(page.finish(), format!("  lag          {sentence}{indent}{sentence}"));
    }
}
