//! One entry of FAULTS as words: those with a name, such as `at=10s`, stand anywhere; the others are taken in turn. Where
//! something is missing or wrong, the complaint says where.

use super::plan::Complaint;

/// The words of one entry.
#[derive(Debug)]
pub(crate) struct Words<'a> {
    /// With where each begins, in bytes; last first.
    plain: Vec<(usize, &'a str)>,
    /// With where each value begins.
    named: Vec<(&'static str, usize, &'a str)>,
    end: usize,
    form: &'static str,
}

impl<'a> Words<'a> {
    /// The names that words may have.
    const NAMES: [&'static str; 5] = ["at", "for", "every", "times", "apart"];

    pub(crate) fn of(text: &'a str) -> Result<Self, Complaint> {
        let mut words = Self { plain: Vec::new(), named: Vec::new(), end: text.len(), form: "" };
        for word in text.split_whitespace() {
            // A word is a part of the text, so it begins where its address says.
            let at = word.as_ptr() as usize - text.as_ptr() as usize;
            let Some((name, value)) = word.split_once('=') else {
                words.plain.push((at, word));
                continue;
            };
            let Some(name) = Self::NAMES.into_iter().find(|known| *known == name) else {
                return Err(words.complaint(at, "at=, for=, every=, times= or apart="));
            };
            if words.named.iter().any(|(known, ..)| *known == name) {
                return Err(words.complaint(at, &format!("{name}= once")));
            }
            words.named.push((name, at + name.len() + 1, value));
        }
        words.plain.reverse();
        Ok(words)
    }

    /// From now on complaints show how the fault is written.
    pub(crate) const fn form(&mut self, form: &'static str) {
        self.form = form;
    }

    /// The next word without a name.
    pub(crate) fn next(&mut self) -> Option<(usize, &'a str)> {
        self.plain.pop()
    }

    /// The word of this name.
    pub(crate) fn option(&mut self, name: &str) -> Option<(usize, &'a str)> {
        let index = self.named.iter().position(|(known, ..)| *known == name)?;
        let (_, at, value) = self.named.remove(index);
        Some((at, value))
    }

    /// Reads the next word, and says where it was.
    pub(crate) fn read<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<(usize, T), Complaint> {
        let (at, word) = self.next().ok_or_else(|| self.missing(what))?;
        read(word).map(|value| (at, value)).map_err(|expected| Complaint { at, expected })
    }

    /// Everything must have been used.
    pub(crate) fn finish(mut self) -> Result<(), Complaint> {
        if let Some((at, _)) = self.next() {
            return Err(self.complaint(at, "nothing more"));
        }
        match self.named.first() {
            Some((name, at, _)) => Err(self.complaint(*at, &format!("no {name}="))),
            None => Ok(()),
        }
    }

    /// Something that should be at the end is not there.
    pub(crate) fn missing(&self, what: &str) -> Complaint {
        self.complaint(self.end, what)
    }

    pub(crate) fn complaint(&self, at: usize, what: &str) -> Complaint {
        let form = if self.form.is_empty() { String::new() } else { format!(", as in `{}`", self.form) };
        Complaint { at, expected: format!("expected {what}{form}") }
    }
}
