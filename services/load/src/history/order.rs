//! What tells which of two writes is the later one. A target that names no versions leaves only time: a write that was acknowledged
//! before another one began was overwritten by it, and of two that overlap either may be the later one.

use std::time::Duration;

use super::{key::Floor, open::nanos};
use crate::WriteVersion;

/// What tells which of two writes is the later one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The versions that the target names. Where it names none, values are only asked to be written by somebody.
    #[default]
    Versions,
    /// When they began and were acknowledged, for a target that has one copy of each key and names no versions.
    Times,
}

impl Order {
    /// Whether an acknowledged write may be what a read finds that began after `floor` had been acknowledged.
    pub(super) fn may_follow(self, version: WriteVersion, floor: &Floor) -> bool {
        match self {
            Self::Versions => version > floor.version(),
            Self::Times => overlaps(version, floor),
        }
    }
}

/// What stands in for a version where there is none: when the write began, then when it was acknowledged. So the newest acknowledged
/// write of a key is the one that began last: whatever was acknowledged before that was overwritten.
pub(super) fn version_of(began: Duration, acknowledged: Duration) -> WriteVersion {
    WriteVersion::new(u128::from(nanos(began)) << 64 | u128::from(nanos(acknowledged)))
}

/// Whether a write with this [`version_of`] was acknowledged no earlier than `floor` began.
pub(super) fn overlaps(version: WriteVersion, floor: &Floor) -> bool {
    version.get() as u64 >= floor.began_ns()
}
