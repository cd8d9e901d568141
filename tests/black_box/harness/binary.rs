//! Where the built binaries are.

use std::path::PathBuf;

/// The binary `name` of the same profile as this test.
pub fn binary(name: &str) -> PathBuf {
    // target/<profile>/deps/black_box-<hash>: two levels up.
    let this = std::env::current_exe().expect("a running test knows its own path");
    let folder = this.parent().and_then(|deps| deps.parent()).expect("cargo puts tests two levels deep");
    let path = folder.join(name);
    assert!(path.is_file(), "{name} is not built: run `cargo build --workspace` first, or `make test`");
    path
}
