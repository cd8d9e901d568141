//! What FAULTS says: which faults strike which nodes, when, and for how long. Only text and numbers: who is meant by a name,
//! and what is done to nodes, is decided elsewhere.

use std::{fmt, str::FromStr, time::Duration};

use settings::duration;

use super::{repeat::Repeat, words::Words};
use crate::NodeIndex;

/// How many faults one run may have.
const FAULTS_MAX: usize = 1000;

/// The nodes' own bounds: `FAULT_TIME_MAX`, `FAULT_DELAY_MAX`, `CLOCK_OFFSET_MAX` and the shortest flap of `mesh-proto`.
const TIME_MAX: Duration = Duration::from_secs(600);
const DELAY_MAX: Duration = Duration::from_secs(10);
const OFFSET_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const FLAP_MIN: Duration = Duration::from_millis(10);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Every fault, by its word: how it is written.
pub const FAULT_FORMS: [(&str, &str); 14] = [
    ("partition", "partition WHERE for=TIME"),
    ("one_way", "one_way NODE->NODE for=TIME"),
    ("bridge", "bridge NODE<->NODE for=TIME"),
    ("flap", "flap WHERE every=TIME for=TIME"),
    ("loss", "loss WHERE PERCENT% for=TIME"),
    ("delay", "delay WHERE TIME for=TIME"),
    ("reorder", "reorder WHERE TIME for=TIME"),
    ("duplicate", "duplicate WHERE PERCENT% for=TIME"),
    ("slow", "slow NODE TIME for=TIME"),
    ("clock", "clock NODE +TIME for=TIME"),
    ("pause", "pause NODE for=TIME"),
    ("crash", "crash NODE"),
    ("stop", "stop NODE"),
    ("storm", "storm NODE TIMES"),
];

/// All faults of a run, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultPlan(Vec<FaultEntry>);

/// One fault, as it is written: `at=10s partition node2 for=5s`.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultEntry {
    /// When it strikes, after the load began.
    pub at: Duration,
    /// What happens.
    pub kind: FaultKind,
    /// To whom.
    pub place: Place,
    /// How long it lasts; zero if it ends when the node is back.
    pub lasts: Duration,
    /// How often, if more than once.
    pub repeat: Option<Repeat>,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// Nothing gets through.
    Partition,
    /// Nothing gets through in the first half of each period.
    Flap {
        /// The period.
        every: Duration,
    },
    /// Packets are lost.
    Loss {
        /// How many of a hundred.
        percent: f64,
    },
    /// Packets are late.
    Delay {
        /// By how much.
        by: Duration,
    },
    /// Packets overtake each other.
    Reorder {
        /// They are late by up to this.
        by: Duration,
    },
    /// Packets arrive twice.
    Duplicate {
        /// How many of a hundred.
        percent: f64,
    },
    /// Everything that a node sends is late, to clients too.
    Slow {
        /// By how much.
        by: Duration,
    },
    /// The wall clock is off.
    Clock {
        /// How far, in milliseconds.
        offset_ms: i64,
    },
    /// The node is paused, as by SIGSTOP.
    Pause,
    /// The process ends at once, without a graceful shutdown.
    Crash,
    /// The process ends as on SIGTERM.
    Stop,
    /// The process dies, and dies again as soon as it answers.
    Storm {
        /// How often it dies.
        times: u32,
    },
}

/// To whom, by the names that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One node: all its traffic with peers, or the node itself.
    Node(String),
    /// What goes between these nodes and all others.
    Group(Vec<String>),
    /// What goes between two nodes, both ways or from the first to the second only.
    Link {
        /// One end.
        from: String,
        /// The other.
        to: String,
        /// Asymmetric: only from the first to the second.
        one_way: bool,
    },
}

/// A fault whose nodes are known.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedFault {
    /// As it is written.
    pub entry: FaultEntry,
    /// The nodes of its place, in the same order.
    pub nodes: Vec<NodeIndex>,
    /// One of several crashes in a row (KILL_COUNT), and not at a time of its own.
    pub turn: Option<CrashTurn>,
}

/// The place of a crash in a row of crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashTurn {
    /// It starts this long after the fault before it in the plan at the earliest, and once the mesh has recovered from that.
    pub every: Duration,
    /// So long after that recovery at the earliest.
    pub steady: Duration,
    /// There is none before it.
    pub is_first: bool,
    /// The load ends after it.
    pub is_last: bool,
}

/// What is wrong with an entry.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// Where in the entry, in bytes.
    pub(crate) at: usize,
    /// What was expected there.
    pub(crate) expected: String,
}

impl FaultPlan {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults as they were written.
    #[must_use]
    pub fn entries(&self) -> &[FaultEntry] {
        &self.0
    }

    /// Finds the nodes: `find` knows a target by a name that was written. All faults must have ended when the load does.
    ///
    /// # Errors
    /// One line: the setting, the entry and what was expected.
    pub fn resolve(
        &self,
        targets: &[String],
        load: Duration,
        find: impl Fn(&str) -> Option<usize>,
    ) -> Result<Vec<PlannedFault>, String> {
        let resolve = |(index, entry): (usize, &FaultEntry)| {
            let nodes = entry.nodes(targets, load, &find);
            let nodes = nodes.map_err(|expected| format!("FAULTS: entry {} `{entry}`: {expected}", index + 1))?;
            Ok(entry.all_times(&nodes))
        };
        let all: Result<Vec<_>, String> = self.0.iter().enumerate().map(resolve).collect();
        let all: Vec<_> = all?.into_iter().flatten().collect();
        if all.len() > FAULTS_MAX {
            return Err(format!("FAULTS: expected at most {FAULTS_MAX} faults, not {}", all.len()));
        }
        Ok(all)
    }
}

impl FromStr for FaultPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut entries = Vec::new();
        let mut begins = 0;
        for piece in text.split([';', ',']) {
            let entry = piece.trim();
            if !entry.is_empty() {
                let from = begins + (piece.len() - piece.trim_start().len());
                entries.push(FaultEntry::parse(entry).map_err(|Complaint { at, expected }| {
                    let character = text[..from + at].chars().count() + 1;
                    format!("entry {}, `{entry}`, at character {character}: {expected}", entries.len() + 1)
                })?);
            }
            begins += piece.len() + 1;
        }
        if entries.len() > FAULTS_MAX {
            return Err(format!("expected at most {FAULTS_MAX} faults, not {}", entries.len()));
        }
        Ok(Self(entries))
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.0.iter().enumerate() {
            write!(f, "{}at={} {entry}", if index == 0 { "" } else { "; " }, compact(entry.at))?;
            entry.repeat.iter().try_for_each(|repeat| write!(f, " {repeat}"))?;
        }
        Ok(())
    }
}

impl FaultEntry {
    /// Nothing more is to be expected of it once the load has ended.
    fn nodes(
        &self,
        targets: &[String],
        load: Duration,
        find: &impl Fn(&str) -> Option<usize>,
    ) -> Result<Vec<NodeIndex>, String> {
        let span = self.repeat.map_or(Duration::ZERO, |repeat| repeat.span());
        if self.at.saturating_add(span).saturating_add(self.lasts) >= load {
            return Err(format!("expected it to be over before DURATION={} is", compact(load)));
        }
        let mut nodes: Vec<NodeIndex> = Vec::new();
        for name in self.place.names() {
            let known = targets.join(", ");
            let found = find(name).filter(|node| *node < targets.len());
            let node = NodeIndex(found.ok_or_else(|| format!("expected `{name}` to be one of TARGETS: {known}"))?);
            if nodes.contains(&node) {
                return Err(format!("expected different nodes, and `{name}` is there twice"));
            }
            nodes.push(node);
        }
        if nodes.len() == targets.len() && matches!(self.place, Place::Group(_)) {
            return Err("expected a node outside the group".to_owned());
        }
        if targets.len() < 2 && !self.kind.concerns_one() {
            return Err("expected another node to keep apart".to_owned());
        }
        Ok(nodes)
    }

    fn parse(text: &str) -> Result<Self, Complaint> {
        let mut words = Words::of(text)?;
        let (at_word, at) = words.option("at").ok_or_else(|| words.missing("at=TIME, after the load began"))?;
        let at = time(at, Duration::MAX).map_err(|expected| Complaint { at: at_word, expected })?;
        let names: Vec<_> = FAULT_FORMS.iter().map(|(name, _)| *name).collect();
        let (verb_at, verb) = words.next().ok_or_else(|| words.missing("a fault"))?;
        let Some((_, form)) = FAULT_FORMS.iter().find(|(name, _)| *name == verb) else {
            return Err(Complaint { at: verb_at, expected: format!("expected a fault: {}", names.join(", ")) });
        };
        words.form(form);
        let (place_at, place) = words.read("a node", Place::parse)?;
        let kind = FaultKind::parse(verb, &mut words)?;
        if let Some(expected) = unsuited(verb, kind, &place) {
            return Err(words.complaint(place_at, expected));
        }
        let lasts = if kind.ends_by_itself() {
            let (lasts_at, lasts) = words.option("for").ok_or_else(|| words.missing("for=TIME"))?;
            time(lasts, TIME_MAX).map_err(|expected| Complaint { at: lasts_at, expected })?
        } else {
            Duration::ZERO
        };
        if let FaultKind::Flap { every } = kind
            && every > lasts
        {
            let (lasts, every) = (compact(lasts), compact(every));
            return Err(words.missing(&format!("every={every} to be no longer than for={lasts}")));
        }
        let repeat = Repeat::parse(&mut words)?;
        words.finish()?;
        Ok(Self { at, kind, place, lasts, repeat })
    }
}

/// What kind of place the fault needs, if it is not this one.
fn unsuited(verb: &str, kind: FaultKind, place: &Place) -> Option<&'static str> {
    match (verb, place) {
        ("one_way", Place::Link { one_way: true, .. }) | ("bridge", Place::Link { one_way: false, .. }) => None,
        ("one_way", _) => Some("one way from a node to another: NODE->NODE"),
        ("bridge", _) => Some("two nodes that are kept apart: NODE<->NODE"),
        (_, Place::Node(_)) => None,
        _ if kind.concerns_one() => Some("one node"),
        _ => None,
    }
}

impl FaultKind {
    /// Its label in metrics and dashboards.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Flap { .. } => "flap",
            Self::Loss { .. } => "loss",
            Self::Delay { .. } => "delay",
            Self::Reorder { .. } => "reorder",
            Self::Duplicate { .. } => "duplicate",
            Self::Slow { .. } => "slow",
            Self::Clock { .. } => "clock",
            Self::Pause => "pause",
            Self::Crash => "crash",
            Self::Stop => "stop",
            Self::Storm { .. } => "storm",
        }
    }

    /// Whether it is over after a while, and not only once the node is back.
    #[must_use]
    pub const fn ends_by_itself(self) -> bool {
        self.deaths() == 0
    }

    /// How often a process ends.
    pub(crate) const fn deaths(self) -> u32 {
        match self {
            Self::Crash | Self::Stop => 1,
            Self::Storm { times } => times,
            _ => 0,
        }
    }

    /// Whether it is about a node itself, and not about its links.
    const fn concerns_one(self) -> bool {
        matches!(self, Self::Slow { .. } | Self::Clock { .. } | Self::Pause) || !self.ends_by_itself()
    }

    fn parse(verb: &str, words: &mut Words<'_>) -> Result<Self, Complaint> {
        let by = |words: &mut Words<'_>| Ok(words.read("a time such as 50ms", |text| time(text, DELAY_MAX))?.1);
        let percent = |words: &mut Words<'_>| Ok(words.read("a share such as 20%", share)?.1);
        Ok(match verb {
            "flap" => {
                let (at, every) = words.option("every").ok_or_else(|| words.missing("every=TIME"))?;
                let every = time(every, TIME_MAX).and_then(|every| {
                    (every >= FLAP_MIN).then_some(every).ok_or_else(|| "expected at least 10ms".to_owned())
                });
                Self::Flap { every: every.map_err(|expected| Complaint { at, expected })? }
            }
            "loss" => Self::Loss { percent: percent(words)? },
            "delay" => Self::Delay { by: by(words)? },
            "reorder" => Self::Reorder { by: by(words)? },
            "duplicate" => Self::Duplicate { percent: percent(words)? },
            "slow" => Self::Slow { by: by(words)? },
            "clock" => Self::Clock { offset_ms: words.read("a time such as +400ms or -1h", offset_ms)?.1 },
            "pause" => Self::Pause,
            "crash" => Self::Crash,
            "stop" => Self::Stop,
            "storm" => Self::Storm { times: words.read("how often, such as 3", times)?.1 },
            // A partition, whatever shape its place gives it.
            _ => Self::Partition,
        })
    }
}

impl fmt::Display for FaultEntry {
    /// Without its time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.place)?;
        match self.kind {
            FaultKind::Loss { percent } | FaultKind::Duplicate { percent } => write!(f, " {percent}%")?,
            FaultKind::Delay { by } | FaultKind::Reorder { by } | FaultKind::Slow { by } => {
                write!(f, " {}", compact(by))?;
            }
            FaultKind::Clock { offset_ms } => {
                let sign = if offset_ms < 0 { '-' } else { '+' };
                write!(f, " {sign}{}", compact(Duration::from_millis(offset_ms.unsigned_abs())))?;
            }
            FaultKind::Storm { times } => write!(f, " {times}")?,
            FaultKind::Flap { every } => write!(f, " every={}", compact(every))?,
            FaultKind::Partition | FaultKind::Pause | FaultKind::Crash | FaultKind::Stop => {}
        }
        if self.kind.ends_by_itself() {
            write!(f, " for={}", compact(self.lasts))?;
        }
        Ok(())
    }
}

impl Place {
    /// Who stands there.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Node(name) => vec![name],
            Self::Group(names) => names.iter().map(String::as_str).collect(),
            Self::Link { from, to, .. } => vec![from, to],
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let name = |text: &str| {
            let valid = !text.is_empty() && !text.contains(['<', '>', '=', '+', '%']);
            valid.then(|| text.to_owned()).ok_or_else(|| {
                "expected a node, NODE+NODE for a group, NODE<->NODE for a link, or NODE->NODE for one way".to_owned()
            })
        };
        if let Some((from, to)) = text.split_once("<->") {
            return Ok(Self::Link { from: name(from)?, to: name(to)?, one_way: false });
        }
        if let Some((from, to)) = text.split_once("->") {
            return Ok(Self::Link { from: name(from)?, to: name(to)?, one_way: true });
        }
        if text.contains('+') {
            return Ok(Self::Group(text.split('+').map(name).collect::<Result<_, _>>()?));
        }
        name(text).map(Self::Node)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => f.write_str(name),
            Self::Group(names) => f.write_str(&names.join("+")),
            Self::Link { from, to, one_way: true } => write!(f, "{from}->{to}"),
            Self::Link { from, to, one_way: false } => write!(f, "{from}<->{to}"),
        }
    }
}

/// A duration in one word.
pub(crate) fn compact(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

/// Nodes count in milliseconds.
pub(super) fn time(text: &str, max: Duration) -> Result<Duration, String> {
    let whole = |time: &Duration| *time >= MILLISECOND && time.subsec_nanos().is_multiple_of(1_000_000) && *time <= max;
    duration(text).ok().filter(whole).ok_or_else(|| match max {
        Duration::MAX => "expected a time of at least 1ms, such as 10s or 1m30s".to_owned(),
        max => format!("expected a time from 1ms to {}, such as 50ms or 5s", compact(max)),
    })
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    let share = number.filter(|percent| *percent > 0.0 && *percent <= 100.0);
    share.ok_or_else(|| "expected a share above 0% and up to 100%, such as 20%".to_owned())
}

fn offset_ms(text: &str) -> Result<i64, String> {
    let (sign, rest) = match text.as_bytes().first() {
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        _ => (0, ""),
    };
    let millis = time(rest, OFFSET_MAX).ok().and_then(|time| i64::try_from(time.as_millis()).ok());
    let millis =
        millis.ok_or_else(|| "expected a time with its sign, up to a day, such as +400ms or -1h".to_owned())?;
    Ok(sign * millis)
}

pub(super) fn times(text: &str) -> Result<u32, String> {
    let times = text.parse().ok().filter(|times| (1..=1000).contains(times));
    times.ok_or_else(|| "expected a whole number from 1 to 1000".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const TARGETS: [&str; 3] = ["http://node1:8081", "http://node2:8082", "http://node3:8083"];

    fn parse(text: &str) -> Result<FaultPlan, String> {
        text.parse()
    }

    fn only(text: &str) -> FaultEntry {
        parse(text).unwrap().0.remove(0)
    }

    fn link(one_way: bool) -> Place {
        Place::Link { from: "a".to_owned(), to: "b-2".to_owned(), one_way }
    }

    #[test]
    fn each_fault_is_understood() {
        for (text, kind, place) in [
            ("partition a for=5s", FaultKind::Partition, Place::Node("a".to_owned())),
            ("partition a+b for=5s", FaultKind::Partition, Place::Group(vec!["a".to_owned(), "b".to_owned()])),
            ("one_way a->b-2 for=5s", FaultKind::Partition, link(true)),
            ("bridge a<->b-2 for=5s", FaultKind::Partition, link(false)),
            ("for=5s flap a<->b-2 every=1s", FaultKind::Flap { every: Duration::from_secs(1) }, link(false)),
            ("loss a->b-2 0.5% for=5s", FaultKind::Loss { percent: 0.5 }, link(true)),
            ("delay a<->b-2 50ms for=5s", FaultKind::Delay { by: Duration::from_millis(50) }, link(false)),
            ("reorder a->b-2 1s for=5s", FaultKind::Reorder { by: Duration::from_secs(1) }, link(true)),
            ("duplicate a<->b-2 100% for=5s", FaultKind::Duplicate { percent: 100.0 }, link(false)),
            (
                "slow http://a:1 50ms for=5s",
                FaultKind::Slow { by: Duration::from_millis(50) },
                Place::Node("http://a:1".to_owned()),
            ),
            ("clock a +1h for=5s", FaultKind::Clock { offset_ms: 3_600_000 }, Place::Node("a".to_owned())),
            ("clock a -400ms for=5s", FaultKind::Clock { offset_ms: -400 }, Place::Node("a".to_owned())),
            ("pause a for=5s", FaultKind::Pause, Place::Node("a".to_owned())),
        ] {
            let expected =
                FaultEntry { at: Duration::from_secs(90), kind, place, lasts: Duration::from_secs(5), repeat: None };
            assert_eq!(only(&format!("at=1m30s {text}")), expected, "{text}");
        }
        for (text, kind) in
            [("crash", FaultKind::Crash), ("stop", FaultKind::Stop), ("storm", FaultKind::Storm { times: 3 })]
        {
            let times = if text == "storm" { " 3" } else { "" };
            let entry = only(&format!("{text} a{times} at=1s"));
            assert_eq!((entry.kind, entry.lasts), (kind, Duration::ZERO));
        }
    }

    #[test]
    fn every_word_has_a_form_that_is_read() {
        for (name, form) in FAULT_FORMS {
            let text = form.replace("NODE->NODE", "a->b").replace("NODE<->NODE", "a<->b").replace("PERCENT", "5");
            let text = text.replace("NODE", "a").replace("WHERE", "a").replace("TIMES", "2").replace("TIME", "1s");
            let entry = only(&format!("at=1s {text}"));
            assert!(form.starts_with(name) && FAULT_FORMS.iter().any(|(name, _)| *name == entry.kind.name()), "{form}");
        }
    }

    #[test]
    fn lists_have_commas_or_semicolons_and_may_have_an_empty_end() {
        let plan = parse(" at=1s crash a ;at=2s stop b, at=3s pause c for=1s;").unwrap();
        assert_eq!(plan.to_string(), "at=1s crash a; at=2s stop b; at=3s pause c for=1s");
        assert!(parse("").unwrap().is_empty() && parse(" ; ,").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_entry_and_place() {
        for (text, character, expected) in [
            ("at=1s", 6, "expected a fault"),
            ("at=1s break b", 7, "expected a fault: partition, one_way, bridge, "),
            ("at=0s crash a", 4, "expected a time of at least 1ms, such as 10s"),
            ("at=soon crash a", 4, "expected a time"),
            ("at=1s at=2s crash a", 7, "expected at= once"),
            ("at=1s crash a by=3", 15, "expected at=, for=, every=, times= or apart="),
            ("at=1s partition a", 18, "expected for=TIME, as in `partition WHERE"),
            ("at=1s slow a for=5s", 20, "expected a time such as 50ms, as in"),
            ("at=1s slow a 11s for=5s", 14, "expected a time from 1ms to 10s"),
            ("at=1s slow a 1us for=5s", 14, "expected a time from 1ms"),
            ("at=1s slow a<->b 1s for=5s", 12, "expected one node"),
            ("at=1s pause a for=11m", 19, "expected a time from 1ms to 10m"),
            ("at=1s loss a 20 for=5s", 14, "expected a share above 0%"),
            ("at=1s loss a 101% for=5s", 14, "expected a share"),
            ("at=1s loss a nan% for=5s", 14, "expected a share"),
            ("at=1s clock a 5s for=5s", 15, "expected a time with its sign"),
            ("at=1s clock a +25h for=5s", 15, "expected a time with its"),
            ("at=1s one_way a<->b for=5s", 15, "expected one way from"),
            ("at=1s bridge a for=5s", 14, "expected two nodes"),
            ("at=1s loss a-> 5% for=5s", 12, "expected a node, NODE+NODE"),
            ("at=1s flap a for=5s", 20, "expected every=TIME, as in `flap"),
            ("at=1s flap a every=1ms for=5s", 20, "expected at least"),
            ("at=1s flap a every=9s for=5s", 29, "expected every=9s to"),
            ("at=1s storm a 0", 15, "expected a whole number from 1 to 1000"),
            ("at=1s crash a for=5s", 19, "expected no for=, as in `crash NODE`"),
            ("at=1s crash a b", 15, "expected nothing more, as in `crash NODE`"),
            ("at=1s crash ä ä", 15, "expected nothing more"),
        ] {
            let message = parse(text).unwrap_err();
            let complaint = format!("entry 1, `{text}`, at character {character}: {expected}");
            assert!(message.starts_with(&complaint), "{message:?} should start with {complaint:?}");
            assert_eq!(message.lines().count(), 1);
        }
        let second = parse("at=1s crash a; break b").unwrap_err();
        assert_eq!(second, "entry 2, `break b`, at character 23: expected at=TIME, after the load began");
        let many = "at=1s crash a;".repeat(1001);
        assert_eq!(parse(&many).unwrap_err(), "expected at most 1000 faults, not 1001");
    }

    #[test]
    fn nodes_must_exist_and_faults_end_within_the_load() {
        let targets = TARGETS.map(str::to_owned);
        let find =
            |name: &str| name.strip_prefix("node").and_then(|number| number.parse::<usize>().ok()?.checked_sub(1));
        let resolve = |text: &str| parse(text).unwrap().resolve(&targets, Duration::from_secs(60), find);
        assert_eq!(resolve("at=1s loss node3->node1 5% for=5s").unwrap()[0].nodes, [NodeIndex(2), NodeIndex(0)]);
        for (text, expected) in [
            (
                "at=1s crash node1; at=2s crash node4",
                "FAULTS: entry 2 `crash node4`: expected `node4` to be one of TARGETS: http://node1",
            ),
            ("at=60s crash node1", "FAULTS: entry 1 `crash node1`: expected it to be over before DURATION=1m is"),
            ("at=58s pause node1 for=2s", "FAULTS: entry 1 `pause node1 for=2s`: expected it to be over before"),
            (
                "at=1s bridge node1<->node1 for=2s",
                "FAULTS: entry 1 `partition node1<->node1 for=2s`: expected different",
            ),
            (
                "at=1s loss node1+node2+node3 1% for=2s",
                "FAULTS: entry 1 `loss node1+node2+node3 1% for=2s`: expected a node outside",
            ),
        ] {
            let message = resolve(text).unwrap_err();
            assert!(message.starts_with(expected), "{message:?} should start with {expected:?}");
        }
        let alone =
            parse("at=1s partition node1 for=2s").unwrap().resolve(&targets[..1], Duration::from_secs(60), find);
        assert!(alone.unwrap_err().contains("expected another node"));
    }

    fn millis(max: u64) -> impl Strategy<Value = Duration> {
        (1..=max).prop_map(Duration::from_millis)
    }

    fn name() -> impl Strategy<Value = String> {
        "(http://)?[a-z0-9][a-z0-9.-]{0,12}(:[0-9]{1,5})?"
    }

    fn place() -> impl Strategy<Value = Place> {
        prop_oneof![
            name().prop_map(Place::Node),
            vec(name(), 2..4).prop_map(Place::Group),
            (name(), name(), any::<bool>()).prop_map(|(from, to, one_way)| Place::Link { from, to, one_way }),
        ]
    }

    fn kind() -> impl Strategy<Value = FaultKind> {
        let percent = || 1e-9..=100.0_f64;
        prop_oneof![
            Just(FaultKind::Partition),
            (10..=600_000_u64).prop_map(|ms| FaultKind::Flap { every: Duration::from_millis(ms) }),
            percent().prop_map(|percent| FaultKind::Loss { percent }),
            millis(10_000).prop_map(|by| FaultKind::Delay { by }),
            millis(10_000).prop_map(|by| FaultKind::Reorder { by }),
            percent().prop_map(|percent| FaultKind::Duplicate { percent }),
            millis(10_000).prop_map(|by| FaultKind::Slow { by }),
            (1..=86_400_000_i64, any::<bool>())
                .prop_map(|(ms, back)| FaultKind::Clock { offset_ms: if back { -ms } else { ms } }),
            Just(FaultKind::Pause),
            Just(FaultKind::Crash),
            Just(FaultKind::Stop),
            (1..=1000_u32).prop_map(|times| FaultKind::Storm { times }),
        ]
    }

    fn entry() -> impl Strategy<Value = FaultEntry> {
        (millis(1_000_000_000), kind(), place(), name(), millis(600_000)).prop_map(|(at, kind, place, node, lasts)| {
            let place = if kind.concerns_one() { Place::Node(node) } else { place };
            let lasts = match kind {
                FaultKind::Flap { every } => lasts.max(every),
                kind if kind.ends_by_itself() => lasts,
                _ => Duration::ZERO,
            };
            FaultEntry { at, kind, place, lasts, repeat: None }
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(entries in vec(entry(), 0..6)) {
            let plan = FaultPlan(entries);
            prop_assert_eq!(parse(&plan.to_string()), Ok(plan));
        }

        #[test]
        fn whatever_is_written_is_read_or_complained_about(text in "[ a-z0-9=;,%+<>ä-]{0,60}") {
            if let Err(message) = parse(&text) {
                prop_assert!(message.contains("expected"), "{}", message);
            }
        }
    }
}
