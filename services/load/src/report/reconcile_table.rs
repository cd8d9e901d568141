//! Client/server reconciliation, for people.

use super::{
    Page, Report,
    numbers::{grouped, ms},
    reconcile::{LossyNode, OpReconciled},
};
use crate::{Op, stats::P99Reconciled};

pub(crate) fn write(out: &mut Page, report: &Report) {
    let Some(reconciliation) = &report.reconciliation else { return };
    out.heading("Client and nodes");
    out.line(&format!("  {:<15}{:>14}{:>14}", "", "client", "nodes"));
    for op in &reconciliation.ops {
        counts(out, op);
        op.p99.iter().for_each(|p99| latency(out, op.op, p99));
    }
    if let Some(reason) = &reconciliation.prometheus {
        out.field("Prometheus", reason);
    }
    for node in &reconciliation.lossy_nodes {
        lossy(out, node, &report.setup.targets[node.node]);
    }
    for difference in &reconciliation.differences {
        out.field("unexplained", &difference.words(&report.setup.targets));
    }
    if reconciliation.differences.is_empty() {
        out.field("unexplained", "nothing: every reply stands in its node's count");
    }
}

fn counts(out: &mut Page, op: &OpReconciled) {
    let name = op.op.name();
    for row in &op.outcomes {
        let (client, nodes) = (grouped(row.client), grouped(row.nodes));
        out.line(&format!("  {:<15}{client:>14}{nodes:>14}", format!("{name} {}", row.outcome)));
    }
    let mut also = Vec::new();
    let (timed_out, broken_off, abandoned) = (op.timed_out, op.broken_off, op.nodes_abandoned);
    if timed_out + broken_off + abandoned > 0 {
        let [timed_out, broken_off, abandoned] = [timed_out, broken_off, abandoned].map(grouped);
        also.push(format!("no reply: {timed_out} timed out, {broken_off} broken off; {abandoned} abandoned at nodes"));
    }
    if op.shed > 0 {
        also.push(format!("{} errors given before an operation began", grouped(op.shed)));
    }
    if op.withheld > 0 {
        also.push(format!("{} errors in place of a large value, for want of memory at the node", grouped(op.withheld)));
    }
    if op.comparisons > 0 {
        also.push(format!("{} reads of comparisons are among these", grouped(op.comparisons)));
    }
    also.iter().for_each(|text| out.field("", text))
}

fn lossy(out: &mut Page, node: &LossyNode, target: &str) {
    let unknowable = grouped(node.unknowable);
    let Some(since_s) = node.counts_since_s else {
        return out
            .field("not known", &format!("{target} does not tell its count; the client had {unknowable} replies"));
    };
    let [least, most, counted] = [node.client_since.0, node.client_since.1, node.node_since].map(grouped);
    out.field(
        "restarted",
        &format!("{target} counts since {since_s:.1}s; {unknowable} replies before are not comparable"),
    );
    let unexplained = node.unexplained;
    out.field("", &format!("since then: client {least} to {most}, node {counted}, unexplained {unexplained}"))
}

fn latency(out: &mut Page, op: Op, p99: &P99Reconciled) {
    let (from, to) = p99.nodes_bucket_ms;
    let to = to.map_or_else(|| "more".to_owned(), ms);
    let (client, nodes, from) = (ms(p99.response_ms), ms(p99.nodes_ms), ms(from));
    let both = format!("{client} ms at the client, {nodes} at the nodes (bucket {from} to {to})");
    out.field(&format!("{} p99", op.name()), &both);
    let prometheus = p99.prometheus_ms.map(|watched| format!("Prometheus says {}, ", ms(watched))).unwrap_or_default();
    let requests = grouped(p99.samples as u64);
    out.field(
        "",
        &format!("{prometheus}spans of {requests} requests {}; the gap is {}:", ms(p99.told_ms), signed(p99.gap_ms)),
    );
    let share = |part: f64| if p99.gap_ms == 0.0 { 0.0 } else { part * 100.0 / p99.gap_ms };
    let part = |(name, part): (&str, f64)| format!("{name} {} ({:.0} %)", signed(part), share(part));
    let outside = [
        [("lag", p99.lag_ms), ("other node", p99.elsewhere_ms)],
        [("client queue", p99.client_queue_ms), ("server queue", p99.server_queue_ms)],
        [("network", p99.network_ms), ("residual", p99.residual_ms)],
    ];
    outside.into_iter().for_each(|row| out.field("", &row.map(part).join(", ")));
    let queued =
        if p99.legs_queued_ms > 0.0 { format!(", {} in queues", ms(p99.legs_queued_ms)) } else { String::new() };
    let legs = format!("{} there, legs {}{queued}", ms(p99.in_mesh_ms), ms(p99.legs_ms));
    let inside = [("handler", p99.handler_ms), ("mesh", p99.mesh_ms)].map(part).join(", ");
    out.field("", &format!("{inside} [{legs}]"));
    let unexplained = format!("unexplained {} ({:.1} %)", ms(p99.unexplained_ms), p99.unexplained_percent);
    out.field("", &unexplained)
}

/// Milliseconds that may be below zero.
fn signed(amount_ms: f64) -> String {
    if amount_ms < 0.0 { format!("-{}", ms(-amount_ms)) } else { ms(amount_ms) }
}
