//! OBJECTIVES: what a run is to reach, such as `get.p99<5ms; errors<0.1%`. Read before the run, judged after it by
//! `report::objectives`.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use settings::{meant, number, positive_duration};

use crate::{Op, Phase};

/// How many objectives one run may have.
const OBJECTIVES_MAX: usize = 100;

/// Beyond a percentile there must be at least this many operations, or it is not judged.
pub(crate) const BEYOND_MIN: u64 = 10;

const PHASES: [(&str, Phase); 4] =
    [("warm", Phase::Warm), ("steady", Phase::Steady), ("in_fault", Phase::InFault), ("recovered", Phase::Recovered)];
const OPS: [(&str, Op); 3] = [("get", Op::Get), ("set", Op::Set), ("delete", Op::Delete)];
const MEASURES: [(&str, Measure); 8] = [
    ("p50", Measure::Percentile(50.0)),
    ("p95", Measure::Percentile(95.0)),
    ("p99", Measure::Percentile(99.0)),
    ("p99.9", Measure::Percentile(99.9)),
    ("max", Measure::Percentile(100.0)),
    ("errors", Measure::Errors),
    ("throughput", Measure::Throughput),
    ("recovery", Measure::Recovery),
];

/// All objectives of a run, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objectives(Vec<Objective>);

/// One objective: `steady.get.p99<5ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// As it is written, without spaces.
    text: String,
    /// Only this part of the run.
    pub(crate) phase: Option<Phase>,
    /// Only these operations.
    pub(crate) op: Option<Op>,
    /// What is measured.
    pub(crate) measure: Measure,
    /// The limit itself is allowed.
    or_equal: bool,
    /// In the measure's unit.
    pub(crate) limit: f64,
}

/// What an objective is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// The response time that so many percent of the operations do not exceed, in milliseconds.
    Percentile(f64),
    /// The operations that failed or have an unknown outcome, in percent.
    Errors,
    /// Operations per second.
    Throughput,
    /// The time from the end of a fault until all replicas were in sync, in seconds.
    Recovery,
}

impl Measure {
    /// What its limit is given in.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Percentile(_) => "ms",
            Self::Errors => "%",
            Self::Throughput => "ops/s",
            Self::Recovery => "s",
        }
    }
}

impl Objectives {
    /// One by one.
    #[must_use]
    pub fn as_slice(&self) -> &[Objective] {
        &self.0
    }
}

impl Objective {
    /// Whether this value, in the measure's unit, meets it.
    pub(crate) fn is_met_by(&self, value: f64) -> bool {
        let (low, high) = if self.measure == Measure::Throughput { (self.limit, value) } else { (value, self.limit) };
        low < high || (self.or_equal && low <= high)
    }

    /// Whether it is about the share of all operations of the run that failed, as ERRORS_MAX_PERCENT is.
    pub(crate) fn is_about_all_errors(&self) -> bool {
        self.measure == Measure::Errors && self.op.is_none() && self.phase.is_none()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let example = || "expected a name and a limit, such as get.p99<5ms".to_owned();
        let at = text.find(['<', '>']).ok_or_else(example)?;
        let (name, limit) = text.split_at(at);
        let (sign, limit) = limit.split_at(1);
        let (or_equal, limit) = limit.strip_prefix('=').map_or((false, limit), |rest| (true, rest));
        let name = name.trim().to_ascii_lowercase();
        let (phase, op, measure) = subject(&name)?;
        let expected = if measure == Measure::Throughput { ">" } else { "<" };
        if sign != expected {
            return Err(format!("expected {name}{expected}LIMIT"));
        }
        let limit = read_limit(measure, limit.trim())?;
        let text = text.split_whitespace().collect();
        Ok(Self { text, phase, op, measure, or_equal, limit })
    }
}

impl FromStr for Objectives {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split([';', ',']).map(str::trim).filter(|entry| !entry.is_empty()).enumerate();
        let parse = |(index, entry): (usize, &str)| {
            Objective::parse(entry).map_err(|expected| format!("entry {}, `{entry}`: {expected}", index + 1))
        };
        let objectives = entries.map(parse).collect::<Result<Vec<_>, _>>()?;
        if objectives.len() > OBJECTIVES_MAX {
            return Err(format!("expected at most {OBJECTIVES_MAX} objectives, not {}", objectives.len()));
        }
        Ok(Self(objectives))
    }
}

impl Display for Objectives {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|objective| objective.text.as_str()).collect();
        f.write_str(&texts.join("; "))
    }
}

impl Display for Objective {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The parts of a name such as `steady.get.p99.9`.
fn subject(name: &str) -> Result<(Option<Phase>, Option<Op>, Measure), String> {
    let mut rest = name;
    let phase = take(&mut rest, &PHASES);
    let op = take(&mut rest, &OPS);
    let known = |names: &[&str]| names.join(", ");
    let Some(measure) = find(rest, &MEASURES) else {
        let word = rest.split('.').next().unwrap_or(rest);
        let phases = PHASES.iter().map(|(name, _)| *name).filter(|_| phase.is_none() && op.is_none());
        let ops = OPS.iter().map(|(name, _)| *name).filter(|_| op.is_none());
        let names: Vec<_> = phases.chain(ops).chain(MEASURES.iter().map(|(name, _)| *name)).collect();
        // Every percentile is near to every other.
        let near = meant(word, names.iter().copied()).filter(|near| !near.starts_with('p') && *near != word);
        return Err(match near {
            Some(near) => format!("`{word}` is not known; did you mean {near}?"),
            None if rest.contains('.') => format!("expected one of {} in place of `{word}`", known(&names)),
            None => format!("expected one of {} in place of `{rest}`", known(&MEASURES.map(|(name, _)| name))),
        });
    };
    match measure {
        Measure::Percentile(_) if op.is_none() => {
            Err(format!("expected an operation before {rest}: get.{rest}, set.{rest} or delete.{rest}"))
        }
        Measure::Throughput | Measure::Recovery if rest != name => Err(format!("expected {rest} of the whole run")),
        measure => Ok((phase, op, measure)),
    }
}

/// Takes the first word and its dot, if it is one of these names.
fn take<T: Copy>(rest: &mut &str, names: &[(&str, T)]) -> Option<T> {
    let (word, others) = rest.split_once('.')?;
    let found = find(word, names)?;
    *rest = others;
    Some(found)
}

fn find<T: Copy>(word: &str, names: &[(&str, T)]) -> Option<T> {
    names.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

fn read_limit(measure: Measure, text: &str) -> Result<f64, String> {
    match measure {
        Measure::Percentile(_) => positive_duration(text).map(|limit| limit.as_secs_f64() * 1e3),
        Measure::Recovery => positive_duration(text).map(|limit| limit.as_secs_f64()),
        Measure::Errors => {
            let percent = text.strip_suffix('%').map(str::trim_end).unwrap_or_default();
            number(0.0, 100.0)(percent).map_err(|_| "expected percent from 0% to 100%, such as 0.1%".to_owned())
        }
        Measure::Throughput => {
            let rate = text.strip_suffix("ops/s").map_or(text, str::trim_end);
            number(0.0, 1e12)(rate).map_err(|_| "expected operations per second, such as 10000".to_owned())
        }
    }
    .map_err(|expected| format!("limit `{text}`: {expected}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Objectives, String> {
        text.parse()
    }

    #[test]
    fn every_form_is_read() {
        let text = "get.p99<5ms; set.p99.9 < 50ms, errors<0.1%; Throughput>10000; recovery<10s; in_fault.delete.max<=2s; \
                    steady.set.errors<=0%;";
        let read = parse(text).unwrap();
        let parts: Vec<_> = read.0.iter().map(|one| (one.phase, one.op, one.measure, one.limit)).collect();
        let (get, set, delete) = (Some(Op::Get), Some(Op::Set), Some(Op::Delete));
        let expected = [
            (None, get, Measure::Percentile(99.0), 5.0),
            (None, set, Measure::Percentile(99.9), 50.0),
            (None, None, Measure::Errors, 0.1),
            (None, None, Measure::Throughput, 10_000.0),
            (None, None, Measure::Recovery, 10.0),
            (Some(Phase::InFault), delete, Measure::Percentile(100.0), 2000.0),
            (Some(Phase::Steady), set, Measure::Errors, 0.0),
        ];
        assert_eq!(parts, expected);
        assert_eq!(parse(&read.to_string()), Ok(read), "it reads what it writes");
        assert_eq!(parse(" "), Ok(Objectives::default()));
    }

    #[test]
    fn a_mistake_names_its_entry_and_what_was_expected() {
        for (text, complaint) in [
            ("get.p99", "entry 1, `get.p99`: expected a name and a limit, such as get.p99<5ms"),
            ("get.p99<5ms;gte.p99<5ms", "entry 2, `gte.p99<5ms`: `gte` is not known; did you mean get?"),
            ("erors<1%", "entry 1, `erors<1%`: `erors` is not known; did you mean errors?"),
            ("troughput>1", "entry 1, `troughput>1`: `troughput` is not known; did you mean throughput?"),
            ("stedy.get.p99<5ms", "entry 1, `stedy.get.p99<5ms`: `stedy` is not known; did you mean steady?"),
            ("steady.gt.p99<5ms", "entry 1, `steady.gt.p99<5ms`: `gt` is not known; did you mean get?"),
            (
                "get.p98<5ms",
                "entry 1, `get.p98<5ms`: expected one of p50, p95, p99, p99.9, max, errors, throughput, recovery in place of \
                 `p98`",
            ),
            ("p99<5ms", "entry 1, `p99<5ms`: expected an operation before p99: get.p99, set.p99 or delete.p99"),
            ("get.throughput>5", "entry 1, `get.throughput>5`: expected throughput of the whole run"),
            ("get.p99>5ms", "entry 1, `get.p99>5ms`: expected get.p99<LIMIT"),
            ("throughput<5", "entry 1, `throughput<5`: expected throughput>LIMIT"),
            ("errors<1", "entry 1, `errors<1`: limit `1`: expected percent from 0% to 100%, such as 0.1%"),
            ("throughput>x", "entry 1, `throughput>x`: limit `x`: expected operations per second, such as 10000"),
        ] {
            assert_eq!(parse(text), Err(complaint.to_owned()));
        }
        let message = parse("get.p99<5").unwrap_err();
        assert!(
            message.starts_with("entry 1, `get.p99<5`: limit `5`: expected a duration above zero, such as"),
            "{message}"
        );
        assert!(parse(&"errors<1%;".repeat(101)).unwrap_err().contains("at most 100 objectives"));
    }

    #[test]
    fn the_limit_itself_is_met_only_if_it_is_written() {
        let met = |text: &str, value| parse(text).unwrap().0[0].is_met_by(value);
        assert!(met("errors<1%", 0.9) && !met("errors<1%", 1.0) && met("errors<=1%", 1.0) && !met("errors<=1%", 1.1));
        assert!(met("throughput>5", 6.0) && !met("throughput>5", 5.0) && met("throughput>=5", 5.0));
    }
}
