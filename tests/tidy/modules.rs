//! Files as modules: each says what it is, is named after something, and is part of the build.

use std::collections::BTreeSet;

use syn::{Item, ItemMod};

use super::{
    size::is_cfg_test,
    sources::{SourceFile, Sources},
};

/// Rust files that do not open with `//!`.
pub(crate) fn headers(sources: &Sources) -> Vec<String> {
    let silent = |file: &&SourceFile| !file.text.starts_with("//!");
    sources.rust().filter(silent).map(|file| format!("{}: open it with `//!` and what it is", file.path)).collect()
}

/// Rust files named after nothing in particular.
pub(crate) fn names(sources: &Sources) -> Vec<String> {
    let vague = |file: &&SourceFile| {
        let mut parts = file.path.trim_end_matches(".rs").split('/');
        parts.any(|part| matches!(part, "util" | "utils" | "common" | "helper" | "helpers" | "misc"))
    };
    sources.rust().filter(vague).map(|file| format!("{}: name it after what it holds", file.path)).collect()
}

/// Rust files that no crate root reaches through `mod`.
pub(crate) fn unreached(sources: &Sources) -> Vec<String> {
    let reached = Walk::from(sources, is_crate_root, |_| true);
    let dead = sources.rust().filter(|file| !reached.contains(&file.path));
    dead.map(|file| format!("{}: no `mod` leads here", file.path)).collect()
}

/// Rust files of libraries and programs, without those that only their tests have.
pub(crate) fn product(sources: &Sources) -> BTreeSet<String> {
    let is_root = |path: &str| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    Walk::from(sources, is_root, |module| !module.attrs.iter().any(is_cfg_test))
}

/// What cargo takes for a target without being told, and the targets of a fuzz crate.
fn is_crate_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let target_folder = |folder: &str| matches!(folder, "tests" | "benches" | "examples" | "bin" | "fuzz_targets");
    match parts.as_slice() {
        [.., "build.rs"] | [.., "src", "lib.rs" | "main.rs"] => true,
        [.., folder, _] if target_folder(folder) => true,
        [.., folder, _, "main.rs"] => target_folder(folder),
        _ => false,
    }
}

/// A way from crate roots through the modules that are to be followed.
struct Walk<'a> {
    sources: &'a Sources,
    follows: fn(&ItemMod) -> bool,
    reached: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    fn from(sources: &'a Sources, is_root: fn(&str) -> bool, follows: fn(&ItemMod) -> bool) -> BTreeSet<String> {
        let mut walk = Self { sources, follows, reached: BTreeSet::new() };
        for root in sources.rust().filter(|file| is_root(&file.path)) {
            let folder = root.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            walk.file(root, folder);
        }
        walk.reached
    }

    /// Notes `file` and all modules below it; its own child modules live in `folder`.
    fn file(&mut self, file: &SourceFile, folder: &str) {
        self.reached.insert(file.path.clone());
        let own_folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.items(&file.syntax().items, folder, own_folder);
    }

    fn items(&mut self, items: &[Item], folder: &str, own_folder: &str) {
        for item in items {
            let Item::Mod(module) = item else { continue };
            if !(self.follows)(module) {
                continue;
            }
            let name = module.ident.to_string();
            let below = join(folder, &name);
            if let Some((_, inner)) = &module.content {
                self.items(inner, &below, own_folder);
                continue;
            }
            let candidates = match path_attribute(module) {
                Some(path) => vec![(join(own_folder, &path), own_folder.to_owned())],
                None => vec![(format!("{below}.rs"), below.clone()), (format!("{below}/mod.rs"), below.clone())],
            };
            for (path, children) in candidates {
                if let Some(file) = self.sources.file(&path) {
                    self.file(file, &children);
                }
            }
        }
    }
}

fn path_attribute(module: &ItemMod) -> Option<String> {
    module.attrs.iter().find_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let syn::Expr::Lit(literal) = &pair.value else { return None };
        let syn::Lit::Str(text) = &literal.lit else { return None };
        pair.path.is_ident("path").then(|| text.value())
    })
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_file_is_seen() {
        let sample = Sources::sample(&[("a.rs", "//! A.\n"), ("b.rs", "// B.\n"), ("c.md", "C\n")]);
        assert_eq!(headers(&sample), ["b.rs: open it with `//!` and what it is"]);
    }

    #[test]
    fn a_vague_name_is_seen() {
        let sample = Sources::sample(&[("src/ring.rs", ""), ("src/utils.rs", ""), ("src/common/mod.rs", "")]);
        assert_eq!(names(&sample).len(), 2);
    }

    #[test]
    fn a_dead_module_is_seen() {
        let sample = Sources::sample(&[
            ("a/src/lib.rs", "mod b;\nmod c;\nmod inline { mod d; }\n#[path = \"odd.rs\"] mod e;"),
            ("a/src/b.rs", "mod below;"),
            ("a/src/b/below.rs", ""),
            ("a/src/c/mod.rs", "mod below;"),
            ("a/src/c/below.rs", ""),
            ("a/src/inline/d.rs", ""),
            ("a/src/odd.rs", ""),
            ("a/src/forgotten.rs", ""),
            ("a/src/b/forgotten.rs", ""),
            ("tests/one.rs", ""),
            ("tests/two/main.rs", "mod part;"),
            ("tests/two/part.rs", ""),
            ("tests/two/forgotten.rs", ""),
        ]);
        let dead = ["a/src/forgotten.rs", "a/src/b/forgotten.rs", "tests/two/forgotten.rs"];
        assert_eq!(unreached(&sample), dead.map(|path| format!("{path}: no `mod` leads here")));
    }
}
