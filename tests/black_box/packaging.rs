//! What comes with the binaries: help on one screen, the version, shell completions, man pages.

use std::{fs, path::Path, process::Command};

use crate::harness::binary;

#[allow(dead_code, reason = "its main is for cargo")]
#[path = "../../services/build.rs"]
mod build;

const BINARIES: [&str; 3] = ["node", "runner", "direct-runner"];

fn told(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(binary(name)).env_clear().args(arguments).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The flags of all settings.
fn flags(name: &str) -> Vec<String> {
    let table = told(name, &["--settings-table"]);
    let names = table.lines().filter_map(|line| line.split('\t').nth(1));
    names.map(|name| format!("--{}", name.to_lowercase().replace('_', "-"))).collect()
}

#[test]
fn help_is_one_screen_and_names_every_setting() {
    for name in BINARIES {
        let help = told(name, &["--help"]);
        assert_eq!(help, told(name, &["-h"]));
        let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{name}: {wide:#?}");
        assert!(help.lines().count() <= 50, "{name}: {} lines\n{help}", help.lines().count());
        let words: Vec<_> = help.split_whitespace().collect();
        let missing: Vec<_> = flags(name).into_iter().filter(|flag| !words.contains(&flag.as_str())).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}\n{help}");
        let all = told(name, &["--help-all"]);
        assert!(all.lines().count() > 100 && all.contains("[env: DURATION=]") != (name == "node"), "{name}: {all}");
    }
}

#[test]
fn completions_and_man_pages_have_every_setting() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in BINARIES {
        let path = folder.path().join(name);
        told(name, &["--man", path.to_str().expect("UTF-8")]);
        let page = fs::read_to_string(path.join(format!("{name}.1"))).expect("a page").replace("\\-", "-");
        let completions = ["bash", "fish", "zsh"].map(|shell| (shell, told(name, &["--completions", shell])));
        for flag in flags(name) {
            assert!(page.contains(&flag), "{flag} is not in the man page of {name}");
            for (shell, text) in &completions {
                let is_there = text.contains(if *shell == "fish" { &flag[2..] } else { &flag });
                assert!(is_there, "{flag} is not among the completions of {name} for {shell}");
            }
        }
        assert_eq!(path.join("runner-compare.1").exists(), name == "runner");
    }
    let refused = Command::new(binary("runner")).env_clear().args(["--completions", "csh"]).output().expect("it runs");
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("completions=csh: expected bash, elvish, fish"), "{message}");
    assert_eq!(refused.status.code(), Some(2));
}

/// A node is asked how little it can do with, so only its store is in huge pages; with the runners it is all.
#[test]
fn the_allocator_is_told_what_suits_each_program() {
    for name in BINARIES {
        let mut command = Command::new(binary(name));
        command.env_clear().env("_RJEM_MALLOC_CONF", "stats_print:true").arg("--version");
        let told = String::from_utf8(command.output().expect("it runs").stderr).expect("UTF-8");
        assert!(told.contains("config.malloc_conf: ") && told.contains("thp:never"), "{name}: {told}");
        let is_told_more = told.contains("Global variable malloc_conf: \"thp:always");
        assert_eq!(is_told_more, name != "node", "{name}: {told}");
    }
}

#[test]
fn the_version_has_the_commit_if_it_is_known() {
    for name in BINARIES {
        let version = told(name, &["--version"]);
        let expected = format!("{name} {}", env!("CARGO_PKG_VERSION"));
        assert!(version.trim_end() == expected || version.starts_with(&format!("{expected} (")), "{version}");
    }
    assert_eq!(build::version("1.2.3", Some("abc")), "1.2.3 (abc)");
    assert_eq!(build::version("1.2.3", None), "1.2.3");
    let folder = tempfile::tempdir().expect("a folder");
    let head = |folder: &Path| build::git(folder, &["rev-parse", "--short=12", "HEAD"]);
    assert_eq!(head(folder.path()), None, "a source package has no repository");
    for arguments in [
        &["init", "-q"][..],
        &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "c"],
    ] {
        let done = Command::new("git").arg("-C").arg(folder.path()).args(arguments).status().expect("git runs");
        assert!(done.success());
    }
    let commit = head(folder.path()).expect("a commit");
    assert!(commit.len() == 12 && commit.bytes().all(|digit| digit.is_ascii_hexdigit()), "{commit}");
}
