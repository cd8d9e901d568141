//! What the store takes: never more than its bound, nearly all of it for what it is for, and given back.

use super::*;

#[test]
fn bytes_are_bounded_and_used() {
    // Of the smallest, a table for each slot takes a third.
    let cases =
        [(100_000, 10, 60), (1 << 20, 110, 75), (8 << 20, 1000, 90), (8 << 20, 5000, 85), (16 << 20, 100_000, 80)];
    for (bytes_max, value_bytes, percent) in cases {
        let store = small(bytes_max, 1_000_000, 10);
        let mut least_held = u64::MAX;
        for n in 0..4 * bytes_max / (value_bytes + 50) {
            assert_eq!(write(&store, &value(&n.to_string(), v(n), &vec![0; value_bytes as usize])), Applied::Stored);
            let stats = store.stats();
            assert!(stats.bytes <= bytes_max, "{stats:?}");
            assert!(is_live(&store, &n.to_string()));
            if stats.evictions > 1000 || n * value_bytes > 2 * bytes_max {
                least_held = least_held.min(stats.payload_bytes + stats.entries * 45);
            }
        }
        assert!(least_held > bytes_max * percent / 100, "{bytes_max}, {value_bytes}: only {least_held}");
    }
}

/// A million entries with 12 bytes of key and 45 of value: what Redis needs 150 bytes for, and memcached 125.
#[test]
fn small_things_are_small() {
    let store = small(1 << 30, 1 << 20, 10);
    let count = 500_000;
    for n in 0..count {
        write(&store, &value(&format!("{n:012}"), v(n), &[7; 45]));
    }
    let stats = store.stats();
    assert_eq!((stats.entries, stats.payload_bytes), (count, count * 57));
    let each = stats.bytes as f64 / count as f64;
    assert!(each < 57.0 + 60.0, "{each}");
}

#[test]
fn what_changes_its_size_leaves_no_memory_behind() {
    let store = small(8 << 20, 1 << 20, 1 << 20);
    let size = |n: u64, round: u64| [10, 100, 1000, 3000, 7, 9000, 400][(n * 31 + round * 7) as usize % 7];
    let mut version = 0;
    for round in 0..20 {
        for n in 0..2000 {
            version += 1;
            write(&store, &value(&n.to_string(), v(version), &vec![round as u8; size(n, round)]));
        }
        let stats = store.stats();
        assert!(stats.bytes <= 8 << 20, "{stats:?}");
        assert_eq!(
            (stats.entries, stats.evictions),
            (2000, 0),
            "4 MB of values fit into 8 MiB, whatever they were before"
        );
        for n in 0..2000 {
            let Found::Value { value, .. } = peek(&store, &n.to_string()) else { panic!("{n} is gone") };
            assert_eq!(value, vec![round as u8; size(n, round)]);
        }
        store.tidy();
        let stats = store.stats();
        assert!(stats.bytes < stats.payload_bytes * 12 / 10 + (1 << 20), "{stats:?}");
    }
}

#[test]
fn memory_comes_back_after_expiry_and_deletion() {
    let store = small(64 << 20, 1 << 20, 1 << 20);
    let write_all = |from: u64| {
        for n in 0..50_000 {
            let expiry = Expiry::new(if n % 3 == 0 { NOW.get() + 1 } else { 0 });
            write(&store, &Record { expiry, ..value(&n.to_string(), v(from + n), &[0; 500]) });
        }
    };
    write_all(1);
    let full = store.stats().bytes;
    while store.sweep(ms(NOW.get() + 1), 1000) > 0 {}
    let tidied = || (0..20).for_each(|_| store.tidy());
    tidied();
    let stats = store.stats();
    assert_eq!((stats.entries, stats.tombstones, stats.evictions), (33_333, 16_667, 0));
    let held = stats.payload_bytes + (stats.entries + stats.tombstones) * 60;
    assert!(stats.bytes < held * 105 / 100 + (1 << 20), "{stats:?}, {held} held of {full}");
    for n in 0..50_000 {
        write(&store, &tombstone(&n.to_string(), v(100_000 + n)));
    }
    tidied();
    assert!(store.stats().bytes < 9 << 20, "{:?}", store.stats());
    let (later, born_before) = (ms(NOW.get() * 2), Monotonic::new(Duration::from_secs(99)));
    let collected: usize = Slot::all().map(|slot| store.collect(slot, later, later, born_before)).sum();
    assert_eq!(collected, 50_000);
    tidied();
    assert_eq!((store.stats().tombstones, store.stats().bytes), (0, 0));
}
