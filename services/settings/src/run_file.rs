//! Settings from a file: TOML, in which each key is a setting in lower case. Tables are groups without a meaning of their own; one
//! that is called like a setting and holds no others is that setting's list.

use std::{collections::BTreeSet, ffi::OsString};

use clap::{Arg, Command, CommandFactory};
use toml::{Table, Value};

use crate::{Exit, Mistakes, near_names::nearest};

/// The flags that a file stands for. What the environment says goes first: a setting that has a variable there is left out.
///
/// # Errors
/// Every key that is no setting, with the nearest one; or why the file is no TOML.
pub fn flags_of_file<P: CommandFactory>(file: &str, text: &str) -> Result<Vec<OsString>, Exit> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let mut mistakes = Mistakes::default();
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        mistakes.refuse(file, format!("line {line}"), format!("expected TOML: {}", error.message()));
        Exit::Mistakes(mistakes)
    })?;
    let mut reader = Reader { command: P::command(), file, found: Vec::new(), mistakes: Mistakes::default() };
    reader.read("", &table);
    let Reader { found, mistakes, .. } = reader;
    if mistakes.as_slice().is_empty() { Ok(found) } else { Err(Exit::Mistakes(mistakes)) }
}

struct Reader<'a> {
    command: Command,
    file: &'a str,
    found: Vec<OsString>,
    mistakes: Mistakes,
}

impl Reader<'_> {
    fn read(&mut self, group: &str, table: &Table) {
        for (key, value) in table {
            let path = format!("{group}{key}");
            let setting =
                |key: &str| self.command.get_arguments().find(|arg| name(arg).as_deref() == Some(key)).cloned();
            match (setting(key), value) {
                (Some(arg), Value::Table(list)) if !list.keys().any(|key| setting(key).is_some()) => {
                    self.take(&path, &arg, value);
                }
                (_, Value::Table(inner)) if group.is_empty() => self.read(&format!("{key}."), inner),
                (Some(arg), _) => self.take(&path, &arg, value),
                (None, _) => {
                    let names: Vec<_> = self.command.get_arguments().filter_map(name).collect();
                    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
                    let near = nearest(key, &names).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                    self.mistakes.refuse(
                        &path,
                        words(value),
                        format!("{} has no setting of this name{near}", self.file),
                    );
                }
            }
        }
    }

    fn take(&mut self, path: &str, arg: &Arg, value: &Value) {
        let (Some(long), Some(variable)) = (arg.get_long(), arg.get_env()) else { return };
        let between = arg.get_value_delimiter().map_or_else(|| "; ".to_owned(), String::from);
        let list: Vec<_> = match value {
            Value::Array(values) => values.iter().map(words).collect(),
            Value::Table(entries) => entries.iter().map(|(name, value)| format!("{name} {}", words(value))).collect(),
            one => vec![words(one)],
        };
        let flag = format!("--{long}=");
        if self.found.iter().any(|known| known.to_string_lossy().starts_with(&flag)) {
            self.mistakes.refuse(path, list.join(&between), format!("{} has this setting twice", self.file));
        } else if std::env::var_os(variable).is_none_or(|value| value.is_empty()) {
            self.found.push(format!("{flag}{}", list.join(&between)).into());
        }
    }
}

/// A setting's name in a file.
fn name(arg: &Arg) -> Option<String> {
    Some(arg.get_env()?.to_str()?.to_lowercase())
}

/// A value as it is written in a flag.
fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Some {
        #[arg(long = "keys", env = "FILE_TEST_KEYS")]
        _keys: u32,
        #[arg(long = "time", env = "FILE_TEST_TIME")]
        _time: String,
        #[arg(long = "targets", env = "FILE_TEST_TARGETS", value_delimiter = ',')]
        _targets: Vec<String>,
        #[arg(long = "faults", env = "FILE_TEST_FAULTS")]
        _faults: String,
    }

    fn flags(text: &str) -> Result<Vec<String>, String> {
        let flags = flags_of_file::<Some>("run.toml", text).map_err(|exit| exit.to_string())?;
        Ok(flags.into_iter().map(|flag| flag.into_string().unwrap()).collect())
    }

    #[test]
    fn keys_are_settings_and_tables_are_groups() {
        let text = "file_test_time = \"5s\"\n[load]\nfile_test_keys = 7\nfile_test_targets = [\"a\", \"b\"]";
        assert_eq!(flags(text).unwrap(), ["--time=5s", "--keys=7", "--targets=a,b"]);
        let list = "file_test_faults = [\"at=1s x\", \"at=2s y\"]";
        assert_eq!(flags(list).unwrap(), ["--faults=at=1s x; at=2s y"]);
        let table = "[file_test_faults]\n\"get.p99\" = \"<5ms\"\nerrors = \"<1%\"";
        assert_eq!(flags(table).unwrap(), ["--faults=errors <1%; get.p99 <5ms"]);
        assert_eq!(flags("[file_test_faults]\nfile_test_keys = 7").unwrap(), ["--keys=7"], "a group of that name");
        assert_eq!(flags("").unwrap(), [""; 0]);
    }

    #[test]
    fn every_mistake_of_a_file_is_told_with_its_place() {
        let message = flags("file_test_tim = \"5s\"\n[load]\nother = 1\n[load.deep]\nx = 1").unwrap_err();
        for part in [
            "file_test_tim=5s: run.toml has no setting of this name; did you mean file_test_time?",
            "load.other=1: run.toml has no setting of this name",
            "load.deep=",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(flags("\na = ").unwrap_err().starts_with("run.toml=line 2: expected TOML: "));
        let twice = flags("file_test_keys = 1\n[load]\nfile_test_keys = 2").unwrap_err();
        assert_eq!(twice, "load.file_test_keys=2: run.toml has this setting twice");
    }
}
