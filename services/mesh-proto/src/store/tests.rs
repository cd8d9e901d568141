//! The store at the edge of each of its limits.

#![allow(clippy::unwrap_used, reason = "tests")]

mod collection;
mod memory;

use std::thread;

use super::*;
use crate::SLOTS;

const NOW: UnixMillis = UnixMillis::new(1_000_000);
const AGE_MIN_MS: u64 = 10_000;

/// A store with these bounds. Tiny ones leave it one shard, so that a bound is met exactly.
fn small(bytes_max: u64, entries_max: u64, tombstones_max: u64) -> Store {
    let tombstone_age_min = Duration::from_millis(AGE_MIN_MS);
    Store::new(&StoreConfig { bytes_max, entries_max, tombstones_max, tombstone_age_min })
}

fn roomy() -> Store {
    small(1 << 30, 1 << 20, 1 << 20)
}

fn ms(millis: u64) -> UnixMillis {
    UnixMillis::new(millis)
}

/// The version number `n` of a write at `NOW`.
fn v(n: u64) -> Version {
    at_ms(NOW.get(), n)
}

fn at_ms(millis: u64, n: u64) -> Version {
    Version::new(u128::from(millis) << 80 | u128::from(n))
}

fn value(key: &str, version: Version, value: &[u8]) -> Record {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value));
    Record { hash: KeyHash::of(&key), key, version, expiry: Expiry::NEVER, body: Body::Value(value) }
}

fn expiring(key: &str, version: Version, expiry: u64) -> Record {
    Record { expiry: Expiry::new(expiry), ..value(key, version, b"soon gone, and worth a size of its own") }
}

fn tombstone(key: &str, version: Version) -> Record {
    Record { body: Body::Tombstone, ..value(key, version, b"") }
}

fn write(store: &Store, record: &Record) -> Applied {
    store.apply(record, ApplyOrigin::Write, NOW)
}

fn repair(store: &Store, record: &Record) -> Applied {
    store.apply(record, ApplyOrigin::Repair, NOW)
}

fn get(store: &Store, key: &str, now: UnixMillis) -> Found {
    store.get(KeyHash::of(key.as_bytes()), key.as_bytes(), now)
}

fn peek(store: &Store, key: &str) -> Found {
    store.peek(KeyHash::of(key.as_bytes()), key.as_bytes(), NOW)
}

fn is_live(store: &Store, key: &str) -> bool {
    matches!(peek(store, key), Found::Value { .. })
}

fn slot(key: &str) -> Slot {
    Slot::of(KeyHash::of(key.as_bytes()))
}

#[test]
fn the_higher_version_wins_and_the_same_one_is_idempotent() {
    let store = roomy();
    assert_eq!(write(&store, &value("k", v(2), b"two")), Applied::Stored);
    assert_eq!(write(&store, &value("k", v(1), b"one")), Applied::Stale { newer: v(2) });
    assert_eq!(write(&store, &value("k", v(2), b"two")), Applied::Stored);
    let expected = Found::Value { version: v(2), expiry: Expiry::NEVER, value: Bytes::from("two") };
    assert_eq!(peek(&store, "k"), expected);
    assert_eq!(write(&store, &tombstone("k", v(3))), Applied::Stored);
    assert_eq!(write(&store, &value("k", v(2), b"two")), Applied::Stale { newer: v(3) });
    assert_eq!(peek(&store, "k"), Found::Gone { version: v(3) });
    assert_eq!(write(&store, &value("k", v(4), b"")), Applied::Stored);
    assert!(is_live(&store, "k"), "an empty value is a value");
    assert_eq!((store.stats().entries, store.stats().tombstones, store.stats().evictions), (1, 0, 0));
}

#[test]
fn only_get_counts() {
    let store = roomy();
    write(&store, &value("k", v(1), b"x"));
    write(&store, &tombstone("gone", v(2)));
    for key in ["k", "gone", "absent"] {
        get(&store, key, NOW);
        peek(&store, key);
    }
    assert_eq!((store.stats().hits, store.stats().misses), (1, 2));
}

#[test]
fn keys_that_share_a_hash_are_told_apart() {
    let store = roomy();
    let hash = KeyHash::new(42);
    let records: Vec<Record> =
        (0..3).map(|n| Record { hash, ..value(&format!("key{n}"), v(n), format!("value{n}").as_bytes()) }).collect();
    for record in &records {
        assert_eq!(write(&store, record), Applied::Stored);
    }
    for record in &records {
        let Found::Value { value, version, .. } = store.get(hash, &record.key, NOW) else { panic!("{record:?}") };
        assert_eq!((Body::Value(value), version), (record.body.clone(), record.version));
    }
    assert_eq!(store.get(hash, b"key3", NOW), Found::Absent);
    let (page, next) = store.page(Slot::of(hash), None, 1);
    assert_eq!((page.len(), next), (3, None), "one page, however small, as the cursor cannot part them");
}

#[test]
fn what_is_kept_and_what_is_given_is_a_copy() {
    let store = roomy();
    let buffer = Bytes::from(vec![7; 200_000]);
    let record = Record { key: buffer.slice(..10), body: Body::Value(buffer.slice(10..)), ..value("", v(1), b"") };
    write(&store, &record);
    drop(record);
    assert!(buffer.is_unique(), "the store holds on to a network buffer");
    let Found::Value { value, .. } = store.get(KeyHash::of(b""), &[7; 10], NOW) else { panic!() };
    write(&store, &Record { key: buffer.slice(..10), ..tombstone("", v(2)) });
    assert_eq!(value, buffer.slice(10..), "a value that was read outlives its deletion");
}

#[test]
fn a_record_larger_than_the_share_is_refused_and_nothing_is_changed() {
    let store = small(1 << 20, 1000, 10);
    assert_eq!(store.stats().shards, 1);
    let least_refused = (0..1 << 20).step_by(1 << 14).find(|bytes| {
        let written = write(&store, &value("k", v(*bytes as u64 + 1), &vec![1; *bytes]));
        assert!(store.stats().bytes <= 1 << 20);
        written == Applied::TooLarge
    });
    assert!(least_refused.is_some_and(|bytes| bytes > 700_000), "{least_refused:?}");
    let (before, bytes) = (store.digest(slot("k")), store.stats().bytes);
    assert_eq!(write(&store, &value("k", v(1 << 30), &vec![1; 2 << 20])), Applied::TooLarge);
    assert_eq!((store.digest(slot("k")), store.stats().bytes), (before, bytes));
    assert!(is_live(&store, "k"));
}

#[test]
fn a_thousand_entries_are_a_thousand_at_most() {
    for entries_max in [1, 2, 63, 64, 65, 1000] {
        let store = small(1 << 30, entries_max, 100);
        for n in 0..5000 {
            assert_eq!(write(&store, &value(&n.to_string(), v(n), b"x")), Applied::Stored);
        }
        assert_eq!(store.stats().entries, entries_max, "5000 keys fill every shard");
        assert_eq!(store.stats().evictions, 5000 - entries_max);
    }
    assert_eq!(write(&small(1 << 30, 0, 1), &value("k", v(1), b"")), Applied::TooLarge);
}

#[test]
fn how_old_the_evicted_were_is_told() {
    let store = small(1 << 30, 4, 1);
    for second in 1..=10 {
        write(&store, &value(&second.to_string(), at_ms(second * 1000, 1), b"x"));
    }
    let stats = store.stats();
    assert_eq!((stats.evictions, stats.evicted_age_ms), (6, 6 * 4000));
}

#[test]
fn what_was_read_is_spared() {
    let store = small(1 << 30, 100, 10);
    for n in 0..100 {
        write(&store, &value(&n.to_string(), v(n), b"x"));
    }
    get(&store, "0", NOW);
    peek(&store, "1");
    write(&store, &value("100", v(100), b"x"));
    assert!(is_live(&store, "0") && !is_live(&store, "1"), "a get spares, a peek does not");
}

#[test]
fn repair_never_evicts_for_a_key_that_is_not_held() {
    let store = small(1 << 30, 2, 1);
    write(&store, &value("a", v(1), b"x"));
    write(&store, &value("b", v(2), b"x"));
    assert_eq!(repair(&store, &value("c", v(3), b"x")), Applied::Skipped);
    assert_eq!(repair(&store, &value("a", v(4), b"longer")), Applied::Stored, "what is held may be brought up to date");
    assert_eq!(repair(&store, &tombstone("c", v(5))), Applied::Stored);
    assert_eq!(repair(&store, &tombstone("d", v(6))), Applied::Skipped, "nor does it push out a tombstone");
    assert_eq!(store.stats().evictions, 0);
    assert_eq!(repair(&store, &tombstone("a", v(8))), Applied::Stored, "but what is held is deleted whatever it takes");
    assert_eq!(peek(&store, "a"), Found::Gone { version: v(8) });
    let stats = store.stats();
    assert_eq!((stats.entries, stats.evictions, stats.tombstones, stats.tombstones_dropped), (1, 0, 1, 1));
}

#[test]
fn a_full_store_does_not_stay_stale() {
    let store = small(100_000, 10_000, 2);
    let mut n = 0;
    while store.stats().evictions == 0 {
        n += 1;
        write(&store, &value(&n.to_string(), v(n), &[0; 100]));
    }
    // The first segment is being emptied: what is left of it leaves room for a while.
    let skipped = (0..1000).find(|m| repair(&store, &value(&format!("r{m}"), v(*m), &[0; 100])) == Applied::Skipped);
    assert!(skipped.is_some(), "a full store takes repairs without end");
    let (held, evictions) = (n.to_string(), store.stats().evictions);
    for m in 1..100 {
        assert_eq!(repair(&store, &value(&held, v(n + m), &vec![1; 100 + m as usize * 10])), Applied::Stored);
        assert_eq!(peek(&store, &held), {
            let value = Bytes::from(vec![1; 100 + m as usize * 10]);
            Found::Value { version: v(n + m), expiry: Expiry::NEVER, value }
        });
    }
    assert!(store.stats().evictions > evictions, "larger versions of what is held push others out");
    // A tombstone is held as well, and a newer value takes its place, at whatever cost.
    let store = small(1 << 30, 1, 2);
    write(&store, &tombstone("a", v(1)));
    write(&store, &value("b", v(2), b"x"));
    assert_eq!(repair(&store, &value("a", v(3), b"x")), Applied::Stored);
    assert_eq!((is_live(&store, "a"), is_live(&store, "b")), (true, false));
}

#[test]
fn the_oldest_tombstone_goes_first_and_is_counted() {
    let store = small(1 << 30, 1000, 3);
    let single = |n: u64| format!("t{n}");
    for n in 0..2000 {
        write(&store, &tombstone(&single(n), v(n)));
        assert!(store.stats().tombstones <= 3);
    }
    assert_eq!(store.stats().tombstones + store.stats().tombstones_dropped, 2000);
    assert_eq!(peek(&store, &single(1999)), Found::Gone { version: v(1999) });
    assert_eq!(peek(&store, &single(0)), Found::Absent);
    let none = small(1 << 30, 1000, 0);
    write(&none, &value("k", v(1), b"x"));
    assert_eq!(write(&none, &tombstone("k", v(2))), Applied::Stored);
    assert_eq!((peek(&none, "k"), none.stats().bytes), (Found::Absent, 0));
}

#[test]
fn tombstones_take_memory_and_make_way_only_when_no_value_is_left() {
    let store = small(100_000, 10_000, 10_000);
    for n in 0..200 {
        write(&store, &value(&n.to_string(), v(n), &[0; 300]));
    }
    let mut n = 1000;
    while store.stats().entries > 0 {
        assert_eq!(store.stats().tombstones_dropped, 0);
        n += 1;
        write(&store, &tombstone(&format!("a tombstone with a long key: {n:050}"), v(n)));
        assert!(store.stats().bytes <= 100_000);
    }
    let full = store.stats().tombstones;
    assert!(full > 500, "{full}");
    for more in 0..full {
        write(&store, &tombstone(&format!("a tombstone with a long key: {:050}", n + more), v(n + more)));
    }
    assert!(store.stats().tombstones_dropped > full / 2 && store.stats().tombstones > full / 2);
    assert_eq!(write(&store, &value("live", v(n * 2), &[0; 5000])), Applied::Stored);
    assert!(is_live(&store, "live"));
}

#[test]
fn an_expired_value_becomes_a_stub_and_the_digest_stays() {
    let store = roomy();
    let expiry = NOW.get() + 50;
    write(&store, &expiring("k", v(1), expiry));
    let digest = store.digest(slot("k"));
    assert!(matches!(get(&store, "k", ms(expiry - 1)), Found::Value { .. }));
    let late = store.peek(KeyHash::of(b"k"), b"k", ms(expiry));
    assert_eq!(late, Found::Gone { version: v(1) });
    assert_eq!(store.stats().expirations, 0, "a peek changes nothing");
    assert_eq!(get(&store, "k", ms(expiry)), Found::Gone { version: v(1) });
    let stats = store.stats();
    assert_eq!((stats.entries, stats.tombstones, stats.expirations, stats.misses), (0, 1, 1, 1));
    assert_eq!(stats.payload_bytes, 0, "the value is freed");
    assert_eq!(store.digest(slot("k")), digest);
    assert_eq!(get(&store, "k", ms(expiry)), Found::Gone { version: v(1) });
    assert_eq!(store.stats().expirations, 1, "it expires once");
    assert_eq!(write(&store, &value("k", v(0), b"x")), Applied::Stale { newer: v(1) });
}

#[test]
fn an_expired_record_is_taken_as_a_stub_however_late() {
    let store = roomy();
    let apply = |record: &Record, now: u64| store.apply(record, ApplyOrigin::Write, ms(now));
    let expiry = NOW.get();
    assert_eq!(apply(&expiring("live", v(1), expiry), expiry - 1), Applied::Stored);
    assert_eq!(apply(&expiring("late", v(1), expiry), expiry * 2), Applied::Stored);
    assert_eq!((store.stats().entries, store.stats().tombstones, store.stats().expirations), (1, 1, 0));
    assert_eq!(peek(&store, "late"), Found::Gone { version: v(1) });
}

#[test]
fn an_expired_record_is_never_readable_however_slow_the_clock() {
    for origin in [ApplyOrigin::Write, ApplyOrigin::Repair] {
        let store = roomy();
        let expired = |key: &str, n| Record { body: Body::Expired, ..expiring(key, v(n), NOW.get() + 3_600_000) };
        write(&store, &value("held", v(1), b"older"));
        for key in ["new", "held"] {
            assert_eq!(store.apply(&expired(key, 2), origin, NOW), Applied::Stored);
            assert_eq!(get(&store, key, NOW), Found::Gone { version: v(2) });
        }
        assert_eq!((store.stats().entries, store.stats().tombstones), (0, 2));
        let empty = Record { body: Body::Value(Bytes::new()), ..expiring("empty", v(1), NOW.get() + 1) };
        assert_eq!(store.apply(&empty, origin, NOW), Applied::Stored);
        assert!(is_live(&store, "empty"), "an empty value that somebody wrote");
    }
}

#[test]
fn named_keys_are_given_page_by_page() {
    let store = roomy();
    let in_slot = |n: u64| Record { hash: KeyHash::new((5 << 52) | (n / 2)), ..value(&n.to_string(), v(n), &[1; 20]) };
    (0..20).for_each(|n| assert_eq!(write(&store, &in_slot(n)), Applied::Stored));
    let slot = Slot::new(5).unwrap();
    let wanted: Vec<KeyHash> = [1, 3, 4, 77].map(|n| KeyHash::new((5 << 52) | n)).to_vec();
    for (bytes_max, pages_expected) in [(0, 3), (100, 3), (300, 2), (usize::MAX, 1)] {
        let (mut seen, mut rest, mut pages) = (Vec::new(), &wanted[..], 0);
        loop {
            let (records, next) = store.page_of(slot, rest, bytes_max);
            seen.extend(records);
            pages += 1;
            let Some(next) = next else { break };
            rest = &rest[rest.partition_point(|hash| *hash <= next)..];
        }
        seen.sort_by_key(|record| record.version);
        assert_eq!((seen, pages), ([2, 3, 6, 7, 8, 9].map(in_slot).to_vec(), pages_expected), "{bytes_max}");
    }
}

#[test]
fn a_sweep_keeps_to_its_budget_and_gets_round() {
    let store = roomy();
    let expiry = NOW.get() + 1;
    for n in 0..1000 {
        write(&store, &expiring(&n.to_string(), v(n), if n % 2 == 0 { expiry } else { 0 }));
    }
    assert_eq!(store.sweep(NOW, 10_000), 0);
    assert_eq!(store.sweep(ms(expiry), 0), 0);
    let mut changed = 0;
    for _ in 0..20 {
        let step = store.sweep(ms(expiry), 100);
        assert!(step <= 100);
        changed += step;
    }
    assert_eq!((changed, store.stats().entries, store.stats().expirations), (500, 500, 500));
    assert_eq!(store.sweep(ms(expiry * 2), 10_000), 0, "stubs stay until they are collected");
    assert_eq!((store.stats().entries, store.stats().tombstones), (500, 500));
    assert_eq!(roomy().sweep(NOW, usize::MAX), 0, "an empty store is swept in finite time");
}

#[test]
fn pages_hold_every_record_once_in_the_order_of_hashes() {
    let store = roomy();
    let in_slot = |n: u64| Record { hash: KeyHash::new((5 << 52) | (n / 2)), ..value(&n.to_string(), v(n), &[1; 20]) };
    let mut records: Vec<Record> = (0..99).map(in_slot).collect();
    records[7] = Record { body: Body::Tombstone, ..records[7].clone() };
    for record in &records {
        write(&store, record);
    }
    for bytes_max in [0, 1, 100, 150, 1000, usize::MAX] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (page, next) = store.page(Slot::new(5).unwrap(), after, bytes_max);
            assert!(!page.is_empty());
            let bytes: usize = page.iter().map(|record| record.key.len() + 20).sum();
            assert!(page.len() <= 2 || bytes <= bytes_max);
            assert_eq!(next.is_some(), seen.len() + page.len() < records.len());
            seen.extend(page);
            after = next;
            if next.is_none() {
                break;
            }
        }
        assert!(seen.is_sorted_by_key(|record| record.hash));
        seen.sort_by_key(|record| record.version);
        assert_eq!(seen, records);
    }
    assert_eq!(store.page(Slot::new(6).unwrap(), None, 100), (Vec::new(), None));
}

#[test]
fn a_page_gives_a_stub_as_expired() {
    let (store, peer) = (roomy(), roomy());
    let expiry = NOW.get() + 1;
    write(&store, &expiring("k", v(1), expiry));
    get(&store, "k", ms(expiry));
    let (page, _) = store.page(slot("k"), None, 1000);
    assert_eq!(page, [Record { body: Body::Expired, ..expiring("k", v(1), expiry) }]);
    assert_eq!(peer.apply(&page[0], ApplyOrigin::Repair, ms(expiry)), Applied::Stored);
    assert_eq!(peer.digest(slot("k")), store.digest(slot("k")));
}

#[test]
fn clear_forgets_everything_but_the_counters() {
    let store = roomy();
    for n in 0..500 {
        write(&store, &value(&n.to_string(), v(n), b"x"));
        write(&store, &tombstone(&format!("t{n}"), v(n)));
        get(&store, &n.to_string(), NOW);
    }
    store.clear();
    let stats = store.stats();
    assert_eq!((stats.entries, stats.tombstones, stats.bytes, stats.hits), (0, 0, 0, 500));
    assert!(Slot::all().all(|slot| store.digest(slot) == Digest::default() && store.versions(slot).is_empty()));
    assert_eq!(write(&store, &value("0", v(1), b"again")), Applied::Stored);
    assert!(is_live(&store, "0"));
}

/// An entry with a 16-byte key and a 24-byte value, at the worst moment of its hash table's growth.
#[test]
fn of_many_threads_the_highest_version_wins() {
    const THREADS: u64 = 4;
    const WRITES: u64 = 2000;
    let store = roomy();
    let run = |thread: u64| {
        let mut lowest_allowed = Version::ZERO;
        for n in 0..WRITES {
            // Every number below THREADS × WRITES once, in an order of its own for each thread.
            let number = (n * 7919 + thread * 13) % WRITES * THREADS + thread;
            let outcome = write(&store, &value("k", v(number), &number.to_le_bytes()));
            match outcome {
                Applied::Stored => lowest_allowed = lowest_allowed.max(v(number)),
                Applied::Stale { newer } => assert!(newer > v(number)),
                other => panic!("{other:?}"),
            }
            let Found::Value { version, value, .. } = get(&store, "k", NOW) else { panic!("the key vanished") };
            assert!(version >= lowest_allowed, "went back from {lowest_allowed} to {version}");
            assert_eq!(v(u64::from_le_bytes(value.as_ref().try_into().unwrap())), version);
            lowest_allowed = version;
        }
    };
    thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || run(thread)))));
    let highest = v(THREADS * WRITES - 1);
    assert!(matches!(peek(&store, "k"), Found::Value { version, .. } if version == highest));
    assert_eq!(store.digest(slot("k")), Digest::default().with(KeyHash::of(b"k"), highest));
    assert_eq!(store.versions(slot("k")), [(KeyHash::of(b"k"), highest)]);
    assert_eq!(store.stats().entries, 1);
    assert_eq!(Slot::all().filter(|slot| store.digest(*slot) != Digest::default()).count(), 1, "of {SLOTS}");
}
