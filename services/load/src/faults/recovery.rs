//! Guarantee G6: after a fault has ended, all owners hold the same versions within 10 s. Which recoveries break it, and why the
//! others that took longer do not.

use super::record::FaultRecord;
use crate::report::numbers::grouped;

/// What is promised, in seconds; for so many keys, with so many bytes of values in all.
const PROMISED_S: f64 = 10.0;
const KEYS_MAX: u32 = 100_000;
const BYTES_MAX: u64 = 100_000_000;

/// Notes for each fault whether its recovery breaks G6, or why it was not judged. `excuse` is a reason not to judge what is late.
pub(crate) fn judge(faults: &mut [FaultRecord], excuse: Option<&str>) {
    let judged: Vec<_> = (0..faults.len()).map(|index| late_s(faults, index)).collect();
    for (fault, late) in faults.iter_mut().zip(judged) {
        match (late, excuse) {
            (Ok(None), _) => {}
            (Ok(Some(_)), Some(reason)) => fault.not_judged = Some(reason.to_owned()),
            (Ok(late), None) => fault.late_s = late,
            (Err(reason), _) => fault.not_judged = Some(reason.to_owned()),
        }
    }
}

/// Why nothing is promised for so many keys with values of so many bytes.
pub(crate) fn too_much(keys: u32, value_bytes: usize) -> Option<String> {
    let bytes = u64::from(keys) * value_bytes as u64;
    (keys > KEYS_MAX || bytes > BYTES_MAX).then(|| {
        let (keys, megabytes) = (grouped(KEYS_MAX.into()), BYTES_MAX / 1_000_000);
        format!("{PROMISED_S:.0} s are promised for up to {keys} keys and {megabytes} MB")
    })
}

/// In words, if the recovery broke the promise.
pub(crate) fn broken(fault: &FaultRecord) -> Option<String> {
    let (what, late_s) = (&fault.fault, fault.late_s?);
    Some(format!(
        "G6: {late_s:.1} s after the end of {what} the replicas were not yet in sync; {PROMISED_S:.0} s are promised"
    ))
}

/// How long after its end a fault was last seen not to have been recovered from, if that is too long.
fn late_s(faults: &[FaultRecord], index: usize) -> Result<Option<f64>, &'static str> {
    let fault = &faults[index];
    if fault.begun_at_s.is_none() || fault.failure.is_some() {
        return Ok(None);
    }
    let Some(mut since_s) = fault.ended_at_s else {
        return Err(if fault.deaths > 0 {
            "no new process answered while the load lasted"
        } else {
            "it had not ended when the load did"
        });
    };
    let Some(seen_s) = fault.unrecovered_at_s.filter(|seen_s| seen_s - since_s > PROMISED_S) else {
        return if fault.recovered_at_s.is_some() { Ok(None) } else { Err("the run ended first") };
    };
    // Recovered means that all nodes are well, so another fault that was still in force meanwhile counts, too.
    let others = faults.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other);
    for other in others.filter(|other| other.begun_at_s.is_some_and(|begun_s| begun_s < seen_s)) {
        since_s = since_s.max(other.ended_at_s.ok_or("another fault was in force meanwhile")?);
    }
    Ok(Some(seen_s - since_s).filter(|late_s| *late_s > PROMISED_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ended after 5 s of 5, and was last seen not to have been recovered from after `seen_s`.
    fn fault(begun_s: f64, seen_s: f64) -> FaultRecord {
        FaultRecord { unrecovered_at_s: Some(seen_s), ..FaultRecord::example(0, begun_s) }
    }

    fn judged(mut faults: Vec<FaultRecord>, excuse: Option<&str>) -> (Option<String>, Option<String>) {
        judge(&mut faults, excuse);
        let [first, ..] = &faults[..] else { panic!("at least one fault") };
        (broken(first), first.not_judged.clone())
    }

    #[test]
    fn a_recovery_that_takes_longer_than_promised_breaks_g6() {
        let words =
            "G6: 10.5 s after the end of partition a for=5s the replicas were not yet in sync; 10 s are promised";
        assert_eq!(judged(vec![fault(1.0, 16.5)], None), (Some(words.to_owned()), None));
        assert_eq!(judged(vec![fault(1.0, 15.9)], None), (None, None));
        assert_eq!(judged(vec![FaultRecord::example(0, 1.0)], None), (None, None), "recovered at the first look");
        let unseen = FaultRecord { recovered_at_s: Some(60.0), ..fault(1.0, 7.0) };
        assert_eq!(judged(vec![unseen], None), (None, None), "the runner did not look");
    }

    #[test]
    fn the_end_of_another_fault_counts() {
        let (late, early) = (|other| judged(vec![fault(1.0, 19.0), other], None), (None, None));
        assert_eq!(late(fault(5.0, 12.0)), early, "ended at 10 s");
        assert!(late(fault(3.0, 12.0)).0.is_some_and(|words| words.starts_with("G6: 11.0 s after")));
        assert!(late(fault(30.0, 31.0)).0.is_some(), "began later");
        let endless = FaultRecord { ended_at_s: None, ..fault(5.0, 12.0) };
        assert_eq!(late(endless), (None, Some("another fault was in force meanwhile".to_owned())));
    }

    #[test]
    fn what_is_not_promised_is_not_judged() {
        let reason = |change: fn(&mut FaultRecord)| {
            let mut record = fault(1.0, 30.0);
            change(&mut record);
            judged(vec![record], None)
        };
        let not_judged = |reason: &str| (None, Some(reason.to_owned()));
        assert_eq!(reason(|fault| fault.ended_at_s = None), not_judged("it had not ended when the load did"));
        let given_up = |fault: &mut FaultRecord| (fault.recovered_at_s, fault.unrecovered_at_s) = (None, Some(9.0));
        assert_eq!(reason(given_up), not_judged("the run ended first"));
        assert!(reason(|fault| fault.recovered_at_s = None).0.is_some(), "never, but long enough");
        assert_eq!(reason(|fault| fault.failure = Some("no effect".to_owned())), (None, None));
        let away = |fault: &mut FaultRecord| (fault.deaths, fault.ended_at_s) = (1, None);
        assert_eq!(reason(away), not_judged("no new process answered while the load lasted"));
        assert_eq!(judged(vec![fault(1.0, 30.0)], Some("excused")), not_judged("excused"));
        assert_eq!(judged(vec![fault(1.0, 7.0)], Some("excused")), (None, None), "in time");
    }

    #[test]
    fn more_data_may_take_longer() {
        for (keys, bytes, is_too_much) in [(100_000, 1000, false), (100_001, 0, true), (1000, 200_000, true)] {
            assert_eq!(too_much(keys, bytes).is_some(), is_too_much, "{keys} keys of {bytes} bytes");
        }
    }
}
