//! docs/LIMITS.md names where each limit stands: as a setting, or as a constant or function in the code.

use std::collections::BTreeSet;

use super::sources::Sources;

const PAGE: &str = "docs/LIMITS.md";

/// Names in the column *setting or place* that the code does not have.
pub(crate) fn stale(sources: &Sources) -> Vec<String> {
    let Some(page) = sources.file(PAGE) else { return vec![format!("{PAGE} is missing")] };
    let known: BTreeSet<String> = sources.rust().flat_map(|file| words(&file.text)).collect();
    let names = page.text.lines().enumerate().flat_map(|(at, line)| {
        let place = line.split('|').nth(3).unwrap_or_default();
        place.split('`').skip(1).step_by(2).map(move |name| (at + 1, name))
    });
    let is_stale = |(at, name): (usize, &str)| {
        let last = name.rsplit("::").next().unwrap_or(name);
        let is_name = !last.is_empty() && last.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (is_name && !known.contains(&last.to_ascii_lowercase()))
            .then(|| format!("{PAGE}:{at}: `{name}` is nowhere in the code"))
    };
    names.filter_map(is_stale).collect()
}

/// In lower case, as a setting's field is written.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_whose_constant_has_gone_is_seen() {
        let code = ("a.rs", "mod a; const NEW_MAX: u8 = 1; fn per_try() {}");
        let of = |row: &str| stale(&Sources::sample(&[(PAGE, &format!("| limit |\n|---|\n{row}")), code]));
        assert_eq!(of("| a | 1 | `OLD_MAX` | |"), ["docs/LIMITS.md:3: `OLD_MAX` is nowhere in the code"]);
        assert_eq!(of("| a | 1 | `NEW`, `Window::per` | |").len(), 2);
        assert!(of("| a | 1 | `NEW_MAX` of `a`, `Window::per_try`, `ulimit -n` | `seen as` |").is_empty());
        assert_eq!(stale(&Sources::sample(&[code])).len(), 1);
    }
}
