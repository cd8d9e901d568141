//! What a run's faults allow to be said about it: whether they happened at all and under load, and whether operations failed
//! only while the mesh could not know better.

use super::{
    kill::Timeline,
    record::{Effect, FaultRecord},
};
use crate::stats::ErrorSummary;

/// A fault under less load than this, in operations per second, proves nothing.
const LOAD_MIN_OPS_PER_S: f64 = 100.0;

/// Operations that were under way when a death was noticed may fail this much later, in seconds: an error counts when it
/// ends, which is up to REQUEST_TIMEOUT (5 s) after it began. Errors are counted by tenths of a second.
const UNDER_WAY_S: f64 = 6.0;
const ROUNDING_S: f64 = 0.1;

/// Why these kills prove nothing, though `planned` were asked for.
pub(crate) fn voids(kills: &[Timeline], planned: u32) -> Vec<String> {
    let mut voids = Vec::new();
    for reason in kills.iter().filter_map(|kill| kill.failure.as_ref()) {
        voids.push(format!("the kill had no effect: {reason}"));
    }
    match kills {
        [] => voids.push("the run ended before the kill".to_owned()),
        [first, ..] => {
            let ops_per_s = if first.killed_at_s > 0.0 { first.ops_before as f64 / first.killed_at_s } else { 0.0 };
            if ops_per_s < LOAD_MIN_OPS_PER_S {
                let least = format!("{LOAD_MIN_OPS_PER_S} are needed");
                voids.push(format!("too little load before the first fault: {ops_per_s:.1} ops/s, {least}"));
            }
            // The load ends by itself after the last of several, but only once its victim is ready again.
            let done = kills.iter().filter(|kill| planned == 1 || kill.ready_at_s.is_some()).count();
            if voids.is_empty() && done < planned as usize {
                voids.push(format!("the run ended after {done} of {planned} kills and returns"));
            }
        }
    }
    voids
}

/// Why these faults of FAULTS prove nothing.
pub(crate) fn fault_voids(faults: &[FaultRecord]) -> Vec<String> {
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
    // Whether a dead node comes back is not ours to say, unless it is to die again.
    let is_over = record.ended_at_s.is_some() || (*deaths == 1 && effect.is_some());
    if !is_over {
        let so_far = match effect {
            Some(Effect::Restarts(restarts)) => format!(", after {restarts} of {deaths} returns"),
            _ => String::new(),
        };
        return Some(format!("the run ended during {fault}{so_far}"));
    }
    let ops_per_s = ops_per_s_around.unwrap_or_default();
    (ops_per_s < LOAD_MIN_OPS_PER_S)
        .then(|| format!("too little load around {fault}: {ops_per_s:.1} ops/s, {LOAD_MIN_OPS_PER_S} are needed"))
}

/// Operations that failed at a time when no death was waiting to be noticed, and no other fault in force or being recovered
/// from.
pub(crate) fn strays(errors: &[ErrorSummary], kills: &[Timeline], faults: &[FaultRecord]) -> Option<String> {
    let killed = kills.iter().map(|kill| (kill.killed_at_s, noticed_s(kill)));
    let broken =
        faults.iter().filter_map(|fault| Some((fault.begun_at_s?, fault.recovered_at_s.unwrap_or(f64::INFINITY))));
    let times: Vec<_> = killed.chain(broken).collect();
    let excused = |from_s: f64, to_s: f64| {
        times.iter().any(|(began_s, over_s)| from_s >= began_s - ROUNDING_S && to_s <= over_s + UNDER_WAY_S)
    };
    let windows = errors.iter().flat_map(|error| error.windows.iter().map(move |window| (&error.kind, window)));
    let (kind, first) = windows.clone().find(|(_, window)| !excused(window.from_s, window.to_s))?;
    let (from_s, to_s) = (first.from_s, first.to_s);
    let count: u64 = windows.filter(|(_, w)| !excused(w.from_s, w.to_s)).map(|(_, window)| window.count).sum();
    let or_fault = if faults.is_empty() { "" } else { " or a fault lasts" };
    Some(format!(
        "{count} operations failed outside the time in which a kill is noticed{or_fault}, the first between \
         {from_s:.1}s and {to_s:.1}s: {kind}"
    ))
}

/// When every survivor knew of the death, or it had ended before that.
fn noticed_s(kill: &Timeline) -> f64 {
    kill.dead_at_s().or(kill.ready_at_s).unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{faults::kill::Survivor, stats::ErrorWindow};

    fn kill(killed_at_s: f64, ops_before: u64) -> Timeline {
        Timeline {
            victim: "a".to_owned(),
            killed_at_s,
            killed_at_unix_ms: 0,
            ops_before,
            silent_at_s: Some(killed_at_s),
            failure: None,
            survivors: vec![Survivor {
                node: "b".to_owned(),
                dead_at_s: Some(killed_at_s + 2.5),
                alive_at_s: Some(killed_at_s + 4.0),
            }],
            back_at_s: Some(killed_at_s + 3.0),
            ready_at_s: Some(killed_at_s + 4.0),
        }
    }

    fn errors(from_s: f64, to_s: f64) -> Vec<ErrorSummary> {
        let windows = vec![ErrorWindow { from_s, to_s, count: 3 }];
        vec![ErrorSummary { kind: "refused".to_owned(), count: 3, first: String::new(), windows }]
    }

    fn fault(begun_at_s: f64) -> FaultRecord {
        FaultRecord {
            fault: "partition a for=5s".to_owned(),
            kind: "partition",
            targets: vec!["a".to_owned()],
            planned_at_s: begun_at_s,
            begun_at_s: Some(begun_at_s),
            begun_at_unix_ms: Some(0),
            ended_at_s: Some(begun_at_s + 5.0),
            recovered_at_s: Some(begun_at_s + 6.0),
            effect: Some(Effect::PacketsDropped(1)),
            failure: None,
            ops_per_s_around: Some(100.0),
            errors: 0,
            deaths: 0,
        }
    }

    #[test]
    fn a_fault_without_load_or_effect_or_end_is_void() {
        let void = |change: fn(&mut FaultRecord)| {
            let mut record = fault(10.0);
            change(&mut record);
            fault_voids(&[fault(1.0), record]).join("; ")
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
    fn who_dies_once_need_not_come_back() {
        let void =
            |deaths, effect| fault_voids(&[FaultRecord { ended_at_s: None, effect, deaths, ..fault(10.0) }]).join("; ");
        assert_eq!(void(1, Some(Effect::Restarts(0))), "");
        assert_eq!(void(1, None), "the run ended during partition a for=5s");
        let reason = "the run ended during partition a for=5s, after 2 of 3 returns";
        assert_eq!(void(3, Some(Effect::Restarts(2))), reason);
    }

    #[test]
    fn errors_are_excused_while_a_fault_lasts_and_is_recovered_from() {
        let stray = |from_s, recovered_at_s| {
            let faults = [FaultRecord { recovered_at_s, ..fault(10.0) }];
            strays(&errors(from_s, from_s + 0.1), &[], &faults)
        };
        assert!(stray(9.95, Some(16.0)).is_none() && stray(21.8, Some(16.0)).is_none());
        assert!(stray(99.0, None).is_none());
        assert!(
            stray(9.8, None)
                .is_some_and(|text| text.contains("in which a kill is noticed or a fault lasts, the first"))
        );
        assert!(stray(22.0, Some(16.0)).is_some());
    }

    #[test]
    fn a_kill_without_load_or_effect_is_void() {
        assert!(voids(&[kill(2.0, 200)], 1).is_empty());
        assert!(voids(&[kill(2.0, 199)], 1)[0].starts_with("too little load before the first fault: 99.5 ops/s"));
        assert_eq!(voids(&[], 1), ["the run ended before the kill"]);
        let failure = Some("it still answers".to_owned());
        assert_eq!(voids(&[Timeline { failure, ..kill(2.0, 200) }], 1), ["the kill had no effect: it still answers"]);
    }

    #[test]
    fn all_kills_must_have_happened() {
        assert!(voids(&[kill(2.0, 900), kill(9.0, 1800)], 2).is_empty());
        let away = Timeline { ready_at_s: None, ..kill(9.0, 1800) };
        assert_eq!(voids(&[kill(2.0, 900), away.clone()], 2), ["the run ended after 1 of 2 kills and returns"]);
        assert!(voids(&[away], 1).is_empty(), "where nobody starts it again");
    }

    #[test]
    fn errors_are_excused_only_while_a_death_is_being_noticed() {
        let kills = [kill(2.0, 900), kill(9.04, 1800)];
        for (from_s, to_s, stray) in
            [(2.0, 10.5, false), (9.0, 9.1, false), (1.8, 2.1, true), (2.0, 10.6, true), (17.5, 17.6, true)]
        {
            assert_eq!(strays(&errors(from_s, to_s), &kills, &[]).is_some(), stray, "{from_s} to {to_s}");
        }
        let text = strays(&errors(20.0, 20.1), &kills, &[]).unwrap_or_default();
        assert!(
            text.contains("3 operations failed outside") && text.contains("between 20.0s and 20.1s: refused"),
            "{text}"
        );
        let away = [Timeline { survivors: Vec::new(), ready_at_s: Some(3.0), ..kill(2.0, 900) }];
        assert!(strays(&errors(8.9, 9.0), &away, &[]).is_none());
    }
}
