//! The summary's part about single operations: the slowest of each kind with where their time went, and what became of traces.

use super::{
    Page, Report,
    numbers::{grouped, ms, shortened, without_scheme},
};
use crate::{Op, stats::SlowRequest};

/// Where the second and further lines about a request begin.
const INDENT: usize = 13;

/// A node's name takes no more columns, so that what is said of it stands beside it.
const NAME_MAX: usize = 32;

/// A leg's wait in a queue that is shorter explains nothing.
const QUEUE_MIN_MS: f64 = 0.1;

/// Of each part of the run, kind and outcome; the results hold more.
const SHOWN_MAX: usize = 2;

pub(crate) fn write(out: &mut Page, report: &Report) {
    if report.slowest.is_empty() {
        return;
    }
    out.heading("Slowest requests, in ms");
    let mut last: Option<(&SlowRequest, usize)> = None;
    for request in &report.slowest {
        let same = last.filter(|(other, _)| kind(other) == kind(request)).map_or(0, |(_, shown)| shown);
        if same < SHOWN_MAX {
            one(out, report, request, last.is_none_or(|(other, _)| other.phase != request.phase));
        }
        last = Some((request, same + 1));
    }
    traces(out, report)
}

fn kind(request: &SlowRequest) -> (crate::Phase, Op, &str) {
    (request.phase, request.op, &request.outcome)
}

/// What and how long, where to look at it, and where the time went.
fn one(out: &mut Page, report: &Report, request: &SlowRequest, is_first: bool) {
    let phase = if is_first { request.phase.name() } else { "" };
    let what = format!("{} {}", request.op.name(), request.outcome);
    out.line(&format!("  {phase:<11}{what:<15}{:>9}", ms(request.response_ms)));
    request.way.url.iter().for_each(|url| out.item(INDENT, url));
    let mut parts = Vec::new();
    if request.lag_ms > 0.0 {
        parts.push(format!("lag {}", ms(request.lag_ms)));
    }
    if let Some((node, result)) = &request.way.elsewhere {
        parts.push(format!("{} {} ({result})", name(report, node.0), ms(request.elsewhere_ms)));
    }
    match (request.handler_ms, request.mesh_ms) {
        (None, _) => parts.push(format!("no answer for {}", ms(request.residual_ms))),
        (Some(handler), mesh) => {
            let waits = [
                ("client queue", request.client_queue_ms),
                ("network", request.network_ms),
                ("server queue", request.server_queue_ms),
                ("residual", request.residual_ms),
            ];
            let waits = waits.into_iter().filter(|(_, wait_ms)| *wait_ms > 0.0);
            parts.extend(waits.map(|(name, wait_ms)| format!("{name} {}", ms(wait_ms))));
            parts.push(format!("handler {}", ms(handler)));
            parts.extend(mesh.map(|mesh| format!("mesh {}", ms(mesh))));
        }
    }
    wrapped(out, &format!("{:.1}s {} = ", request.at_s, name(report, request.node)), " + ", &parts);
    if request.way.legs.is_empty() {
        return;
    }
    let legs: Vec<_> = request
        .way
        .legs
        .iter()
        .flat_map(|leg| {
            let whole = format!("{} {} {}", shortened(&leg.peer, NAME_MAX), leg.outcome, ms(leg.ms));
            let queues = [("its queue", leg.peer_queue_ms), ("own queue", leg.own_queue_ms)];
            let queues = queues.into_iter().filter(|(_, queue_ms)| *queue_ms >= QUEUE_MIN_MS);
            std::iter::once(whole).chain(queues.map(|(name, queue_ms)| format!("{name} {}", ms(queue_ms))))
        })
        .collect();
    wrapped(out, "legs: ", ", ", &legs)
}

/// A list behind a heading, in as many lines as it needs.
fn wrapped(out: &mut Page, heading: &str, between: &str, items: &[String]) {
    let mut line = format!("{:INDENT$}{heading}", "");
    // An item that goes to the next line leaves what stands before it at the end of this one.
    let end = between.trim_end().len();
    for (at, item) in items.iter().enumerate() {
        let between = if at == 0 { "" } else { between };
        if line.chars().count() + between.len() + item.chars().count() + end > out.columns() {
            out.line(&format!("{line}{}", between.trim_end()));
            line = format!("{:width$}{item}", "", width = INDENT + 2);
        } else {
            line.push_str(between);
            line.push_str(item);
        }
    }
    out.line(&line);
}

fn name(report: &Report, node: usize) -> String {
    shortened(without_scheme(report.setup.targets.get(node).map_or("", String::as_str)), NAME_MAX)
}

fn traces(out: &mut Page, report: &Report) {
    let Some(traces) = &report.traces else { return };
    out.heading("Traces");
    let kept = |(reason, kept): (&&str, &crate::stats::KeptFor)| {
        format!("{} {}", grouped(kept.count), reason.replace('_', " "))
    };
    let kept: Vec<_> = traces.kept.iter().filter(|(_, kept)| kept.count > 0).map(kept).collect();
    out.field("kept", &kept.join(", "));
    let spans = &traces.spans;
    let [all, exported, failed, dropped] = [spans.kept, spans.exported, spans.failed, spans.dropped].map(grouped);
    out.field("spans", &format!("{all} of the client's: {exported} exported, {failed} failed, {dropped} dropped"));
    let (asked, lost) = (grouped(spans.asked), grouped(spans.not_asked));
    out.field("nodes", &format!("asked for their part {asked} times, {lost} in vain"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_take_several_lines() {
        let written = |heading: &str, between: &str, items: &[String]| {
            let mut page = Page::new(None);
            wrapped(&mut page, heading, between, items);
            page.finish()
        };
        let items: Vec<_> = (0..8).map(|n| format!("127.0.0.1:2770{n} hedge cancelled 1234.56")).collect();
        let out = written("legs: ", ", ", &items);
        assert!(out.lines().count() > 3 && out.lines().all(|line| line.len() <= 80), "{out}");
        assert!(items.iter().all(|item| out.contains(item.as_str())), "{out}");
        for width in 20..60 {
            let out = written("1.0s ", " + ", &vec!["x".repeat(width); 4]);
            assert!(out.lines().all(|line| line.len() <= 80), "{width}: {out}");
        }
    }
}
