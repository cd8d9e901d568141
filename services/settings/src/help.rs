//! `--help` as one screen: the settings that matter with their defaults, by headings, and the names of the others. `--help-all`
//! has what clap makes of all of them.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

use crate::{COLUMNS, wrapped};

/// The flag that describes everything.
pub(crate) const HELP_ALL: &str = "help-all";

/// Settings with a line of their own; of the others a screen has the names.
const DESCRIBED: &[&str] = &[
    "ALLOW_KILL",
    "CACHE_AUTH",
    "CACHE_PUBLIC",
    "CACHE_SEEDS",
    "CAPACITY_BYTES",
    "CONCURRENCY",
    "DURATION",
    "FAULTS",
    "FIND_MAX",
    "KEYS",
    "KILL_AFTER",
    "KILL_MODE",
    "LOCAL",
    "OBJECTIVES",
    "PORT",
    "RATE",
    "REPLICATION_FACTOR",
    "RESULTS",
    "SET_RATIO",
    "TARGETS",
    "WRITE_CONCERN",
];

/// Where a meaning begins, and where that of a command does.
const MEANING_COLUMN: usize = 30;
const COMMAND_COLUMN: usize = 16;

/// The same command, with `--help` for one screen and `--help-all`.
pub(crate) fn with_help(command: Command, is_all: bool) -> Command {
    let flags = [
        Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print one screen of help"),
        Arg::new(HELP_ALL).long(HELP_ALL).action(ArgAction::HelpLong).help("Print all settings, with their meanings"),
    ];
    let screen = screen(&command);
    let command = command.disable_help_flag(true).args(flags);
    if is_all { command } else { command.override_help(screen) }
}

/// The whole screen.
fn screen(command: &Command) -> String {
    let mut out = String::new();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let has_commands = command.get_subcommands().any(|command| !command.is_hide_set());
    let commands = if has_commands { " [COMMAND]" } else { "" };
    let _ = writeln!(out, "{}\n\nUsage: {} [OPTIONS]{commands}", wrapped(&about, COLUMNS, 0), command.get_name());
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        row(&mut out, command.get_name(), &about, COMMAND_COLUMN);
    }
    let mut headings: Vec<&str> = Vec::new();
    command.get_arguments().filter(|arg| arg.get_env().is_some()).for_each(|arg| {
        let heading = heading(arg);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    });
    for heading in headings {
        section(&mut out, command, heading);
    }
    let end = "Every setting is also an environment variable, as SET_RATIO for --set-ratio. --help-all describes them all; \
               -V, --version";
    let _ = writeln!(out, "{}", wrapped(end, COLUMNS, 0));
    out
}

fn section(out: &mut String, command: &Command, name: &str) {
    let of_section = || command.get_arguments().filter(|arg| arg.get_env().is_some() && heading(arg) == name);
    let is_described = |arg: &&Arg| arg.get_env().is_some_and(|name| DESCRIBED.iter().any(|known| name == *known));
    let rest: Vec<_> = of_section().filter(|arg| !is_described(arg)).map(flag).collect();
    if of_section().any(|arg| is_described(&arg)) {
        let _ = writeln!(out, "{name}:");
        for arg in of_section().filter(is_described) {
            let label = format!("{} {}", flag(arg), value(arg));
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            row(out, label.trim_end(), &help, MEANING_COLUMN);
        }
        if !rest.is_empty() {
            let _ = writeln!(out, "{}", wrapped(&format!("  {}", rest.join(" ")), COLUMNS, 0));
        }
    } else {
        let _ = writeln!(out, "{}", wrapped(&format!("{name}: {}", rest.join(" ")), COLUMNS, 2));
    }
}

fn row(out: &mut String, label: &str, meaning: &str, column: usize) {
    let width = column - 3;
    // A longer label pushes its meaning to the right.
    let label = format!("  {label:<width$} ");
    let room = COLUMNS.saturating_sub(label.chars().count());
    let _ = writeln!(out, "{label}{}", shortened(meaning, room));
}

fn heading(arg: &Arg) -> &str {
    arg.get_help_heading().unwrap_or("Others")
}

fn flag(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}

/// The default, or else the values there are, or else what stands for one.
fn value(arg: &Arg) -> String {
    let default = arg.get_default_values().join(std::ffi::OsStr::new(","));
    let default = default.to_string_lossy();
    let names = || arg.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    match default.is_empty() || default.chars().count() > MEANING_COLUMN {
        _ if !arg.get_action().takes_values() => String::new(),
        true => names(),
        false => default.into_owned(),
    }
}

/// As much of the first sentence as fits.
fn shortened(meaning: &str, room: usize) -> String {
    let meaning = meaning.split("; ").next().unwrap_or_default();
    if meaning.chars().count() <= room {
        return meaning.to_owned();
    }
    let head: String = meaning.chars().take(room.saturating_sub(1)).collect();
    let clause = [", ", ": ", " ("].iter().filter_map(|end| head.rfind(end)).max();
    let end = clause.filter(|at| *at * 2 > head.len()).map(|at| head[..at].to_owned());
    end.unwrap_or_else(|| {
        let word = head.rfind(' ').unwrap_or(head.len());
        format!("{}…", head[..word].trim_end_matches([',', ':']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[test]
    fn what_is_described_exists() {
        let names: Vec<_> = table::names().collect();
        assert!(DESCRIBED.iter().all(|name| names.contains(name)), "one of {DESCRIBED:?} is not in docs/SETTINGS.md");
    }

    #[test]
    fn a_meaning_is_cut_at_a_clause_or_a_word() {
        assert_eq!(shortened("How many keys are used, 1 to 20000000", 40), "How many keys are used, 1 to 20000000");
        assert_eq!(shortened("How many keys are used, 1 to 20000000", 30), "How many keys are used");
        assert_eq!(shortened("Start nodes; 0 is off", 30), "Start nodes");
        assert_eq!(shortened("Answers every request with the same bytes", 24), "Answers every request…");
    }
}
