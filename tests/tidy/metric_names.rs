//! A metric's name is defined once; all other uses refer to that place.

use std::collections::{BTreeMap, BTreeSet};

use super::{sources::Sources, tokens::tokens};

const PREFIXES: &[&str] = &["mesh_", "runner_", "process_"];

/// Not metrics, though they look like some: our own crates, as log filters name them.
const CRATES: &[&str] = &["mesh_proto", "mesh_bench"];

/// Metric names that are string literals in more than one file.
pub(crate) fn in_two_files(sources: &Sources) -> Vec<String> {
    let mut places: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for file in sources.rust().filter(|file| file.path.contains("src/")) {
        for token in tokens(file) {
            let literal = token.text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            if let Some(name) = literal.filter(|name| is_metric(name)) {
                places.entry(name.to_owned()).or_default().insert(&file.path);
            }
        }
    }
    places
        .into_iter()
        .filter(|(_, files)| files.len() > 1)
        .map(|(name, files)| format!("`{name}` stands in {}", files.into_iter().collect::<Vec<_>>().join(" and ")))
        .collect()
}

fn is_metric(text: &str) -> bool {
    let shape = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    shape && !CRATES.contains(&text) && PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

#[test]
fn a_name_in_two_files_is_seen() {
    let once = ("a/src/a.rs", "const A: &str = \"mesh_requests_total\";");
    let again = ("b/src/b.rs", "fn f() { counter!(\"mesh_requests_total\"); }");
    assert!(in_two_files(&Sources::sample(&[once, ("b/src/b.rs", "// \"mesh_requests_total\"")])).is_empty());
    assert_eq!(
        in_two_files(&Sources::sample(&[once, again])),
        ["`mesh_requests_total` stands in a/src/a.rs and b/src/b.rs"]
    );
}
