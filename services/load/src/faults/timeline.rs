//! How a mesh came back from each fault: when errors began and ended, when the p99 and the hit ratio were as before, when the
//! replicas were in sync; and of a fault that struck several times the median of each, with an interval.
//!
//! Before a fault there is a baseline of up to 10 s, in which no other fault was in force. Latency and hits are those of windows of
//! 2 s, which move on by one sample; a p99 is one of a merged histogram.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::Serialize;

use super::record::FaultRecord;
use crate::{
    results::{IntervalSum, Intervals},
    stats::{ErrorLog, Spread},
};

/// The longest baseline, and the operations that a p99 needs.
const BASELINE_S: f64 = 10.0;
const OPERATIONS_MIN: u64 = 1000;

/// Intervals in a window.
const WINDOW: usize = 4;

/// A p99 of at most so many times the baseline's is back, and so is a hit ratio that is lower by at most this.
const P99_FACTOR: f64 = 1.2;
const HITS_LOST_MAX: f64 = 0.01;

/// How long after the mesh has recovered it is looked for effects.
const LOOKED_AFTER_S: f64 = 10.0;

/// The return from one fault, in seconds after it began.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Timeline {
    /// The p99 of all operations before it, in milliseconds; nothing if there were too few.
    pub baseline_p99_ms: Option<f64>,
    /// The first operation that failed or has an unknown outcome, to a tenth of a second; nothing if none did.
    pub first_error_s: Option<f64>,
    /// When the last of the other nodes saw the node dead.
    pub detected_s: Option<f64>,
    /// The last operation that failed or has an unknown outcome.
    pub last_error_s: Option<f64>,
    /// From when the p99 of the next 2 s was within 1.2 times the baseline's; 0 if it always was.
    pub p99_back_s: Option<f64>,
    /// From when the share of reads that found a value in the next 2 s was within 0.01 of the baseline's; 0 if it always was.
    pub hit_ratio_back_s: Option<f64>,
    /// When every node was ready and saw all others alive.
    pub in_sync_s: Option<f64>,
}

/// Several faults of one kind.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RepeatedFault {
    /// Its word.
    pub kind: String,
    /// How often it struck.
    pub times: usize,
    /// The first failure of each.
    pub first_error_s: Option<Spread>,
    /// Its detection.
    pub detected_s: Option<Spread>,
    /// The last failure.
    pub last_error_s: Option<Spread>,
    /// The p99 back.
    pub p99_back_s: Option<Spread>,
    /// The hit ratio back.
    pub hit_ratio_back_s: Option<Spread>,
    /// All replicas in sync.
    pub in_sync_s: Option<Spread>,
}

/// These, with the operations that failed meanwhile, and how the mesh came back.
pub(crate) fn completed(mut faults: Vec<FaultRecord>, intervals: &Intervals, errors: &ErrorLog) -> Vec<FaultRecord> {
    for index in 0..faults.len() {
        let timeline = timeline(&faults, index, intervals, errors);
        let fault = &mut faults[index];
        fault.timeline = timeline;
        let until_s = fault.recovered_at_s.unwrap_or(f64::INFINITY);
        (fault.errors, fault.outcome_unknown) =
            fault.begun_at_s.map_or((0, 0), |begun_at_s| errors.between(begun_at_s, until_s));
    }
    faults
}

fn timeline(faults: &[FaultRecord], index: usize, intervals: &Intervals, errors: &ErrorLog) -> Option<Timeline> {
    let fault = &faults[index];
    let begun = fault.begun_at_s.filter(|_| fault.failure.is_none())?;
    let others = || faults.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other);
    let next = others().filter_map(|other| other.begun_at_s).filter(|at| *at > begun).fold(f64::INFINITY, f64::min);
    let quiet_from = others()
        .filter(|other| other.begun_at_s.is_some_and(|at| at <= begun))
        .map(|other| other.recovered_at_s.unwrap_or(f64::INFINITY));
    let quiet_from = quiet_from.fold(begun - BASELINE_S, f64::max);
    let until = next.min(fault.recovered_at_s.or(fault.ended_at_s).unwrap_or(begun) + LOOKED_AFTER_S);
    let after = |at: f64| at - begun;
    let failed = errors.first_and_last(begun, until);
    let mut timeline = Timeline {
        first_error_s: failed.map(|(first, _)| after(first).max(0.0)),
        last_error_s: failed.map(|(_, last)| after(last).max(0.0)),
        detected_s: fault.detected_at_s().map(after),
        in_sync_s: fault.recovered_at_s.map(after),
        ..Timeline::default()
    };
    let baseline = sum_of(&between(intervals, quiet_from, begun));
    if baseline.all.count() >= OPERATIONS_MIN {
        let limit = p99_ms(&baseline) * P99_FACTOR;
        let parts = between(intervals, begun, until);
        timeline.baseline_p99_ms = Some(p99_ms(&baseline));
        let since = |at: f64| if at > 0.0 { after(at) } else { 0.0 };
        timeline.p99_back_s = back(&parts, |window| p99_ms(window) <= limit).map(since);
        if let Some(least) = baseline.hit_ratio().map(|ratio| ratio - HITS_LOST_MAX) {
            let is_back = |window: &IntervalSum| window.hit_ratio().is_none_or(|ratio| ratio >= least);
            timeline.hit_ratio_back_s = back(&parts, is_back).map(since);
        }
    }
    Some(timeline)
}

fn between(intervals: &Intervals, from_s: f64, to_s: f64) -> Vec<IntervalSum> {
    let time = |at: f64| Duration::try_from_secs_f64(at.max(0.0)).unwrap_or(Duration::MAX);
    intervals.between(time(from_s), time(to_s))
}

fn sum_of(parts: &[IntervalSum]) -> IntervalSum {
    let mut sum = IntervalSum::default();
    parts.iter().for_each(|part| sum.merge(part));
    sum
}

fn p99_ms(sum: &IntervalSum) -> f64 {
    sum.all.percentile(99.0).as_secs_f64() * 1e3
}

/// Where the first window after the last that was not as before begins, in seconds after the load began; 0 if all windows were as
/// before. Nothing if the last of them was not, or there are none.
fn back(parts: &[IntervalSum], is_as_before: impl Fn(&IntervalSum) -> bool) -> Option<f64> {
    let windows: Vec<bool> = parts.windows(WINDOW).map(|parts| is_as_before(&sum_of(parts))).collect();
    match windows.iter().rposition(|is_as_before| !is_as_before) {
        _ if windows.is_empty() => None,
        None => Some(0.0),
        Some(last) if last + 1 == windows.len() => None,
        Some(last) => Some(parts[last].to.as_secs_f64()),
    }
}

impl RepeatedFault {
    /// Every kind of fault that struck at least twice.
    pub(crate) fn all(faults: &[FaultRecord]) -> Vec<Self> {
        let mut kinds: Vec<&str> = Vec::new();
        faults.iter().filter(|fault| fault.timeline.is_some()).for_each(|fault| {
            if !kinds.contains(&&*fault.kind) {
                kinds.push(&fault.kind);
            }
        });
        let of_kind = |kind: &str| -> Vec<&Timeline> {
            faults.iter().filter(|fault| fault.kind == kind).filter_map(|fault| fault.timeline.as_ref()).collect()
        };
        let repeated = |kind: &str| {
            let all = of_kind(kind);
            let spread =
                |time: fn(&Timeline) -> Option<f64>| Spread::of(all.iter().filter_map(|one| time(one)).collect());
            (all.len() > 1).then(|| Self {
                kind: kind.to_owned(),
                times: all.len(),
                first_error_s: spread(|one| one.first_error_s),
                detected_s: spread(|one| one.detected_s),
                last_error_s: spread(|one| one.last_error_s),
                p99_back_s: spread(|one| one.p99_back_s),
                hit_ratio_back_s: spread(|one| one.hit_ratio_back_s),
                in_sync_s: spread(|one| one.in_sync_s),
            })
        };
        kinds.into_iter().filter_map(repeated).collect()
    }

    /// The times by name.
    pub(crate) fn spreads(&self) -> [(&'static str, Option<Spread>); 6] {
        [
            ("first error", self.first_error_s),
            ("detected", self.detected_s),
            ("last error", self.last_error_s),
            ("p99 back", self.p99_back_s),
            ("hit ratio back", self.hit_ratio_back_s),
            ("replicas in sync", self.in_sync_s),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Op, OutcomeClass, stats::LatencyHistogram};

    /// A run of 60 s with an operation each millisecond, in which `slow` seconds have a p99 of 50 ms instead of 2, and `lost` seconds
    /// miss a tenth of the reads.
    fn intervals(slow: std::ops::Range<u64>, lost: std::ops::Range<u64>) -> Intervals {
        let mut intervals = Intervals::default();
        for half in 0..120_u64 {
            let (mut hits, mut misses) = (LatencyHistogram::default(), LatencyHistogram::default());
            for at in 0..500 {
                let ms = if at % 50 == 0 && slow.contains(&(half / 2)) { 50 } else { 2 };
                let to = if at % 10 == 1 && lost.contains(&(half / 2)) { &mut misses } else { &mut hits };
                to.record(Duration::from_millis(ms));
            }
            intervals.add(Op::Get, OutcomeClass::Local, &hits);
            intervals.add(Op::Get, OutcomeClass::Miss, &misses);
            intervals.end_at(Duration::from_millis(500 * (half + 1)));
        }
        intervals
    }

    fn fault(begun_s: f64) -> FaultRecord {
        FaultRecord { recovered_at_s: Some(begun_s + 6.0), ..FaultRecord::example(0, begun_s) }
    }

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 0.51)
    }

    #[test]
    fn each_return_has_its_own_time() {
        let mut errors = ErrorLog::default();
        for at_ms in [3_000, 20_300, 22_100, 45_000] {
            errors.add(ErrorKind::Closed, Duration::from_millis(at_ms), String::new);
        }
        let faults = completed(vec![fault(20.0)], &intervals(20..24, 20..22), &errors);
        let [FaultRecord { timeline: Some(found), .. }] = &faults[..] else { panic!("a timeline") };
        assert!(near(found.first_error_s, 0.3) && near(found.last_error_s, 2.1), "{found:?}");
        // Of the two seconds from the third on, one in a hundred operations is slow: not more than before takes a p99 for.
        assert!(near(found.p99_back_s, 3.0) && near(found.hit_ratio_back_s, 2.0), "{found:?}");
        assert!(near(found.in_sync_s, 6.0) && near(found.baseline_p99_ms, 2.0), "{found:?}");
    }

    #[test]
    fn what_never_left_is_back_at_once_and_what_stays_is_not() {
        let found = |slow| {
            let faults = completed(vec![fault(20.0)], &intervals(slow, 0..0), &ErrorLog::default());
            faults[0].timeline.clone().unwrap_or_default()
        };
        let (quiet, slow) = (found(0..0), found(20..60));
        assert_eq!((quiet.p99_back_s, quiet.hit_ratio_back_s, quiet.first_error_s), (Some(0.0), Some(0.0), None));
        assert_eq!(slow.p99_back_s, None);
    }

    #[test]
    fn a_fault_without_a_quiet_time_before_it_has_no_baseline() {
        let faults = completed(vec![fault(20.0), fault(22.0)], &intervals(0..0, 0..0), &ErrorLog::default());
        let has_baseline =
            |fault: &FaultRecord| fault.timeline.as_ref().is_some_and(|timeline| timeline.baseline_p99_ms.is_some());
        assert_eq!(faults.iter().map(has_baseline).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn faults_of_one_kind_are_summed_up() {
        let faults = completed(vec![fault(10.0), fault(40.0)], &intervals(10..12, 0..0), &ErrorLog::default());
        let all = RepeatedFault::all(&faults);
        assert!(
            all.len() == 1 && all[0].times == 2 && all[0].in_sync_s.is_some_and(|spread| spread.of == 2),
            "{all:?}"
        );
        assert!(RepeatedFault::all(&faults[..1]).is_empty());
    }
}
