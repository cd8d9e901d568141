//! What must not be left lying about: unfinished code, tests that are switched off, names of somebody's machine.

use super::{
    sources::{SourceFile, Sources},
    tokens::complain,
};

const UNFINISHED: &[(&str, &str)] =
    &[("todo !", "finish it"), ("unimplemented !", "finish it"), ("dbg !", "take it out")];

// Each word is cut in two here, so that this file does not complain about itself.
const UNFINISHED_WORDS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X:")];

const MACHINE_NAMES: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Use", "rs/"),
    concat!("\\Use", "rs\\"),
    concat!(".inter", "nal/"),
    concat!(".co", "rp/"),
    concat!("192.", "168."),
];

/// Code that panics because it is not written yet, debugging output, and notes to oneself.
pub(crate) fn unfinished(sources: &Sources) -> Vec<String> {
    let code = sources.rust().flat_map(|file| complain(file, UNFINISHED));
    let notes = sources.all().flat_map(|file| lines_with(file, UNFINISHED_WORDS));
    code.chain(notes).collect()
}

/// `#[ignore]`: a test runs or is deleted.
pub(crate) fn ignored_tests(sources: &Sources) -> Vec<String> {
    let ignored = [("# [ ignore", "run it or delete it")];
    sources.rust().flat_map(|file| complain(file, &ignored)).collect()
}

/// Paths and hosts that exist on one machine only.
pub(crate) fn machine_names(sources: &Sources) -> Vec<String> {
    sources.all().flat_map(|file| lines_with(file, MACHINE_NAMES)).collect()
}

fn lines_with(file: &SourceFile, words: &[&str]) -> Vec<String> {
    let numbered = file.text.lines().enumerate();
    numbered
        .flat_map(|(number, line)| {
            words.iter().filter(move |word| line.contains(**word)).map(move |word| (number, word))
        })
        .map(|(number, word)| format!("{}:{}: `{word}`", file.path, number + 1))
        .collect()
}

#[test]
fn unfinished_code_is_seen() {
    let note = format!("//! A.\n// {} later\n", UNFINISHED_WORDS[0]);
    let sample = Sources::sample(&[
        ("a.rs", "//! todo!() in words is fine.\nfn f() { g(todo!()) }\nfn h() { dbg!(1); }\n"),
        ("b.rs", &note),
    ]);
    assert_eq!(unfinished(&sample).len(), 3);
}

#[test]
fn an_ignored_test_is_seen() {
    let sample = Sources::sample(&[("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n#[test]\nfn ignore() {}\n")]);
    assert_eq!(ignored_tests(&sample).len(), 1);
}

#[test]
fn a_machine_is_seen() {
    let text = format!("cd {}me/project\n", MACHINE_NAMES[0]);
    assert_eq!(machine_names(&Sources::sample(&[("a.md", &text), ("b.md", "cd ~/project\n")])).len(), 1);
}
