"""What becomes of a mesh that is asked for more than it can do: what it still does, how late, and whom it takes for dead."""

import json
import re
import resource
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from processes import Mesh, Repeated, output_of
from ratios import Round

# Connections of a load that is too much, all of which want an answer at once.
CONNECTIONS = 1024

# How often the nodes are asked whom they believe dead.
LOOK_EVERY_S = 0.25

DEAD = re.compile(r'^mesh_member_state\{.*state="dead".*\} 1$', re.MULTILINE)
SUSPICIONS = re.compile(r"^mesh_suspicions_total\{.*\} ([\d.e+]+)$", re.MULTILINE)
SHED = re.compile(r"^mesh_http_requests_shed_total\{.*\} ([\d.e+]+)$", re.MULTILINE)


def metrics(url: str) -> str:
    """A node's metrics, or nothing if it gives none in time."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
            return response.read().decode()
    except (urllib.error.URLError, OSError):
        return ""


def total(pattern: re.Pattern, text: str) -> float:
    return sum(float(value) for value in pattern.findall(text))


class Watch(Repeated):
    """Counts, while its block runs, how often a node was seen to become dead to another."""

    def __init__(self, mesh: Mesh):
        super().__init__(LOOK_EVERY_S, self._look_at_all)
        self.mesh = mesh
        self.deaths = 0
        self._dead = [0] * len(mesh.urls)

    def _look_at_all(self) -> None:
        for number, url in enumerate(self.mesh.urls):
            if text := metrics(url):
                now = len(DEAD.findall(text))
                self.deaths += max(0, now - self._dead[number])
                self._dead[number] = now


def run(bench, mesh: Mesh, **settings: str) -> tuple[float, float]:
    """The operations answered per second of a run from its start to its end, and the larger p99 of GET and SET in ms: of the time
    from sending to answer, since an open loop that cannot keep up starts ever later."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        defaults = {
            "TARGETS": mesh.targets, "DURATION": f"{bench.seconds}s", "KEYS": "50000", "PREFILL": "false",
            "FINAL_SWEEP": "false", "SET_RATIO": "30", "RESULTS": str(results),
        }
        start = time.monotonic()
        output_of([str(bench.binaries / "runner")], {**defaults, **settings}, timeout_s=bench.seconds * 4 + 120)
        took = time.monotonic() - start
        found = json.loads(results.read_text())
    totals, table = found["totals"], "service" if "RATE" in settings else "all"
    p99 = max(row["p99_ms"] for row in found["rows"] if row["table"] == table)
    return (totals["total"] - totals["errors"] - totals["indeterminate"]) / took, p99


def overload(bench, figures: Round, skew: str, distribution: str) -> None:
    """Twice as much as it can do, on a schedule that waits for nobody. What so many connections can do at the most is told apart from
    what fewer can: each costs memory that caches do not hold."""
    with Mesh(bench.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
        run(bench, mesh, PREFILL="true", DURATION="1s", CONCURRENCY="256")
        fewer, _ = run(bench, mesh, CONCURRENCY="256", DISTRIBUTION=distribution)
        most, _ = run(bench, mesh, CONCURRENCY=str(CONNECTIONS), DISTRIBUTION=distribution)
        nodes, client = mesh.cpu_s(), ended_cpu_s()
        with Watch(mesh) as watch:
            done, p99 = run(bench, mesh, CONCURRENCY=str(CONNECTIONS), RATE=str(round(2 * fewer)), DISTRIBUTION=distribution)
        nodes, client = mesh.cpu_s() - nodes, ended_cpu_s() - client
        figures[f"{skew}overload maximum ops/s"], figures[f"{skew}overload goodput ops/s"] = most, done
        figures[f"{skew}overload maximum of 256 connections ops/s"] = fewer
        figures[f"{skew}overload client's share of CPU %"] = 100 * client / (client + nodes)
        figures[f"{skew}overload p99 ms"], figures[f"{skew}overload deaths"] = p99, watch.deaths
        figures[f"{skew}overload requests shed"] = sum(total(SHED, metrics(url)) for url in mesh.urls)


def ended_cpu_s() -> float:
    """CPU time of processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def false_deaths(bench, figures: Round) -> None:
    """As much as goes, for as long as is asked for: `--only false_deaths --rounds 1 --seconds 600`."""
    with Mesh(bench.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
        with Watch(mesh) as watch:
            run(bench, mesh, PREFILL="true", CONCURRENCY=str(CONNECTIONS))
        figures["false deaths"] = watch.deaths
        figures["suspicions under full load"] = sum(total(SUSPICIONS, metrics(url)) for url in mesh.urls)
