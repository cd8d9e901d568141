"""Pictures of pages with what a run has left behind: traces in the trace UI, Prometheus' graph, panels of the board."""

import json
import sys
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "grafana"))
from picture import NoBrowser, ask, browse, picture  # noqa: E402, F401

WIDTH = 1240

# What a kill looks like on the board.
KILL_PANELS = ["p99, client over server", "Rate", "Who sees whom how", "Hints queued", "Slots not in sync", "Records repaired"]

class Traces:
    """What the trace UI has, to look for a telling one in it."""

    def __init__(self, ui: str):
        self.ui = ui

    def all(self, service: str, operation: str) -> list[dict]:
        asked = urllib.parse.urlencode({"service": service, "operation": operation, "limit": 20_000})
        with urllib.request.urlopen(f"{self.ui}/api/traces?{asked}", timeout=60) as response:
            return json.load(response)["data"]

    def with_legs(self, services: list[str], operation: str, *wanted) -> dict | None:
        """A trace that has a `mesh.leg` as wanted, for each of these wishes; of several that which took longest."""

        def fits(trace: dict) -> bool:
            legs = [{**tags(span), "at": span["startTime"] / 1e6} for span in trace["spans"] if span["operationName"] == "mesh.leg"]
            return all(any(wish(leg) for leg in legs) for wish in wanted)

        # A trace is found under its root: the node's, or the runner's if that kept it, too.
        found = [trace for service in [*services, "runner"] for trace in self.all(service, operation) if fits(trace)]
        return max(found, key=lambda trace: max(span["duration"] for span in trace["spans"]), default=None)


def tags(span: dict) -> dict:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def trace_page(ui: str, trace: dict, png: Path) -> None:
    """A trace as the UI shows it. Complains if its legs are not on the page."""
    height = 210 + 30 * len(trace["spans"])
    text = browse(f"{ui}/trace/{trace['traceID']}?uiEmbed=v0", png, WIDTH, height)
    if "mesh.leg" not in text:
        raise RuntimeError(f"{ui} does not show trace {trace['traceID']}")


def search_page(ui: str, service: str, operation: str, png: Path) -> None:
    asked = urllib.parse.urlencode({"service": service, "operation": operation, "limit": 20})
    text = browse(f"{ui}/search?{asked}", png, WIDTH, 900)
    if "mesh.get" not in text and operation not in text:
        raise RuntimeError(f"{ui} finds nothing for {service} {operation}")


def graph_page(prometheus: str, expr: str, minutes: int, png: Path) -> None:
    asked = urllib.parse.urlencode({"g0.expr": expr, "g0.tab": 0, "g0.range_input": f"{minutes}m"})
    browse(f"{prometheus}/graph?{asked}", png, WIDTH, 900)


def board_picture(prometheus: str, start: float, end: float, png: Path, names: dict[str, str] | None = None) -> None:
    picture(prometheus, KILL_PANELS, start, end, png, names)
