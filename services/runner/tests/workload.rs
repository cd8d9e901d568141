//! What the load consists of: lifetimes by their weights, and writes of what a read did not find.

#![allow(clippy::disallowed_methods, reason = "no runtime here: these threads wait for a process, with a deadline")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod fake;

use fake::{FakeMesh, run};

#[test]
fn what_a_read_does_not_find_is_written_beside_the_schedule() {
    let settings = [
        ("PREFILL", "false"),
        ("SET_RATIO", "0"),
        ("KEYS", "300"),
        ("RATE", "400"),
        ("DURATION", "2s"),
        ("BACKFILL", "on"),
        ("OBJECTIVES", "set.errors<1%"),
    ];
    let ran = run(&FakeMesh::start(), &settings);
    let (totals, lag) = (&ran.results["totals"], &ran.results["lag"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    let backfills = totals["backfills"].as_u64().unwrap();
    // Two reads of one key may miss at one time.
    assert!((200..=400).contains(&backfills), "{totals}");
    assert_eq!((totals["sets"].as_u64(), totals["misses"].as_u64()), (Some(backfills), Some(backfills)), "{totals}");
    let gets = totals["gets"].as_u64().unwrap();
    assert!(
        gets <= lag["offered"].as_u64().unwrap() && gets > 700,
        "the schedule is that of the reads: {totals} {lag}"
    );
    assert!(ran.out.contains("backfill on a miss"), "{}", ran.out);
    assert_eq!(ran.results["setup"]["backfill"], true);
}

#[test]
fn each_value_expires_by_its_own_lifetime() {
    let settings = [
        ("SET_RATIO", "50"),
        ("KEYS", "50"),
        ("CONCURRENCY", "4"),
        ("DURATION", "3s"),
        ("SET_TTL_MS", "300:50,-1:50"),
        ("DISTRIBUTION", "hotspot:90/10/1s"),
    ];
    let ran = run(&FakeMesh::start(), &settings);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert_eq!(ran.results["setup"]["ttls"], "300:50,-1:50");
    assert_eq!(ran.results["setup"]["ttl_ms"], 300);
    assert_eq!(ran.results["setup"]["distribution"], "hotspot:90/10/1s");
    let sweep = &ran.results["sweep"];
    assert!(sweep["expired"].as_u64() > Some(0) && sweep["keys"].as_u64() > Some(0), "some of each: {sweep}");
    assert_eq!(sweep["lost"], 0, "{}", ran.out);
}
