//! How often a full store has what is asked for, beside an LRU of as many entries and `moka`, which is a TinyLFU: skewed reads of which
//! each that misses is followed by a write, with scans in between, and with what is popular changing.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, collections::HashMap, time::Duration};

use bytes::Bytes;
use mesh_proto::{ApplyOrigin, Body, Expiry, Found, KeyHash, Record, Store, StoreConfig, UnixMillis, Version};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

const KEYS: u64 = 20_000;
const ENTRIES: u64 = KEYS / 10;
const READS: u64 = 600_000;
const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);

/// A cache of [`ENTRIES`] keys.
trait Cache {
    /// Whether the key is there; it is afterwards, if it is let in.
    fn read(&mut self, key: u64) -> bool;
}

/// Ours, with its writes so far.
struct Ours(Store, u64);

impl Cache for Ours {
    fn read(&mut self, key: u64) -> bool {
        let name = Bytes::copy_from_slice(&key.to_le_bytes());
        let hash = KeyHash::of(&name);
        let found = matches!(self.0.get(hash, &name, NOW), Found::Value { .. });
        if !found {
            self.1 += 1;
            let version = Version::new(u128::from(NOW.get()) << 80 | u128::from(self.1));
            let body = Body::Value(Bytes::from_static(&[0; 100]));
            self.0.apply(&Record { hash, key: name, version, expiry: Expiry::NEVER, body }, ApplyOrigin::Write, NOW);
        }
        found
    }
}

/// The one that was read longest ago goes.
#[derive(Default)]
struct Lru {
    when: HashMap<u64, u64>,
    order: BTreeMap<u64, u64>,
    now: u64,
}

impl Cache for Lru {
    fn read(&mut self, key: u64) -> bool {
        self.now += 1;
        let before = self.when.insert(key, self.now);
        before.map(|before| self.order.remove(&before));
        self.order.insert(self.now, key);
        if self.order.len() as u64 > ENTRIES {
            let (_, oldest) = self.order.pop_first().unwrap();
            self.when.remove(&oldest);
        }
        before.is_some()
    }
}

struct Moka(moka::sync::Cache<u64, ()>);

impl Cache for Moka {
    fn read(&mut self, key: u64) -> bool {
        let found = self.0.get(&key).is_some();
        if !found {
            self.0.insert(key, ());
        }
        self.0.run_pending_tasks();
        found
    }
}

/// Which keys are read.
#[derive(Clone, Copy, Debug)]
struct Reads {
    exponent: f64,
    /// Now and then a twentieth of all keys is read once.
    scans: bool,
    /// What is popular is so for a while.
    shifts: bool,
}

/// The share of reads that hit, in the second half.
fn hit_rate(cache: &mut dyn Cache, reads: Reads) -> f64 {
    let weights = (1..=KEYS).map(|rank| (rank as f64).powf(-reads.exponent));
    let sums: Vec<f64> = weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let (mut dice, mut hits, mut scanned) = (SmallRng::seed_from_u64(7), 0, KEYS * 2);
    for n in 0..READS {
        if reads.scans && n % (READS / 20) == 0 {
            (0..KEYS / 20).for_each(|_| {
                scanned += 1;
                cache.read(scanned);
            });
        }
        let drawn = dice.random_range(0.0..sums[sums.len() - 1]);
        let rank = sums.partition_point(|sum| *sum < drawn) as u64;
        let shift = if reads.shifts { n / (READS / 10) * (KEYS / 100) } else { 0 };
        hits += u64::from(cache.read((rank + shift) % KEYS) && n >= READS / 2);
    }
    hits as f64 / (READS / 2) as f64
}

#[test]
fn what_is_asked_for_is_kept_as_well_as_the_best_keep_it() {
    let plain = Reads { exponent: 0.99, scans: false, shifts: false };
    let flat = Reads { exponent: 0.7, ..plain };
    for reads in
        [plain, flat, Reads { scans: true, ..plain }, Reads { scans: true, ..flat }, Reads { shifts: true, ..plain }]
    {
        let config = StoreConfig {
            bytes_max: 64 << 20,
            entries_max: ENTRIES,
            tombstones_max: 10,
            tombstone_age_min: Duration::from_secs(1),
        };
        let ours = hit_rate(&mut Ours(Store::new(&config), 0), reads);
        let lru = hit_rate(&mut Lru::default(), reads);
        let moka = hit_rate(&mut Moka(moka::sync::Cache::new(ENTRIES)), reads);
        println!("{reads:?}: {ours:.4}, LRU {lru:.4}, moka {moka:.4}");
        assert!(ours > lru.max(moka) - 0.01, "{reads:?}: {ours:.4}, LRU {lru:.4}, moka {moka:.4}");
    }
}
