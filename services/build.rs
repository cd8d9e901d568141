//! The version that a binary reports: that of its package and, in a release build, the commit it was built from. One script for
//! all binaries. Other builds name a commit only if `MESH_BENCH_COMMIT` does, as a package's build without git may: they would have
//! to be made again after each commit. And what the allocator of the programs that drive load is told.

use std::{env, path::Path, process::Command};

/// The packages whose allocator is told what `malloc_conf.c` says.
const DRIVERS: [&str; 2] = ["runner", "direct-runner"];

fn main() {
    let package = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let mut commit = env::var("MESH_BENCH_COMMIT").ok().filter(|commit| !commit.is_empty());
    println!("cargo::rerun-if-changed=../build.rs");
    println!("cargo::rerun-if-env-changed=MESH_BENCH_COMMIT");
    if commit.is_none() && env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        commit = git(Path::new(&folder), &["rev-parse", "--short=12", "HEAD"]);
        // A commit changes the log of the branch, a checkout HEAD.
        for file in ["HEAD", "logs/HEAD"] {
            let path = git(Path::new(&folder), &["rev-parse", "--git-path", file]);
            // What does not exist would be looked at for ever.
            if let Some(path) = path.filter(|path| Path::new(&folder).join(path).exists()) {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
    println!("cargo::rustc-env=MESH_BENCH_VERSION={}", version(&package, commit.as_deref()));
    if env::var("CARGO_PKG_NAME").is_ok_and(|name| DRIVERS.contains(&name.as_str())) {
        println!("cargo::rerun-if-changed=../malloc_conf.c");
        // An object of its own, since jemalloc has a weak symbol of that name: from a library it would not be taken.
        for object in cc::Build::new().file("../malloc_conf.c").compile_intermediates() {
            println!("cargo::rustc-link-arg-bins={}", object.display());
        }
    }
}

/// What `--version` says behind the binary's name.
pub(crate) fn version(package: &str, commit: Option<&str>) -> String {
    commit.map_or_else(|| package.to_owned(), |commit| format!("{package} ({commit})"))
}

/// A line from git; nothing without git, or outside a repository.
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
