#!/usr/bin/env python3
"""Rolling restarts at the pace of an impatient operator (`docker compose restart`): SIGTERM to one, two or all three nodes, each
started again as soon as its process has ended. What is lost or wrong afterwards, and for how long clients fail."""

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
from dataclasses import asdict, dataclass, field
from pathlib import Path

from crashes import VIOLATIONS
from processes import Mesh, answers, put, wait_for
from ratios import Round, Target, figure

ROUNDS = 50

NAMES = {1: "restart of one node", 2: "restart of two nodes at once", 3: "restart of all nodes at once"}

TARGETS = [
    Target(f"{ROUNDS} times {name}: {what}", figure(f"{name}: {what}"), 0, False)
    for name in NAMES.values()
    for what in ["lost", "wrong"]
]

# Written before a round and by nobody during it: what is missing afterwards was lost, whatever the load did.
QUIET_KEYS = 100

# A small share of what three nodes can do: requests fail because nodes are away, not because they are busy.
LOAD = {
    "KEYS": "5000", "SET_RATIO": "20", "DELETE_RATIO": "5", "CONCURRENCY": "32", "RATE": "1000", "DURATION": "60s",
    "REQUEST_TIMEOUT": "2s", "ERRORS_MAX_PERCENT": "100", "RECONCILE": "report",
}

# The runner prints counters so often, for the first time when the load has lasted so long.
STATS_EVERY_S = 0.5

PROBE_EVERY_S = 0.01

# After the last node was started again, on a busy machine.
READY_WITHIN_S = 60.0


@dataclass(frozen=True)
class Restart:
    """What is done to the nodes in a round."""

    nodes: int
    # The signals are sent at random moments within this time.
    apart_s: float = 0.0
    # From the end of a process to the start of the next.
    away_s: float = 0.0
    under_load: bool = True


@dataclass
class Found:
    """What a round came to. Times are in seconds after the first SIGTERM, those of errors to a tenth."""

    # Acknowledged values that a quorum read misses through some node, of the quiet keys and of the load's.
    lost_quiet: int = 0
    lost: int = 0
    # Findings of the checker by kind.
    wrong: dict[str, int] = field(default_factory=dict)
    # Failed operations, those of unknown outcome included, of the load, and their kinds.
    errors: int = 0
    error_kinds: dict[str, int] = field(default_factory=dict)
    operations: int = 0
    first_error_s: float | None = None
    last_error_s: float | None = None
    # The longest time in which no read, and no write, of a client that tries all nodes in turn succeeded.
    read_gap_s: float = 0.0
    write_gap_s: float = 0.0
    # When all nodes were ready again.
    ready_s: float = 0.0
    # Nodes that logged that they left before others had taken over what they held.
    told: int = 0


class Probe:
    """One client with the addresses of all nodes: it sends the same request again and again, to the next node if one fails."""

    def __init__(self, mesh: Mesh, method: str, path: str, body: str | None):
        self._hosts = [url.removeprefix("http://") for url in mesh.urls]
        self._request = (method, path, body)
        self._ended = threading.Event()
        self.successes = [time.monotonic()]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connections: dict[str, http.client.HTTPConnection] = {}
        while not self._ended.wait(PROBE_EVERY_S):
            for host in random.sample(self._hosts, len(self._hosts)):
                if ask(connections, host, *self._request)[0] == 200:
                    self.successes.append(time.monotonic())
                    break

    def gap_s(self) -> float:
        """Ends it; the longest time without a success."""
        self._ended.set()
        self._thread.join()
        times = [*self.successes, time.monotonic()]
        return max(later - earlier for earlier, later in zip(times, times[1:]))


def ask(connections: dict, host: str, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Status and body, 0 without an answer. Connections are kept."""
    try:
        connection = connections.setdefault(host, http.client.HTTPConnection(host, timeout=1))
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        connections.pop(host).close()
        return 0, ""


class Load:
    """A runner that checks what it reads, from its prefill to its final sweep."""

    def __init__(self, runner: Path, mesh: Mesh, folder: Path):
        self._results = folder / "results.json"
        self._output = folder / "runner.log"
        settings = {**LOAD, "TARGETS": mesh.targets, "RESULTS": str(self._results), "STATS_EVERY": f"{STATS_EVERY_S}s"}
        with self._output.open("wb") as output:
            self._child = subprocess.Popen(
                [str(runner)], env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        wait_for("the load", lambda: "[STATS]" in self._output.read_text())
        self.began = time.monotonic() - STATS_EVERY_S

    def end(self, found: Found, stopped_at: float) -> None:
        try:
            self._child.send_signal(signal.SIGINT)
            self._child.wait(timeout=60)
            results = json.loads(self._results.read_text())
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"no results: {self._output.read_text()[-1500:]}") from error
        finally:
            self._child.kill()
            self._child.wait()
        totals, after_s = results["totals"], self.began - stopped_at
        found.lost = results["sweep"]["lost"]
        found.wrong = {kind: results["integrity"][kind] for kind in VIOLATIONS if results["integrity"][kind]}
        found.operations, found.errors = totals["total"], totals["errors"] + totals["indeterminate"]
        found.error_kinds = {kind["kind"]: kind["count"] for kind in results["errors"]}
        windows = [window for kind in results["errors"] for window in kind["windows"]]
        if windows:
            found.first_error_s = min(window["from_s"] for window in windows) + after_s
            found.last_error_s = max(window["to_s"] for window in windows) + after_s


def stop_and_start(mesh: Mesh, number: int, after_s: float, away_s: float) -> None:
    time.sleep(after_s)
    mesh.nodes[number].stop()
    time.sleep(away_s)
    mesh.restart(number)


def round_of(runner: Path, mesh: Mesh, restart: Restart, folder: Path) -> Found:
    """One restart, and what it came to."""
    found = Found()
    values = {f"quiet{number}": f"{number}-{random.random()}" for number in range(QUIET_KEYS)}
    for key, value in values.items():
        put(mesh.urls[0], key, value)
    told_before = told(mesh)
    load = Load(runner, mesh, folder) if restart.under_load else None
    requests = [("GET", "/get?k=quiet0", None), ("POST", "/set", json.dumps({"k": "probe", "v": "v"}))]
    probes = [Probe(mesh, *request) for request in requests] if load else []
    chosen = random.sample(range(len(mesh.nodes)), restart.nodes)
    stopped_at = time.monotonic()
    threads = [
        threading.Thread(target=stop_and_start, args=(mesh, number, random.uniform(0, restart.apart_s), restart.away_s))
        for number in chosen
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for("all nodes to be ready", lambda: all(answers(f"{url}/ready") for url in mesh.urls), READY_WITHIN_S)
    found.ready_s = time.monotonic() - stopped_at
    if load:
        time.sleep(0.5)
        found.read_gap_s, found.write_gap_s = (probe.gap_s() for probe in probes)
        load.end(found, stopped_at)
    found.lost_quiet = lost_of(mesh, values)
    found.told = told(mesh) - told_before
    return found


def lost_of(mesh: Mesh, values: dict[str, str]) -> int:
    """How many of these keys some node does not find at a quorum as they were written."""
    lost, connections = set(), {}
    for key, value in values.items():
        for url in mesh.urls:
            path = f"/get?consistency=quorum&k={urllib.parse.quote(key)}"
            if ask(connections, url.removeprefix("http://"), "GET", path) != (200, value):
                lost.add(key)
    return len(lost)


def told(mesh: Mesh) -> int:
    return sum(log.read_text().count("what it alone holds is lost") for log in mesh.logs)


def run(binaries: Path, restart: Restart, rounds: int, folder: Path, each=lambda number, found: None, **settings: str):
    """Restart after restart on one mesh: what each came to."""
    defaults = {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}
    with Mesh(binaries, 3, {**defaults, **settings}, folder) as mesh:
        results = []
        for number in range(rounds):
            results.append(round_of(binaries / "runner", mesh, restart, folder))
            each(number, results[-1])
        return results


def figures_of(name: str, results: list[Found]) -> Round:
    """The sums of what must not happen, the worst of what takes its time."""
    errors = [found for found in results if found.first_error_s is not None]
    return {
        f"{name}: rounds": len(results),
        f"{name}: lost": sum(found.lost + found.lost_quiet for found in results),
        f"{name}: rounds with losses": sum(found.lost + found.lost_quiet > 0 for found in results),
        f"{name}: wrong": sum(sum(found.wrong.values()) for found in results),
        f"{name}: errors %": 100 * sum(found.errors for found in results) / max(sum(found.operations for found in results), 1),
        f"{name}: longest span of errors s": max((found.last_error_s - found.first_error_s for found in errors), default=0.0),
        f"{name}: longest time without a read s": max(found.read_gap_s for found in results),
        f"{name}: longest time without a write s": max(found.write_gap_s for found in results),
        f"{name}: longest time until all are ready s": max(found.ready_s for found in results),
    }


def restarts(bench, figures: Round) -> None:
    for nodes, name in NAMES.items():
        with tempfile.TemporaryDirectory() as folder:
            found = run(bench.binaries, Restart(nodes), 3 if bench.is_quick else ROUNDS, Path(folder))
        figures.update(figures_of(name, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", type=Path, default=Path("target/release"), help="where the built binaries are")
    parser.add_argument("--nodes", type=int, default=3, choices=NAMES, help="how many of three nodes are restarted")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--apart", type=float, default=0.0, help="the signals come within so many seconds")
    parser.add_argument("--away", type=float, default=0.0, help="seconds from the end of a process to the next")
    parser.add_argument("--idle", action="store_true", help="without load")
    parser.add_argument("--logs", type=Path, help="where the nodes' logs go")
    parser.add_argument("settings", nargs="*", help="of the nodes, such as WORKERS=2")
    options = parser.parse_args()

    def show(number: int, found: Found) -> None:
        short = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(found).items()}
        print(f"{time.strftime('%H:%M:%S')} round {number + 1}: {short}", flush=True)

    restart = Restart(options.nodes, options.apart, options.away, not options.idle)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        settings = dict(setting.split("=", 1) for setting in options.settings)
        found = run(options.binaries, restart, options.rounds, folder, show, **settings)
    for name, value in figures_of(NAMES[options.nodes], found).items():
        print(f"{name}: {value:g}")


if __name__ == "__main__":
    main()
