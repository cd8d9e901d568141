//! README.md lists every error that a node may answer with.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path};

use axum::http::StatusCode;

const README: &str = include_str!("../../../README.md");

/// All that is said of errors, in one paragraph.
fn paragraph() -> &'static str {
    let start = README.find("Errors are `application/problem+json`").expect("README speaks of errors");
    README[start..].split("\n`consistency=").next().unwrap_or_default()
}

/// Errors that are named in the sources of this folder.
fn named(folder: &Path, found: &mut BTreeSet<u16>) {
    let codes: Vec<StatusCode> = (400..600).filter_map(|code| StatusCode::from_u16(code).ok()).collect();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            named(&entry, found);
            continue;
        }
        let text = fs::read_to_string(&entry).unwrap();
        for code in &codes {
            let name = code.canonical_reason().unwrap_or_default().to_uppercase().replace(' ', "_");
            if !name.is_empty() && text.contains(&format!("StatusCode::{name}")) {
                found.insert(code.as_u16());
            }
        }
    }
}

#[test]
fn every_error_of_a_node_is_in_the_readme() {
    let mut answered = BTreeSet::from([431]);
    named(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut answered);
    assert!(answered.len() > 8, "{answered:?}");
    let numbers = paragraph().split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() == 3);
    let mut listed: BTreeSet<u16> = numbers.map(|word| word.parse().unwrap()).collect();
    assert!(listed.remove(&415), "people look for it");
    assert_eq!(listed, answered);
}
