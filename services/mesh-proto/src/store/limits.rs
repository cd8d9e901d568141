//! How the store's global bounds are shared out over its shards, so that each shard can keep its part of the promise
//! under its own lock and the sum is never above the whole.

use super::{
    StoreConfig,
    segments::{SEGMENT_BYTES_MAX, SHARE_BYTES_MAX},
};
use crate::VALUE_BYTES_MAX;

/// The most shards there are.
const SHARDS_MAX: usize = 64;

/// There are fewer shards rather than a share of fewer bytes than this, so that the largest value has a place.
const SHARE_BYTES_MIN: u64 = 2 * VALUE_BYTES_MAX as u64;

/// There are fewer shards rather than a share of fewer entries than this: hashing fills shards unevenly, by about the
/// square root of a share, so tiny shares would evict long before the whole is full.
const SHARE_ENTRIES_MIN: u64 = 128;

/// Shards index their entries with 32 bits, one of which values means "none", and hold live and dead ones together.
const SHARE_COUNT_MAX: u64 = (u32::MAX / 2) as u64;

/// A share has so many segments at least, if they can be that small.
const SEGMENTS_MIN: u64 = 64;

/// The smallest segment, in bytes.
const SEGMENT_BYTES_MIN: u64 = 512;

/// The reference counts in front of a payload.
const COUNTS_BYTES: usize = 16;

/// What an allocator takes for a payload that is too large for a segment: multiples of 16 up to 64, and above it four sizes between
/// one power of two and the next, as jemalloc does it and others nearly so.
pub(super) const fn allocated(payload_bytes: usize) -> u64 {
    let bytes = payload_bytes + COUNTS_BYTES;
    let step = if bytes <= 64 { 16 } else { bytes.next_power_of_two() / 8 };
    bytes.next_multiple_of(step) as u64
}

/// One shard's part of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Bytes of keys, values and book-keeping.
    pub(super) bytes_max: u64,
    /// Live entries.
    pub(super) entries_max: u64,
    /// Tombstones and stubs.
    pub(super) tombstones_max: u64,
}

/// How many shards a store with these bounds has: 64, or a smaller power of two if its shares would become too small to
/// be of use. A store for 1000 entries has four shards of 250.
pub(super) fn shard_count(config: &StoreConfig) -> usize {
    let fits = |shards: usize| {
        let shards = shards as u64;
        config.bytes_max / shards >= SHARE_BYTES_MIN
            && config.entries_max / shards >= SHARE_ENTRIES_MIN
            // No tombstones at all is a choice; a cap below the number of shards must not become one for some of them.
            && (config.tombstones_max == 0 || config.tombstones_max >= shards)
    };
    let mut shards = SHARDS_MAX;
    while shards > 1 && !fits(shards) {
        shards /= 2;
    }
    shards
}

impl Share {
    /// How large the segments of such a share are, in bytes.
    pub(super) const fn segment_bytes(&self) -> usize {
        let fits = self.bytes_max / SEGMENTS_MIN;
        let fits = if fits < SEGMENT_BYTES_MIN { SEGMENT_BYTES_MIN } else { fits };
        let fits = if fits < SEGMENT_BYTES_MAX as u64 { fits as usize } else { SEGMENT_BYTES_MAX };
        1 << fits.ilog2()
    }

    /// The most bytes that key and value together may have to lie in a segment.
    pub(super) const fn inline_max(&self) -> usize {
        self.segment_bytes() / 8
    }

    /// The part of shard number `index` out of `shards`; the first shards take what does not divide evenly.
    pub(super) fn new(config: &StoreConfig, index: usize, shards: usize) -> Self {
        let part = |whole: u64| whole / shards as u64 + u64::from((index as u64) < whole % shards as u64);
        Self {
            bytes_max: part(config.bytes_max).min(SHARE_BYTES_MAX),
            entries_max: part(config.entries_max).min(SHARE_COUNT_MAX),
            tombstones_max: part(config.tombstones_max).min(SHARE_COUNT_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(bytes_max: u64, entries_max: u64, tombstones_max: u64) -> StoreConfig {
        StoreConfig { bytes_max, entries_max, tombstones_max, tombstone_age_min: Duration::from_secs(1) }
    }

    #[test]
    fn what_is_accounted_for_is_what_is_allocated() {
        let sizes = [(1, 32), (48, 64), (49, 80), (112, 128), (113, 160), (1000, 1024), (1009, 1280)];
        for (bytes, size) in sizes {
            assert_eq!(allocated(bytes), size, "{bytes}");
        }
        assert_eq!((allocated((2 << 20) - 16), allocated(2 << 20)), (2 << 20, 5 << 19));
    }

    #[test]
    fn segments_are_as_large_as_a_share_allows() {
        let sizes = [(0, 512), (100_000, 1024), (1 << 20, 16 << 10), (4 << 20, 64 << 10), (1 << 40, 64 << 10)];
        for (bytes_max, expected) in sizes {
            let share = Share { bytes_max, entries_max: 1, tombstones_max: 1 };
            assert_eq!((share.segment_bytes(), share.inline_max()), (expected, expected / 8), "{bytes_max}");
        }
    }

    #[test]
    fn shares_add_up_to_exactly_the_whole() {
        for bounds in [(1 << 30, 1000, 100), (1 << 40, 1_000_003, 0), (1, 1, 1), (0, 0, 0), (1 << 28, 77_777, 65)] {
            let config = config(bounds.0, bounds.1, bounds.2);
            let shards = shard_count(&config);
            let shares: Vec<Share> = (0..shards).map(|i| Share::new(&config, i, shards)).collect();
            assert_eq!(shares.iter().map(|s| s.bytes_max).sum::<u64>(), bounds.0);
            assert_eq!(shares.iter().map(|s| s.entries_max).sum::<u64>(), bounds.1);
            assert_eq!(shares.iter().map(|s| s.tombstones_max).sum::<u64>(), bounds.2);
        }
    }

    #[test]
    fn small_bounds_make_fewer_shards_not_useless_ones() {
        assert_eq!(shard_count(&config(1 << 30, 1 << 20, 1 << 16)), 64);
        assert_eq!(shard_count(&config(1 << 30, 1000, 1 << 16)), 4);
        assert_eq!(shard_count(&config(64 << 20, 1 << 20, 1 << 16)), 16);
        assert_eq!(shard_count(&config(1 << 30, 1 << 20, 3)), 2);
        assert_eq!(shard_count(&config(1 << 30, 1 << 20, 0)), 64);
        assert_eq!(shard_count(&config(100, 1, 1)), 1);
        assert_eq!(shard_count(&config(256 << 20, 64 * 128, 64)), 64, "just enough for all");
        assert_eq!(shard_count(&config((256 << 20) - 1, 64 * 128, 64)), 32);
        assert_eq!(shard_count(&config(256 << 20, 64 * 128 - 1, 64)), 32);
        assert_eq!(shard_count(&config(256 << 20, 64 * 128, 63)), 32);
    }
}
