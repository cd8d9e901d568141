//! Environment variables without effect that are meant to have one: nearly ours (KILL_MOD, DURATON, READ_TIMEOUT), or
//! OpenTelemetry's and not supported. Nothing else would tell.

use std::{collections::BTreeSet, ffi::OsString, io::Write};

use clap::Command;

use crate::{fitted, otel, table};

/// Shorter names are near to too much.
const NAME_CHARS_MIN: usize = 5;

/// Names that others use, near to ours by chance.
const OF_OTHERS: &[&str] = &["LOCALE", "NODE_IP", "REQUEST_TIMEOUT_S", "TARGET", "WORKER_ID"];

/// Warns of each variable that is set and looks like a misspelt setting, with the right name, and names those of OpenTelemetry
/// that `command` does not support.
pub(crate) fn warn(command: &Command, variables: impl Iterator<Item = (OsString, OsString)>) {
    let (ours, obeyed) = (table::names().collect(), otel::obeyed(command));
    let mut unsupported = BTreeSet::new();
    for (name, value) in variables.filter(|(_, value)| !value.is_empty()) {
        let name = name.to_string_lossy();
        if let Some(right) = nearest(&name, &ours) {
            tell(&format!("{name} is not a setting; did you mean {right}?"));
        } else if otel::is_malformed(&name, &value.to_string_lossy(), &obeyed) {
            // Not its value, which is often a secret.
            tell(&format!(
                "{name} is not key=value between commas, such as api-key=SECRET: the rest of it has no effect"
            ));
        } else if otel::has_no_effect(&name, &value.to_string_lossy(), &obeyed) {
            unsupported.insert(name.into_owned());
        }
    }
    if !unsupported.is_empty() {
        let names = unsupported.into_iter().collect::<Vec<_>>().join(", ");
        tell(&format!("set without effect, because it is not supported: {names}; supported are {}", obeyed.join(", ")));
    }
}

/// Output is best effort.
fn tell(warning: &str) {
    let mut stderr = std::io::stderr();
    let text = fitted(&format!("warning: {warning}"), &stderr);
    let _ = writeln!(stderr, "{text}");
}

/// Which of `names` is meant by a word that is none of them: the one with the fewest edits, if they are one, or two in a long word.
pub fn meant<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let edits_max = if word.chars().count() < 8 { 1 } else { 2 };
    let near = names.into_iter().map(|right| (strsim::osa_distance(word, right), right)).min();
    near.filter(|(edits, _)| *edits <= edits_max).map(|(_, right)| right)
}

/// The one of `ours` that `name` is meant to be, if it is near to one.
pub(crate) fn nearest<'a>(name: &str, ours: &BTreeSet<&'a str>) -> Option<&'a str> {
    if name.chars().count() < NAME_CHARS_MIN || ours.contains(name) || OF_OTHERS.contains(&name) {
        return None;
    }
    // A whole first part, such as READ_TIMEOUT of READ_TIMEOUT_MS, if only one setting begins like that.
    meant(name, ours.iter().copied()).or_else(|| {
        let is_start = |right: &&&str| right.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
        let mut longer = ours.iter().filter(is_start).filter(|_| name.contains('_'));
        longer.next().copied().filter(|_| longer.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_the_right_one() {
        let ours: BTreeSet<&str> = table::names().collect();
        for (wrong, right) in [
            ("KILL_MOD", "KILL_MODE"),
            ("DURATON", "DURATION"),
            ("DRUATION", "DURATION"),
            ("CONCURENCY", "CONCURRENCY"),
            ("READ_TIMEOUT", "READ_TIMEOUT_MS"),
            ("KILL_TOKENS", "KILL_TOKEN"),
            ("CACHE_SEED", "CACHE_SEEDS"),
        ] {
            assert_eq!(nearest(wrong, &ours), Some(right), "{wrong}");
        }
    }

    #[test]
    fn names_of_others_are_left_alone() {
        let ours: BTreeSet<&str> = table::names().collect();
        let others = "PATH HOME USER SHELL LOGNAME PWD OLDPWD LANG LANGUAGE LC_ALL TERM COLORTERM EDITOR VISUAL PAGER MAIL TZ \
                      DISPLAY HOSTNAME SHLVL TMPDIR TEMP LESSOPEN LS_COLORS SSH_TTY SSH_AUTH_SOCK SSH_CONNECTION XDG_RUNTIME_DIR \
                      XDG_SESSION_ID DBUS_SESSION_BUS_ADDRESS NO_COLOR CLICOLOR RUST_LOG RUST_BACKTRACE RUSTFLAGS CARGO CARGO_HOME \
                      CARGO_TARGET_DIR CARGO_MANIFEST_DIR CI GITHUB_ACTIONS GITHUB_TOKEN NODE_ENV NODE_OPTIONS NODE_PATH NODE_NAME \
                      HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy KUBERNETES_PORT KUBERNETES_SERVICE_HOST POD_NAME POD_IP HOST_IP \
                      NODE_IP TARGET LOCALE REQUEST_METHOD TRACE DEFAULT CHECK OTEL_EXPORTER_OTLP_PROTOCOL OTEL_TRACES_SAMPLER \
                      OTEL_EXPORTER_OTLP_HEADERS OTEL_SDK_DISABLED SEED SEEDS MODEL SHRINK PERF MESH_SEED PORTS_FREE MAKEFLAGS \
                      MAKELEVEL MFLAGS INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID DEBIAN_FRONTEND GRAFANA_URL";
        for name in others.split_whitespace().filter(|name| *name != "SEEDS") {
            assert_eq!(nearest(name, &ours), None, "{name}");
        }
        for name in &ours {
            assert_eq!(nearest(name, &ours), None, "{name} is a setting");
        }
    }
}
