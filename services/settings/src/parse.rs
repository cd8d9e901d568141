//! Reads all settings of a binary and reports all mistakes at once. `clap` stops at the first bad value, so every value is
//! tried alone first; what is good then goes through `clap` as a whole.

use std::{
    error::Error as _,
    ffi::{OsStr, OsString},
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, Parser,
    builder::{PossibleValue, Resettable, TypedValueParser},
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use crate::{Exit, Mistakes, near_names, table};

/// The hidden flag that checks each setting alone and prints them all, instead of starting anything; docs/SETTINGS.md is made
/// of it.
const TABLE: &str = "settings-table";

/// Reads arguments (the first is the program's name) and the environment, and builds something of them. `build` checks rules
/// between settings, notes what breaks them, and sees the default in place of a setting that is bad itself. Variables that
/// look like misspelt settings, and those of OpenTelemetry that are not supported, are warned of on standard error.
///
/// # Errors
/// [`Exit`], ready to be shown.
pub fn parse<P: Parser, T>(
    arguments: impl IntoIterator<Item = OsString>,
    build: impl FnOnce(P, &mut Mistakes) -> Option<T>,
) -> Result<T, Exit> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = P::command();
    let table_flag = Arg::new(TABLE).long(TABLE).action(ArgAction::SetTrue).hide(true);
    let raw = untyped(P::command()).arg(table_flag).try_get_matches_from(&arguments)?;
    near_names::warn(&command, std::env::vars_os());
    let mut mistakes = Mistakes::default();
    let mut good: Vec<OsString> = arguments.into_iter().take(1).collect();
    collect(&command, &raw, &mut good, &mut mistakes);
    if raw.get_flag(TABLE) {
        let is_good = mistakes.as_slice().is_empty();
        return Err(if is_good { Exit::Table(table::rows(&command)) } else { Exit::Mistakes(mistakes) });
    }
    let without_environment = P::command().mut_args(|arg| arg.env(Resettable::Reset));
    let parsed = P::from_arg_matches(&without_environment.try_get_matches_from(good)?)?;
    match build(parsed, &mut mistakes) {
        Some(built) if mistakes.as_slice().is_empty() => Ok(built),
        _ => Err(Exit::Mistakes(mistakes)),
    }
}

/// The same command, but any value is taken as it is.
fn untyped(command: Command) -> Command {
    let command = command.mut_subcommands(untyped);
    command.mut_args(|arg| {
        let anything = Anything(arg.get_possible_values());
        if arg.get_action().takes_values() { arg.value_delimiter(None).value_parser(anything) } else { arg }
    })
}

/// Appends what `command` was told to `good`, as flags; what cannot be used goes to the mistakes.
fn collect(command: &Command, raw: &ArgMatches, good: &mut Vec<OsString>, mistakes: &mut Mistakes) {
    for arg in command.get_arguments() {
        let (id, source) = (arg.get_id().as_str(), raw.value_source(arg.get_id().as_str()));
        if source.is_none_or(|source| source == ValueSource::DefaultValue) {
            continue;
        }
        // Positional values have their own checks, whose words clap finds.
        let Some(long) = arg.get_long() else {
            good.extend(raw.get_raw(id).into_iter().flatten().map(OsStr::to_owned));
            continue;
        };
        if !arg.get_action().takes_values() {
            good.push(format!("--{long}").into());
            continue;
        }
        for value in raw.get_raw(id).into_iter().flatten() {
            if source == Some(ValueSource::EnvVariable) && value.is_empty() {
                continue;
            }
            let flag = [OsStr::new("--"), OsStr::new(long), OsStr::new("="), value].into_iter().collect::<OsString>();
            match expected(arg, value, &flag) {
                None => good.push(flag),
                Some(expected) => {
                    let name = arg.get_env().unwrap_or_else(|| OsStr::new(long)).to_string_lossy();
                    let value = if arg.is_hide_env_values_set() { "***".into() } else { value.to_string_lossy() };
                    mistakes.refuse(&name, value, expected);
                }
            }
        }
    }
    if let Some((name, raw)) = raw.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        good.push(name.into());
        collect(command, raw, good, mistakes);
    }
}

/// What was expected instead of this value, if it cannot be used.
fn expected(arg: &Arg, value: &OsStr, flag: &OsStr) -> Option<String> {
    if value.to_str().is_none() {
        return Some("expected text in UTF-8".to_owned());
    }
    let alone = Command::new("").no_binary_name(true).disable_help_flag(true).arg(arg.clone().env(Resettable::Reset));
    let error = alone.try_get_matches_from([flag]).err()?;
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => Some(format!("expected {}", values.join(" or "))),
        _ => Some(error.source().map_or_else(|| "expected another value".to_owned(), ToString::to_string)),
    }
}

/// Takes any value, but shows in `--help` which ones there are.
#[derive(Clone)]
struct Anything(Vec<PossibleValue>);

impl TypedValueParser for Anything {
    type Value = OsString;

    fn parse_ref(&self, _: &Command, _: Option<&Arg>, value: &OsStr) -> Result<OsString, clap::Error> {
        Ok(value.to_owned())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        (!self.0.is_empty()).then(|| Box::new(self.0.iter().cloned()) as Box<_>)
    }
}
