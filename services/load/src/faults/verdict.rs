//! What a run's faults allow to be said about it: whether they happened at all and under load, and whether operations failed
//! only while a fault explains it.

use std::collections::BTreeSet;

use super::record::{Evidence, FaultRecord};
use crate::{exec::Standstill, stats::ErrorSummary};

/// A fault under less load than this, in operations per second, proves nothing.
const LOAD_MIN_OPS_PER_S: f64 = 100.0;

/// Operations that were under way when a death was noticed may fail this much later, in seconds: an error counts when it
/// ends, which is up to REQUEST_TIMEOUT (5 s) after it began. Errors are counted by tenths of a second.
const UNDER_WAY_S: f64 = 6.0;
const ROUNDING_S: f64 = 0.1;

/// Why these faults prove nothing.
pub(crate) fn voids(faults: &[FaultRecord]) -> Vec<String> {
    faults.iter().filter_map(fault_void).collect()
}

fn fault_void(record: &FaultRecord) -> Option<String> {
    let FaultRecord { fault, effect, failure, ops_per_s_around, deaths, .. } = record;
    if let Some(reason) = failure {
        return Some(format!("{fault} had no effect: {reason}"));
    }
    if record.begun_at_s.is_none() {
        return Some(format!("the run ended before {fault}"));
    }
    // A node need not come back, unless the next crash waits for it.
    let is_over = record.ended_at_s.is_some() || (!record.must_return && *deaths > 0 && effect.is_some());
    if !is_over {
        let so_far = match effect {
            Some(Evidence::Restarts(restarts)) => format!(", after {restarts} of {deaths} returns"),
            _ => String::new(),
        };
        return Some(format!("the run ended during {fault}{so_far}"));
    }
    let ops_per_s = ops_per_s_around.unwrap_or_default();
    (ops_per_s < LOAD_MIN_OPS_PER_S)
        .then(|| format!("too little load around {fault}: {ops_per_s:.1} ops/s, {LOAD_MIN_OPS_PER_S} are needed"))
}

/// Operations that failed while no fault explains it: an undetected crash or stop does, and another fault until the mesh has
/// recovered from it.
/// So does a time in which the runner itself stood still.
pub(crate) fn strays(errors: &[ErrorSummary], faults: &[FaultRecord], standstills: &[Standstill]) -> Option<String> {
    let faults = faults.iter().filter_map(|fault| Some((fault.begun_at_s?, explains_until_s(fault))));
    let times: Vec<_> = faults.chain(standstills.iter().map(|still| (still.from_s, still.to_s))).collect();
    let excused = |from_s: f64, to_s: f64| {
        times.iter().any(|(began_s, over_s)| from_s >= began_s - ROUNDING_S && to_s <= over_s + UNDER_WAY_S)
    };
    let windows = errors.iter().flat_map(|error| error.windows.iter().map(move |window| (&error.kind, window)));
    let (kind, first) = windows.clone().find(|(_, window)| !excused(window.from_s, window.to_s))?;
    let (from_s, to_s) = (first.from_s, first.to_s);
    let count: u64 = windows.filter(|(_, w)| !excused(w.from_s, w.to_s)).map(|(_, window)| window.count).sum();
    Some(format!(
        "{count} operations failed while no fault explains it, the first between {from_s:.1}s and {to_s:.1}s: {kind}"
    ))
}

/// The most nodes that were dead, or not yet in sync again, at one time.
pub(crate) fn dead_at_once(faults: &[FaultRecord]) -> usize {
    let dies = |fault: &&FaultRecord| fault.begun_at_s.is_some() && matches!(&*fault.kind, "crash" | "storm");
    let is_dead = |fault: &FaultRecord, at_s: f64| {
        let recovered = fault.recovered_at_s.is_some_and(|recovered_s| recovered_s < at_s);
        fault.begun_at_s.is_some_and(|begun_s| begun_s <= at_s) && !recovered
    };
    let dead_at = |at_s: f64| {
        let dead = faults.iter().filter(dies).filter(|fault| is_dead(fault, at_s)).flat_map(|fault| &fault.targets);
        dead.collect::<BTreeSet<_>>().len()
    };
    faults.iter().filter(dies).filter_map(|fault| fault.begun_at_s).map(dead_at).max().unwrap_or_default()
}

/// Once every survivor knows of a death, or the node is ready again, operations must succeed.
fn explains_until_s(fault: &FaultRecord) -> f64 {
    let until_s = match fault.deaths {
        1 => fault.detected_at_s().or(fault.ready_at_s),
        _ => fault.recovered_at_s,
    };
    until_s.unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{faults::record::Survivor, stats::ErrorWindow};

    fn errors(from_s: f64, to_s: f64) -> Vec<ErrorSummary> {
        let windows = vec![ErrorWindow { from_s, to_s, count: 3 }];
        vec![ErrorSummary { kind: "refused".to_owned(), count: 3, first: String::new(), windows }]
    }

    fn fault(begun_at_s: f64) -> FaultRecord {
        FaultRecord::example(0, begun_at_s)
    }

    /// Seen dead after 2.5 s, ready again after 4 s.
    fn crash(begun_at_s: f64) -> FaultRecord {
        let dead_at_s = Some(begun_at_s + 2.5);
        let survivors = vec![Survivor { node: "b".to_owned(), dead_at_s, alive_at_s: None }];
        FaultRecord { survivors, ready_at_s: Some(begun_at_s + 4.0), ..FaultRecord::example(1, begun_at_s) }
    }

    #[test]
    fn a_fault_without_load_or_effect_or_end_is_void() {
        let void = |change: fn(&mut FaultRecord)| {
            let mut record = fault(10.0);
            change(&mut record);
            voids(&[fault(1.0), record]).join("; ")
        };
        assert_eq!(void(|_| {}), "");
        let reason = void(|record| record.failure = Some("the nodes count no packets dropped".to_owned()));
        assert_eq!(reason, "partition a for=5s had no effect: the nodes count no packets dropped");
        let reason = void(|record| record.ops_per_s_around = Some(99.9));
        assert_eq!(reason, "too little load around partition a for=5s: 99.9 ops/s, 100 are needed");
        assert_eq!(void(|record| record.begun_at_s = None), "the run ended before partition a for=5s");
        assert_eq!(void(|record| record.ended_at_s = None), "the run ended during partition a for=5s");
        assert_eq!(void(|record| record.recovered_at_s = None), "", "what comes after is judged by itself");
    }

    #[test]
    fn a_node_that_crashes_must_return_only_for_another_crash() {
        let void = |deaths, effect, must_return| {
            let record = FaultRecord { ended_at_s: None, effect, must_return, ..FaultRecord::example(deaths, 10.0) };
            voids(&[record]).join("; ")
        };
        assert_eq!(void(1, Some(Evidence::Restarts(0)), false), "");
        assert_eq!(void(1, None, false), "the run ended during partition a for=5s");
        let reason = "the run ended during partition a for=5s, after 2 of 3 returns";
        assert_eq!(void(3, Some(Evidence::Restarts(2)), true), reason);
        let reason = "the run ended during partition a for=5s, after 0 of 1 returns";
        assert_eq!(void(1, Some(Evidence::Restarts(0)), true), reason);
    }

    #[test]
    fn a_fault_explains_errors_until_the_mesh_has_recovered() {
        let stray = |from_s, recovered_at_s| {
            strays(&errors(from_s, from_s + 0.1), &[FaultRecord { recovered_at_s, ..fault(10.0) }], &[])
        };
        assert!(stray(9.95, Some(16.0)).is_none() && stray(21.8, Some(16.0)).is_none());
        assert!(stray(99.0, None).is_none());
        assert!(stray(9.8, None).is_some_and(|text| text.contains("while no fault explains it, the first")));
        assert!(stray(22.0, Some(16.0)).is_some());
    }

    #[test]
    fn a_crash_explains_errors_until_it_is_detected() {
        let crashes = [crash(2.0), crash(9.04)];
        for (from_s, to_s, stray) in
            [(2.0, 10.5, false), (9.0, 9.1, false), (1.8, 2.1, true), (2.0, 10.6, true), (17.5, 17.6, true)]
        {
            assert_eq!(strays(&errors(from_s, to_s), &crashes, &[]).is_some(), stray, "{from_s} to {to_s}");
        }
        let text = strays(&errors(20.0, 20.1), &crashes, &[]).unwrap_or_default();
        assert!(
            text.contains("3 operations failed while") && text.contains("between 20.0s and 20.1s: refused"),
            "{text}"
        );
        let back_before = [FaultRecord { survivors: Vec::new(), ready_at_s: Some(3.0), ..crash(2.0) }];
        assert!(strays(&errors(8.9, 9.0), &back_before, &[]).is_none());
        assert!(strays(&errors(9.0, 9.1), &back_before, &[]).is_some());
    }

    #[test]
    fn a_standstill_of_the_runner_explains_errors() {
        let still = [Standstill { from_s: 40.0, to_s: 48.0 }];
        assert!(strays(&errors(40.0, 48.5), &[fault(2.0)], &[]).is_some());
        assert!(strays(&errors(40.0, 48.5), &[fault(2.0)], &still).is_none());
        assert!(strays(&errors(39.0, 48.5), &[fault(2.0)], &still).is_some());
    }

    #[test]
    fn nodes_are_dead_at_once_until_they_have_recovered() {
        let dead = |kind: &'static str, node: &str, from_s, recovered_at_s| FaultRecord {
            kind: kind.into(),
            targets: vec![node.to_owned()],
            recovered_at_s,
            ..FaultRecord::example(1, from_s)
        };
        let crash = |node, from_s, until_s| dead("crash", node, from_s, Some(until_s));
        assert_eq!(dead_at_once(&[]), 0);
        assert_eq!(dead_at_once(&[crash("a", 1.0, 5.0), crash("b", 6.0, 9.0), crash("a", 10.0, 11.0)]), 1);
        assert_eq!(dead_at_once(&[crash("a", 1.0, 5.0), crash("b", 4.0, 9.0), crash("b", 4.5, 6.0)]), 2);
        assert_eq!(dead_at_once(&[dead("stop", "a", 1.0, None), dead("partition", "b", 1.0, None)]), 0);
        assert_eq!(dead_at_once(&[dead("storm", "a", 1.0, None), crash("b", 90.0, 91.0)]), 2, "never back");
    }
}
