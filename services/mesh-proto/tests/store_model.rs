//! The store against a model that is too simple to be wrong: a map from key to state, without shards or hashes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use mesh_proto::{
    Applied, ApplyOrigin, Body, Digest, Expiry, Found, KeyHash, Record, Slot, Store, StoreConfig, UnixMillis, Version,
};
use proptest::prelude::*;

const START_MS: u64 = 1_000_000;

/// One step of a test; times are milliseconds after the start.
#[derive(Clone, Debug)]
enum Step {
    Apply { key: u8, written: u64, tie: u8, ttl: Option<u64>, value: Option<Vec<u8>>, repair: bool },
    Get { key: u8 },
    Sweep { budget: usize },
    Wait { millis: u64 },
}

fn step(keys: u8) -> impl Strategy<Value = Step> {
    let value = prop::collection::vec(any::<u8>(), 1..40);
    let apply = (
        0..keys,
        0_u64..1000,
        0_u8..2,
        prop::option::of(0_u64..600),
        prop::option::weighted(0.8, value),
        any::<bool>(),
    )
        .prop_map(|(key, written, tie, ttl, value, repair)| Step::Apply { key, written, tie, ttl, value, repair });
    prop_oneof![
        6 => apply,
        3 => (0..keys).prop_map(|key| Step::Get { key }),
        1 => (0_usize..50).prop_map(|budget| Step::Sweep { budget }),
        1 => (0_u64..100).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// Keys 2n and 2n + 1 share a hash, and a dozen hashes share a slot.
fn hash_of(key: u8) -> KeyHash {
    let pair = u64::from(key / 2);
    KeyHash::new((pair / 12) << 52 | pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12)
}

fn name_of(key: u8) -> Bytes {
    Bytes::from(format!("key-{key}"))
}

fn record(step: &Step) -> Record {
    let Step::Apply { key, written, tie, ttl, value, .. } = step else { unreachable!("only for writes") };
    let millis = START_MS + written;
    // One version is one write: everything else about it follows from the key and the version.
    let version = u128::from(millis) << 80 | u128::from(*tie) << 64 | u128::from(*key);
    Record {
        hash: hash_of(*key),
        key: name_of(*key),
        version: Version::new(version),
        expiry: ttl.map_or(Expiry::NEVER, |ttl| Expiry::new(millis + ttl)),
        body: value.as_ref().map_or(Body::Tombstone, |value| Body::Value(Bytes::copy_from_slice(value))),
    }
}

/// The model: what is held for each key, and whether its value has been seen to expire.
#[derive(Default)]
struct Model {
    held: BTreeMap<Bytes, Record>,
}

impl Model {
    fn is_gone(record: &Record, now: u64) -> bool {
        match record.body {
            Body::Tombstone | Body::Expired => true,
            Body::Value(_) => record.expiry.is_past(UnixMillis::new(now)),
        }
    }

    fn apply(&mut self, record: &Record) -> Applied {
        if let Some(held) = self.held.get(&record.key).filter(|held| held.version >= record.version) {
            let same = held.version == record.version;
            return if same { Applied::Stored } else { Applied::Stale { newer: held.version } };
        }
        self.held.insert(record.key.clone(), record.clone());
        Applied::Stored
    }

    fn look_up(&self, key: &Bytes, now: u64) -> Found {
        match self.held.get(key) {
            None => Found::Absent,
            Some(Record { version, expiry, body: Body::Value(value), .. }) if !expiry.is_past(UnixMillis::new(now)) => {
                Found::Value { version: *version, expiry: *expiry, value: value.clone() }
            }
            Some(record) => Found::Gone { version: record.version },
        }
    }

    fn digests(&self) -> BTreeMap<Slot, Digest> {
        let mut digests: BTreeMap<Slot, Digest> = BTreeMap::new();
        for record in self.held.values() {
            let digest = digests.entry(Slot::of(record.hash)).or_default();
            *digest = digest.with(record.hash, record.version);
        }
        digests
    }
}

fn store(bytes_max: u64, entries_max: u64, tombstones_max: u64) -> Store {
    let tombstone_age_min = Duration::from_secs(600);
    Store::new(&StoreConfig { bytes_max, entries_max, tombstones_max, tombstone_age_min })
}

/// What the slot's listing, its pages and its digest say is the same.
fn check_slot(store: &Store, slot: Slot, page_bytes: usize) -> Result<(), TestCaseError> {
    let versions = store.versions(slot);
    let digest = versions.iter().fold(Digest::default(), |digest, (hash, version)| digest.with(*hash, *version));
    prop_assert_eq!(store.digest(slot), digest);
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let (records, next) = store.page(slot, after, page_bytes);
        prop_assert!(next.is_none() || next > after, "the cursor goes forward");
        paged.extend(records.iter().map(|record| (record.hash, record.version)));
        after = next;
        if next.is_none() {
            break;
        }
    }
    let mut versions = versions;
    versions.sort_unstable();
    paged.sort_unstable();
    prop_assert_eq!(versions, paged);
    Ok(())
}

/// All slots that [`hash_of`] puts keys into, and one more.
fn slots() -> impl Iterator<Item = Slot> {
    (0..10).map(|number| Slot::new(number).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// With room for everything, the store does exactly what the model does.
    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(64), 1..200)) {
        let (store, mut model, mut now) = (store(1 << 30, 1 << 20, 1 << 20), Model::default(), START_MS);
        let mut looked_up = 0;
        for step in &steps {
            match step {
                Step::Apply { repair, .. } => {
                    let origin = if *repair { ApplyOrigin::Repair } else { ApplyOrigin::Write };
                    let record = record(step);
                    prop_assert_eq!(store.apply(&record, origin, UnixMillis::new(now)), model.apply(&record));
                }
                Step::Get { key } => {
                    let (hash, key) = (hash_of(*key), name_of(*key));
                    let expected = model.look_up(&key, now);
                    prop_assert_eq!(store.peek(hash, &key, UnixMillis::new(now)), expected.clone());
                    prop_assert_eq!(store.get(hash, &key, UnixMillis::new(now)), expected);
                    looked_up += 1;
                }
                Step::Sweep { budget } => drop(store.sweep(UnixMillis::new(now), *budget)),
                Step::Wait { millis } => now += millis,
            }
            let digests = model.digests();
            for slot in slots() {
                prop_assert_eq!(store.digest(slot), digests.get(&slot).copied().unwrap_or_default());
            }
            let stats = store.stats();
            prop_assert_eq!(stats.entries + stats.tombstones, model.held.len() as u64);
            prop_assert_eq!((stats.evictions, stats.tombstones_dropped), (0, 0));
            prop_assert_eq!(stats.hits + stats.misses, looked_up);
        }
        for slot in slots() {
            check_slot(&store, slot, 200)?;
        }
    }

    /// With hardly any room, no bound is ever exceeded, the accounts are always right, and what is found was written.
    #[test]
    fn bounds_hold_and_books_balance_whatever_is_written(
        steps in prop::collection::vec(step(200), 1..300),
        bytes_max in 4000_u64..40_000,
        entries_max in 1_u64..40,
        tombstones_max in 0_u64..20,
    ) {
        let store = store(bytes_max, entries_max, tombstones_max);
        let (mut written, mut now): (BTreeMap<(Bytes, Version), Vec<Body>>, u64) = (BTreeMap::new(), START_MS);
        for step in &steps {
            let before = store.stats();
            match step {
                Step::Apply { repair, key, .. } => {
                    let origin = if *repair { ApplyOrigin::Repair } else { ApplyOrigin::Write };
                    let record = record(step);
                    let was_held = store.versions(Slot::of(record.hash)).iter().any(|(hash, _)| *hash == record.hash);
                    let applied = store.apply(&record, origin, UnixMillis::new(now));
                    written.entry((name_of(*key), record.version)).or_default().push(record.body.clone());
                    if (*repair && !was_held) || applied != Applied::Stored {
                        prop_assert_eq!(store.stats().evictions, before.evictions, "{:?}", applied);
                    }
                    if applied == Applied::Stored && !*repair && !Model::is_gone(&record, now) {
                        let found = store.peek(record.hash, &record.key, UnixMillis::new(now));
                        prop_assert!(!matches!(found, Found::Absent), "a write evicted itself");
                    }
                }
                Step::Get { key } => {
                    let name = name_of(*key);
                    if let Found::Value { version, value, .. } = store.get(hash_of(*key), &name, UnixMillis::new(now)) {
                        let bodies = &written[&(name, version)];
                        prop_assert!(bodies.contains(&Body::Value(value)), "a value that nobody wrote");
                    }
                }
                Step::Sweep { budget } => prop_assert!(store.sweep(UnixMillis::new(now), *budget) <= *budget),
                Step::Wait { millis } => now += millis,
            }
            let stats = store.stats();
            prop_assert!(stats.bytes <= bytes_max && stats.entries <= entries_max, "{:?}", stats);
            prop_assert!(stats.tombstones <= tombstones_max, "{:?}", stats);
            let (mut count, mut bytes) = (0, 0);
            for record in slots().flat_map(|slot| store.page(slot, None, usize::MAX).0) {
                let value_bytes = match &record.body {
                    Body::Value(value) => value.len(),
                    Body::Tombstone | Body::Expired => 0,
                };
                count += 1;
                bytes += if matches!(record.body, Body::Value(_)) { (record.key.len() + value_bytes) as u64 } else { 0 };
            }
            prop_assert_eq!((count, bytes), (stats.entries + stats.tombstones, stats.payload_bytes));
        }
        for slot in slots() {
            check_slot(&store, slot, 100)?;
        }
    }

    /// Replication converges: the order in which records arrive leaves no trace.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        (steps, shuffled) in prop::collection::vec(step(40), 1..100)
            .prop_map(|steps| {
                let writes = steps.iter().filter(|step| matches!(step, Step::Apply { .. })).map(record);
                // One version is one write.
                writes.map(|record| (record.version, record)).collect::<BTreeMap<_, _>>().into_values().collect::<Vec<_>>()
            })
            .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        now in 0_u64..=400,
    ) {
        let now = UnixMillis::new(START_MS + now);
        let (one, other) = (store(1 << 30, 1 << 20, 1 << 20), store(1 << 30, 1 << 20, 1 << 20));
        for record in &steps {
            one.apply(record, ApplyOrigin::Write, now);
        }
        for record in &shuffled {
            other.apply(record, ApplyOrigin::Repair, now);
        }
        for slot in slots() {
            let (mut a, mut b) = (one.page(slot, None, usize::MAX).0, other.page(slot, None, usize::MAX).0);
            a.sort_by_key(|record| record.version);
            b.sort_by_key(|record| record.version);
            prop_assert_eq!(a, b);
            prop_assert_eq!(one.digest(slot), other.digest(slot));
        }
    }
}
