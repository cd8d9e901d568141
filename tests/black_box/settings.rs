//! Settings as all binaries read them: the same values under the same names, one document of them all, and one report of all
//! that is wrong. With `--settings-table` a binary checks what it was told, prints its settings, and starts nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Write,
    fs,
    os::unix::ffi::OsStrExt,
    process::{Command, Output},
};

use crate::harness::binary;

const BINARIES: [&str; 3] = ["node", "runner", "direct-runner"];

const HEAD: &str = "# Settings

Each is an environment variable and a flag of the same name in lower case (`--read-timeout-ms`); the flag wins, and an empty
variable is an unset one. Durations are `60s`, `1m30s`, `250ms`; `*_MS` are whole milliseconds; sizes are bytes or `64KiB`, `64MiB`,
`1GiB`; booleans are `true`, `on`, `yes`, `1` and `false`, `off`, `no`, `0`. All that is wrong is reported at the start, with exit code 2.

This file is made of what the binaries say: `WRITE_SETTINGS=1 cargo test --workspace --test black_box settings::` writes it.
";

/// Runs a binary that checks these variables and starts nothing.
fn check<V: AsRef<OsStr>>(name: &str, variables: impl IntoIterator<Item = (impl AsRef<OsStr>, V)>) -> Output {
    let mut command = Command::new(binary(name));
    command.env_clear().arg("--settings-table").envs(variables).output().expect("it runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Heading, name, default and meaning of all settings of a binary.
fn table(name: &str) -> Vec<[String; 4]> {
    let output = check::<&str>(name, [] as [(&str, &str); 0]);
    assert!(output.status.success(), "{}", errors(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().expect("four")).collect()
}

fn names(name: &str) -> BTreeSet<String> {
    table(name).into_iter().map(|[_, name, ..]| name).collect()
}

/// One heading of the document, with its rows: name, default and meaning, and the binaries that have them.
struct Section {
    heading: String,
    rows: Vec<([String; 3], Vec<&'static str>)>,
}

#[test]
fn the_document_lists_them_all() {
    let mut sections: Vec<Section> = Vec::new();
    for binary in BINARIES {
        for [heading, name, default, meaning] in table(binary) {
            let known = sections.iter().position(|section| section.heading == heading);
            let section = known.unwrap_or_else(|| {
                sections.push(Section { heading, rows: Vec::new() });
                sections.len() - 1
            });
            let (rows, row) = (&mut sections[section].rows, [name, default, meaning]);
            match rows.iter_mut().find(|(known, _)| *known == row) {
                Some((_, binaries)) => binaries.push(binary),
                None => rows.push((row, vec![binary])),
            }
        }
    }
    let mut wanted = HEAD.to_owned();
    for Section { heading, rows } in sections {
        let _ = write!(wanted, "\n## {heading}\n\n| name | default | meaning | of |\n|---|---|---|---|\n");
        for ([name, default, meaning], binaries) in rows {
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let _ = writeln!(
                wanted,
                "| `{name}` | {default} | {} | {} |",
                meaning.replace('|', "\\|"),
                binaries.join(", ")
            );
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SETTINGS.md");
    if std::env::var_os("WRITE_SETTINGS").is_some() {
        fs::write(path, &wanted).expect("the document can be written");
    }
    let found = fs::read_to_string(path).expect("the document can be read");
    let stale = "docs/SETTINGS.md is stale: build, run this with WRITE_SETTINGS=1, build again";
    assert!(found == wanted, "{stale}. It should be:\n{wanted}");
}

/// Values of all kinds, good for some settings and bad for others.
const SAMPLES: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "8",
    "9",
    "-1",
    "-2",
    "50",
    "100",
    "101",
    "256",
    "65536",
    "86400000",
    "86400001",
    "18446744073709551615",
    "0.5",
    "nan",
    "true",
    "on",
    "yes",
    "off",
    "no",
    "false",
    "maybe",
    "one",
    "quorum",
    "tail",
    "all",
    "adaptive",
    "0s",
    "250ms",
    "60s",
    "1m30s",
    "365d",
    "366d",
    "18446744073709551615s",
    "64KiB",
    "1GiB",
    "1GB",
    "zipf:0.99",
    "uniform",
    "100-4KiB",
    "100:70,1KiB:30",
    "http://localhost:4317",
    "http://localhost",
    "node1:5011",
    "key=value",
    "~",
    " ",
    "ä",
];

#[test]
fn binaries_accept_and_refuse_the_same_values() {
    let names: BTreeMap<&str, BTreeSet<String>> = BINARIES.iter().map(|binary| (*binary, names(binary))).collect();
    let (mut shared, mut refused_once) = (0, BTreeSet::new());
    for sample in SAMPLES {
        let refused = |binary: &str| -> BTreeSet<String> {
            let output = check(binary, names[binary].iter().map(|name| (name, sample)));
            let text = errors(&output);
            let of = |name: &&String| {
                text.contains(&format!("{name}={sample}: ")) || text.contains(&format!("{name}=***: "))
            };
            names[binary].iter().filter(of).cloned().collect()
        };
        let refused: BTreeMap<&str, BTreeSet<String>> =
            BINARIES.iter().map(|binary| (*binary, refused(binary))).collect();
        for (first, second) in [("node", "runner"), ("node", "direct-runner"), ("runner", "direct-runner")] {
            for name in names[first].intersection(&names[second]) {
                let (one, other) = (refused[first].contains(name), refused[second].contains(name));
                assert_eq!(one, other, "{name}={sample}: {first} and {second} disagree");
                shared += 1;
            }
        }
        refused_once.extend(refused.into_values().flatten());
    }
    assert!(shared > 1000 && refused_once.len() > 50, "{shared} compared, {} refused", refused_once.len());
    // The same words mean the same wherever there is a yes or no.
    for (binary, name) in
        [("node", "ALLOW_KILL"), ("runner", "CHECK"), ("runner", "FINAL_SWEEP"), ("direct-runner", "PREFILL")]
    {
        for word in ["true", "false", "on", "off", "yes", "no", "1", "0"] {
            assert!(check(binary, [(name, word)]).status.success(), "{binary} {name}={word}");
        }
    }
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    for binary in BINARIES {
        let output = check(binary, names(binary).iter().map(|name| (name, "")));
        assert!(output.status.success(), "{binary}: {}", errors(&output));
    }
}

#[test]
fn all_mistakes_are_reported_together_and_no_secret() {
    for binary in BINARIES {
        let names = names(binary);
        let bytes = OsStr::from_bytes(b"\xffsecret");
        let output = check(binary, names.iter().map(|name| (name, bytes)));
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.starts_with(&format!("error: {} settings cannot be used:\n", names.len())), "{text}");
        for name in &names {
            let is_secret = ["CACHE_AUTH", "KILL_TOKEN", "TARGET_PASSWORD", "HTTP_TOKEN", "HTTP_ADMIN_TOKEN"]
                .contains(&name.as_str());
            let value = if is_secret { "***" } else { "\u{fffd}secret" };
            assert!(text.contains(&format!("  {name}={value}: expected text in UTF-8\n")), "{binary} {name}: {text}");
        }
    }
}

#[test]
fn a_misspelt_name_is_warned_of() {
    for binary in BINARIES {
        let output = check(binary, [("KILL_MOD", "random"), ("DURATON", "1s"), ("PATH", "/bin"), ("CACHE_BNID", "")]);
        let expected =
            ["DURATON is not a setting; did you mean DURATION?", "KILL_MOD is not a setting; did you mean KILL_MODE?"];
        let text = errors(&output);
        let mut lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches("warning: ")).collect();
        lines.sort_unstable();
        assert_eq!(lines, expected, "{binary}");
        assert!(output.status.success(), "a warning is no error");
    }
}

#[test]
fn variables_of_opentelemetry_that_are_not_supported_are_named() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317"),
        ("OTEL_METRICS_EXPORTER", "console"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "7"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_SERVICE_NAME", "mine"),
    ];
    for binary in BINARIES {
        let (output, makes_traces) = (check(binary, variables), binary != "direct-runner");
        let named = "warning: set without effect, because it is not supported: OTEL_BSP_MAX_QUEUE_SIZE, \
                     OTEL_METRICS_EXPORTER; supported are OTEL_EXPORTER_OTLP_ENDPOINT, ";
        let errors = errors(&output);
        assert!(if makes_traces { errors.starts_with(named) } else { errors.is_empty() }, "{binary}: {errors}");
        assert!(output.status.success(), "a warning is no error");
    }
}

#[test]
fn exit_codes_do_not_depend_on_who_reads_the_mistakes() {
    let full = || fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    for binary in BINARIES {
        let mut command = Command::new(crate::harness::binary(binary));
        command
            .env_clear()
            .envs([("DURATON", "1s"), ("WRITE_CONCERN", "none"), ("DURATION", "none")])
            .stdout(full())
            .stderr(full());
        let code = command.status().expect("it runs").code();
        assert_eq!(code, Some(2), "{binary}");
    }
}
