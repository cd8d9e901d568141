//! All that one shard measured, as `runner merge` reads it.

use std::{fs, path::Path};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::{exec::Observed, plan::Plan, stats::Recorder};

/// What a shard's file begins with; the number goes up when its form changes.
const MAGIC: [u8; 16] = *b"mesh-bench-shrd2";

/// One shard's measurements.
#[derive(BorshDeserialize, BorshSerialize)]
pub(crate) struct ShardFile {
    magic: [u8; 16],
    pub(crate) plan: Plan,
    pub(crate) recorder: Recorder,
    pub(crate) observed: Observed,
}

impl ShardFile {
    pub(crate) const fn new(plan: Plan, recorder: Recorder, observed: Observed) -> Self {
        Self { magic: MAGIC, plan, recorder, observed }
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        borsh::to_vec(self).map_err(|error| format!("cannot write a shard's results: {error}"))
    }

    /// Reads it from a file, or from the one that a folder holds.
    ///
    /// # Errors
    /// Why that is no shard's file.
    pub(crate) fn read(place: &Path) -> Result<Self, String> {
        let path = if place.is_dir() { place.join(SHARD) } else { place.to_owned() };
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !bytes.starts_with(&MAGIC) {
            return Err(format!("{}: expected a shard's results of this version of the runner", path.display()));
        }
        borsh::from_slice(&bytes)
            .map_err(|error| format!("{}: a shard's results that are damaged: {error}", path.display()))
    }
}

/// Its name in a folder of results.
pub(crate) const SHARD: &str = "shard.bin";
