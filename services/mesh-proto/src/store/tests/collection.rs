//! What goes when tombstones are collected, and what is known of it afterwards.

use super::*;

/// A moment of the process's own time.
fn at(secs: u64) -> Monotonic {
    Monotonic::new(Duration::from_secs(secs))
}

/// A record in slot 5, which is where collections are looked at below.
fn in_slot(record: Record) -> Record {
    Record { hash: KeyHash::new((5 << 52) | (record.hash.get() >> 12)), ..record }
}

fn five() -> Slot {
    Slot::new(5).unwrap()
}

fn peek_five(store: &Store, key: &str) -> Found {
    store.peek(in_slot(value(key, v(0), b"")).hash, key.as_bytes(), NOW)
}

/// Deletes these keys at `NOW` and so many milliseconds.
fn delete_five(store: &Store, keys: std::ops::Range<u64>) {
    for n in keys {
        write(store, &in_slot(tombstone(&n.to_string(), at_ms(NOW.get() + n, n))));
    }
}

fn collect_five(store: &Store, until: u64, before: u64) -> usize {
    store.collect(five(), ms(NOW.get() + 1000), ms(NOW.get() + until), at(before))
}

#[test]
fn what_is_collected_came_before_and_ended_by_a_moment() {
    let store = roomy();
    store.handle_time(at(100));
    write(&store, &in_slot(value("live", v(0), b"x")));
    let live = store.digest(five());
    delete_five(&store, 1..4);
    store.handle_time(at(200));
    delete_five(&store, 4..7);
    assert_eq!(collect_five(&store, 3, 100), 0, "this very second");
    assert_eq!(collect_five(&store, 4, 200), 0, "one of them came later: all or nothing");
    assert_eq!(collect_five(&store, 0, 200), 0);
    assert_eq!(collect_five(&store, 3, 101), 3);
    assert_eq!(collect_five(&store, 6, 201), 3);
    let stats = store.stats();
    assert_eq!((stats.entries, stats.tombstones, stats.tombstones_collected, stats.tombstones_dropped), (1, 0, 6, 0));
    assert_eq!((store.digest(five()), peek_five(&store, "3")), (live, Found::Absent));
}

#[test]
fn a_stub_is_collected_by_its_expiry() {
    let store = roomy();
    store.handle_time(at(100));
    write(&store, &in_slot(expiring("k", at_ms(1, 1), NOW.get() + 5)));
    assert_eq!(collect_five(&store, 10, 200), 0, "expired, and no sweep has seen it");
    assert_eq!(store.sweep(ms(NOW.get() + 5), 10), 1);
    assert_eq!((collect_five(&store, 4, 101), collect_five(&store, 5, 101)), (0, 1));
    assert_eq!((store.stats().bytes, store.digest(five())), (0, Digest::default()));
}

#[test]
fn a_tombstone_that_waits_for_days_can_still_be_collected() {
    let store = roomy();
    for hour in 0..100 {
        store.handle_time(at(hour * 3600));
        if hour == 1 {
            delete_five(&store, 1..2);
        }
        store.sweep(NOW, usize::MAX);
    }
    assert_eq!(collect_five(&store, 1, 99 * 3600), 1);
}

#[test]
fn what_was_collected_does_not_come_back() {
    let store = roomy();
    store.handle_time(at(1));
    delete_five(&store, 5..7);
    assert_eq!(collect_five(&store, 10, 2), 2);
    let floor = at_ms(NOW.get() + 6, 6);
    let old = in_slot(value("5", at_ms(NOW.get() + 4, 4), b"old"));
    assert_eq!(write(&store, &old), Applied::Collected { newer: floor }, "a hint, or a leg that was late");
    assert_eq!(write(&store, &in_slot(tombstone("5", at_ms(NOW.get() + 5, 5)))), Applied::Collected { newer: floor });
    let again = in_slot(tombstone("6", floor));
    assert_eq!(repair(&store, &again), Applied::Skipped, "from an owner that has yet to collect it");
    assert_eq!(write(&store, &in_slot(value("5", at_ms(NOW.get() + 7, 7), b"new"))), Applied::Stored);
    let elsewhere = value("elsewhere", v(0), b"x");
    assert_eq!(write(&store, &elsewhere), Applied::Stored, "another slot has a floor of its own");
    assert_eq!(repair(&store, &in_slot(value("evicted here", v(0), b"x"))), Applied::Stored, "not deleted anywhere");
    store.forget_collected();
    assert_eq!(repair(&store, &again), Applied::Stored);
    assert_eq!(write(&store, &in_slot(value("8", v(0), b"x"))), Applied::Stored);
}

#[test]
fn an_eviction_takes_the_floor_with_it() {
    let store = small(1 << 30, 1, 10);
    store.handle_time(at(1));
    write(&store, &in_slot(value("k", v(1), b"x")));
    delete_five(&store, 5..6);
    assert_eq!(collect_five(&store, 10, 2), 1);
    assert!(matches!(write(&store, &in_slot(value("other", v(2), b"x"))), Applied::Collected { .. }));
    assert_eq!(write(&store, &in_slot(value("other", at_ms(NOW.get() + 6, 6), b"x"))), Applied::Stored);
    assert_eq!(store.stats().evictions, 1);
    assert_eq!(write(&store, &in_slot(value("k", v(1), b"x"))), Applied::Stored, "a read may bring it back");
}

#[test]
fn owners_recognise_each_other_while_only_one_has_collected() {
    let (one, other) = (roomy(), roomy());
    for store in [&one, &other] {
        store.handle_time(at(1));
        write(store, &in_slot(value("live", v(0), b"x")));
        delete_five(store, 1..20);
    }
    let same = |a: &Store, b: &Store| {
        let later = ms(NOW.get() + 1000);
        let (ours, theirs) = (a.digest(five()), b.digest(five()));
        ours == theirs || a.is_same_but_for_collected(five(), theirs, later)
    };
    for until in [3, 7, 11, 15] {
        assert!(collect_five(&one, until, 2) > 0);
        assert!(same(&one, &other) && same(&other, &one), "up to {until}");
    }
    write(&other, &in_slot(value("live", v(1), b"y")));
    assert!(!same(&one, &other) && !same(&other, &one), "a real difference");
    write(&one, &in_slot(value("live", v(1), b"y")));
    assert!(same(&one, &other) && same(&other, &one));
    assert!(collect_five(&one, 16, 2) > 0);
    assert!(same(&other, &one) && !same(&one, &other), "too far behind to be remembered");
    assert!(collect_five(&other, 15, 2) > 0);
    assert!(same(&one, &other) && same(&other, &one));
    one.forget_collected();
    assert!(same(&other, &one) && !same(&one, &other));
}

/// What one owner holds as an expired value and another as a stub is the same to both.
#[test]
fn a_stub_that_only_one_has_made_is_recognised_as_well() {
    let (one, other) = (roomy(), roomy());
    for store in [&one, &other] {
        write(store, &in_slot(expiring("k", v(1), NOW.get() + 5)));
    }
    one.sweep(ms(NOW.get() + 5), 10);
    assert_eq!(collect_five(&one, 5, 1), 1);
    assert!(other.is_same_but_for_collected(five(), one.digest(five()), ms(NOW.get() + 5)));
    assert!(!other.is_same_but_for_collected(five(), one.digest(five()), NOW), "it lives");
}
