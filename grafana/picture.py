#!/usr/bin/env python3
"""Draws panels of the board without Grafana: the same queries, asked of a real Prometheus, as one picture.

    python3 grafana/picture.py --prometheus http://localhost:9090 --output kill.png "What clients see" "Hints queued"
"""

import argparse
import html
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import board

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A page has loaded by then; time stands still for it while it waits for the network.
PAGE_MS = 10_000

PANEL_WIDTH, PANEL_HEIGHT, COLUMNS = 620, 270, 2
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 34, 58
COLOURS = ["#1f77b4", "#e08a00", "#2ca02c", "#9467bd", "#17becf", "#8c564b", "#c4338b", "#7f7f7f", "#bcbd22", "#3d5a80"]
LINES_MAX = 10
STATES = ["#2ca02c", "#e0b400", "#d62728", "#7f7f7f"]
FAULTS = ("partition", "flap", "loss", "delay", "reorder", "duplicate", "slow", "clock", "pause", "crash", "stop", "storm")
EVENTS = {**dict.fromkeys(FAULTS, "#e67e22"), "crash": "#d62728"}
OTHER_EVENT = "#8e44ad"


class NoBrowser(Exception):
    """Nothing here can render a page."""


def browse(url: str, png: Path, width: int, height: int) -> str:
    """Takes a picture of a page; returns its text as the browser holds it in the end."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise NoBrowser(f"none of {', '.join(BROWSERS)} is installed")
    png.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
             "--disable-dev-shm-usage", f"--user-data-dir={profile}", f"--window-size={width},{height}",
             f"--virtual-time-budget={PAGE_MS}", f"--screenshot={png.resolve()}", "--dump-dom", url],
            capture_output=True, text=True, timeout=120, check=False,
        )
    if not png.exists():
        raise RuntimeError(f"{browser} took no picture of {url}: {done.stderr[-500:]}")
    return done.stdout


def ask(prometheus: str, path: str, **parameters) -> list[dict]:
    with urllib.request.urlopen(f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as response:
        return json.load(response)["data"]["result"]


def series_of(prometheus: str, panel: dict, start: float, end: float, names: dict[str, str]) -> list[tuple[str, list[tuple[float, float]]]]:
    """Legend and points of every line, addresses replaced by names. Of many lines only those on which something happens."""
    found = []
    for target in panel["targets"]:
        expr = target["expr"]
        for variable, value in {"$run_id": "\\\\d+-\\\\d+-\\\\w+", "$node": "node\\\\d+", "$op": "get|set", "$__rate_interval": "4s"}.items():
            expr = expr.replace(variable, value)
        for each in ask(prometheus, "query_range", query=expr, start=start, end=end, step="1"):
            legend = re.sub(r"\{\{(\w+)\}\}", lambda label: each["metric"].get(label[1], ""), target["legendFormat"])
            for address, name in names.items():
                legend = legend.replace(address, name)
            points = [(float(at), float(value)) for at, value in each["values"] if value not in ("NaN", "+Inf", "-Inf")]
            found.append((panel["title"] if legend == "__auto" else legend, points))
    eventful = [(legend, points) for legend, points in found if len({value for _, value in points}) > 1]
    return sorted(eventful if len(found) > LINES_MAX and eventful else found)


def events(prometheus: str, end: float) -> list[tuple[float, str]]:
    found = ask(prometheus, "query", query="last_over_time(runner_fault_event_timestamp_seconds[1h])", time=end)
    # A fault of FAULTS is called by its kind.
    called = lambda metric: metric["kind"] if metric["action"] == "begun" else metric["action"]  # noqa: E731
    return sorted((float(each["value"][1]), called(each["metric"])) for each in found)


def shown(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:g} s" if value >= 1 else f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"
    if unit == "percentunit":
        return f"{value:.3%}".replace(".000%", "%")
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k" if value >= 1e3 else f"{value:.3g}"


class Axes:
    """One panel's frame: from time and value to a place in it."""

    def __init__(self, start: float, end: float, top: float):
        self.start, self.end = start, end
        # Four steps of a round size.
        digit = 10.0 ** math.floor(math.log10((top or 1.0) / 4))
        self.top = 4 * digit * next(size for size in (1, 2, 2.5, 5, 10) if 4 * digit * size >= (top or 1.0))
        self.width, self.height = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def x(self, at: float) -> float:
        return LEFT + (at - self.start) / (self.end - self.start) * self.width

    def y(self, value: float) -> float:
        return TOP + (1 - value / self.top) * self.height

    def frame(self, title: str, zero: float) -> str:
        step = next(step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300) if (self.end - self.start) / step <= 10)
        parts = [f'<text x="{LEFT}" y="20" class="title">{html.escape(title)}</text>']
        second = zero + step * -int((zero - self.start) / step)
        while second <= self.end:
            parts.append(f'<line x1="{self.x(second):.1f}" x2="{self.x(second):.1f}" y1="{TOP}" y2="{TOP + self.height}" class="grid"/>')
            parts.append(f'<text x="{self.x(second):.1f}" y="{TOP + self.height + 14}" class="tick" text-anchor="middle">{second - zero:+.0f} s</text>')
            second += step
        return "".join(parts)

    def marks(self, happened: list[tuple[float, str]]) -> str:
        parts, last = [], -100.0
        for at, action in happened:
            if not self.start <= at <= self.end:
                continue
            colour, x = EVENTS.get(action, OTHER_EVENT), self.x(at)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + self.height}" stroke="{colour}" stroke-dasharray="4 2"/>')
            if x - last > 34:
                parts.append(f'<text x="{x + 3:.1f}" y="{TOP - 2}" class="tick" fill="{colour}">{action}</text>')
                last = x
        return "".join(parts)


def drawn(panel: dict, found, happened, start: float, end: float) -> str:
    """One panel as SVG."""
    zero = next((at for at, action in happened if action in EVENTS), start)
    body = bands if panel["type"] == "state-timeline" else curves
    return f'<svg width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}">{body(panel, found, happened, start, end, zero)}</svg>'


def curves(panel: dict, found, happened, start: float, end: float, zero: float) -> str:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes = Axes(start, end, max((value for _, points in found for _, value in points), default=1.0) * 1.02)
    parts = [axes.frame(panel["title"], zero)]
    for share in range(5):
        value = axes.top * share / 4
        parts.append(f'<line x1="{LEFT}" x2="{PANEL_WIDTH - RIGHT}" y1="{axes.y(value):.1f}" y2="{axes.y(value):.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{axes.y(value) + 4:.1f}" class="tick" text-anchor="end">{shown(value, unit)}</text>')
    for limit in limits(panel):
        if limit <= axes.top:
            parts.append(f'<line x1="{LEFT}" x2="{PANEL_WIDTH - RIGHT}" y1="{axes.y(limit):.1f}" y2="{axes.y(limit):.1f}" stroke="red" stroke-dasharray="6 4"/>')
    x, y = LEFT, PANEL_HEIGHT - 24
    for number, (legend, points) in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        runs: list[list[tuple[float, float]]] = []
        for at, value in points:
            # A gap stays a gap: that is what a kill looks like.
            if not runs or at - runs[-1][-1][0] > 1.5:
                runs.append([])
            runs[-1].append((at, value))
        for run in runs:
            line = " ".join(f"{axes.x(at):.1f},{axes.y(value):.1f}" for at, value in run)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        room = 24 + 6.2 * len(legend)
        if x + room > PANEL_WIDTH - RIGHT:
            x, y = LEFT, y + 14
        parts.append(f'<rect x="{x}" y="{y - 8}" width="10" height="8" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{y}" class="tick">{html.escape(legend)}</text>')
        x += room
    return "".join(parts) + axes.marks(happened)


def limits(panel: dict) -> list[float]:
    """Where a panel over time has a line across."""
    defaults = panel["fieldConfig"]["defaults"]
    is_drawn = "thresholdsStyle" in defaults.get("custom", {})
    return [step["value"] for step in defaults["thresholds"]["steps"] if step["value"] is not None] if is_drawn else []


def bands(panel: dict, found, happened, start: float, end: float, zero: float) -> str:
    """A state timeline: one band per line, coloured by value."""
    axes = Axes(start, end, 1.0)
    parts, height = [axes.frame(panel["title"], zero)], axes.height / max(1, len(found))
    for row, (legend, points) in enumerate(found):
        y = TOP + row * height
        for at, value in points:
            colour = STATES[min(len(STATES) - 1, max(0, round(value)))]
            parts.append(f'<rect x="{axes.x(at):.1f}" y="{y + 1:.1f}" width="{axes.x(at + 1) - axes.x(at) + 0.3:.1f}" height="{height - 2:.1f}" fill="{colour}" fill-opacity="0.75"/>')
        parts.append(f'<text x="{LEFT + 4}" y="{y + height / 2 + 4:.1f}" class="tick">{html.escape(legend)}</text>')
    for number, state in enumerate(("alive", "suspect", "dead")):
        x = LEFT + 80 * number
        parts.append(f'<rect x="{x}" y="{PANEL_HEIGHT - 32}" width="10" height="8" fill="{STATES[number]}"/>')
        parts.append(f'<text x="{x + 14}" y="{PANEL_HEIGHT - 24}" class="tick">{state}</text>')
    return "".join(parts) + axes.marks(happened)


def picture(prometheus: str, titles: list[str], start: float, end: float, png: Path, names: dict[str, str] | None = None) -> None:
    """These panels of the board, two in a row."""
    panels = {each["title"]: each for each in board.panels() if each["type"] in ("timeseries", "state-timeline")}
    for title in titles:
        if title not in panels:
            raise SystemExit(f"the board has no panel {title!r} over time; there are: {', '.join(panels)}")
    happened = events(prometheus, end)
    drawings = []
    for title in titles:
        found = series_of(prometheus, panels[title], start, end, names or {})
        drawings.append(drawn(panels[title], found, happened, start, end))
    columns = min(COLUMNS, len(drawings))
    rows = -(-len(drawings) // columns)
    style = "body{margin:0;background:#fff;font:11px sans-serif;display:flex;flex-wrap:wrap}.title{font:bold 13px sans-serif}.tick{font-size:10px}.grid{stroke:#e4e4e4}"
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as page:
        page.write(f'<!doctype html><meta charset="utf-8"><style>{style}</style>{"".join(drawings)}')
        page.flush()
        browse(f"file://{page.name}", png, PANEL_WIDTH * columns, PANEL_HEIGHT * rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--prometheus", default="http://localhost:9090")
    arguments.add_argument("--last", type=float, default=120.0, help="how many seconds, to now")
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("titles", nargs="+", help="panels of the board")
    given = arguments.parse_args()
    try:
        picture(given.prometheus, given.titles, time.time() - given.last, time.time(), given.output)
    except NoBrowser as why:
        sys.exit(f"no picture: {why}")


if __name__ == "__main__":
    main()
