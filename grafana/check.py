#!/usr/bin/env python3
"""Checks what Grafana is given, without Grafana: `python3 grafana/check.py`, and with `--live URL` on a real Prometheus.

The board is what board.py writes; every panel says what it is, in which unit, from which data source; every query parses
(promtool, if it is there); every metric in a panel, a rule or a test of rules is one that somebody exposes.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

import board

ROOT = Path(__file__).parent.parent
RULES = ROOT / "observability" / "rules" / "mesh.rules.yml"
CATALOGUE = ROOT / "observability" / "src" / "catalogue.rs"
TELEMETRY = ROOT / "observability" / "src" / "telemetry.rs"

# Outcomes that are no failures.
ANSWERS = {"hit_local", "hit_remote", "miss", "acknowledged"}

# What Prometheus and Jaeger expose by themselves.
BUILT_IN = {
    "up", "ALERTS", "scrape_duration_seconds", "prometheus_tsdb_head_samples_appended_total",
}

# Metrics that a panel or an alert already asks for, and why nobody exposes them yet.
COMING: dict[str, str] = {}

# Panels and annotations that may be empty in a live check, and why.
MAY_BE_EMPTY = {
    "Age of what is evicted": "nothing is evicted where there is room",
    "Alerts": "no alert need fire",
    "annotation Observed": "all that happens is ordered by the run",
    "Spans taken by Jaeger": "there is no Jaeger in this check",
}

# A live check has series from a fake exporter beside the real ones: node "fake", run "fake-run".
VARIABLES = {"$run_id": "\\\\d+-\\\\d+-\\\\w+", "$node": "node\\\\d+", "$op": "get|set|delete", "$__rate_interval": "4s"}
KEYWORDS = {"sum", "by", "max", "min", "count", "count_values", "rate", "increase", "on", "group_left", "histogram_quantile", "clamp_min", "max_over_time", "time"}


panels = board.panels


def queries() -> list[tuple[str, str]]:
    """Pairs of where and PromQL, variables filled in, annotations included."""
    found = [(each["title"], target["expr"]) for each in panels() for target in each["targets"]]
    found += [(f"annotation {each['name']}", each["expr"]) for each in board.annotations()]
    return [(where, filled(expr)) for where, expr in found]


def filled(expr: str) -> str:
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    return expr


def metrics_in(expr: str) -> set[str]:
    """Names of metrics in PromQL: words outside of quotes, braces, brackets and label lists that are no functions."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\b(by|on|group_left|without|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    return {word for word in re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*", bare) if word not in KEYWORDS | {"and", "unless", "or", "bool", "abs"}}


def exposed() -> set[str]:
    names = set()
    for kind, name in re.findall(r'(\w+) "((?:mesh|runner|process)_\w+)"', CATALOGUE.read_text()):
        names |= {name + suffix for suffix in ("_bucket", "_sum", "_count")} if kind == "Seconds" else {name}
    recorded = re.findall(r"record: (\S+)", RULES.read_text())
    return names | set(recorded) | BUILT_IN


def rule_expressions() -> list[tuple[str, str]]:
    """The expressions of the rules file, by a reader that knows just enough YAML for it."""
    found, lines, at = [], RULES.read_text().splitlines(), 0
    while at < len(lines):
        if named := re.match(r"\s*- (?:record|alert): (\S+)", lines[at]):
            name = named[1]
        if expr := re.match(r"(\s*)expr: (.*)", lines[at]):
            body = expr[2]
            if body == "|":
                body = ""
                while len(lines[at + 1]) - len(lines[at + 1].lstrip()) > len(expr[1]):
                    at += 1
                    body += " " + lines[at].strip()
            found.append((f"rule {name}", body))
        at += 1
    return found


def check_shape(say) -> None:
    written = json.loads(board.OUTPUT.read_text())
    if board.OUTPUT.read_text() != board.text():
        say(f"{board.OUTPUT.name} is not what board.py writes: run python3 grafana/board.py")
    if written["schemaVersion"] != board.SCHEMA_VERSION:
        say("schemaVersion")
    titles = set()
    for each in panels():
        title = each.get("title") or "?"
        if title in titles:
            say(f"{title}: two panels are called so")
        titles.add(title)
        if not each.get("description", "").endswith("."):
            say(f"{title}: no description, or no sentence")
        if not each["fieldConfig"]["defaults"].get("unit"):
            say(f"{title}: no unit")
        for part in (each, *each["targets"]):
            if part["datasource"]["uid"] != board.PROMETHEUS["uid"]:
                say(f"{title}: data source")
        for target in each["targets"]:
            if target["exemplar"] and not re.search(r"_bucket\{", target["expr"]):
                say(f"{title}: exemplars are only found through _bucket series")
            if re.search(r'\ble\s*[=!]', target["expr"]):
                say(f"{title}: le is not matched literally; versions of Prometheus write it differently")
    for name in MAY_BE_EMPTY.keys() - {where for where, _ in queries()}:
        say(f"MAY_BE_EMPTY: there is no panel or annotation {name}")
    sources = (board.OUTPUT.parent.parent / "provisioning" / "datasources" / "all.yml").read_text()
    for uid in ("prom", "jaeger"):
        if f"uid: {uid}" not in sources:
            say(f"provisioning: no data source with uid {uid}")


def check_names(say) -> None:
    known = exposed()
    for where, expr in queries() + rule_expressions():
        for name in sorted(metrics_in(expr) - known - COMING.keys()):
            say(f"{where}: nobody exposes {name}")
    for name in COMING.keys() & known:
        print(f"note: {name} is exposed now; take it off COMING and its panel off MAY_BE_EMPTY")


def outcomes() -> set[str]:
    """How operations can end, as nodes label it."""
    return set(re.findall(r'\(OpOutcome::\w+, "(\w+)"\)', TELEMETRY.read_text()))


def check_outcomes(say) -> None:
    """Each list of failed outcomes is complete."""
    failures = outcomes() - ANSWERS
    for where, expr in queries() + rule_expressions():
        for listed in re.findall(r'outcome=~"([^"]*)"', expr):
            if set(listed.split("|")) != failures:
                say(f"{where}: lists {listed}, and failures are {sorted(failures)}")


def check_syntax(say) -> None:
    if shutil.which("promtool") is None:
        print("SKIPPED: promtool is not installed, so no query was parsed")
        return
    rules = [{"record": f"panel:{at}", "expr": expr} for at, (_, expr) in enumerate(queries())]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        # JSON is YAML.
        json.dump({"groups": [{"name": "panels", "rules": rules}]}, file)
        file.flush()
        done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say(done.stdout + done.stderr)


def ask(url: str, path: str, **parameters) -> dict:
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as response:
        return json.load(response)["data"]


def check_live(url: str, start: float, end: float, say) -> None:
    """Every query has data between two times."""
    full, empty = 0, []
    for where, expr in queries():
        found = ask(url, "query_range", query=expr, start=start, end=end, step="1")["result"]
        if any(value not in ("NaN", "+Inf", "-Inf") for series in found for _, value in series["values"]):
            full += 1
        elif where in MAY_BE_EMPTY:
            empty.append(f"{where} ({MAY_BE_EMPTY[where]})")
        else:
            say(f"{where}: no data for {expr}")
    print(f"{full} of {len(queries())} queries have data; empty, as they may be: {'; '.join(sorted(set(empty))) or 'none'}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--live", metavar="URL", help="also run every query on this Prometheus")
    arguments.add_argument("--from", type=float, dest="start", help="Unix time", default=0)
    arguments.add_argument("--to", type=float, dest="end", help="Unix time", default=0)
    given = arguments.parse_args()
    complaints: list[str] = []
    for check in (check_shape, check_names, check_outcomes, check_syntax):
        check(complaints.append)
    if given.live:
        check_live(given.live, given.start, given.end, complaints.append)
    print("\n".join(complaints) or f"{len(panels())} panels, {len(queries())} queries, {len(rule_expressions())} rules: nothing to say")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
