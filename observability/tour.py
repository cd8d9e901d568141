#!/usr/bin/env python3
"""Makes the pictures and the figures of the guided tour in docs/OBSERVABILITY.md, from a real run: five nodes, one is killed.

    cargo build --release -p node -p runner && python3 observability/tour.py --binaries target/release

Needs prometheus, protoc and Chromium. Writes docs/pictures/*.png and docs/pictures/tour.json; the text quotes the latter.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from observe import KILL_TOKEN, LocalStack, Ports
from pages import Traces, board_picture, graph_page, search_page, tags, trace_page

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"

# Five nodes, so that two reads of five go to another node; a rate that a laptop keeps while it draws pictures.
NODES = 5
RUN = {
    "RATE": "1000", "CONCURRENCY": "64", "DURATION": "30s", "KEYS": "5000", "SET_RATIO": "30", "SET_TTL_MS": "-1", "WARMUP": "3s",
    "KILL_MODE": "target", "KILL_AFTER": "8s", "KILL_TARGET": "2", "KILL_TOKEN": KILL_TOKEN, "ERRORS_MAX_PERCENT": "20",
}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binaries", type=Path, default=ROOT / "target" / "release")
    arguments.add_argument("--pictures", type=Path, default=PICTURES)
    given = arguments.parse_args()
    folder = ROOT / "target" / "tour"
    with LocalStack(given.binaries, Ports(free=True, nodes=NODES), folder) as local:
        if not (local.prometheus and local.ui):
            sys.exit("the tour needs prometheus and the trace UI")
        code = local.run(RUN)
        # The last spans and points are still under way.
        time.sleep(2)
        found = look(local, given.pictures)
    (given.pictures / "tour.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return code


def look(local: LocalStack, pictures: Path) -> dict:
    """Takes the pictures; gives what there is to be seen on them."""
    results = json.loads((local.folder / "results.json").read_text())
    killed = results["timeline"]["killed_at_unix_ms"] / 1000
    board_picture(local.url, killed - 6, killed + 16, pictures / "kill-board.png")
    graph_page(local.url, "sum by (instance) (up{job=\"mesh-node\"})", 1, pictures / "prometheus.png")

    nodes = [f"node{number}" for number in range(1, NODES + 1)]
    traces, found = Traces(local.ui_url), {"timeline": results["timeline"]}
    hedged = traces.with_leg(nodes, "GET /get", lambda leg: leg["hedged"] and leg["outcome"] == "won")
    missed = traces.with_leg(nodes, "POST /set", lambda leg: leg["outcome"] in ("timed_out", "failed", "pending"))
    for name, trace in (("hedged-get", hedged), ("killed-leg", missed)):
        if trace is None:
            raise SystemExit(f"the run has no trace for {name}: run it again")
        trace_page(local.ui_url, trace, pictures / f"{name}.png")
        found[name] = told(trace, killed)
    search_page(local.ui_url, "node1", "GET /get", pictures / "search.png")
    return found


def told(trace: dict, killed: float) -> dict:
    """A trace in a few lines: what the pictures show."""
    spans = sorted(trace["spans"], key=lambda span: span["startTime"])
    first = spans[0]["startTime"]
    lines = []
    for span in spans:
        said = {key: value for key, value in tags(span).items() if key in ("peer", "leg", "hedged", "outcome")}
        at_ms, took_ms = (span["startTime"] - first) / 1000, span["duration"] / 1000
        service = trace["processes"][span["processID"]]["serviceName"]
        lines.append(f"{at_ms:.2f} ms + {took_ms:.2f} ms {service} {span['operationName']} {said}")
    return {"trace": trace["traceID"], "after_kill_s": round(first / 1e6 - killed, 3), "spans": lines}


if __name__ == "__main__":
    sys.exit(main())
