//! The two text forms of `/metrics`, whose parts come from two libraries, read by others: Prometheus' own `promtool` where there
//! is one, and a parser of OpenMetrics 1.0 that takes nothing it need not take.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{ErrorKind, Write},
    process::{Command, Stdio},
    time::Duration,
};

use mesh_proto::{
    Event, HintStats, KeyHash, MemberState, Monotonic, NodeId, OpOutcome, OpRecord, OperationKind, PeerHints, Stats,
};
use observability::{Exposition, MeshView, NodeSample, PeerSample, RunnerSample, Shed, Telemetry};

/// A node whose name needs escapes, with something in each kind of series.
fn node(exposition: Exposition) -> String {
    let telemetry = Telemetry::new("n\"1\n", NodeId::new(1), "0.0.0").unwrap();
    let peer = PeerHints {
        peer: NodeId::new(2),
        queued: 3,
        queued_bytes: 900,
        oldest_age: Duration::from_millis(1500),
        needs_full_sync: false,
    };
    let stats = Stats {
        hints: HintStats { replayed: 5, ..HintStats::default() },
        second_rounds: 7,
        further_rounds: 1,
        carried_writes: 9,
        ..Stats::default()
    };
    let peers = vec![PeerSample { id: "2".to_owned(), addr: "a:1".to_owned(), ..PeerSample::default() }];
    let view = MeshView { ring_hash: u64::MAX, ready: true, peers, ..MeshView::default() };
    telemetry.sample(&NodeSample { stats, hints_by_peer: vec![peer], view, ..NodeSample::default() });
    for millis in [1, 30, 9000] {
        telemetry.operation(&OpRecord {
            op: OperationKind::Get,
            outcome: OpOutcome::Miss,
            took: Duration::from_millis(millis),
            started: Monotonic::default(),
            hash: KeyHash::of(b"k"),
            version: None,
            trace: None,
            legs: arrayvec::ArrayVec::new(),
        });
    }
    telemetry.shed(Shed::Queue);
    telemetry.problem(413);
    telemetry.problem(999);
    telemetry.run_upkeep();
    telemetry.render(exposition)
}

fn runner(exposition: Exposition) -> String {
    RunnerSample { run_id: "a\"b".to_owned(), version: "1", errors: vec![("timeout", 2)], ..RunnerSample::default() }
        .render(exposition)
}

#[test]
fn openmetrics_is_strictly_well_formed() {
    for text in [node(Exposition::OpenMetrics), runner(Exposition::OpenMetrics)] {
        let families = parse(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
        assert!(families.len() > 10, "{families:?}");
    }
    let text = node(Exposition::OpenMetrics);
    for (series, value) in [
        ("mesh_second_rounds_total", 7),
        ("mesh_further_rounds_total", 1),
        ("mesh_carried_writes_total", 9),
        ("mesh_hints_replayed_total", 5),
        ("mesh_ready", 1),
    ] {
        let line = format!("\n{series}{{node=\"n\\\"1\\n\"}} {value}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_strict_parser_refuses_what_is_not_openmetrics() {
    let good = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\"} 2\n# EOF\n";
    assert_eq!(parse(good).unwrap(), BTreeSet::from(["a".to_owned()]));
    let histogram = "# TYPE h histogram\nh_bucket{le=\"1.0\"} 1 # {trace_id=\"a\"} 0.5 1.5\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n# EOF\n";
    assert!(parse(histogram).is_ok());
    for (from, to) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\n\n"),
        ("a_total", "a"),
        ("counter\n", "counter\n\n"),
        ("\"1\"} 2", "\"1\"} x"),
        ("{x=\"1\"}", "{x=\"1\",x=\"2\"}"),
        ("{x=\"1\"}", "{x=\"\\1\"}"),
        ("{x=\"1\"}", "{x=\"1\""),
        ("# TYPE a counter\n", ""),
        ("# EOF", "# TYPE a counter\n# EOF"),
        ("# EOF", "a_total{x=\"1\"} 3\n# EOF"),
        ("# EOF", "b 3\n# EOF"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(parse(&bad).is_err(), "{bad}");
    }
    for (from, to) in [
        ("h_bucket{le=\"+Inf\"} 2\n", ""),
        ("+Inf\"} 2", "+Inf\"} 0"),
        ("h_count 2", "h_count 3"),
        ("h_sum 3", "h_sum 3 # {trace_id=\"a\"} 0.5"),
        ("trace_id", "trace id"),
    ] {
        let bad = histogram.replacen(from, to, 1);
        assert!(parse(&bad).is_err(), "{bad}");
    }
}

/// Fails on a line that it does not understand; says only that it has not run where there is no promtool.
#[test]
fn promtool_reads_prometheus_text() {
    for text in [node(Exposition::Prometheus), runner(Exposition::Prometheus)] {
        let child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("skipped: promtool is not installed (Debian's package prometheus)");
                return;
            }
            child => child.unwrap(),
        };
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty(), "{said} about\n{text}");
    }
}

/// The families of an OpenMetrics document, or the first line that breaks the format.
fn parse(text: &str) -> Result<BTreeSet<String>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("no EOF at its end")?;
    let (mut families, mut kind, mut seen) = (BTreeSet::new(), None, BTreeSet::new());
    let (mut family, mut histogram) = (String::new(), Histogram::default());
    for line in body.split_terminator('\n') {
        let fail = |why: &str| format!("{why}: `{line}`");
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ').ok_or_else(|| fail("what comment"))?;
            let (name, rest) = rest.split_once(' ').ok_or_else(|| fail("a comment without a text"))?;
            match word {
                "HELP" | "UNIT" if name == family && kind.is_some() => return Err(fail("after its TYPE")),
                "HELP" | "UNIT" => {}
                "TYPE" if !["counter", "gauge", "histogram"].contains(&rest) => return Err(fail("what type")),
                "TYPE" => {
                    histogram.end().map_err(fail)?;
                    families.insert(name.to_owned()).then_some(()).ok_or_else(|| fail("a family twice"))?;
                    (family, kind) = (name.to_owned(), Some(rest));
                }
                _ => return Err(fail("what comment")),
            }
            continue;
        }
        let sample = Sample::parse(line).ok_or_else(|| fail("what sample"))?;
        let suffix =
            sample.name.strip_prefix(&family).filter(|_| kind.is_some()).ok_or_else(|| fail("of another family"))?;
        match (kind, suffix) {
            (Some("counter"), "_total") | (Some("gauge"), "") => {}
            (Some("histogram"), "_bucket" | "_sum" | "_count") => histogram.add(suffix, &sample).map_err(fail)?,
            _ => return Err(fail("not a name of this type")),
        }
        let may_have_exemplar = ["_total", "_bucket"].contains(&suffix);
        (may_have_exemplar || !sample.has_exemplar).then_some(()).ok_or_else(|| fail("an exemplar here"))?;
        seen.insert((sample.name, sample.labels)).then_some(()).ok_or_else(|| fail("a series twice"))?;
    }
    histogram.end().map_err(str::to_owned)?;
    Ok(families)
}

/// `name{label="value",…} value`, and an exemplar.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
    has_exemplar: bool,
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let name = Some(&line[..end]).filter(|name| is_name(name))?;
        let (labels, rest) =
            if line[end..].starts_with('{') { labels(&line[end..])? } else { (BTreeMap::new(), &line[end..]) };
        let rest = rest.strip_prefix(' ')?;
        let (value, exemplar) =
            rest.split_once(" # ").map_or((rest, None), |(value, exemplar)| (value, Some(exemplar)));
        if let Some(exemplar) = exemplar {
            let (_, numbers) = labels_of_exemplar(exemplar)?;
            let numbers: Vec<_> = numbers.strip_prefix(' ')?.split(' ').map(number).collect::<Option<_>>()?;
            (1..=2).contains(&numbers.len()).then_some(())?;
        }
        Some(Self { name: name.to_owned(), labels, value: number(value)?, has_exemplar: exemplar.is_some() })
    }
}

fn labels_of_exemplar(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    text.starts_with('{').then(|| labels(text)).flatten()
}

/// Labels in braces, and what follows them.
fn labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let (mut found, mut rest) = (BTreeMap::new(), text.strip_prefix('{')?);
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((found, rest));
    }
    loop {
        let (name, after) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    escaped @ ('"' | '\\') => escaped,
                    _ => return None,
                }),
                (_, plain) => value.push(plain),
            }
        };
        (is_name(name) && found.insert(name.to_owned(), value).is_none()).then_some(())?;
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Some((found, rest.strip_prefix('}')?)),
        }
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn number(text: &str) -> Option<f64> {
    let is_word = ["NaN", "+Inf", "-Inf"].contains(&text);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.replace("Inf", "inf").parse().ok().filter(|_| is_word || is_plain)
}

/// Buckets rise, end in `+Inf`, and the last is the count; for each set of labels.
#[derive(Default)]
struct Histogram(BTreeMap<BTreeMap<String, String>, (f64, f64, Option<f64>)>);

impl Histogram {
    fn add(&mut self, suffix: &str, sample: &Sample) -> Result<(), &'static str> {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le");
        let (last_bound, buckets, count) = self.0.entry(labels).or_insert((f64::NEG_INFINITY, 0.0, None));
        match (suffix, bound) {
            ("_bucket", Some(bound)) => {
                let bound = number(&bound).ok_or("what bound")?;
                (bound > *last_bound && sample.value >= *buckets).then_some(()).ok_or("buckets do not rise")?;
                (*last_bound, *buckets) = (bound, sample.value);
            }
            ("_count", None) => *count = Some(sample.value),
            ("_sum", None) => {}
            _ => return Err("a bound where none belongs, or none where one does"),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), &'static str> {
        let is_whole =
            |(bound, buckets, count): &(f64, f64, Option<f64>)| *bound == f64::INFINITY && *count == Some(*buckets);
        let all = std::mem::take(&mut self.0).values().all(is_whole);
        all.then_some(()).ok_or("a histogram without +Inf, or whose count is another")
    }
}

#[test]
fn the_series_of_the_forgotten_are_not_shown_until_they_are_back() {
    let telemetry = Telemetry::new("n1", NodeId::new(1), "0.0.0").unwrap();
    let peers = [NodeId::new(2), NodeId::new(3)];
    let alive = |peer| Event::Member { peer, addr: "a:1".to_owned(), from: None, to: MemberState::Alive };
    let shown = |peer: NodeId| {
        let text = telemetry.render(Exposition::OpenMetrics);
        text.lines().filter(|line| line.contains(&format!("peer=\"{peer}\""))).count()
    };
    peers.iter().for_each(|peer| telemetry.event(&alive(*peer)));
    let all = peers.map(shown);
    assert!(all[0] > 3 && all[0] == all[1], "{all:?}");
    telemetry.event(&Event::Forgotten { peer: peers[0] });
    assert_eq!(peers.map(shown), [0, all[1]]);
    telemetry.event(&alive(peers[0]));
    assert_eq!(peers.map(shown), all);
}
