//! The repository's text files, or a made-up handful of them for a rule's own test.

use std::path::Path;

use walkdir::WalkDir;

/// One text file.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    /// What stands in it.
    pub(crate) text: String,
}

impl SourceFile {
    /// Parsed as Rust.
    pub(crate) fn syntax(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: not Rust: {error}", self.path))
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// All of them, sorted by path.
#[derive(Clone, Debug)]
pub(crate) struct Sources(Vec<SourceFile>);

impl Sources {
    /// Everything below the repository's root that is text, build output and git's own files aside.
    pub(crate) fn of_repository() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = WalkDir::new(root)
            .sort_by_file_name()
            .into_iter()
            // `results` at the root are those of runs on this machine.
            .filter_entry(|entry| match entry.file_name().to_str() {
                Some("target" | ".git" | "node_modules") => false,
                Some("results") => entry.depth() != 1,
                _ => true,
            })
            .map(|entry| entry.expect("the repository can be read"))
            .filter(|entry| entry.file_type().is_file())
            .filter_map(|entry| {
                // What is not UTF-8 is a picture or the like, and no rule is about those.
                let text = std::fs::read_to_string(entry.path()).ok()?;
                let path = entry.path().strip_prefix(root).ok()?.to_str()?.replace('\\', "/");
                Some(SourceFile { path, text })
            })
            .collect();
        Self(files)
    }

    /// A sample: pairs of path and text.
    pub(crate) fn sample(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| SourceFile { path: (*path).to_owned(), text: (*text).to_owned() };
        Self(files.iter().map(file).collect())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &SourceFile> {
        self.0.iter()
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.0.iter().filter(|file| file.is_rust())
    }

    pub(crate) fn rust_below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a SourceFile> {
        self.rust().filter(move |file| file.path.starts_with(folder))
    }

    pub(crate) fn file(&self, path: &str) -> Option<&SourceFile> {
        self.0.iter().find(|file| file.path == path)
    }
}
