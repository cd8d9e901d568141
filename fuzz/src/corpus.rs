//! The committed valid inputs of a target, and a mutator that damages them as the engine's bytes say. Random bytes alone
//! seldom get past a header; a valid input with a few bytes changed does.

use std::{fs, path::PathBuf};

/// The committed valid inputs of one target, sorted by name.
#[derive(Clone, Debug)]
pub struct Corpus {
    inputs: Vec<Vec<u8>>,
}

impl Corpus {
    /// Where the valid inputs of `target` are.
    #[must_use]
    pub fn directory(target: &str) -> PathBuf {
        home(target).join("corpus")
    }

    /// What earlier explorations have found for `target`, valid or not: see `run`.
    ///
    /// # Panics
    /// If there is nothing, or it is no text of hexadecimal lines.
    #[must_use]
    pub fn found(target: &str) -> Vec<Vec<u8>> {
        let path = home(target).join("found.txt");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let found: Vec<Vec<u8>> = text.lines().map(unhex).collect();
        assert!(!found.is_empty(), "nothing in {}", path.display());
        found
    }

    /// Reads the inputs of `target`.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn load(target: &str) -> Self {
        let directory = Self::directory(target);
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        let inputs: Vec<Vec<u8>> = paths.iter().filter_map(|path| fs::read(path).ok()).collect();
        assert!(!inputs.is_empty(), "no corpus in {}", directory.display());
        Self { inputs }
    }

    /// The inputs.
    #[must_use]
    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// One of the inputs, damaged: the first byte of `script` says which, and every four bytes after it one change.
    #[must_use]
    pub fn damaged(&self, script: &[u8]) -> Vec<u8> {
        let (&which, changes) = script.split_first().unwrap_or((&0, &[]));
        let mut input = self.inputs[usize::from(which) % self.inputs.len()].clone();
        for change in changes.chunks_exact(4) {
            let [kind, high, low, byte] = [change[0], change[1], change[2], change[3]];
            if input.is_empty() {
                break;
            }
            let at = usize::from(u16::from_be_bytes([high, low])) % input.len();
            match kind % 6 {
                0 => input[at] ^= 1 << (byte % 8),
                1 => input[at] = byte,
                2 => input[at] = [0, 1, 0x7f, 0x80, 0xff][usize::from(byte) % 5],
                3 => input.insert(at, byte),
                4 => drop(input.remove(at)),
                _ => {
                    let other = &self.inputs[usize::from(byte) % self.inputs.len()];
                    input.truncate(at);
                    input.extend_from_slice(&other[at.min(other.len())..]);
                }
            }
        }
        input
    }
}

/// The folder of one target, from wherever in the repository this is compiled.
fn home(target: &str) -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let inputs: PathBuf = ["fuzz", "tests", "__fuzz__", target].iter().collect();
    let homes = here.ancestors().map(|folder| folder.join(&inputs)).find(|home| home.is_dir());
    homes.unwrap_or_else(|| panic!("no {} above {}", inputs.display(), here.display()))
}

fn unhex(line: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).expect("two hexadecimal digits");
    (0..line.len()).step_by(2).map(digit).collect()
}
