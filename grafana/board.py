#!/usr/bin/env python3
"""Writes the board, grafana/dashboards/mesh.json: `python3 grafana/board.py`. Change it here, never there.

A panel is one call: what it is called, what it tells, its unit, and its queries. Everything that all panels have in
common (data source, grid, time, annotations) is added below.
"""

import json
from pathlib import Path

OUTPUT = Path(__file__).parent / "dashboards" / "mesh.json"

# As the variable of that name says; the provisioned one unless another is chosen.
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
JAEGER = "http://localhost:16686"
SCHEMA_VERSION = 42
WIDTH = 24
# So many rows are open; each of the others asks nothing before it is opened.
OPEN_ROWS = 3

# Which series a panel looks at, as the variables say.
RUN = 'run_id=~"$run_id"'
NODE = 'node=~"$node"'
OP = 'op=~"$op"'
SET = 'op="set"'
ERROR = 'outcome="error"'
FAILED = 'outcome=~"refused|unavailable|indeterminate|abandoned"'
W = "$__rate_interval"
# Peers are labelled by id; this adds the address under which the node knows them.
NAMED = "* on (node, peer) group_left (addr) (mesh_peer_info == 1)"

# What happens, how far it is, and where; the rest of a series is for machines.
READABLE_ALERTS = {
    "id": "organize",
    "options": {
        "excludeByName": {name: True for name in ("Time", "Value", "__name__", "instance", "job")},
        "indexByName": {"alertname": 0, "alertstate": 1, "severity": 2, "node": 3},
        "renameByName": {"alertname": "Alert", "alertstate": "State", "severity": "Severity", "node": "Node"},
    },
}

RED_ABOVE_0 = [{"color": "green", "value": None}, {"color": "red", "value": 1e-9}]


def rate(metric: str, *matchers: str) -> str:
    return f"rate({metric}{{{','.join(matchers)}}}[{W}])"


def quantile(q: float, by: str, metric: str, *matchers: str) -> str:
    return f"histogram_quantile({q}, sum by ({by}) ({rate(metric + '_bucket', *matchers)}))"


def query(expr: str, legend: str = "", *, exemplar: bool = False, **more) -> dict:
    return {"expr": expr, "legendFormat": legend or "__auto", "exemplar": exemplar, "range": True, **more}


def panel(kind: str, title: str, description: str, unit: str, *queries: dict, width: int = 8, height: int = 7, **own) -> dict:
    defaults = {"unit": unit, **own.pop("defaults", {})}
    targets = [{**each, "refId": chr(ord("A") + at), "datasource": PROMETHEUS} for at, each in enumerate(queries)]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": PROMETHEUS,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": own.pop("overrides", [])},
        "options": own.pop("options", {}),
        "gridPos": {"w": width, "h": height},
        **own,
    }


def lines(title: str, description: str, unit: str, *queries: dict, stacked: bool = False, limit: float | None = None, **own) -> dict:
    """Values over time. Gaps stay gaps: they are how a kill looks. A limit that the description names is drawn."""
    custom = {"lineWidth": 1, "fillOpacity": 20 if stacked else 0, "spanNulls": False, "showPoints": "never"}
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    defaults = {"custom": custom, "min": 0, **own.pop("defaults", {})}
    if limit is not None:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": limit}]}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]}
    options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, description, unit, *queries, defaults=defaults, options=options, **own)


def number(title: str, description: str, unit: str, *queries: dict, steps: list | None = None, **own) -> dict:
    thresholds = {"mode": "absolute", "steps": steps or [{"color": "text", "value": None}]}
    defaults = {"thresholds": thresholds, "color": {"mode": "thresholds"}, **own.pop("defaults", {})}
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "graphMode": "area"}
    own = {"width": 4, "height": 4, **own}
    return panel("stat", title, description, unit, *queries, defaults=defaults, options=options, **own)


def states(title: str, description: str, *queries: dict, names: dict | None = None, **own) -> dict:
    mapping = {str(value): {"text": text, "color": color} for value, (text, color) in (names or {}).items()}
    defaults = {"mappings": [{"type": "value", "options": mapping}], "custom": {"fillOpacity": 80, "lineWidth": 0}}
    options = {"mergeValues": True, "showValue": "auto", "rowHeight": 0.8, "legend": {"showLegend": False}}
    return panel("state-timeline", title, description, "short", *queries, defaults=defaults, options=options, **own)


def heatmap(title: str, description: str, expr: str, **own) -> dict:
    options = {
        "calculate": False,
        "cellGap": 0,
        "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64, "reverse": True},
        "exemplars": {"color": "rgba(255,0,255,0.8)"},
        "filterValues": {"le": 1e-9},
        "yAxis": {"unit": "s", "axisPlacement": "left"},
        "tooltip": {"mode": "single", "yHistogram": True},
    }
    target = query(expr, "{{le}}", exemplar=True, format="heatmap")
    return panel("heatmap", title, description, "s", target, options=options, **own)


def verdict() -> list[dict]:
    since_kill = (
        'max(runner_fault_event_timestamp_seconds{%s,kind="crash",action="%s"}) - max(runner_fault_event_timestamp_seconds{%s,kind="crash",action="begun"})'
    )
    phases = ("warm", "steady", "in_fault", "recovered")
    phase = " + ".join(f'{at} * max(runner_phase{{{RUN},phase="{name}"}})' for at, name in enumerate(phases))
    return [
        number("Wrong answers", "Values that nobody wrote, acknowledged writes that were missed, versions out of order. Anything above 0 breaks the guarantee, but for misses of a full cache: the row Is it full? tells.", "short",
            query(f"sum(runner_integrity_violations_total{{{RUN}}})", "violations"), steps=RED_ABOVE_0),
        number("Operations", "What all clients get done per second.", "ops",
            query(f"sum({rate('runner_op_duration_seconds_count', RUN)})", "ops/s")),
        number("Failing now", "Share of the clients' operations that end in an error.", "percentunit",
            query(f"sum({rate('runner_op_duration_seconds_count', RUN, ERROR)}) / sum({rate('runner_op_duration_seconds_count', RUN)})", "errors"),
            steps=[{"color": "green", "value": None}, {"color": "orange", "value": 1e-9}, {"color": "red", "value": 0.001}]),
        number("Error budget burn", "How many times faster than allowed the nodes spend the error budget of 99.9 %; 14.4 pages.", "x",
            query("max(mesh:error_ratio:rate10s) / 0.001", "burn"), steps=[{"color": "green", "value": None}, {"color": "orange", "value": 1}, {"color": "red", "value": 14.4}]),
        number("Kill to declared dead", "From the crash until the first survivor called the node dead.", "s",
            query(since_kill % (RUN, "dead", RUN), "detection")),
        number("Kill to recovered", "From the crash until every node was ready again and saw all others alive.", "s",
            query(since_kill % (RUN, "recovered", RUN), "recovery")),
        states("Phase", "The part of the run, as the runner counts its percentiles.", query(phase, "phase"), width=12, height=5,
            names={0: ("warm", "blue"), 1: ("steady", "green"), 2: ("in fault", "red"), 3: ("recovered", "purple")}),
        states("Nodes that answer", "Whether Prometheus reaches a node's /metrics. A gap is a node that is gone.",
            query('max by (instance) (up{job="mesh-node"})', "{{instance}}"), names={0: ("down", "red"), 1: ("up", "green")}, width=6, height=5),
        panel("table", "Alerts", "Alerts that are pending or fire now; empty is good.", "short",
            query("ALERTS", format="table", instant=True), transformations=[READABLE_ALERTS], width=6, height=5),
    ]


def client_and_server() -> list[dict]:
    client, server = "runner_op_duration_seconds", "mesh_op_duration_seconds"
    difference = (
        f"{quantile(0.99, 'le, op', client, RUN, OP)} - on (op) {quantile(0.99, 'le, op', server, OP)}"
    )
    dashed = {"matcher": {"id": "byRegexp", "options": "/^client/"}, "properties": [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}}]}
    return [
        lines("What clients see", "Response times in the runner: queueing, network, HTTP and the mesh. 50th, 99th and 99.9th percentile. Points are exemplars: click one to open that request in Jaeger.", "s",
            *(query(quantile(q, "le, op", client, RUN, OP), f"{{{{op}}}} p{name}", exemplar=q == 0.99) for q, name in ((0.5, "50"), (0.99, "99"), (0.999, "99.9")))),
        lines("What nodes see", "The mesh's part of an operation at its entry node. Points are exemplars: click one to open that request in Jaeger.", "s",
            *(query(quantile(q, "le, op", server, NODE, OP), f"{{{{op}}}} p{name}", exemplar=q == 0.99) for q, name in ((0.5, "50"), (0.99, "99"), (0.999, "99.9")))),
        lines("p99, client over server", "Both in one picture, from the same bucket bounds. Where they part, the time went outside the mesh.", "s",
            query(quantile(0.99, "le, op", client, RUN, OP), "client {{op}}"), query(quantile(0.99, "le, op", server, OP), "server {{op}}"), overrides=[dashed]),
        lines("p99 outside the mesh", "Client p99 less server p99: waiting for a connection, HTTP, the network, a second try after a dead node.", "s",
            query(difference, "{{op}}"), defaults={"min": None}),
        lines("Server queue", "Time from the kernel's receipt of a request to its handler, 50th and 99th percentile per node: no part of the mesh, and not the network.", "s",
            *(query(quantile(q, "le, node", "mesh_http_queue_duration_seconds", NODE), f"{{{{node}}}} p{name}") for q, name in ((0.5, "50"), (0.99, "99")))),
        lines("p99 by entry node", "The same operation through different nodes. One line above the others is a slow node, not a slow mesh.", "s",
            query(quantile(0.99, "le, node, op", server, NODE, OP), "{{node}} {{op}}", exemplar=True)),
        heatmap("Server durations", "Every operation by duration; points are exemplars that open in Jaeger. Two bands are local and remote reads.",
            f"sum by (le) (increase(mesh_op_duration_seconds_bucket{{{NODE},{OP}}}[{W}]))"),
        lines("Outcomes as clients count them", "Local hits, remote hits, misses, acknowledged writes, errors.", "ops",
            query(f"sum by (outcome) ({rate('runner_op_duration_seconds_count', RUN, OP)})", "{{outcome}}"), stacked=True, width=6),
        lines("Fail-overs and stale reads", "Operations that a second node answered, and reads older than an acknowledged write (allowed at consistency one).", "ops",
            query(f"sum({rate('runner_fail_overs_total', RUN)})", "fail-overs"), query(f"sum({rate('runner_stale_reads_total', RUN)})", "stale reads"), width=6),
        lines("Errors by kind", "Operations that failed, as clients see it: refused, closed, timed out, 503, 504.", "ops",
            query(f"sum by (kind) ({rate('runner_errors_total', RUN)})", "{{kind}}"), stacked=True, width=6),
        lines("Waiting to be sent", "p99 from when an operation should have begun, and from when it was sent. They part when the client falls behind its RATE.", "s",
            query(quantile(0.99, "le, op", client, RUN, OP), "response {{op}}"), query(quantile(0.99, "le, op", "runner_service_duration_seconds", RUN, OP), "service {{op}}"), width=6),
    ]


def red() -> list[dict]:
    return [
        lines("Rate", "Operations per node and kind.", "ops", query(f"sum by (node, op) ({rate('mesh_requests_total', NODE, OP)})", "{{node}} {{op}}")),
        lines("Errors", "Operations that were refused, unavailable, indeterminate, shed, or abandoned by a caller that would not wait. A miss is an answer and not here.", "ops",
            query(f"sum by (node, op, outcome) ({rate('mesh_requests_total', NODE, OP, FAILED)})", "{{node}} {{op}} {{outcome}}")),
        lines("Duration, median", "The mesh's part of an operation, per node.", "s", query(quantile(0.5, "le, node, op", "mesh_op_duration_seconds", NODE, OP), "{{node}} {{op}}", exemplar=True)),
        lines("In flight", "HTTP requests being answered; beside it what the run aims at, over all nodes.", "short",
            query(f"sum by (node) (mesh_inflight_requests{{{NODE}}})", "{{node}}"), query(f"max(runner_target_in_flight{{{RUN}}})", "aim of the run")),
        lines("HTTP problems", "Requests answered with an error status by the HTTP layer or the mesh.", "ops",
            query(f"sum by (node, code) ({rate('mesh_http_problems_total', NODE)})", "{{node}} {{code}}")),
        lines("CPU", "Cores in use.", "short", query(f"sum by (node) ({rate('process_cpu_seconds_total', NODE)})", "{{node}}")),
        lines("Waiting for a core", "The share of the time in which threads could have run and had no core, by thread. What queues in the host and not in the node is here.", "percentunit",
            query(f"sum by (node, thread) ({rate('mesh_thread_run_queue_seconds_total', NODE)})", "{{node}} {{thread}}")),
        lines("Memory", "Resident memory of the process.", "bytes", query(f"process_resident_memory_bytes{{{NODE}}}", "{{node}}")),
        lines("HTTP connections", "Open connections, those refused at the limit, requests shed by overload, and clients cut off for keeping the node waiting.", "short",
            query(f"mesh_http_connections{{{NODE}}}", "{{node}} open"), query(f"increase(mesh_http_connections_refused_total{{{NODE}}}[{W}])", "{{node}} refused"),
            query(f"increase(mesh_http_requests_shed_total{{{NODE}}}[{W}])", "{{node}} shed: {{reason}}"), query(f"increase(mesh_http_connections_cut_total{{{NODE}}}[{W}])", "{{node}} cut off: {{reason}}"), width=12),
    ]


def hedging() -> list[dict]:
    return [
        lines("Hedged share", "Hedge legs per remote read. The budget is 5 %.", "percentunit",
            query(f"sum by (node) ({rate('mesh_hedge_legs_total', NODE)}) / clamp_min(sum by (node) ({rate('mesh_remote_reads_total', NODE)}), 1e-9)", "{{node}}"), limit=0.05),
        lines("Hedges that won", "Share of hedge legs whose answer made the result: what the second request bought.", "percentunit",
            query(f"sum by (node) ({rate('mesh_hedge_wins_total', NODE)}) / clamp_min(sum by (node) ({rate('mesh_hedge_legs_total', NODE)}), 1e-9)", "{{node}}"), defaults={"max": 1}),
        lines("How hedges end", "Lost and cancelled legs are the price; timed out and failed ones point at a peer.", "ops",
            query(f"sum by (outcome) ({rate('mesh_hedge_legs_total', NODE)})", "{{outcome}}"), stacked=True),
    ]


def quorum() -> list[dict]:
    return [
        lines("Acknowledgement", "How long writes wait for WRITE_CONCERN owners, 99th percentile.", "s",
            query(quantile(0.99, "le, node", "mesh_op_duration_seconds", NODE, SET), "{{node}}", exemplar=True)),
        lines("Acknowledgement by owner", "How long each other owner takes to confirm a write, 99th percentile: one line above the others is the peer that writes wait for.", "s",
            query(f"{quantile(0.99, 'le, node, peer', 'mesh_quorum_ack_seconds', NODE)} {NAMED}", "{{node}} → {{addr}}")),
        lines("Quorum failures", "Refused: too few owners, nothing written. Indeterminate: outcome unknown. Unavailable: too few could answer a read. Abandoned: the caller did not wait.", "ops",
            query(f"sum by (op, outcome) ({rate('mesh_requests_total', NODE, FAILED)})", "{{op}} {{outcome}}")),
        lines("Owners that missed a write", "Write legs that failed, by the owner that may lack the write until it is repaired.", "ops",
            query(f"sum by (node, addr) ({rate('mesh_missed_writes_total', NODE)} {NAMED})", "{{node}} → {{addr}}"), width=12),
        lines("Waiting for peers", "Requests in flight to each peer. One that grows is a peer that no longer answers.", "short",
            query(f"sum by (node, addr) (mesh_peer_in_flight{{{NODE}}} {NAMED})", "{{node}} → {{addr}}"), width=12),
    ]


def repair() -> list[dict]:
    return [
        lines("Slots not in sync", "Slots a node owns and cannot say MISS for. After a restart it starts full and falls to 0.", "short",
            # The two are sampled one after the other, so that their difference can be negative for a moment.
            query(f"clamp_min(mesh_ring_slots_owned{{{NODE}}} - mesh_slots_in_sync{{{NODE}}}, 0)", "{{node}}"), width=6),
        lines("Records repaired", "Records taken from peers by resync and repair.", "ops", query(f"sum by (node) ({rate('mesh_repair_keys_total', NODE)})", "{{node}}"), width=6),
        # A mean, because rounds are few: a quantile of none is not a number.
        lines("Repair rounds", "How long a round takes on average, over half a minute; 0 where none ended.", "s",
            query(f"rate(mesh_repair_round_seconds_sum{{{NODE}}}[30s]) / clamp_min(rate(mesh_repair_round_seconds_count{{{NODE}}}[30s]), 1e-9)", "{{node}}"), width=6),
        lines("Tombstones", "Deleted and expired entries that are remembered until every owner knows.", "short", query(f"mesh_store_tombstones{{{NODE}}}", "{{node}}"), width=6),
        lines("Hints queued", "Writes kept for owners that are away.", "short",
            query(f"sum by (node, addr) (mesh_hints_queued{{{NODE}}} {NAMED})", "{{node}} for {{addr}}"), width=6),
        lines("Oldest hint", "How long the oldest write has been waiting for its owner.", "s",
            query(f"max by (node, addr) (mesh_hints_oldest_age_seconds{{{NODE}}} {NAMED})", "{{node}} for {{addr}}"), width=6),
        lines("Hints replayed", "Writes handed over to owners that are back.", "ops", query(f"sum by (node) ({rate('mesh_hints_replayed_total', NODE)})", "{{node}}"), width=6),
        lines("Hints dropped", "Above 0 the peer needs a full repair. It alerts.", "short", query(f"sum by (node) (increase(mesh_hints_dropped_total{{{NODE}}}[1m]))", "{{node}}"), width=6),
    ]


def membership() -> list[dict]:
    state = " + ".join(
        f'{at} * max by (node, peer) (mesh_member_state{{{NODE},state="{name}"}})' for at, name in enumerate(("alive", "suspect", "dead", "left"))
    )
    return [
        states("Who sees whom how", "One line per observer and peer. After a kill the survivors go through suspect to dead, and back when the node returns.",
            query(f"({state}) {NAMED}", "{{node}} sees {{addr}}"), width=12, height=9,
            names={0: ("alive", "green"), 1: ("suspect", "orange"), 2: ("dead", "red"), 3: ("left", "blue")}),
        lines("Probes", "Gossip rounds by how the probed peer answered: directly, through others, or not at all.", "ops",
            query(f"sum by (answer) ({rate('mesh_gossip_rounds_total', NODE)})", "{{answer}}"), stacked=True, width=6, height=9),
        lines("Probe round trip", "Time from a probe to its answer, 99th percentile. It shares no queue with data.", "s",
            query(quantile(0.99, "le, node", "mesh_gossip_round_seconds", NODE), "{{node}}"), width=6, height=9),
        lines("Suspicions", "Times that a peer became suspect, within a minute.", "short",
            query(f"sum by (node, addr) (increase(mesh_suspicions_total{{{NODE}}}[1m]) {NAMED})", "{{node}} suspects {{addr}}"), width=12),
        lines("Refutations", "Times that a node had to say that it is alive, within a minute: false suspicions, or a pause.", "short",
            query(f"increase(mesh_refutations_total{{{NODE}}}[1m])", "{{node}}"), width=12),
    ]


def ring() -> list[dict]:
    return [
        number("Rings in force", "Different ring hashes among the nodes. 1 is agreement; more for longer than seconds is a split.", "short",
            query('count(count_values("hash", mesh_ring_hash))', "rings"), steps=[{"color": "green", "value": None}, {"color": "red", "value": 2}], height=7),
        lines("Members of the ring", "As each node counts them.", "short", query(f"mesh_ring_members{{{NODE}}}", "{{node}}"), width=5),
        lines("Share of the ring", "Slots owned per node, as any replica.", "short", query(f"mesh_ring_slots_owned{{{NODE}}}", "{{node}}"), width=5),
        lines("Weight", "Published capacity, 1 to 16.", "short", query(f"mesh_ring_weight{{{NODE}}}", "{{node}}"), width=5, defaults={"max": 16}),
        lines("Wrong ring", "Requests answered with the member list because the rings differed. A burst after each change is normal.", "ops",
            query(f"sum by (node) ({rate('mesh_wrong_ring_total', NODE)})", "{{node}}"), width=5),
        lines("Joining, leaving, unreachable", "Members that catch up before they enter the ring, those that hand over what they hold before they go, and those that are heard and cannot be connected to.", "short",
            query(f"mesh_members_joining{{{NODE}}}", "{{node}} sees joining"), query(f"mesh_members_leaving{{{NODE}}}", "{{node}} sees leaving"),
            query(f"mesh_members_unreachable{{{NODE}}}", "{{node}} cannot reach"), width=12),
        lines("Records given up", "Dropped because others own their slots now, and hold them.", "ops", query(rate("mesh_given_up_records_total", NODE), "{{node}}"), width=6),
        lines("Left early", "Peers that went before all that they held was taken over, within a minute. Above 0, DRAIN_TIMEOUT_MS is too short.", "short",
            query(f"increase(mesh_left_early_total{{{NODE}}}[1m])", "{{node}}"), width=6),
    ]


def full() -> list[dict]:
    return [
        states("Full", "Whether a node has evicted entries within the last minute. A full store is the normal state of a cache: an evicted key is a miss.",
            query(f"mesh_store_full{{{NODE}}}", "{{node}}"), names={0: ("room", "green"), 1: ("full", "orange")}, width=8),
        lines("Evictions and expirations", "Entries that made room, and entries that reached their expiry.", "ops",
            query(rate("mesh_store_evictions_total", NODE), "{{node}} evicted"), query(rate("mesh_store_expirations_total", NODE), "{{node}} expired")),
        lines("Age of what is evicted", "How much older than the newest write an evicted entry was, on the average of the last minute: for about so long the store remembers.", "s",
            query(f"mesh_store_evicted_age_seconds{{{NODE}}}", "{{node}}")),
        lines("Hits of the last minute", "Share of look-ups in the local store that found a live value, requests of peers included. It is what a larger CAPACITY_BYTES would raise.", "percentunit",
            query(f"mesh_store_hit_ratio{{{NODE}}}", "{{node}}"), defaults={"max": 1}),
        lines("Entries", "Live entries of the local store.", "short", query(f"mesh_store_entries{{{NODE}}}", "{{node}}")),
        lines("Store, share of its limit", "Bytes of the store, of CAPACITY_BYTES.", "percentunit", query(f"mesh_store_bytes{{{NODE}}} / mesh_store_bytes_max{{{NODE}}}", "{{node}}"), limit=1),
        lines("Memory by what it is for", "The parts of resident memory, all nodes together. Other is what nothing explains.", "bytes",
            query(f"sum by (part) (mesh_memory_bytes{{{NODE}}})", "{{part}}"), stacked=True),
    ]


def quic() -> list[dict]:
    def to(expr: str) -> dict:
        return query(f"sum by (node, addr) ({expr} {NAMED})", "{{node}} → {{addr}}")

    return [
        lines("Round trip", "Smoothed round-trip time of the path to each peer.", "s", to(f"mesh_quic_rtt_seconds{{{NODE}}}"), width=6),
        lines("Loss", "Share of packets that were lost.", "percentunit",
            to(f"{rate('mesh_quic_lost_packets_total', NODE)} / ({rate('mesh_quic_sent_packets_total', NODE)} > 0)"), width=6),
        lines("Packets", "Packets sent to each peer: compare with operations to see how many frames share one.", "pps", to(rate("mesh_quic_sent_packets_total", NODE)), width=6),
        lines("Congestion window", "All connections to a peer together.", "bytes", to(f"mesh_quic_cwnd_bytes{{{NODE}}}"), width=6),
        lines("Congestion events", "Times that a window shrank.", "short", to(f"increase(mesh_quic_congestion_events_total{{{NODE}}}[{W}])"), width=8),
        lines("Connections up and down", "Changes within a minute.", "short",
            query(f"increase(mesh_peer_connections_total{{{NODE}}}[1m])", "{{node}} up"), query(f"increase(mesh_peer_disconnections_total{{{NODE}}}[1m])", "{{node}} down"), width=8),
        lines("Refused", "Handshakes and greetings refused, connections closed for breaking the protocol, versions from the future.", "short",
            query(f"increase(mesh_peer_refused_total{{{NODE}}}[1m])", "{{node}} refused"),
            query(f"increase(mesh_protocol_violations_total{{{NODE}}}[1m])", "{{node}} violations"),
            query(f"increase(mesh_drift_refused_total{{{NODE}}}[1m])", "{{node}} from the future"), width=8),
    ]


def trust() -> list[dict]:
    return [
        lines("Client count less server count", "Operations per second that clients finished and nodes did not count, or the other way round. A second try after a dead node counts twice on servers.", "ops",
            query(f"sum by (op) ({rate('runner_op_duration_seconds_count', RUN, OP)}) - on (op) sum by (op) ({rate('mesh_requests_total', OP)})", "{{op}}"), defaults={"min": None}, width=6),
        lines("Scrapes", "How long a scrape takes. Above 900 ms a point is missing.", "s", query('scrape_duration_seconds{job=~"mesh-node|runner"}', "{{instance}}"), limit=0.9, width=6),
        lines("Schedule lag", "The longest that an operation has waited in the runner to begin, since the start; only under RATE.", "s", query(f"max(runner_schedule_lag_max_seconds{{{RUN}}})", "lag"), width=6),
        lines("Points stored", "Samples that Prometheus takes in.", "ops", query(f"rate(prometheus_tsdb_head_samples_appended_total[{W}])", "samples"), width=6),
        lines("Spans dropped", "Spans a node could not hand over. Anything above 0 is a gap in the traces, and alerts.", "short",
            query(f"sum by (node, reason) (increase(mesh_spans_dropped_total{{{NODE}}}[{W}]))", "{{node}} {{reason}}")),
        lines("Spans taken by Jaeger", "What arrives on the other side.", "ops",
            query(f'sum(rate({{__name__=~"otelcol_receiver_accepted_spans(_total)?"}}[{W}]))', "accepted"),
            query(f'sum(rate({{__name__=~"otelcol_receiver_refused_spans(_total)?"}}[{W}]))', "refused")),
        lines("Malformed traceparent", "Requests whose trace context made no sense and was ignored.", "ops", query(f"sum by (node) ({rate('mesh_traceparent_malformed_total', NODE)})", "{{node}}")),
        lines("Spans of the runner", "What the runner kept of its own requests, and what became of it: exported, failed or dropped. Losses are gaps in its record.", "ops",
            query(f"sum by (fate) ({rate('runner_spans_total', RUN)})", "{{fate}}"), width=12),
        lines("Traces asked for", "Traces that nodes were asked to keep because only the client saw what was wrong with them, and those that could not be asked for.", "ops",
            query(f"sum by (fate) ({rate('runner_trace_keeps_total', RUN)})", "{{fate}}"), width=12),
    ]


ROWS = [
    ("Verdict", verdict),
    ("Clients and servers", client_and_server),
    ("Rate, errors, duration per node", red),
    ("Hedged reads", hedging),
    ("Quorum", quorum),
    ("Hints and repair", repair),
    ("Membership", membership),
    ("Ring", ring),
    ("Is it full?", full),
    ("QUIC", quic),
    ("Can this board be trusted?", trust),
]


def annotation(name: str, color: str, expr: str, title: str, tags: str) -> dict:
    """A line at the time that is the series' *value*, which is true to the millisecond, and not at the time of a scrape."""
    return {
        "name": name, "datasource": PROMETHEUS, "enable": True, "iconColor": color, "expr": f"1000 * {expr}", "step": "1s",
        "useValueForTime": True, "titleFormat": title, "textFormat": "", "tagKeys": tags,
    }


def annotations() -> list[dict]:
    event = "runner_fault_event_timestamp_seconds"
    return [
        annotation("Kills", "red", f'{event}{{{RUN},action="begun",kind="crash"}}', "crash {{target}}", "kind,target"),
        annotation("Faults", "orange", f'{event}{{{RUN},action="begun",kind!="crash"}}', "{{kind}} {{target}}", "kind,target"),
        annotation("Phases", "purple", f'{event}{{{RUN},action=~"silent|dead|back|ready|healed|recovered"}}', "{{action}} {{target}}", "action,kind,target"),
        annotation("Observed", "yellow", f'{event}{{{RUN},action="observed"}}', "{{kind}} {{target}}", "kind,target"),
        annotation("Starts", "blue", "process_start_time_seconds", "{{node}} started", "node"),
    ]


def variables() -> list[dict]:
    def of(name: str, label: str, metric: str, source: str) -> dict:
        text = f"label_values({metric}, {source})"
        return {
            "name": name, "label": label, "type": "query", "datasource": PROMETHEUS, "definition": text, "refresh": 2,
            "query": {"query": text, "refId": name}, "includeAll": True, "allValue": ".*", "multi": True, "sort": 1,
            "current": {"text": "All", "value": "$__all"},
        }

    names = ("get", "set", "delete")
    ops = [{"text": text, "value": value, "selected": text == "All"} for text, value in (("All", "$__all"), *zip(names, names))]
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "current": {"text": "Prometheus", "value": "prom"}},
        of("run_id", "Run", "runner_build_info", "run_id"),
        of("node", "Node", "mesh_build_info", "node"),
        {"name": "jaeger", "label": "Jaeger", "type": "textbox", "query": JAEGER, "current": {"text": JAEGER, "value": JAEGER}},
        {"name": "op", "label": "Operation", "type": "custom", "query": ",".join(names), "options": ops, "includeAll": True, "multi": True,
            "allValue": "|".join(names), "current": {"text": "All", "value": "$__all"}},
    ]


def place(rows) -> list[dict]:
    """Panels fill the grid from left to right; a new row begins when one does not fit."""
    placed, top, number = [], 0, 0
    for index, (title, panels) in enumerate(rows):
        is_open, below, number = index < OPEN_ROWS, [], number + 1
        row = {"id": number, "type": "row", "title": title, "collapsed": not is_open, "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}}
        top, left, height = top + 1, 0, 0
        for each in panels():
            size = each["gridPos"]
            if left + size["w"] > WIDTH:
                top, left, height = top + height, 0, 0
            number += 1
            below.append({"id": number, **each, "gridPos": {"x": left, "y": top, **size}})
            left, height = left + size["w"], max(height, size["h"])
        top += height
        placed += [{**row, "panels": []}, *below] if is_open else [{**row, "panels": below}]
    return placed


def panels() -> list[dict]:
    """All of them, in rows that are open or not."""
    return [each for part in board()["panels"] for each in ([part] if part["type"] != "row" else part["panels"])]


def board() -> dict:
    return {
        "uid": "mesh-bench", "title": "Mesh Bench", "description": "Top to bottom: what clients got, where the time went, and why. Written by grafana/board.py.",
        "tags": ["mesh-bench"], "schemaVersion": SCHEMA_VERSION, "version": 1, "editable": False, "graphTooltip": 1,
        "time": {"from": "now-5m", "to": "now"}, "refresh": "5s", "timepicker": {"refresh_intervals": ["1s", "5s", "30s"]},
        "annotations": {"list": annotations()}, "templating": {"list": variables()}, "panels": place(ROWS),
        "links": [
            {"title": "Jaeger", "type": "link", "url": "${jaeger}", "targetBlank": True},
            {"title": "Prometheus", "type": "link", "url": "http://localhost:9090", "targetBlank": True},
        ],
    }


def text() -> str:
    return json.dumps(board(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text())
    print(f"{OUTPUT}: {len(panels())} panels")
