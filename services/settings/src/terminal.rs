//! Text in lines that fit the terminal it is printed to. What goes to a file or a pipe is left as it is, for programs that
//! look for a line.

use std::{io::IsTerminal, os::fd::AsFd};

use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm, core::Word};

/// What every terminal shows: tables take no more columns, and so do sentences where the width is unknown.
pub const COLUMNS: usize = 80;

/// On a narrower terminal it is better that the terminal wraps.
const COLUMNS_MIN: usize = 40;

/// How many columns the terminal has that `stream` goes to; nothing if it is none.
pub fn columns_of(stream: impl AsFd) -> Option<usize> {
    let is_terminal = stream.as_fd().is_terminal();
    // One that does not know its size, such as a container's, has none.
    let columns = terminal_size_of(stream).map_or(COLUMNS, |(Width(columns), _)| usize::from(columns).max(COLUMNS_MIN));
    is_terminal.then_some(columns)
}

/// Each line of `text` in lines of at most `columns`. What follows a line's first begins `hanging` columns further to the
/// right than it. A word that is longer stays whole, so that an address can be copied; nodes that are joined by `+` or `->` are
/// words of their own.
#[must_use]
pub fn wrapped(text: &str, columns: usize, hanging: usize) -> String {
    let line = |line: &str| {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let hanging = " ".repeat(indent + hanging);
        let options = Options::new(columns)
            .subsequent_indent(&hanging)
            .break_words(false)
            .word_separator(WordSeparator::Custom(words))
            .word_splitter(WordSplitter::NoHyphenation)
            .wrap_algorithm(WrapAlgorithm::FirstFit);
        textwrap::fill(line, options)
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Units that stay beside their number.
const UNITS: [&str; 5] = ["%", "ms", "s", "ops/s", "µs/op"];

/// Ends a word behind its spaces, and behind what joins two names.
fn words(line: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let mut rest = line;
    Box::new(std::iter::from_fn(move || {
        let name = rest.find(|c| c != ' ')?;
        let end = rest.char_indices().skip_while(|(at, _)| *at <= name).find_map(|(at, c)| {
            let (before, behind) = (&rest[..at], &rest[at + c.len_utf8()..]);
            match c {
                ' ' if !behind.starts_with(' ') && !is_number(before, behind) => Some(at + 1),
                '+' | '>' => Some(at + 1),
                _ => None,
            }
        });
        let (word, others) = rest.split_at(end.unwrap_or(rest.len()));
        rest = others;
        Some(Word::from(word))
    }))
}

/// Whether a space stands in a number, between groups of digits or before the unit.
fn is_number(before: &str, behind: &str) -> bool {
    let next = behind.split(|c: char| !c.is_alphanumeric() && c != '%' && c != '/').next().unwrap_or_default();
    let group = next.trim_end_matches("/s");
    let is_group = group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit());
    before.ends_with(|c: char| c.is_ascii_digit()) && (is_group || UNITS.contains(&next))
}

/// `text` for a terminal if `stream` goes to one, else as it is.
pub fn fitted(text: &str, stream: impl AsFd) -> String {
    columns_of(stream).map_or_else(|| text.to_owned(), |columns| wrapped(text, columns, 2))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_terminal_that_does_not_know_its_size_is_one() -> std::io::Result<()> {
        let terminal = File::options().read(true).write(true).open("/dev/ptmx")?;
        assert_eq!(columns_of(&terminal), Some(COLUMNS));
        assert_eq!(columns_of(&File::open("/dev/null")?), None);
        Ok(())
    }

    #[test]
    fn long_lines_hang_below_their_own_beginning() {
        let text = "short\n  one two three four\nhttp://a-name-that-is-longer-than-the-line:8081 is whole";
        let lines = "short\n  one two\n    three four\nhttp://a-name-that-is-longer-than-the-line:8081\n  is whole";
        assert_eq!(wrapped(text, 14, 2), lines);
        assert_eq!(wrapped("", 14, 2), "");
        assert_eq!(
            wrapped("slow node1:8081+node2:8082 at +1.0 s", 16, 2),
            "slow node1:8081+\n  node2:8082 at\n  +1.0 s"
        );
        assert_eq!(wrapped("node1:8081<->node2:8082", 16, 2), "node1:8081<->\n  node2:8082");
    }

    #[test]
    fn colours_and_wide_letters_count_as_they_are_shown() {
        assert_eq!(wrapped("\u{1b}[31mred\u{1b}[0m two", 7, 0), "\u{1b}[31mred\u{1b}[0m two");
        assert_eq!(wrapped("µs µs µs", 5, 0), "µs µs\nµs");
    }

    #[test]
    fn numbers_stay_whole_and_beside_their_unit() {
        assert_eq!(wrapped("about 1 234 567 keys", 12, 0), "about\n1 234 567\nkeys");
        assert_eq!(wrapped("1234/s 1 234/s", 10, 0), "1234/s\n1 234/s");
        assert_eq!(wrapped("with 10 % SET", 8, 0), "with\n10 % SET");
        assert_eq!(wrapped("node1 at 4.5 µs/op", 12, 0), "node1 at\n4.5 µs/op");
    }

    #[test]
    fn a_file_is_no_terminal() -> std::io::Result<()> {
        let file = tempfile::tempfile()?;
        assert_eq!(columns_of(&file), None);
        let long = "word ".repeat(40);
        assert_eq!(fitted(&long, &file), long);
        Ok(())
    }
}
