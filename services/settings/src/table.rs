//! All settings as a table. docs/SETTINGS.md is made of the tables of all binaries, and a test keeps it so; therefore it is
//! also where this crate knows the names from.

use clap::{Arg, Command};

/// Every setting of every binary.
const DOCUMENT: &str = include_str!("../../../docs/SETTINGS.md");

/// The names of all settings of all binaries.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name)
}

/// One line a setting: heading, name, default and meaning, with tabs in between.
pub(crate) fn rows(command: &Command) -> String {
    command.get_arguments().filter_map(row).collect()
}

fn row(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?.to_str()?;
    let heading = arg.get_help_heading().unwrap_or("Others");
    let default = arg.get_default_values().join(std::ffi::OsStr::new(","));
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace(char::is_whitespace, " ");
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
    Some(format!("{heading}\t{name}\t{}\t{help}{values}\n", default.to_string_lossy()))
}
