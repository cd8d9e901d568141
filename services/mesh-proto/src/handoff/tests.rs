//! Hints at the edges of their limits, and against a model that keeps nothing but the newest version of each key.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::{Expiry, KeyHash};

const PEER: NodeId = NodeId::new(7);

fn at(millis: u64) -> Monotonic {
    Monotonic::new(Duration::from_millis(millis))
}

fn record(key: &str, version: u128, value: &[u8]) -> Record {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let body = Body::Value(Bytes::copy_from_slice(value));
    Record { hash: KeyHash::of(&key), key, version: Version::new(version), expiry: Expiry::NEVER, body }
}

fn hints(bytes_max: u64, age_max_ms: u64) -> Hints {
    Hints::new(HintLimits { bytes_max, age_max: Duration::from_millis(age_max_ms) })
}

fn roomy() -> Hints {
    Hints::new(HintLimits::default())
}

#[test]
fn hints_come_out_oldest_first_and_once_each() {
    let mut hints = roomy();
    for key in ["a", "b", "c"] {
        assert_eq!(hints.handle_missed(at(0), PEER, &record(key, 1, b"v")), None);
    }
    let polled: Vec<Record> = std::iter::from_fn(|| hints.poll(PEER)).collect();
    assert_eq!(polled, [record("a", 1, b"v"), record("b", 1, b"v"), record("c", 1, b"v")]);
    assert_eq!(hints.stats(at(0)).queued, 3, "under way is not delivered");
    hints.handle_undelivered(PEER, b"b", Version::new(1));
    assert_eq!(hints.poll(PEER), Some(record("b", 1, b"v")));
    for key in ["a", "b", "c"] {
        hints.handle_delivered(PEER, key.as_bytes(), Version::new(1));
    }
    let stats = hints.stats(at(0));
    assert_eq!((stats.queued, stats.queued_bytes, stats.replayed), (0, 0, 3));
    assert!(hints.waiting().is_empty());
}

#[test]
fn only_the_newest_version_of_a_key_is_kept() {
    let mut hints = roomy();
    hints.handle_missed(at(0), PEER, &record("k", 2, b"two"));
    hints.handle_missed(at(0), PEER, &record("k", 1, b"one"));
    assert_eq!(hints.poll(PEER), Some(record("k", 2, b"two")));
    hints.handle_missed(at(0), PEER, &record("k", 3, b"three"));
    // The verdict on the one that was under way must not settle the newer one, nor wake the older.
    hints.handle_delivered(PEER, b"k", Version::new(2));
    hints.handle_undelivered(PEER, b"k", Version::new(2));
    assert_eq!(hints.poll(PEER), Some(record("k", 3, b"three")));
    assert_eq!(hints.poll(PEER), None);
}

#[test]
fn keys_that_share_a_hash_are_two_hints() {
    let mut hints = roomy();
    let twin = |key: &str, version| Record { hash: KeyHash::new(1), ..record(key, version, b"v") };
    hints.handle_missed(at(0), PEER, &twin("a", 1));
    hints.handle_missed(at(0), PEER, &twin("b", 2));
    assert_eq!((hints.poll(PEER), hints.poll(PEER)), (Some(twin("a", 1)), Some(twin("b", 2))));
}

#[test]
fn a_hint_keeps_no_network_buffer_alive() {
    let mut hints = roomy();
    let buffer = Bytes::from(vec![7; 100_000]);
    let views = Record { key: buffer.slice(..10), body: Body::Value(buffer.slice(10..20)), ..record("", 1, b"") };
    hints.handle_missed(at(0), PEER, &views);
    drop(views);
    assert!(buffer.is_unique());
    assert_eq!(hints.stats(at(0)).queued, 1);
}

#[test]
fn one_byte_too_many_drops_the_queue_and_asks_for_a_full_comparison() {
    let bytes_max = 2 * (HINT_OVERHEAD_BYTES + 10);
    let mut hints = hints(bytes_max, 1000);
    hints.handle_missed(at(0), PEER, &record("a", 1, &[0; 9]));
    assert_eq!(hints.handle_missed(at(0), PEER, &record("b", 1, &[0; 9])), None, "exactly full");
    assert_eq!(hints.handle_missed(at(0), PEER, &record("b", 2, &[1; 9])), None, "its older version makes room");
    assert_eq!(hints.stats(at(0)).queued_bytes, bytes_max);
    let dropped = hints.handle_missed(at(0), PEER, &record("b", 3, &[0; 10])).unwrap();
    assert_eq!((dropped.reason, dropped.hints), (HintDrop::Overflow, 1), "a; b had gone to make room");
    let stats = hints.stats(at(0));
    assert_eq!((stats.queued, stats.queued_bytes, stats.dropped_overflow), (0, 0, 2));
    assert_eq!((hints.full_syncs_due(), hints.poll(PEER)), (vec![PEER], None));

    hints.handle_missed(at(0), PEER, &record("c", 1, b""));
    assert_eq!((hints.poll(PEER), hints.stats(at(0)).dropped_full_sync), (None, 1), "the comparison will cover it");
    hints.handle_full_sync_started(PEER);
    hints.handle_missed(at(0), PEER, &record("d", 1, b""));
    assert_eq!(hints.stats(at(0)).queued, 1, "this one it may not cover");
    hints.handle_full_sync_failed(PEER);
    assert_eq!((hints.full_syncs_due(), hints.stats(at(0)).queued), (vec![PEER], 0));
}

#[test]
fn a_queue_is_dropped_when_its_oldest_hint_is_over_age() {
    let mut hints = hints(1 << 20, 1000);
    hints.handle_missed(at(0), PEER, &record("a", 1, b""));
    hints.handle_missed(at(900), PEER, &record("b", 1, b""));
    assert_eq!(hints.handle_time(at(1000)), [], "exactly as old as allowed");
    assert_eq!(hints.stats(at(1000)).oldest_age, Duration::from_secs(1));
    let dropped = hints.handle_time(at(1001));
    assert_eq!(dropped.iter().map(|queue| (queue.reason, queue.hints)).collect::<Vec<_>>(), [(HintDrop::Age, 2)]);
    assert_eq!((hints.full_syncs_due(), hints.stats(at(1001)).dropped_age), (vec![PEER], 2));
}

#[test]
fn queues_are_apart_and_an_unwanted_hint_is_dropped_alone() {
    let other = NodeId::new(8);
    let mut hints = roomy();
    hints.handle_missed(at(0), PEER, &record("a", 1, b""));
    hints.handle_missed(at(0), other, &record("a", 1, b""));
    hints.poll(PEER);
    hints.handle_unwanted(PEER, b"a", Version::new(1), HintDrop::NotOwner);
    let stats = hints.stats(at(0));
    assert_eq!((stats.queued, stats.dropped_not_owner, hints.waiting()), (1, 1, vec![other]));
    assert!(hints.full_syncs_due().is_empty());
    hints.retain_members(|peer| peer == PEER);
    assert_eq!((hints.stats(at(0)).queued, hints.by_peer(at(0)).len()), (0, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Missed { key: u8, version: u8, value_bytes: usize },
    Poll,
    Delivered { nth: usize },
    Undelivered { nth: usize },
    Wait { millis: u64 },
    FullSync { succeeds: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..20_u8, any::<u8>(), 0..400_usize)
            .prop_map(|(key, version, value_bytes)| Step::Missed { key, version, value_bytes }),
        4 => Just(Step::Poll),
        2 => (0..9_usize).prop_map(|nth| Step::Delivered { nth }),
        2 => (0..9_usize).prop_map(|nth| Step::Undelivered { nth }),
        1 => (0..300_u64).prop_map(|millis| Step::Wait { millis }),
        1 => any::<bool>().prop_map(|succeeds| Step::FullSync { succeeds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens: the counts balance, the caps hold, no version older than the newest missed one is handed out, and
    /// nothing is lost but with its queue.
    #[test]
    fn the_newest_missed_version_is_kept_or_its_queue_is_dropped(steps in prop::collection::vec(step(), 1..200)) {
        let (bytes_max, age_max) = (5000, 1000);
        let mut hints = hints(bytes_max, age_max);
        // What is owed to the peer, unless a full comparison is due.
        let mut owed: HashMap<Bytes, Record> = HashMap::new();
        let mut under_way: Vec<Record> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Missed { key, version, value_bytes } => {
                    let record = record(&format!("k{key}"), u128::from(version), &vec![version; value_bytes]);
                    let dropped = hints.handle_missed(at(now), PEER, &record);
                    let is_newer = owed.get(&record.key).is_none_or(|held| held.version < record.version);
                    if is_newer && hints.full_syncs_due().is_empty() {
                        owed.insert(record.key.clone(), record);
                    }
                    prop_assert_eq!(dropped.is_some() && is_newer, dropped.is_some());
                }
                Step::Poll => {
                    if let Some(record) = hints.poll(PEER) {
                        prop_assert_eq!(Some(&record), owed.get(&record.key), "an older version, or none of ours");
                        prop_assert!(!under_way.contains(&record), "handed out twice");
                        under_way.push(record);
                    }
                }
                Step::Delivered { nth } if nth < under_way.len() => {
                    let record = under_way.swap_remove(nth);
                    hints.handle_delivered(PEER, &record.key, record.version);
                    if owed.get(&record.key) == Some(&record) {
                        owed.remove(&record.key);
                    }
                }
                Step::Undelivered { nth } if nth < under_way.len() => {
                    let record = under_way.swap_remove(nth);
                    hints.handle_undelivered(PEER, &record.key, record.version);
                }
                Step::Wait { millis } => {
                    now += millis;
                    hints.handle_time(at(now));
                    prop_assert!(hints.stats(at(now)).oldest_age <= Duration::from_millis(age_max));
                }
                Step::FullSync { succeeds } if !hints.full_syncs_due().is_empty() => {
                    hints.handle_full_sync_started(PEER);
                    if !succeeds {
                        hints.handle_full_sync_failed(PEER);
                    }
                }
                _ => {}
            }
            if !hints.full_syncs_due().is_empty() {
                owed.clear();
                under_way.clear();
            }
            let stats = hints.stats(at(now));
            prop_assert_eq!(stats.queued, owed.len() as u64);
            prop_assert_eq!(stats.queued_bytes, owed.values().map(charge).sum::<u64>());
            prop_assert!(stats.queued_bytes <= bytes_max);
        }
    }
}
