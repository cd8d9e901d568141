//! What the checker found: a judgement per operation, counts by kind, and a few examples that say everything needed to look
//! into one.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::stats::LatencyHistogram;

/// What is wrong with an answer, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing.
    Sound,
    /// An older value than one that was acknowledged this long before the read began; allowed at consistency `one`.
    Stale(Duration),
    /// A valid value of this key from another run.
    Foreign {
        /// It is newer than a write of this run that had been acknowledged.
        overwrites: bool,
    },
    /// The guarantee does not hold.
    Broken(Violation),
}

impl Judgement {
    /// Whether the guarantee does not hold.
    #[must_use]
    pub const fn is_broken(self) -> bool {
        matches!(self, Self::Broken(_))
    }
}

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// G1: a valid value of another key.
    WrongObject,
    /// G1: no valid value, or one under a version that belongs to another write.
    Corrupt,
    /// G1: a valid value of this key that its writer never sent.
    Unwritten,
    /// G2: a miss, though a value had been acknowledged and nothing explains that it is gone.
    Missing,
    /// G2: after the run, a quorum has neither an acknowledged write nor anything newer.
    Lost,
    /// G3: a write was acknowledged with a version that is not above one that was acknowledged before it began.
    OutOfOrder,
    /// G4: a `quorum` read returned an older value than one acknowledged before it began.
    StaleQuorum,
    /// G4: a `session` read returned an older value than its session had read or written.
    SessionBroken,
    /// G5: a value came back that had been deleted, refused or overwritten.
    Resurrected,
    /// G5: a value was read after it must have expired.
    Outlived,
    /// G1: a value was read under a higher version than its write ever had.
    VersionChanged,
}

impl Violation {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::WrongObject,
        Self::Corrupt,
        Self::Unwritten,
        Self::Missing,
        Self::Lost,
        Self::OutOfOrder,
        Self::StaleQuorum,
        Self::SessionBroken,
        Self::Resurrected,
        Self::Outlived,
        Self::VersionChanged,
    ];

    /// Its name in results and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WrongObject => "wrong_object",
            Self::Corrupt => "corrupt",
            Self::Unwritten => "unwritten",
            Self::Missing => "missing",
            Self::Lost => "lost",
            Self::OutOfOrder => "out_of_order",
            Self::StaleQuorum => "stale_quorum",
            Self::SessionBroken => "session_broken",
            Self::Resurrected => "resurrected",
            Self::Outlived => "outlived",
            Self::VersionChanged => "version_changed",
        }
    }

    /// What so many operations did, in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::WrongObject => "reads returned another key's value",
            Self::Corrupt => "reads returned a corrupt value",
            Self::Unwritten => "reads returned a value that nobody wrote",
            Self::Missing => "reads missed a key with an acknowledged write",
            Self::Lost => "acknowledged writes were lost",
            Self::OutOfOrder => "writes were acknowledged with too low a version",
            Self::StaleQuorum => "quorum reads were older than a write acknowledged before they began",
            Self::SessionBroken => "session reads were older than what their session had seen",
            Self::Resurrected => "reads returned a value that had been deleted, refused or overwritten",
            Self::Outlived => "reads returned a value after it had expired",
            Self::VersionChanged => "reads returned a value under a version that its write never had",
        }
    }

    /// Whether it is a value that must never be returned.
    #[must_use]
    pub const fn is_wrong_value(self) -> bool {
        matches!(self, Self::WrongObject | Self::Corrupt | Self::Unwritten)
    }

    /// Whether it may be the loss of an acknowledged write or deletion.
    #[must_use]
    pub const fn may_be_a_loss(self) -> bool {
        matches!(self, Self::SessionBroken | Self::Resurrected) || self.may_be_an_eviction()
    }

    /// Whether something that the guarantee allows may be the reason.
    #[must_use]
    pub const fn may_be_explained(self) -> bool {
        matches!(self, Self::OutOfOrder) || self.may_be_a_loss()
    }

    /// Whether an evicted key may be the reason: what is gone cannot be found, and an older copy may be all that is left.
    #[must_use]
    pub const fn may_be_an_eviction(self) -> bool {
        matches!(self, Self::Missing | Self::Lost | Self::StaleQuorum)
    }
}

/// One violation, with all that is needed to look into it.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// What is wrong, as [`Violation::name`] says.
    pub kind: Cow<'static, str>,
    /// The operation, such as `GET quorum`.
    pub op: String,
    /// The key.
    pub key: String,
    /// The node that was asked.
    pub entry: String,
    /// The node that answered, as it names itself.
    pub served_by: Option<String>,
    /// The version of the answer.
    pub version: Option<String>,
    /// The newest version that had been acknowledged when the operation began.
    pub acknowledged: Option<String>,
    /// The writer and number of that write.
    pub acknowledged_by: Option<String>,
    /// How long before the operation began that was, in seconds.
    pub acknowledged_before_s: Option<f64>,
    /// The highest version that the session had met, if that is what counts.
    pub session: Option<String>,
    /// The writer and number of the value that was read.
    pub read: Option<String>,
    /// When it should have begun, in seconds after the load began.
    pub intended_s: f64,
    /// When it began.
    pub began_s: f64,
    /// When it ended.
    pub ended_s: f64,
    /// Its trace.
    pub trace: Option<String>,
}

impl Finding {
    /// Everything in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { kind, op, key, entry, began_s, ended_s, .. } = self;
        let mut line = format!("{kind}: {began_s:.3}s to {ended_s:.3}s {op} {key} via {entry}");
        // Writing to a string cannot fail.
        for (name, text) in [
            ("served by", &self.served_by),
            ("version", &self.version),
            ("value", &self.read),
            ("acknowledged", &self.acknowledged),
            ("by", &self.acknowledged_by),
            ("session", &self.session),
            ("trace", &self.trace),
        ] {
            let _ = text.as_ref().map_or(Ok(()), |text| write!(line, ", {name} {text}"));
        }
        if let Some(before_s) = self.acknowledged_before_s {
            let _ = write!(line, " {before_s:.3}s before");
        }
        line
    }
}

/// How many examples of each kind are kept.
const EXAMPLES_MAX: usize = 3;

/// What all judgements of a thread, or of all threads, add up to.
#[derive(BorshDeserialize, BorshSerialize, Clone, Debug, Default)]
pub struct Integrity {
    counts: [u64; Violation::ALL.len()],
    /// What turned out to have an explanation, and is no longer among `counts`.
    explained: [u64; Violation::ALL.len()],
    /// Values older than one acknowledged before the read began, where that is allowed.
    pub stale: u64,
    /// How old these were.
    pub stale_age: LatencyHistogram,
    /// Values of another run.
    pub foreign: u64,
    /// Those of them that were newer than a write of this run: another client writes these keys meanwhile.
    pub overwritten: u64,
    /// The first few of each kind.
    pub examples: Vec<Finding>,
}

impl Integrity {
    /// Counts one judgement; `describe` is asked for the circumstances if it is a violation and an example is wanted.
    pub fn count(&mut self, judgement: Judgement, describe: impl FnOnce(Violation) -> Finding) {
        match judgement {
            Judgement::Sound => {}
            Judgement::Foreign { overwrites } => {
                self.foreign += 1;
                self.overwritten += u64::from(overwrites);
            }
            Judgement::Stale(age) => {
                self.stale += 1;
                self.stale_age.record(age);
            }
            Judgement::Broken(violation) => {
                let count = &mut self.counts[violation as usize];
                *count += 1;
                if *count <= EXAMPLES_MAX as u64 {
                    self.examples.push(describe(violation));
                }
            }
        }
    }

    /// How many of a kind, without those that are explained.
    #[must_use]
    pub const fn of(&self, violation: Violation) -> u64 {
        self.counts[violation as usize]
    }

    /// How many of a kind are explained by something that the guarantee allows, such as an eviction.
    #[must_use]
    pub const fn explained(&self, violation: Violation) -> u64 {
        self.explained[violation as usize]
    }

    /// At most so many of a kind are explained.
    pub(crate) fn explain(&mut self, violation: Violation, at_most: u64) {
        let (count, explained) = (&mut self.counts[violation as usize], &mut self.explained[violation as usize]);
        let moved = at_most.min(*count);
        *count -= moved;
        *explained += moved;
    }

    /// Violations of whatever kind.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Values that must never be returned, of whatever kind.
    #[must_use]
    pub fn wrong_values(&self) -> u64 {
        let wrong = Violation::ALL.into_iter().filter(|violation| violation.is_wrong_value());
        wrong.map(|violation| self.of(violation)).sum()
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.explained.iter_mut().zip(other.explained).for_each(|(mine, theirs)| *mine += theirs);
        self.stale += other.stale;
        self.stale_age.merge(&other.stale_age);
        self.foreign += other.foreign;
        self.overwritten += other.overwritten;
        for example in &other.examples {
            if self.examples.iter().filter(|mine| mine.kind == example.kind).count() < EXAMPLES_MAX {
                self.examples.push(example.clone());
            }
        }
    }
}

/// A map: every kind and its count, those that are explained apart, then the rest.
impl Serialize for Integrity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for violation in Violation::ALL {
            map.serialize_entry(violation.name(), &self.of(violation))?;
        }
        let explained = Violation::ALL.into_iter().filter(|violation| violation.may_be_explained());
        let explained: BTreeMap<_, _> = explained.map(|kind| (kind.name(), self.explained(kind))).collect();
        map.serialize_entry("explained", &explained)?;
        map.serialize_entry("stale", &self.stale)?;
        map.serialize_entry("foreign", &self.foreign)?;
        map.serialize_entry("overwritten", &self.overwritten)?;
        map.serialize_entry("examples", &self.examples)?;
        map.end()
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Integrity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Integrity".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let count = serde_json::json!({"type": "integer", "minimum": 0});
        let kinds: Vec<_> = Violation::ALL.into_iter().map(Violation::name).collect();
        let mut properties: serde_json::Map<_, _> =
            kinds.iter().map(|name| ((*name).to_owned(), count.clone())).collect();
        properties.extend(["stale", "foreign", "overwritten"].map(|name| (name.to_owned(), count.clone())));
        properties.insert("explained".to_owned(), serde_json::json!({"type": "object", "additionalProperties": count}));
        let examples = generator.subschema_for::<Vec<Finding>>();
        properties.insert("examples".to_owned(), examples.into());
        let required: Vec<_> = properties.keys().cloned().collect();
        schemars::json_schema!({"type": "object", "properties": properties, "required": required})
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn tallies_merge_and_keep_examples_of_every_kind() {
        let (mut one, mut two) = (Integrity::default(), Integrity::default());
        let broken = |violation: Violation| Finding { kind: violation.name().into(), ..Finding::default() };
        for _ in 0..9 {
            one.count(Judgement::Broken(Violation::Corrupt), broken);
            two.count(Judgement::Broken(Violation::Corrupt), broken);
        }
        two.count(Judgement::Broken(Violation::Resurrected), broken);
        two.count(Judgement::Stale(Duration::from_millis(5)), broken);
        two.count(Judgement::Foreign { overwrites: true }, broken);
        one.merge(&two);
        assert_eq!((one.of(Violation::Corrupt), one.of(Violation::Resurrected), one.violations()), (18, 1, 19));
        assert_eq!((one.stale, one.stale_age.count(), one.overwritten, one.wrong_values()), (1, 1, 1, 18));
        let kinds: Vec<_> = one.examples.iter().map(|example| &*example.kind).collect();
        assert_eq!(kinds, ["corrupt", "corrupt", "corrupt", "resurrected"]);
        let json = serde_json::to_value(&one).unwrap();
        assert_eq!((&json["resurrected"], &json["outlived"]), (&1.into(), &0.into()));
    }

    #[test]
    fn what_is_explained_counts_apart() {
        let mut found = Integrity::default();
        for _ in 0..5 {
            found.count(Judgement::Broken(Violation::Lost), |_| Finding::default());
        }
        found.explain(Violation::Lost, 3);
        assert_eq!((found.of(Violation::Lost), found.explained(Violation::Lost)), (2, 3));
        found.explain(Violation::Lost, 9);
        found.explain(Violation::Missing, 9);
        assert_eq!((found.of(Violation::Lost), found.explained(Violation::Lost)), (0, 5), "no more than there are");
        assert_eq!((found.violations(), found.explained(Violation::Missing)), (0, 0));
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!((&json["lost"], &json["explained"]["lost"]), (&0.into(), &5.into()));
    }

    #[test]
    fn every_kind_has_a_place_and_a_name_of_its_own() {
        for (place, violation) in Violation::ALL.into_iter().enumerate() {
            assert_eq!(violation as usize, place);
            assert_eq!(Violation::ALL.iter().filter(|other| other.name() == violation.name()).count(), 1);
        }
    }

    #[test]
    fn a_finding_says_everything_in_one_line() {
        let finding = Finding {
            kind: Violation::StaleQuorum.name().into(),
            op: "GET quorum".to_owned(),
            key: "key-00000001".to_owned(),
            entry: "http://node1:8081".to_owned(),
            served_by: Some("02".to_owned()),
            version: Some("05".to_owned()),
            acknowledged: Some("07".to_owned()),
            acknowledged_before_s: Some(0.25),
            began_s: 1.0,
            ended_s: 1.5,
            trace: Some("abcd".to_owned()),
            ..Finding::default()
        };
        assert_eq!(
            finding.line(),
            "stale_quorum: 1.000s to 1.500s GET quorum key-00000001 via http://node1:8081, served by 02, version 05, \
             acknowledged 07, trace abcd 0.250s before"
        );
    }
}
