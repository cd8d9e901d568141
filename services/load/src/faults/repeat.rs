//! A fault that strikes several times: `times=3 apart=20s`.

use std::{fmt, time::Duration};

use super::{
    plan::{Complaint, CrashTurn, FaultEntry, PlannedFault, compact, time, times},
    words::Words,
};
use crate::NodeIndex;

/// How long the mesh must have been in sync before a fault strikes again: what its recovery is measured against.
pub(super) const STEADY_FOR: Duration = Duration::from_secs(5);

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// In all.
    pub times: u32,
    /// From the beginning of one to that of the next, at least.
    pub apart: Duration,
}

impl Repeat {
    pub(super) fn parse(words: &mut Words<'_>) -> Result<Option<Self>, Complaint> {
        let (count, apart) = (words.option("times"), words.option("apart"));
        let Some((times_at, count)) = count else {
            return match apart {
                Some(_) => Err(words.missing("times=TIMES, because apart= is there")),
                None => Ok(None),
            };
        };
        let (apart_at, apart) =
            apart.ok_or_else(|| words.missing("apart=TIME, from one time to the next, because times= is there"))?;
        let times = times(count).map_err(|expected| Complaint { at: times_at, expected })?;
        let apart = time(apart, Duration::MAX).map_err(|expected| Complaint { at: apart_at, expected })?;
        Ok(Some(Self { times, apart }))
    }

    /// From the first time to the last.
    pub(super) fn span(&self) -> Duration {
        self.apart.saturating_mul(self.times - 1)
    }
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "times={} apart={}", self.times, compact(self.apart))
    }
}

impl FaultEntry {
    /// Each time that it strikes, in a row.
    pub(super) fn all_times(&self, nodes: &[NodeIndex]) -> Vec<PlannedFault> {
        let Some(Repeat { times, apart }) = self.repeat else {
            return vec![PlannedFault { entry: self.clone(), nodes: nodes.to_vec(), turn: None }];
        };
        let time = |number: u32| PlannedFault {
            entry: Self { at: self.at + apart * number, repeat: None, ..self.clone() },
            nodes: nodes.to_vec(),
            turn: Some(CrashTurn { every: apart, steady: STEADY_FOR, is_first: number == 0, is_last: false }),
        };
        (0..times).map(time).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::FaultPlan;

    fn resolved(text: &str) -> Result<Vec<PlannedFault>, String> {
        let plan: FaultPlan = text.parse()?;
        assert_eq!(plan.to_string().parse(), Ok(plan.clone()), "{plan}");
        plan.resolve(&["a", "b"].map(str::to_owned), Duration::from_secs(60), |name| {
            ["a", "b"].iter().position(|known| *known == name)
        })
    }

    #[test]
    fn a_repeated_fault_strikes_in_a_row() {
        let faults = resolved("at=1s pause b for=1s; at=5s crash a times=3 apart=20s").unwrap();
        let times: Vec<_> = faults.iter().map(|fault| fault.entry.at.as_secs()).collect();
        assert_eq!(times, [1, 5, 25, 45]);
        assert!(faults.iter().skip(1).all(|fault| fault.entry.to_string() == "crash a"));
        let turns: Vec<_> = faults.iter().map(|fault| fault.turn.map(|turn| (turn.is_first, turn.is_last))).collect();
        assert_eq!(turns, [None, Some((true, false)), Some((false, false)), Some((false, false))]);
    }

    #[test]
    fn a_bad_repetition_is_explained() {
        for (text, expected) in [
            ("at=5s crash a times=3", "expected apart=TIME, from one time to the next"),
            ("at=5s crash a apart=3s", "expected times=TIMES, because apart= is there"),
            ("at=5s crash a times=0 apart=3s", "expected a whole number from 1 to 1000"),
            ("at=5s crash a times=3 apart=soon", "expected a time of at least 1ms"),
            ("at=5s crash a times=3 apart=30s", "expected it to be over before DURATION=1m is"),
            ("at=5s crash a times=900 apart=1ms; at=9s crash b times=900 apart=1ms", "expected at most 1000 faults"),
        ] {
            let message = resolved(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
