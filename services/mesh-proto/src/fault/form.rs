//! Faults as people and programs order them, in JSON, and the bounds that each number must keep.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{CLOCK_OFFSET_MAX, Direction, FAULT_DELAY_MAX, FAULT_RULES_MAX, FAULT_TIME_MAX, LinkFault};

/// The shortest period of a fault that comes and goes.
const FLAP_MIN: Duration = Duration::from_millis(10);

/// An order as it is written: all of it begins now and ends after `for_ms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultForm {
    /// How long the faults last, in milliseconds.
    pub for_ms: u64,
    /// Faults of the network.
    #[serde(default)]
    pub links: Vec<LinkForm>,
    /// How much later everything that the node sends leaves it, to peers and clients, in milliseconds.
    #[serde(default)]
    pub slow_ms: u64,
    /// How far off the node's wall clock is, in milliseconds.
    #[serde(default)]
    pub clock_offset_ms: i64,
}

/// A fault between the node and one peer, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkForm {
    /// The peer's name, id or address; `*` is everybody.
    pub peer: String,
    /// Seen from the node that is told.
    #[serde(default)]
    pub direction: Direction,
    /// Nothing gets through.
    #[serde(default)]
    pub cut: bool,
    /// The share of packets that are lost, 0 to 1.
    #[serde(default)]
    pub loss: f64,
    /// The share of packets that arrive twice, 0 to 1.
    #[serde(default)]
    pub duplicate: f64,
    /// Added to every packet's way, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// Up to this much more, at random, so that packets overtake each other.
    #[serde(default)]
    pub jitter_ms: u64,
    /// The period of a fault that comes and goes, in milliseconds; 0 stays.
    #[serde(default)]
    pub flap_ms: u64,
}

/// An order whose numbers are within their bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultOrder {
    /// How long it lasts.
    pub time: Duration,
    /// Faults of the network.
    pub links: Vec<LinkOrder>,
    /// How much later everything leaves the node.
    pub slow: Duration,
    /// How far off its clock is.
    pub clock_offset_ms: i64,
}

/// A fault between the node and one peer, within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkOrder {
    /// The peer as it was written; nobody has looked whether there is one of that name.
    pub peer: String,
    /// Which way.
    pub direction: Direction,
    /// What happens.
    pub fault: LinkFault,
    /// Whether it comes and goes.
    pub flap: Option<Duration>,
}

/// A number is out of its bounds, or nothing was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultFormError {
    /// A number of the whole order.
    #[error("`{field}` must be a whole number of milliseconds from {min} to {max}")]
    OutOfBounds {
        /// Which.
        field: &'static str,
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A share of a link.
    #[error("`{field}` must be a number from 0 to 1")]
    Share {
        /// Which.
        field: &'static str,
    },
    /// There is no fault in the order.
    #[error("no fault: say what happens in `links`, `slow_ms` or `clock_offset_ms`")]
    Empty,
    /// A link has a peer and no fault.
    #[error("the link to `{peer}` has no fault: say cut, loss, duplicate, delay_ms or jitter_ms")]
    EmptyLink {
        /// The peer as it was written.
        peer: String,
    },
    /// More links than there may be rules.
    #[error("`links` must have at most {FAULT_RULES_MAX} entries")]
    TooManyLinks,
}

impl fmt::Display for LinkOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LinkFault { delay, jitter, loss, duplicate, cut } = self.fault;
        let percent = |share: f64| (share * 1000.0).round() / 10.0;
        let parts = [
            cut.then(|| "cut".to_owned()),
            (loss > 0.0).then(|| format!("loss {} %", percent(loss))),
            (duplicate > 0.0).then(|| format!("duplicate {} %", percent(duplicate))),
            (!delay.is_zero()).then(|| format!("delay {delay:?}")),
            (!jitter.is_zero()).then(|| format!("jitter {jitter:?}")),
            self.flap.map(|period| format!("flapping every {period:?}")),
        ];
        let way = match self.direction {
            Direction::In => "inwards",
            Direction::Out => "outwards",
            Direction::Both => "both ways",
        };
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        write!(f, "{} {way}: {}", parts.join(", "), self.peer)
    }
}

impl FaultForm {
    /// Checks every number.
    ///
    /// # Errors
    /// [`FaultFormError`], which names the first field that is out of bounds.
    pub fn check(self) -> Result<FaultOrder, FaultFormError> {
        let time = millis("for_ms", self.for_ms, 1, FAULT_TIME_MAX)?;
        let slow = millis("slow_ms", self.slow_ms, 0, FAULT_DELAY_MAX)?;
        let offset_max = whole(CLOCK_OFFSET_MAX);
        if !(-offset_max..=offset_max).contains(&self.clock_offset_ms) {
            return Err(FaultFormError::OutOfBounds { field: "clock_offset_ms", min: -offset_max, max: offset_max });
        }
        if self.links.len() > FAULT_RULES_MAX {
            return Err(FaultFormError::TooManyLinks);
        }
        let links = self.links.into_iter().map(LinkForm::check).collect::<Result<Vec<_>, _>>()?;
        if links.is_empty() && slow.is_zero() && self.clock_offset_ms == 0 {
            return Err(FaultFormError::Empty);
        }
        Ok(FaultOrder { time, links, slow, clock_offset_ms: self.clock_offset_ms })
    }
}

impl LinkForm {
    fn check(self) -> Result<LinkOrder, FaultFormError> {
        let fault = LinkFault {
            delay: millis("delay_ms", self.delay_ms, 0, FAULT_DELAY_MAX)?,
            jitter: millis("jitter_ms", self.jitter_ms, 0, FAULT_DELAY_MAX)?,
            loss: share("loss", self.loss)?,
            duplicate: share("duplicate", self.duplicate)?,
            cut: self.cut,
        };
        let flap = match self.flap_ms {
            0 => None,
            flap_ms => Some(millis("flap_ms", flap_ms, whole(FLAP_MIN), FAULT_TIME_MAX)?),
        };
        if fault.is_none() {
            return Err(FaultFormError::EmptyLink { peer: self.peer });
        }
        Ok(LinkOrder { peer: self.peer, direction: self.direction, fault, flap })
    }
}

fn millis(field: &'static str, value: u64, min: i64, max: Duration) -> Result<Duration, FaultFormError> {
    let max = whole(max);
    let within = i64::try_from(value).is_ok_and(|value| (min..=max).contains(&value));
    within.then(|| Duration::from_millis(value)).ok_or(FaultFormError::OutOfBounds { field, min, max })
}

fn share(field: &'static str, value: f64) -> Result<f64, FaultFormError> {
    // Not a number is in no range.
    (0.0..=1.0).contains(&value).then_some(value).ok_or(FaultFormError::Share { field })
}

fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn cut() -> LinkForm {
        LinkForm { peer: "b".to_owned(), cut: true, ..LinkForm::default() }
    }

    #[test]
    fn an_order_is_taken_at_its_bounds() {
        let day = 24 * 60 * 60 * 1000;
        for clock_offset_ms in [-day, day] {
            let form = FaultForm { for_ms: 600_000, links: vec![cut()], slow_ms: 10_000, clock_offset_ms };
            let order = form.check().unwrap();
            assert_eq!((order.time, order.slow), (Duration::from_secs(600), Duration::from_secs(10)));
            assert_eq!(order.clock_offset_ms, clock_offset_ms);
            assert_eq!(order.links[0].fault, LinkFault::CUT);
        }
        let link = LinkForm { cut: false, loss: 1.0, duplicate: 1.0, flap_ms: 10, ..cut() };
        let order = FaultForm { for_ms: 1, links: vec![link], ..FaultForm::default() }.check().unwrap();
        assert_eq!(order.links[0].flap, Some(Duration::from_millis(10)));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let link = |link| FaultForm { for_ms: 1, links: vec![link], ..FaultForm::default() };
        let whole =
            |for_ms, slow_ms, clock_offset_ms| FaultForm { for_ms, slow_ms, clock_offset_ms, ..FaultForm::default() };
        for (form, named) in [
            (whole(0, 1, 0), "`for_ms` must be a whole number of milliseconds from 1 to 600000"),
            (whole(600_001, 1, 0), "`for_ms`"),
            (whole(u64::MAX, 1, 0), "`for_ms`"),
            (whole(1, 10_001, 0), "`slow_ms`"),
            (whole(1, 0, 86_400_001), "`clock_offset_ms` must be a whole number of milliseconds from -86400000"),
            (whole(1, 0, i64::MIN), "`clock_offset_ms`"),
            (whole(1, 0, 0), "no fault"),
            (link(LinkForm { cut: false, ..cut() }), "the link to `b` has no fault"),
            (link(LinkForm { loss: 1.01, ..cut() }), "`loss` must be a number from 0 to 1"),
            (link(LinkForm { loss: f64::NAN, ..cut() }), "`loss`"),
            (link(LinkForm { duplicate: -0.1, ..cut() }), "`duplicate`"),
            (link(LinkForm { delay_ms: 10_001, ..cut() }), "`delay_ms`"),
            (link(LinkForm { jitter_ms: 10_001, ..cut() }), "`jitter_ms`"),
            (link(LinkForm { flap_ms: 9, ..cut() }), "`flap_ms` must be a whole number of milliseconds from 10"),
            (FaultForm { for_ms: 1, links: vec![cut(); FAULT_RULES_MAX + 1], ..FaultForm::default() }, "`links`"),
        ] {
            let error = form.clone().check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{form:?}: {error:?} should start with {named:?}");
        }
    }
}
