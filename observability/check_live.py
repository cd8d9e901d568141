"""What a run with a kill must have left behind in Prometheus and in the trace UI: the board has data, the kill stands where it
happened, traces are whole, exemplars lead to them, and the alerts fired. `observe.py --check` makes the run.
"""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pages import NoBrowser, Traces, board_picture, graph_page, trace_page
from watchers import Watcher

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "target" / "pages"

# How long anything may take to arrive, on a machine that is busy.
ARRIVES_WITHIN_S = 20.0

# What a killed node has recorded and not yet sent is lost. It sends every 200 ms, a starved one later, and takes a moment to die.
LOST_AROUND_KILL_S = 3.0

# Who is killed.
KILLED_SERVICE = "node2"

# How far apart two processes may date the same moment, in microseconds.
CLOCKS_APART_US = 1000

# As many as observability/jaeger.yaml lets a Jaeger keep, and how long it may take to look at them a few times.
TRACES_MAX = 50_000
JAEGER_WITHIN_S = 90.0


# Alerts that nothing in this run provokes fire from a fake exporter: what is proven then is the rule, in a real Prometheus. One failure
# in a hundred is a slow burn and no fast one.
FAKED = """
runner_integrity_violations_total{{run_id="fake-run",kind="wrong_value"}} {t}
mesh_hints_dropped_total{{node="fake",reason="full"}} {t}
mesh_ring_slots_owned{{node="fake"}} 4096
mesh_slots_in_sync{{node="fake"}} 4000
mesh_http_queue_duration_seconds_bucket{{node="fake",le="0.1"}} 0
mesh_http_queue_duration_seconds_bucket{{node="fake",le="+Inf"}} {t}
mesh_op_duration_seconds_bucket{{node="fake",op="fake",le="0.001"}} {t}
mesh_op_duration_seconds_bucket{{node="fake",op="fake",le="+Inf"}} {t}
mesh_requests_total{{node="fake",op="fake",outcome="refused"}} {t}
mesh_http_tls_certificate_expiry_timestamp_seconds{{node="fake"}} {t}
mesh_requests_total{{node="fake",op="fake",outcome="hit_local"}} {t}00
"""


class FakeExporter:
    """Exposes FAKED, with counters that grow by the second."""

    def __init__(self, port: int):
        began = time.monotonic()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                # Prometheus gives up on a scrape that is late.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(FAKED.lstrip().format(t=int(time.monotonic() - began)).encode())

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()


@dataclass
class Stack:
    """What runs, and since when."""

    prometheus: str
    traces: Watcher | None
    nodes: list[str]
    folder: Path
    began: float
    kill_token: str

    @property
    def ui(self) -> str | None:
        return self.traces.url if self.traces else None

    @property
    def killed_at(self) -> float:
        return self.results["faults"][0]["begun_at_unix_ms"] / 1000

    @property
    def results(self) -> dict:
        return json.loads((self.folder / "results.json").read_text())


class Complaint(Exception):
    """Something is not as it should be."""


def check_stack(stack: Stack) -> bool:
    """All checks; each is run, whatever became of the others."""
    checks = [check_kill_line, check_board, check_reconciliation]
    if stack.ui:
        checks += [check_requests, check_record, check_exemplars, check_runner_exemplars, check_wholeness, check_counts, check_hung_collector, check_pages]
    else:
        print("SKIPPED: traces, since there is no trace UI")
    shutil.rmtree(PAGES, ignore_errors=True)
    passed = True
    for check in [*checks, check_faults, check_alerts]:
        began, verdict = time.monotonic(), "ok"
        try:
            found = check(stack)
        except NoBrowser as why:
            verdict, found = "SKIPPED", f"({why})"
        except (Complaint, OSError, KeyError, RuntimeError, subprocess.TimeoutExpired) as complaint:
            passed, verdict, found = False, "FAILED", repr(complaint)
        print(f"{verdict}: {check.__doc__} {found} [{time.monotonic() - began:.1f} s]", flush=True)
    return passed


def check_kill_line(stack: Stack) -> str:
    """The annotation of the kill stands within a second of it, and its alert fired."""
    line = value(stack, 'last_over_time(runner_fault_event_timestamp_seconds{action="begun",kind="crash"}[5m])')
    off_ms = abs(line - stack.killed_at) * 1000
    alerted = value(stack, 'count_over_time(ALERTS{alertname="MeshNodeDown",alertstate="firing"}[5m])')
    expect(off_ms < 1000 and alerted > 0, f"{off_ms:.0f} ms, and MeshNodeDown fired for {alerted:.0f} s")
    return f"({off_ms:.0f} ms; MeshNodeDown for {alerted:.0f} s)"


def check_board(stack: Stack) -> str:
    """Every query of the board has data."""
    script = [sys.executable, str(ROOT / "grafana" / "check.py"), "--live", stack.prometheus]
    done = subprocess.run([*script, "--from", str(stack.began), "--to", str(time.time())], check=False)
    expect(done.returncode == 0, "see above")
    return ""


def check_reconciliation(stack: Stack) -> str:
    """Client and nodes count the same operations, and Prometheus' p99 of the nodes lies where their own histograms have it."""
    both = stack.results["reconciliation"]
    expect(not both["differences"] and not both["prometheus"], f"{both['differences']}, {both['prometheus']}")
    lossy = [node for node in both["lossy_nodes"] if node["unexplained"] == 0]
    expect(len(lossy) == 1, f"one node was killed, and its count since does not fit: {both['lossy_nodes']}")
    found = []
    for op in both["ops"]:
        p99 = op["p99"]
        own, watched, bounds = p99["nodes_ms"], p99["prometheus_ms"], p99["nodes_bucket_ms"]
        # Prometheus has what the killed node counted, too.
        expect(watched is not None and bounds[0] / 5 <= watched <= 5 * (bounds[1] or watched), f"{op['op']}: {p99}")
        found.append(f"{op['op']} {p99['response_ms']:.2f} ms, nodes {own:.2f}, Prometheus {watched:.2f}, {p99['unexplained_percent']:.1f} % unexplained")
    return f"({'; '.join(found)})"


def check_requests(stack: Stack) -> str:
    """A SET's trace has a leg per owner, a GET's that asked another owner has spans of two services."""
    run, found = int(time.time() * 1000), []
    for number, (method, path) in enumerate((("POST", "/set"), ("GET", "/get?k=traced&consistency=quorum")), 1):
        trace = f"{run:031x}{number}"
        request(stack.nodes[0], method, path, trace)
        root, serves = f"{method} {path.partition('?')[0]}", 2 if method == "POST" else 1
        at_least = Counter({root: 1, "mesh.leg": 3 if method == "POST" else 1, "mesh.serve": serves})
        spans = eventually(
            f"{dict(at_least)} in {trace}",
            lambda: at_least <= Counter(span["name"] for span in trace_of(stack, trace)) and trace_of(stack, trace),
        )
        services = {span["service"] for span in spans}
        expect(len(spans) >= 3 and len(services) >= 2, f"{method}: {len(spans)} spans of {services}")
        peers = [span["tags"]["peer"] for span in spans if span["name"] == "mesh.leg"]
        expect(len(set(peers)) == len(peers), f"{method}: legs to {peers}")
        found.append(f"{method}: {len(spans)} spans, {len(services)} services")
    return f"({'; '.join(found)})"


def check_record(stack: Stack) -> str:
    """Every request in the runner's own record (slow, failed, failed over) resolves, with what the nodes did."""
    results = stack.results
    record = {each["trace"] for kind in results["traces"]["kept"].values() for each in kind["traces"]}
    answered = {each["trace"] for each in results["slowest"] if each["trace"]}
    lost = 0
    for trace in record | answered:
        spans = eventually(f"trace {trace}", lambda: trace_of(stack, trace))
        roots = [span for span in spans if span["service"] == "runner" and not span["parent"]]
        expect(len(roots) == 1, f"{trace} has {len(roots)} spans of the runner: {spans}")
        if trace in answered and not any(span["service"] != "runner" for span in spans):
            expect(is_around_kill(stack, roots[0]["start"]), f"{trace} has no span of a node, and ended well: {spans}")
            lost += 1
    return f"({len(record | answered)} requests; {lost} of whose nodes' parts died with the killed node)"


def check_exemplars(stack: Stack) -> str:
    """Every exemplar in Prometheus leads to a trace with spans of the node that it came from."""
    parameters = {"query": "mesh_op_duration_seconds_bucket", "start": stack.began, "end": time.time()}
    data = api(stack.prometheus, f"/api/v1/query_exemplars?{urllib.parse.urlencode(parameters)}")["data"]
    found = {
        (each["labels"]["trace_id"], series["seriesLabels"]["node"], float(each["timestamp"]))
        for series in data for each in series["exemplars"]
    }
    nodes = {node for _, node, _ in found}
    expect(len(nodes) == len(stack.nodes), f"exemplars only of {nodes or 'nobody'}")
    lost = 0
    for trace, node, at in found:
        spans = trace_of(stack, trace)
        if not any(span["service"] == node and span["name"].startswith("mesh.") for span in spans):
            # The killed node's last exemplars may have been scraped, and their spans not sent.
            expect(is_around_kill(stack, at), f"{node}'s trace {trace} of {at} has {len(spans)} spans")
            lost += 1
    return f"({len(found)} exemplars of {len(nodes)} nodes; {lost} died with the killed node)"


def check_runner_exemplars(stack: Stack) -> str:
    """Every exemplar of the runner leads to a trace that it began, and the slowest of its requests is among them."""
    parameters = {"query": "runner_op_duration_seconds_bucket", "start": stack.began, "end": time.time()}
    data = api(stack.prometheus, f"/api/v1/query_exemplars?{urllib.parse.urlencode(parameters)}")["data"]
    found = {each["labels"]["trace_id"]: float(each["value"]) for series in data for each in series["exemplars"]}
    expect(found, "no exemplars of the runner")
    for trace in found:
        roots = [span for span in trace_of(stack, trace) if span["service"] == "runner" and not span["parent"]]
        expect(len(roots) == 1, f"the runner's trace {trace} has {len(roots)} roots")
    slowest_s = max(request["response_ms"] for request in stack.results["slowest"]) / 1000
    expect(max(found.values()) >= slowest_s * 0.999, f"the slowest exemplar is of {max(found.values())} s, the slowest request took {slowest_s} s")
    return f"({len(found)} exemplars, of up to {max(found.values()):.3f} s)"


def check_wholeness(stack: Stack) -> str:
    """No span is an orphan, but for those whose parents died with the killed node; rare events are there."""
    victim = killed_node_id(stack)

    found = {}

    def unexcused() -> list[str]:
        found.update(received(stack))
        return [
            f"{span['name']} of {span['service']} in {trace}, {span['start'] - stack.killed_at:+.1f} s from the kill"
            for trace in found["incomplete"] for span in orphans(stack, trace) if not is_excused(stack, span, victim)
        ]

    # The last spans of a trace may still be under way.
    eventually("orphans to find their parents", lambda: not unexcused(), lambda: f"{unexcused()[:5]}")
    expect(not found["warnings"], f"the collector warns: {found['warnings'][:5]}")
    round_of_probes = named(stack, "node1", "gossip.round")
    expect(any(span["name"] == "gossip.probe" for span in round_of_probes), f"a gossip round without probes: {round_of_probes}")
    for name in ("member.dead", "member.alive", "hints.replay"):
        expect(named(stack, "node1", name) or named(stack, "node3", name), f"no {name}")
    expect(named(stack, "node2", "repair.round"), "node2 came back without repair")
    return f"({found['traces']} traces; {len(found['incomplete'])} lost a parent with the killed node)"


def named(stack: Stack, service: str, operation: str) -> list[dict]:
    """The spans of some trace whose root is called so."""
    found = api(stack.ui, f"/api/traces?service={service}&operation={operation}&limit=1")["data"]
    return trace_of(stack, found[0]["traceID"]) if found else []


def is_excused(stack: Stack, span: dict, victim: str) -> bool:
    """What the killed node asked of others just before its end: its own spans of that were not sent yet. Or its probes of a round that
    was open when it ended."""
    asked = span["name"] == "mesh.serve" and span["tags"]["peer"] == victim
    probed = span["name"] == "gossip.probe" and span["service"] == KILLED_SERVICE
    return (asked or probed) and is_around_kill(stack, span["start"])


def check_counts(stack: Stack) -> str:
    """Spans kept are those exported, failed and dropped; those exported are those that the collector has received."""
    survivors = [url for url in stack.nodes if url != stack.nodes[1]]

    def add_up() -> str | None:
        before = {url: span_counts(url)[1]["exported"] for url in survivors}
        by_sender, figures = received(stack)["spans_by_sender"], []
        for url in stack.nodes:
            node, counts = span_counts(url)
            if counts["kept"] != counts["exported"] + counts["failed"] + counts["dropped"]:
                return None
            # The other one has been two processes. To look at all traces of a Jaeger takes a while, in which more are sent.
            if url in survivors and not before[url] <= by_sender[node] <= counts["exported"]:
                return None
            figures.append(f"{node} {counts['exported']} + {counts['failed']} + {counts['dropped']}")
        return ", ".join(figures)

    return f"({eventually('the counts to add up', add_up, within_s=JAEGER_WITHIN_S if stack.traces.is_jaeger else None)})"


def check_hung_collector(stack: Stack) -> str:
    """While the collector hangs spans are lost and counted and requests answered; then it takes spans again."""
    before = span_counts(stack.nodes[0])[1]
    stack.traces.process.send_signal(signal.SIGSTOP)
    try:
        lost = eventually("losses to be counted", lambda: span_counts(stack.nodes[0])[1]["failed"] - before["failed"])
        request(stack.nodes[0], "GET", "/get?k=traced", f"{time.time_ns():032x}")
        eventually("MeshTelemetryDropped", lambda: "MeshTelemetryDropped" in fired(stack))
    finally:
        stack.traces.process.send_signal(signal.SIGCONT)
    hung = span_counts(stack.nodes[0])[1]["exported"]
    eventually("spans to be taken again", lambda: span_counts(stack.nodes[0])[1]["exported"] > hung)
    return f"({lost} lost)"


def check_pages(stack: Stack) -> str:
    """The trace UI, Prometheus and the board's panels open in a browser."""
    graph_page(stack.prometheus, 'sum by (instance) (up{job="mesh-node"})', 1, PAGES / "prometheus.png")
    board_picture(stack.prometheus, stack.killed_at - 4, stack.killed_at + 12, PAGES / "board.png")
    trace_pages(stack)
    kept = sorted(PAGES.glob("*.png"))
    expect(all(png.stat().st_size > 10_000 for png in kept), f"an empty page among {kept}")
    return f"({', '.join(png.name for png in kept)} in target/pages)"


def trace_pages(stack: Stack) -> None:
    if not stack.traces.has_pages:
        print(f"SKIPPED: pages of traces, since {stack.traces.program} was built without its UI")
        return
    services, traces = [f"node{number}" for number in range(1, len(stack.nodes) + 1)], Traces(stack.ui)
    wanted = {
        "hedged-get": ("GET /get", lambda leg: leg["hedged"]),
        "killed-leg": ("POST /set", lambda leg: leg["outcome"] not in ("won", "lost") and leg["at"] > stack.killed_at),
        "set": ("POST /set", lambda leg: leg["outcome"] == "won"),
    }
    found = {name: traces.with_legs(services, *how) for name, how in wanted.items()}
    expect(found["set"] is not None, "no SET was traced")
    if found["killed-leg"]:
        del found["set"]
    for name, trace in found.items():
        if trace:
            trace_page(stack.ui, trace, PAGES / f"{name}.png")


def check_faults(stack: Stack) -> str:
    """A node that is cut off splits the ring and fails writes, one with a wrong clock is refused; both are told and alerted."""
    first, second, third = stack.nodes
    # Ahead of what others take, and not for long: its versions stay ahead until the time is come.
    lay(stack, second, {"for_ms": 3000, "clock_offset_ms": 2000})
    # While it lasts: writes to a node that is cut off may take long.
    for _ in range(10):
        write(second)
    lay(stack, third, {"for_ms": 60_000, "links": [{"peer": "*", "cut": True}]})
    failed = 0
    deadline = time.monotonic() + 60
    try:
        while not {"MeshRingSplit", "MeshErrorBudgetFastBurn", "MeshClockAhead"} <= (alerts := fired(stack)):
            expect(time.monotonic() < deadline, f"of the three only {alerts} fired")
            for _ in range(200):
                failed += not write(third)
            write(second)
    finally:
        asked = urllib.request.Request(f"{third}/fault?token={stack.kill_token}", method="DELETE")
        urllib.request.urlopen(asked, timeout=10).close()
    if stack.ui:
        for node in ("node2", "node3"):
            eventually(f"the fault of {node}", lambda: named(stack, node, "fault.injected"))
    return f"({failed} writes failed)"


def lay(stack: Stack, url: str, order: dict) -> None:
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{url}/fault?token={stack.kill_token}", json.dumps(order).encode(), headers, method="POST")
    urllib.request.urlopen(asked, timeout=10).close()


def write(url: str) -> bool:
    """Whether a write is taken."""
    try:
        request(url, "POST", "/set", f"{time.time_ns():032x}")
        return True
    except OSError:
        return False


def check_alerts(stack: Stack) -> str:
    """Every alert has fired."""
    wanted = set(re.findall(r"alert: (\S+)", (ROOT / "observability" / "rules" / "mesh.rules.yml").read_text()))
    if not stack.ui:
        wanted.discard("MeshTelemetryDropped")
    # The slow burn has to last for half a minute.
    eventually("the alerts", lambda: wanted <= fired(stack), lambda: f"{wanted - fired(stack)}", within_s=60)
    return f"({len(wanted)} of them)"


def fired(stack: Stack) -> set[str]:
    expr = 'count by (alertname) (last_over_time(ALERTS{alertstate="firing"}[10m]))'
    return {each["metric"]["alertname"] for each in query(stack, expr)}


def received(stack: Stack) -> dict:
    """What the collector has received: how many traces, spans by their sender, and which traces lack a span; a Jaeger's warnings about the
    others. Our trace UI counts; of a Jaeger all traces are looked at."""
    if not stack.traces.is_jaeger:
        return api(stack.ui, "/status") | {"warnings": []}
    found = {}
    for service in api(stack.ui, "/api/services")["data"]:
        for trace in api(stack.ui, f"/api/traces?service={service}&limit={TRACES_MAX}", within_s=60)["data"]:
            found[trace["traceID"]] = trace
    senders, lacking, warnings = Counter(), [], []
    for id, trace in found.items():
        spans = {span["spanID"] for span in trace["spans"]}
        senders.update(trace["processes"][span["processID"]]["serviceName"] for span in trace["spans"])
        if any(each["spanID"] not in spans for span in trace["spans"] for each in span["references"] or []):
            lacking.append(id)
        else:
            warnings += warnings_of(trace)
    return {"traces": len(found), "spans_by_sender": senders, "incomplete": lacking, "warnings": warnings}


def warnings_of(trace: dict) -> list[str]:
    """What a Jaeger warns about. Not that a peer answers a leg whose operation has ended without it, or that the clocks of two processes
    are a little apart."""
    spans = {span["spanID"]: span for span in trace["spans"]}

    def may_stand_outside(span: dict) -> bool:
        parent = next((spans[each["spanID"]] for each in span["references"] or []), None)
        if not parent:
            return False
        begins, ends = (parent["startTime"] - span["startTime"], span["startTime"] + span["duration"] - parent["startTime"] - parent["duration"])
        is_pending = any(tag["key"] == "outcome" and tag["value"] == "pending" for tag in parent["tags"])
        return (is_pending and begins <= CLOCKS_APART_US) or max(begins, ends) <= CLOCKS_APART_US

    told = ((span, warning) for span in trace["spans"] for warning in span.get("warnings") or [])
    return [
        f"{span['operationName']} in {trace['traceID']}: {warning}" for span, warning in told
        if "clock skew" not in warning or not may_stand_outside(span)
    ]


def orphans(stack: Stack, trace: str) -> list[dict]:
    spans = trace_of(stack, trace)
    ids = {span["id"] for span in spans}
    return [span for span in spans if span["parent"] and span["parent"] not in ids]


def is_around_kill(stack: Stack, at: float) -> bool:
    return abs(at - stack.killed_at) <= LOST_AROUND_KILL_S


def killed_node_id(stack: Stack) -> str:
    return metrics(stack.nodes[1], r'mesh_build_info\{.*\bid="(\w+)"')[0]


def span_counts(url: str) -> tuple[str, dict[str, int]]:
    """A node's name, and what became of its spans."""
    found = metrics(url, r'mesh_spans_(\w+)_total\{node="(\w+)"\} (\d+)')
    return found[0][1], {what: int(count) for what, _, count in found}


def metrics(url: str, pattern: str) -> list:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        return re.findall(pattern, response.read().decode())


def request(url: str, method: str, path: str, trace: str) -> None:
    """One request to a node, as a caller who wants it traced."""
    body = json.dumps({"k": "traced", "v": "value", "ttl_ms": -1}).encode() if method == "POST" else None
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "Content-Type": "application/json"}
    asked = urllib.request.Request(url + path, body, headers, method=method)
    with urllib.request.urlopen(asked, timeout=10) as response:
        response.read()


def trace_of(stack: Stack, trace: str) -> list[dict]:
    """A trace's spans, as far as they have arrived. The parent that a caller without spans named is none."""
    try:
        found = api(stack.ui, f"/api/traces/{trace}")["data"][0]
    except urllib.error.HTTPError:
        return []
    return [
        {
            "id": span["spanID"], "name": span["operationName"], "start": span["startTime"] / 1e6,
            "service": found["processes"][span["processID"]]["serviceName"],
            "tags": {tag["key"]: tag["value"] for tag in span["tags"]},
            "parent": next((each["spanID"] for each in span["references"] or [] if each["spanID"] != "00f067aa0ba902b7"), None),
        }
        for span in found["spans"]
    ]


def query(stack: Stack, expr: str) -> list[dict]:
    return api(stack.prometheus, f"/api/v1/query?{urllib.parse.urlencode({'query': expr})}")["data"]["result"]


def value(stack: Stack, expr: str) -> float:
    found = query(stack, expr)
    return float(found[0]["value"][1]) if found else 0.0


def api(url: str, path: str, within_s: float = 10) -> dict:
    with urllib.request.urlopen(url + path, timeout=within_s) as response:
        return json.load(response)


def eventually(what: str, found, instead=lambda: "", within_s: float | None = None):
    """What `found` gives, once that is something."""
    within_s = ARRIVES_WITHIN_S if within_s is None else within_s
    deadline = time.monotonic() + within_s
    while not (result := found()):
        expect(time.monotonic() < deadline, f"after {within_s:.0f} s still waiting for {what}: {instead()}")
        time.sleep(0.1)
    return result


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Complaint(otherwise)
