//! `--fail-on`: a change that must not be, such as `get.p99 > +10%`.

use std::{fmt, str::FromStr};

use super::{Change, PERCENTILES};
use crate::Op;

/// A change of one figure beyond a bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub(crate) figure: String,
    is_above: bool,
    percent: f64,
}

impl Condition {
    /// Whether the change is beyond the bound, and more than chance.
    pub(crate) fn holds(&self, change: &Change) -> bool {
        let is_beyond = if self.is_above { change.percent > self.percent } else { change.percent < self.percent };
        is_beyond && change.is_significant
    }

    /// Those that hold, each with the change; an error if there is no such figure.
    pub(super) fn that_hold(conditions: &[Self], changes: &[Change]) -> Result<Vec<String>, String> {
        let mut holding = Vec::new();
        for condition in conditions {
            let change = changes.iter().find(|change| change.figure == condition.figure);
            let change =
                change.ok_or_else(|| format!("--fail-on '{condition}': too few operations in these runs for it"))?;
            if condition.holds(change) {
                holding.push(format!("{condition}: {:+.1} %", change.percent));
            }
        }
        Ok(holding)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let at = text.find(['<', '>'])?;
            let (figure, is_above) = (text[..at].trim().to_lowercase(), &text[at..=at] == ">");
            let percent =
                text[at + 1..].trim().strip_suffix('%')?.trim_end().parse().ok().filter(|x: &f64| x.is_finite())?;
            let is_percentile = figure.split_once('.').is_some_and(|(op, percentile)| {
                let is_op = Op::ALL.iter().any(|known| known.name().eq_ignore_ascii_case(op));
                is_op && PERCENTILES.iter().any(|(name, _)| *name == percentile)
            });
            (figure == "throughput" || is_percentile).then_some(Self { figure, is_above, percent })
        };
        let forms = "get.p99 > +10% (get, set or del; p50, p95, p99 or p99.9) or throughput < -5%";
        parsed().ok_or_else(|| format!("expected a condition such as {forms}"))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:+}%", self.figure, if self.is_above { '>' } else { '<' }, self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_have_one_form() {
        let parse = Condition::from_str;
        for (text, words) in [
            ("get.p99 > +10%", "get.p99 > +10%"),
            (" SET.p99.9>5 %", "set.p99.9 > +5%"),
            ("throughput < -5%", "throughput < -5%"),
        ] {
            assert_eq!(parse(text).map(|condition| condition.to_string()).as_deref(), Ok(words));
        }
        for bad in [
            "",
            "get.p99",
            "get.p98 > 1%",
            "put.p99 > 1%",
            "get.p99 > 10",
            "cpu > 1%",
            "throughput < x%",
            "get > 1%",
            "get.p99 > nan%",
        ] {
            assert!(parse(bad).is_err_and(|error| error.starts_with("expected a condition such as get.p99")), "{bad}");
        }
    }

    #[test]
    fn a_condition_holds_only_if_the_change_is_more_than_chance() {
        let change = |percent, is_significant| Change {
            is_significant,
            ..Change::new("throughput", "", 100.0, 100.0 + percent)
        };
        let holds =
            |text: &str, change: &Change| Condition::from_str(text).is_ok_and(|condition| condition.holds(change));
        assert!(holds("throughput < -5%", &change(-6.0, true)) && !holds("throughput < -5%", &change(-6.0, false)));
        assert!(!holds("throughput < -5%", &change(-4.0, true)) && !holds("throughput > +5%", &change(-6.0, true)));
        assert!(holds("throughput > +5%", &change(6.0, true)));
    }
}
