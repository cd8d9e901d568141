//! docs/OBSERVABILITY.md lists all spans that the code makes, and no others.

use std::collections::BTreeSet;

use super::sources::Sources;

const DOCUMENT: &str = "docs/OBSERVABILITY.md";
const CONSTANTS: &str = "observability/src/trace/names.rs";

/// Names of spans that stand only in the code, or only in the document.
pub(crate) fn differing(sources: &Sources) -> Vec<String> {
    let (made, listed) = (made(sources), listed(sources));
    let lacking = made.difference(&listed).map(|name| format!("{DOCUMENT} does not list the span `{name}`"));
    let superfluous = listed.difference(&made).map(|name| format!("{DOCUMENT} lists `{name}`, which no code makes"));
    lacking.chain(superfluous).collect()
}

fn made(sources: &Sources) -> BTreeSet<&str> {
    let code = sources.rust().filter(|file| file.path.contains("src/"));
    let code = code.flat_map(|file| {
        let before = if file.path == CONSTANTS { "&str = " } else { "info_span!(" };
        file.text.split(before).skip(1).filter_map(|rest| rest.split('"').nth(1))
    });
    code.collect()
}

fn listed(sources: &Sources) -> BTreeSet<&str> {
    let text = sources.file(DOCUMENT).map_or("", |file| &file.text);
    let section = text.split("\n## ").find(|section| section.starts_with("Spans\n")).unwrap_or_default();
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

#[test]
fn a_span_that_stands_on_one_side_only_is_seen() {
    let document = (DOCUMENT, "# A\n\n## Spans\n\n| `a.b` | What. |\n| `c.d` | What. |\n\n## Metrics\n\n| `e` |");
    let constant = (CONSTANTS, "const A: &str = \"a.b\";");
    let made = ("m/src/m.rs", "fn f() { info_span!(parent: None, \"c.d\", otel.kind = \"client\"); }");
    assert!(differing(&Sources::sample(&[document, constant, made])).is_empty());
    assert_eq!(differing(&Sources::sample(&[document, constant])).len(), 1);
    assert_eq!(differing(&Sources::sample(&[("docs/B.md", ""), constant, made])).len(), 2);
}
