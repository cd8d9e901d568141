//! What is wrong with the settings of one start: every mistake, with the variable, its value and what was expected.

use std::{fmt, io::Write};

use crate::fitted;

/// One setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The variable.
    pub name: String,
    /// Its value; `***` if it is a secret.
    pub value: String,
    /// What was expected, in words.
    pub expected: String,
}

impl Mistake {
    /// One mistake.
    #[must_use]
    pub fn new(name: &str, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.to_string(), expected: expected.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.name, self.value.replace(char::is_whitespace, " "), self.expected)
    }
}

/// All settings that cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Notes a mistake.
    ///
    /// A rule that involves another setting names it in `expected`. If that one is bad itself, its value is unknown and the
    /// rule says nothing; nor is a setting reported twice.
    pub fn refuse(&mut self, name: &str, value: impl fmt::Display, expected: impl Into<String>) {
        self.push(Mistake::new(name, value, expected));
    }

    /// As [`Mistakes::refuse`].
    pub fn push(&mut self, mistake: Mistake) {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let named = |other: &str| mistake.expected.split(|c| !is_word(c)).any(|word| word == other);
        if !self.0.iter().any(|known| mistake.name == known.name || named(&known.name)) {
            self.0.push(mistake);
        }
    }

    /// In the order in which they were found.
    #[must_use]
    pub fn as_slice(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "{only}");
        }
        write!(f, "{} settings cannot be used:", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// Why a program does not start.
#[derive(Debug)]
pub enum Exit {
    /// An unknown flag; or help or the version was asked for.
    Usage(clap::Error),
    /// Something else was asked for, such as the table of all settings: this is it.
    Asked(String),
    /// Settings cannot be used.
    Mistakes(Mistakes),
}

impl Exit {
    /// Shows why and ends the process: 0 if something was asked for, else 2.
    #[expect(clippy::disallowed_methods, reason = "nothing has been started yet")]
    pub fn exit(self) -> ! {
        // Output is best effort: whether it can be written changes no exit code.
        match self {
            Self::Usage(usage) => usage.exit(),
            Self::Asked(_) => {
                let _ = write!(std::io::stdout(), "{self}");
                std::process::exit(0)
            }
            Self::Mistakes(_) => {
                let mut stderr = std::io::stderr();
                let text = fitted(&format!("error: {self}"), &stderr);
                let _ = writeln!(stderr, "{text}");
                std::process::exit(2)
            }
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(usage) => write!(f, "{usage}"),
            Self::Asked(text) => f.write_str(text),
            Self::Mistakes(mistakes) => write!(f, "{mistakes}"),
        }
    }
}

impl From<clap::Error> for Exit {
    fn from(usage: clap::Error) -> Self {
        Self::Usage(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_about_a_bad_setting_is_silent() {
        let mut mistakes = Mistakes::default();
        mistakes.refuse("RATE", "x", "expected a number");
        mistakes.refuse("RATE", "x", "expected another number");
        mistakes.refuse("KEYS", 9, "expected less than RATE, which is 5");
        mistakes.refuse("KEYS", 9, "expected less than SET_RATE, which is 5");
        assert_eq!(
            mistakes.to_string(),
            "2 settings cannot be used:\n  RATE=x: expected a number\n  KEYS=9: expected less than SET_RATE, which is 5"
        );
    }
}
