//! Reads all settings of a binary and reports all mistakes at once. `clap` stops at the first bad value, so every value is
//! tried alone first; what is good then goes through `clap` as a whole.

use std::{
    collections::BTreeMap,
    error::Error as _,
    ffi::{OsStr, OsString},
    sync::{Mutex, PoisonError},
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, Parser,
    builder::{PossibleValue, Resettable, TypedValueParser},
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use crate::{
    Exit, Mistakes,
    help::{HELP_ALL, with_help},
    near_names, packaging, table,
};

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
    let is_all = arguments.iter().any(|argument| argument.to_str().is_some_and(|text| text == format!("--{HELP_ALL}")));
    let command = P::command();
    let table_flag = Arg::new(TABLE).long(TABLE).action(ArgAction::SetTrue).hide(true);
    let raw = with_help(untyped(P::command()), is_all)
        .arg(table_flag)
        .args(packaging::flags())
        .try_get_matches_from(&arguments)?;
    if let Some(asked) = packaging::asked(&with_help(command.clone(), true), &raw) {
        return Err(asked);
    }
    near_names::warn(&command, std::env::vars_os());
    let mut mistakes = Mistakes::default();
    let mut good: Vec<OsString> = arguments.into_iter().take(1).collect();
    collect(&command, &raw, &mut good, &mut mistakes);
    if raw.get_flag(TABLE) {
        let is_good = mistakes.as_slice().is_empty();
        return Err(if is_good { Exit::Asked(table::rows(&command)) } else { Exit::Mistakes(mistakes) });
    }
    let without_environment = P::command().mut_args(|arg| arg.env(Resettable::Reset));
    let parsed = P::from_arg_matches(&without_environment.try_get_matches_from(good)?)?;
    match build(parsed, &mut mistakes) {
        Some(built) if mistakes.as_slice().is_empty() => {
            // A run file is read after the settings that name it: the last ones count.
            *STARTED_WITH.lock().unwrap_or_else(PoisonError::into_inner) = effective(&command, &raw);
            Ok(built)
        }
        _ => Err(Exit::Mistakes(mistakes)),
    }
}

static STARTED_WITH: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Every setting that has a value, by the name of its variable, as this process was started with it: without secrets, and without
/// those of a subcommand. Empty before [`parse`].
#[must_use]
pub fn started_with() -> BTreeMap<String, String> {
    STARTED_WITH.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn effective(command: &Command, raw: &ArgMatches) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_env_values_set()) {
        let Some(name) = arg.get_env() else { continue };
        let given: Vec<_> = raw.get_raw(arg.get_id().as_str()).into_iter().flatten().collect();
        let is_empty = given.iter().all(|value| value.is_empty());
        let given =
            if is_empty { arg.get_default_values().iter().map(|value| value.as_os_str()).collect() } else { given };
        if !given.is_empty() {
            let text =
                given.iter().map(|value| without_password(&value.to_string_lossy())).collect::<Vec<_>>().join(",");
            values.insert(name.to_string_lossy().into_owned(), text);
        }
    }
    values
}

/// URLs of a comma-separated list may have one before their hosts. If one may hold a comma, or a scheme is missing, only the last host
/// is left.
fn without_password(value: &str) -> String {
    let has_login =
        |url: &str| url.split_once('@').is_some_and(|(login, _)| login.contains(':') && !login.contains('/'));
    let is_cut = |url: &str| !url.contains("://") && (has_login(url) || (value.contains("://") && url.contains('@')));
    if value.split(',').any(is_cut) {
        let scheme = value.split_once("://").map_or_else(String::new, |(scheme, _)| format!("{scheme}://"));
        return value.rfind('@').map_or_else(|| value.to_owned(), |at| format!("{scheme}***{}", &value[at..]));
    }
    value.split(',').map(without_one_password).collect::<Vec<_>>().join(",")
}

fn without_one_password(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    let host_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest[..host_ends].rfind('@').map_or_else(|| value.to_owned(), |at| format!("{scheme}://***{}", &rest[at..]))
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
        // What has no flag is told by its place.
        let long = arg.get_long().unwrap_or_default();
        if long.is_empty() && !arg.is_positional() {
            continue;
        }
        if !arg.get_action().takes_values() {
            good.push(format!("--{long}").into());
            continue;
        }
        for value in raw.get_raw(id).into_iter().flatten() {
            if source == Some(ValueSource::EnvVariable) && value.is_empty() {
                continue;
            }
            let flag = if long.is_empty() {
                value.to_owned()
            } else {
                [OsStr::new("--"), OsStr::new(long), OsStr::new("="), value].into_iter().collect::<OsString>()
            };
            match expected(arg, value, &flag) {
                None => good.push(flag),
                Some(expected) => {
                    let name = arg
                        .get_env()
                        .unwrap_or_else(|| OsStr::new(if long.is_empty() { id } else { long }))
                        .to_string_lossy();
                    let value = if arg.is_hide_env_values_set() {
                        "***".to_owned()
                    } else {
                        without_password(&value.to_string_lossy())
                    };
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Parser)]
    struct Sample {
        #[arg(long, env, default_value = "1s")]
        _some_time: String,
        #[arg(long, env = "SOME_URL")]
        _some_url: Option<String>,
        #[arg(long, env = "SOME_KEY", hide_env_values = true, default_value = "hidden")]
        _some_key: String,
        #[arg(long, env = "SOME_PATH")]
        _some_path: Option<String>,
    }

    #[test]
    fn what_a_process_was_started_with_is_known_but_for_secrets() {
        let arguments = ["test", "--some-url=http://me:secret@p:1/x@y", "--some-key=secret"];
        let raw = Sample::command().mut_args(|arg| arg.env(Resettable::Reset)).try_get_matches_from(arguments);
        let values = raw.map(|raw| effective(&Sample::command(), &raw)).unwrap_or_default();
        let expected = [("SOME_URL", "http://***@p:1/x@y"), ("SOME_TIME", "1s")];
        assert_eq!(values, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(without_password("http://a:1/b"), "http://a:1/b");
        let two = "redis://me:secret@a:1,redis://:secret@b:2,redis://c:3";
        assert_eq!(without_password(two), "redis://***@a:1,redis://***@b:2,redis://c:3");
        assert_eq!(without_password("redis://a:1,redis://me:se,cret@b:2"), "redis://***@b:2");
        assert_eq!(without_password("me:secret@a:1"), "***@a:1");
        assert_eq!(without_password("results/me:@you"), "results/me:@you");
        assert_eq!(without_password("redis://me:secret@a:1,x"), "redis://***@a:1,x");
    }
}
