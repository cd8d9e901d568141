#!/usr/bin/env python3
"""Makes the pictures and the figures of the guided tour in docs/OBSERVABILITY.md, from a real run: five nodes, one is killed.

    cargo build --release -p node -p runner && python3 observability/tour.py --binaries target/release

Needs prometheus, protoc and Chromium. Writes docs/pictures/*.png and the text between the two marks in docs/OBSERVABILITY.md, whose figures are
those of the run.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from observe import KILL_TOKEN, LocalStack, Ports
from signals import Signals
from pages import Traces, ask, board_picture, graph_page, tags, trace_page

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "OBSERVABILITY.md"
BEGIN, END = "<!-- Written by observability/tour.py from here ... -->", "<!-- ... to here. -->"

# Five nodes, so that two reads of five go to another node; a rate that a laptop keeps while it draws pictures.
NODES = 5
VICTIM = "node2"
RUN = {
    "RATE": "1000", "CONCURRENCY": "64", "DURATION": "32s", "KEYS": "5000", "SET_RATIO": "30", "SET_TTL_MS": "-1", "WARMUP": "3s",
    "KILL_MODE": "target", "KILL_AFTER": "12s", "KILL_TARGET": "2", "KILL_TOKEN": KILL_TOKEN, "ERRORS_MAX_PERCENT": "20",
}

# Why a GET needed more than one leg.
SILENT = f"""The first leg went to {VICTIM}, which was silent. After the hedge delay a second leg went to another owner; its answer won, and the
first leg was cancelled."""
FAILED = f"""The leg to {VICTIM} failed, and another owner's answer won."""
SLOW = """The first leg's owner was slow at that moment. After the hedge delay a second leg went to another owner; its answer won, and the first
leg was cancelled."""

# The highest that clients have seen in the last four seconds: each point is itself of the second before.
P99 = 'max_over_time(histogram_quantile(0.99, sum by (le) (rate(runner_op_duration_seconds_bucket{{op="{op}"}}[2s])))[4s:1s])'

# What became of the leg of a SET to the dead node.
LEG_ENDS = {
    "pending": "was still pending when the caller had its answer, and becomes a hint when it fails",
    "failed": "failed at once, since its connection was known to be gone, and became a hint",
    "timed_out": "timed out, and became a hint",
    "cancelled": "was given up, and became a hint",
}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binaries", type=Path, default=ROOT / "target" / "release")
    arguments.add_argument("--dry", action="store_true", help="leave docs as they are: pictures and figures go to target/tour")
    given = arguments.parse_args()
    folder = ROOT / "target" / "tour"
    with LocalStack(given.binaries, Ports(free=True, nodes=NODES), folder, Signals()) as local:
        if not (local.prometheus and local.traces and local.traces.has_pages):
            sys.exit("the tour needs prometheus, and the trace UI or a Jaeger with its UI")
        code = local.run(RUN)
        # The last spans and points are still under way.
        time.sleep(2)
        found = look(local, folder if given.dry else ROOT / "docs" / "pictures")
    print(json.dumps(found, indent=2))
    if not given.dry:
        before, rest = DOCUMENT.read_text().split(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{story(found)}{END}{rest.split(END)[1]}")
    return code


def look(local: LocalStack, pictures: Path) -> dict:
    """Takes the pictures; gives what there is to be seen on them."""
    results = json.loads((local.folder / "results.json").read_text())
    crash = results["faults"][0]
    killed = crash["begun_at_unix_ms"] / 1000
    names = {f"127.0.0.1:{port}": f"node{at}" for at, port in enumerate(local.ports.quic, 1)}
    board_picture(local.prometheus.url, killed - 5, killed + 15, pictures / "kill-board.png", names)
    graph_page(local.prometheus.url, 'sum by (instance) (up{job="mesh-node"})', 1, pictures / "prometheus.png")

    nodes = [f"node{number}" for number in range(1, NODES + 1)]
    survivors = [node for node in nodes if node != VICTIM]
    ids = {each["metric"]["id"]: each["metric"]["node"] for each in ask(local.prometheus.url, "query", query="mesh_build_info")}
    victim = next(id for id, node in ids.items() if node == VICTIM)

    def to_victim(leg: dict) -> bool:
        return leg["peer"] == victim and killed <= leg["at"] <= killed + 10

    traces = Traces(local.traces.url)
    # Few reads meet the dead node before it is asked last, so what can be shown depends on the run.
    for why, wishes in (
        (SILENT, (lambda leg: to_victim(leg) and leg["outcome"] == "cancelled", lambda leg: leg["hedged"] and leg["outcome"] == "won")),
        (FAILED, (lambda leg: to_victim(leg) and leg["outcome"] in ("failed", "timed_out"), lambda leg: leg["outcome"] == "won")),
        (SLOW, (lambda leg: leg["hedged"] and leg["outcome"] == "won" and leg["at"] >= killed,)),
    ):
        hedged = traces.with_legs(survivors, "GET /get", *wishes)
        if hedged:
            break
    missed = traces.with_legs(survivors, "POST /set", lambda leg: to_victim(leg) and leg["outcome"] not in ("won", "lost"))
    found = {
        "killed_s": crash["begun_at_s"],
        "dead_s": [round(survivor["dead_at_s"] - crash["begun_at_s"], 2) for survivor in crash["survivors"]],
        "back_s": round(crash["ended_at_s"] - crash["begun_at_s"], 2),
        "ready_s": round(crash["ready_at_s"] - crash["begun_at_s"], 2),
        "operations": results["totals"]["total"], "errors": results["totals"]["errors"],
        "failed_over": results["totals"]["failed_over"],
        "wrong": sum(results["integrity"][kind] for kind in ("wrong_object", "corrupt", "unwritten", "missing", "lost")),
        "hints_most": value_of(local.prometheus.url, "max_over_time(sum(mesh_hints_queued)[60s:1s])"),
        "hints_replayed": value_of(local.prometheus.url, "sum(mesh_hints_replayed_total)"),
        "records_repaired": value_of(local.prometheus.url, f'sum(mesh_repair_keys_total{{node="{VICTIM}"}})'),
        "hedge_wins": value_of(local.prometheus.url, "sum(mesh_hedge_wins_total)"),
        "p99_ms": {op: [round(1000 * value_of(local.prometheus.url, P99.format(op=op), killed + at), 1) for at in (0, 5, 10)] for op in ("get", "set")},
    }
    for name, trace in (("hedged-get", hedged), ("killed-leg", missed)):
        if trace is None:
            raise SystemExit(f"the run has no trace for {name}: run it again")
        trace_page(local.traces.url, trace, pictures / f"{name}.png")
        found[name] = told(trace, killed, ids)
    found["hedged-get"]["why"] = why
    legs = [tags(span) for span in missed["spans"] if span["operationName"] == "mesh.leg"]
    found["killed-leg"]["end"] = next(LEG_ENDS[leg["outcome"]] for leg in legs if leg["peer"] == victim)
    return found


def value_of(prometheus: str, expr: str, at: float | None = None) -> float:
    found = ask(prometheus, "query", query=expr, time=at or time.time())
    return float(found[0]["value"][1]) if found else 0.0


def told(trace: dict, killed: float, names: dict[str, str]) -> dict:
    """A trace in a few lines: what the pictures show."""
    spans = sorted(trace["spans"], key=lambda span: span["startTime"])
    first = spans[0]["startTime"]
    lines = []
    for span in spans:
        said = {key: names.get(value, value) for key, value in tags(span).items() if key in ("peer", "hedged", "outcome")}
        at_ms, took_ms = (span["startTime"] - first) / 1000, span["duration"] / 1000
        service = trace["processes"][span["processID"]]["serviceName"]
        lines.append(f"{at_ms:.2f} ms + {took_ms:.2f} ms {service} {span['operationName']} {said}")
    return {"trace": trace["traceID"], "after_kill_s": round(first / 1e6 - killed, 3), "spans": lines}


def story(found: dict) -> str:
    """The tour, with the figures of this run."""
    dead = sorted(found["dead_s"])
    before, then, later = ([found["p99_ms"][op][at] for op in ("get", "set")] for at in range(3))
    hedged, missed = ("\n".join(found[name]["spans"]) for name in ("hedged-get", "killed-leg"))
    return f"""
Five nodes with three replicas each on one machine, {RUN["RATE"]} operations a second, {RUN["SET_RATIO"]} % of them SETs; after
{found["killed_s"]:.1f} s {VICTIM} is killed, and comes back empty five seconds later. The pictures and figures are one run's:
`python3 observability/tour.py` makes them anew.

**1. What happened?** The board (panels drawn by `grafana/picture.py`; Grafana shows the same queries). The red line is the kill.

![Six panels of the board around the kill](pictures/kill-board.png)

- *Who sees whom how*: within two gossip rounds the four others suspect {VICTIM}, and {dead[-1]:.2f} s after the kill they have all declared it
  dead: SUSPICION_AFTER_MS and what the probes took. It is back after {found["back_s"]:.1f} s and ready after
  {found["ready_s"]:.1f} s.
- *Rate*: {VICTIM}'s lines end, and the others take over its share.
- *p99, client over server*: the highest p99 that clients saw in four seconds (GETs, SETs) was {before[0]} and {before[1]} ms just before the kill,
  {then[0]} and {then[1]} ms while {VICTIM} was away, and {later[0]} and {later[1]} ms while it came back and filled up. Where the client's line is above
  the servers', the time went outside the mesh: into connections, queues and second tries.
- *Hints queued*: up to {found["hints_most"]:.0f} writes waited for {VICTIM}; {found["hints_replayed"]:.0f} were replayed when it was back.
- *Slots not in sync* and *Records repaired*: when {VICTIM} is declared dead the others take over its slots and fetch what belongs to them;
  when it returns it fills up, with {found["records_repaired"]:.0f} records in all.

**2. Why was this GET slow?** An exemplar, or the search for `GET /get` with the longest durations, leads to a trace such as this one,
{found["hedged-get"]["after_kill_s"]:.1f} s after the kill:

![A GET with two legs, of which the second won](pictures/hedged-get.png)

```
{hedged}
```

{found["hedged-get"]["why"]} {found["hedge_wins"]:.0f} hedges won in this run.

**3. And the SETs?** Two of three owners are enough, so a SET does not wait for the dead one:

![A SET that two owners have acknowledged, and the leg to the killed node](pictures/killed-leg.png)

```
{missed}
```

The leg to {VICTIM} {found["killed-leg"]["end"]}.

**4. Was anything lost?** {found["operations"]} operations, {found["errors"]} errors, {found["failed_over"]} answered by a second node, {found["wrong"]} wrong or lost. Prometheus
itself (`up`) shows what no node could tell: when {VICTIM} did not answer its scrapes.

![Prometheus' graph of up: one node's line falls to 0 and returns](pictures/prometheus.png)

"""


if __name__ == "__main__":
    sys.exit(main())
