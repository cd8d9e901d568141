//! What a store and a queue of hints take, measured as the system measures it, with the node's own allocator: never more than
//! their bound and a little, however many keys come through. One test, because resident memory is the whole
//! process's; each part starts from what the one before has left.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh_proto::{
    ApplyOrigin, Body, Expiry, HintLimits, Hints, KeyHash, Monotonic, NodeId, Record, Store, StoreConfig, UnixMillis,
    Version,
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const LIMIT: u64 = 64 << 20;

/// What comes on top of the bound: the slots of an empty store, which do not depend on it, what the allocator holds in pages of each
/// size that are not full, and the part of a huge page that no segment has been given.
const BASE: u64 = 18 << 20;

/// How much is written between two looks at what is resident.
const BYTES_PER_LOOK: usize = 2 << 20;

const MIB: f64 = (1 << 20) as f64;

const NOW: UnixMillis = UnixMillis::new(1_700_000_000_000);

#[test]
fn memory_stays_within_its_bounds() {
    let before = resident_bytes();
    ten_million_keys_through_64_mib(before);
    tombstones_at_their_cap(before);
    hints_at_their_cap(before);
}

fn ten_million_keys_through_64_mib(before: u64) {
    let store = Store::new(&config(1_000_000));
    let phases = [
        Phase { count: 3_000_000, value_bytes: |_| 16 },
        Phase { count: 1_000_000, value_bytes: |_| 800 },
        Phase {
            count: 2_500_000,
            value_bytes: |number| if number % 50 == 0 { 4000 } else { (number % 1500) as usize },
        },
        // The worst case for an allocator: each of its pages holds values of all ages, and is of use for another size once the last
        // of them has gone.
        Phase { count: 1_000_000, value_bytes: |_| 4000 },
        Phase { count: 1_000_000, value_bytes: |_| 100 },
        Phase { count: 1_500_000, value_bytes: |number| if number % 2 == 0 { 10 } else { 2000 } },
    ];
    let mut number = 0;
    for phase in phases {
        let peak = write(&store, &mut number, &phase);
        println!("{} MiB of keys and values", store.stats().payload_bytes >> 20);
        check(&format!("{number} keys"), before, peak);
    }
    let stats = store.stats();
    assert_eq!(number, 10_000_000);
    assert!(stats.bytes <= LIMIT && stats.bytes > LIMIT / 2, "{stats:?}");
    assert_eq!(stats.evictions + stats.entries, number);
}

/// New keys, and how large the value of each is.
struct Phase {
    count: u64,
    value_bytes: fn(u64) -> usize,
}

/// Writes new keys, and gives the most that was resident.
fn write(store: &Store, number: &mut u64, phase: &Phase) -> u64 {
    let (mut peak, mut written) = (0, 0);
    for _ in 0..phase.count {
        store.apply(&record(*number, (phase.value_bytes)(*number)), ApplyOrigin::Write, NOW);
        written += (phase.value_bytes)(*number) + 100;
        *number += 1;
        if written >= BYTES_PER_LOOK {
            written = 0;
            peak = resident_bytes().max(peak);
        }
    }
    peak
}

fn tombstones_at_their_cap(before: u64) {
    let store = Store::new(&config(400_000));
    for number in 0..1_000_000 {
        let deletion = Record { body: Body::Tombstone, ..record(number, 0) };
        store.apply(&deletion, ApplyOrigin::Write, NOW);
    }
    let stats = store.stats();
    assert!(stats.tombstones <= 400_000 && stats.tombstones > 390_000, "{stats:?}");
    assert_eq!(stats.tombstones + stats.tombstones_dropped, 1_000_000);
    assert!(stats.bytes <= LIMIT, "{stats:?}");
    check("tombstones", before, resident_bytes());
}

fn hints_at_their_cap(before: u64) {
    let limits = HintLimits { bytes_max: LIMIT, ..HintLimits::default() };
    wait_for_purge(before);
    let (mut hints, peer, now) = (Hints::new(limits), NodeId::new(2), Monotonic::default());
    let (mut peak, mut number) = (0, 0);
    let dropped = loop {
        if let Some(dropped) = hints.handle_missed(now, peer, &record(number, 300)) {
            break dropped;
        }
        assert!(hints.stats(now).queued_bytes <= LIMIT);
        number += 1;
        if number.is_multiple_of(10_000) {
            peak = resident_bytes().max(peak);
        }
    };
    assert_eq!(dropped.hints, number);
    assert!(dropped.bytes > LIMIT * 9 / 10, "{dropped:?}");
    check("hints", before, peak);
    // From the drop to the full comparison nothing is queued at all.
    for number in 0..1000 {
        assert!(hints.handle_missed(now, peer, &record(number, 300)).is_none());
    }
    assert_eq!(hints.stats(now).queued, 0);
}

/// What a store has held is given back after a second.
#[expect(clippy::disallowed_methods, reason = "there is no runtime here")]
fn wait_for_purge(before: u64) {
    let patience = Instant::now() + Duration::from_secs(10);
    while resident_bytes() > before + BASE && Instant::now() < patience {
        thread::sleep(Duration::from_millis(50));
    }
}

fn check(what: &str, before: u64, resident: u64) {
    let grown = resident.saturating_sub(before);
    println!("{what}: {:.1} MiB for a bound of {} MiB", grown as f64 / MIB, LIMIT >> 20);
    assert!(grown <= LIMIT + BASE, "{what}: {grown} bytes");
}

fn config(tombstones_max: u64) -> StoreConfig {
    StoreConfig { bytes_max: LIMIT, entries_max: u64::MAX, tombstones_max, tombstone_age_min: Duration::from_secs(600) }
}

fn record(number: u64, value_bytes: usize) -> Record {
    let key = Bytes::from(format!("key:{number}"));
    let version = Version::new((u128::from(NOW.get()) << 80) + u128::from(number));
    let value = Bytes::from(vec![b'v'; value_bytes]);
    Record { hash: KeyHash::of(&key), key, version, expiry: Expiry::NEVER, body: Body::Value(value) }
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
