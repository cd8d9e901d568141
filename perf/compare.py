#!/usr/bin/env python3
"""`make compare`: the mesh, Redis, Redis Cluster and memcached on this machine under one load and one checker, alternated, with and
without a kill; writes a page with the machine, the versions, the figures and what they do not say.

Each round starts every cache anew. Figures are medians over rounds. A cache that is not installed is left out, and the page says so.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Callable, Iterator

from processes import Mesh, Process, Skipped, accepts, free_port, need, output_of, wait_for
from ratios import number, table

LOAD = {"KEYS": "50000", "SET_RATIO": "10", "VALUE_BYTES": "100", "CONCURRENCY": "64", "CHECK_EVERY": "off", "QUIESCENCE": "1s"}
RATE = 5000

# Long enough for a Redis Cluster to fail over before its master is back: one that comes back empty before that empties its replica.
KILL_AFTER_S, AWAY_S, KILL_RUN_S = 3, 6, 14

# The benchmark that comes with Redis, and our client under the same load.
YARDSTICK_REQUESTS = 300_000
YARDSTICK_CLIENTS = 50


@dataclass
class Cache:
    """What is loaded, and how a part of it is killed and started again."""

    targets: str
    kill: Callable[[], None]
    restart: Callable[[], None]


@contextmanager
def mesh(binaries: Path) -> Iterator[Cache]:
    with Mesh(binaries, 3, {}) as nodes:
        yield Cache(nodes.targets, lambda: nodes.kill(1), lambda: nodes.restart(1))


class Server:
    """One server of a command, on a port of its own."""

    def __init__(self, command: Callable[[int], list[str]], port: int):
        self.command, self.port = command(port), port
        self.process = Process(self.command)

    def __enter__(self):
        wait_for(self.command[0], lambda: accepts(self.port))
        return self

    def __exit__(self, *_):
        self.process.__exit__()

    def restart(self) -> None:
        self.process = Process(self.command)


def redis_command(folder: str, *more: str) -> Callable[[int], list[str]]:
    server = need("redis-server", "redis-server")
    return lambda port: [
        server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder, *more
    ]


@contextmanager
def alone(command: Callable[[int], list[str]], scheme: str) -> Iterator[Cache]:
    with Server(command, free_port()) as server:
        yield Cache(f"{scheme}://127.0.0.1:{server.port}", server.__exit__, server.restart)


@contextmanager
def redis(_: Path) -> Iterator[Cache]:
    with tempfile.TemporaryDirectory() as folder, alone(redis_command(folder), "redis") as cache:
        yield cache


@contextmanager
def memcached(_: Path) -> Iterator[Cache]:
    server = need("memcached", "memcached")
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = lambda port: [server, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "256", *user]
    with alone(command, "memcached") as cache:
        yield cache


def cluster_port() -> int:
    """A port whose cluster bus, 10000 above it, is free as well."""
    while True:
        port = free_port()
        if port < 22_000 and not accepts(port + 10_000):
            return port


@contextmanager
def redis_cluster(_: Path) -> Iterator[Cache]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = []
        for place in range(6):
            own = ("--cluster-enabled", "yes", "--cluster-config-file", f"nodes{place}.conf", "--cluster-node-timeout", "2000")
            servers.append(stack.enter_context(Server(redis_command(folder, *own), cluster_port())))
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        output_of(["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"])

        def is_in_sync(server: Server) -> bool:
            told = output_of(["redis-cli", "-p", str(server.port), "info", "replication"])
            return "master_link_status:up" in told

        def knows_all(server: Server) -> bool:
            return output_of(["redis-cli", "-p", str(server.port), "cluster", "nodes"]).count("slave ") == 3

        wait_for("the replicas", lambda: sum(map(is_in_sync, servers)) == 3 and all(map(knows_all, servers)))
        yield Cache(f"redis://{addresses[0]}", servers[1].__exit__, servers[1].restart)


CACHES = {
    "mesh, three nodes": mesh,
    "Redis": redis,
    "Redis Cluster, 3 + 3": redis_cluster,
    "memcached": memcached,
}


def run(binaries: Path, cache: Cache, kills: bool = False, **settings: str) -> dict:
    """One run and its results. Killed, a part of the cache goes away a while after the load has begun, and comes back."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        own = {"TARGETS": cache.targets, "RESULTS": str(results), **LOAD, **settings}
        own |= {"RECONCILE": "report"} if kills else {}
        child = subprocess.Popen(
            [str(binaries / "runner")], env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        output, helper = [], None
        for line in child.stdout:
            output.append(line)
            if kills and helper is None and line.startswith("[PREFILL]") and "keys/s" in line:
                helper = threading.Thread(target=kill_and_restart, args=(cache,))
                helper.start()
        child.wait()
        if helper is not None:
            helper.join()
        if not results.exists():
            raise RuntimeError("".join(output[-20:]))
        return json.loads(results.read_text())


def kill_and_restart(cache: Cache) -> None:
    time.sleep(KILL_AFTER_S)
    cache.kill()
    time.sleep(AWAY_S)
    cache.restart()


def row_of(found: dict, table_name: str, label: str) -> dict:
    return next(row for row in found["rows"] if row["table"] == table_name and row["label"] == label)


def lost(found: dict) -> int:
    return found["integrity"]["lost"] + found["integrity"]["explained"]["lost"]


def figures(found: dict) -> dict[str, float]:
    get, put = row_of(found, "all", "GET"), row_of(found, "all", "SET")
    servers = [us for us in found["cpu"]["node_us_per_op"] if us is not None]
    return {
        "ops/s": found["totals"]["ops_per_s"],
        "GET p50 ms": get["p50_ms"], "GET p99 ms": get["p99_ms"], "GET p99.9 ms": get["p999_ms"],
        "SET p50 ms": put["p50_ms"], "SET p99 ms": put["p99_ms"],
        "client µs/op": found["cpu"]["client_us_per_op"], "servers µs/op": sum(servers),
    }


def without_service_s(found: dict) -> float:
    """The time in which any operation failed or had an unknown outcome, in steps of half a second."""
    return sum(0.5 for sample in found["samples"] if sample["errors"] > 0)


def yardstick(binaries: Path, cache: Cache) -> dict[str, float]:
    """CPU of the client for each GET: ours with its checks on, and redis-benchmark's, which checks nothing."""
    _, port = cache.targets.rsplit(":", 1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output_of([
        need("redis-benchmark", "redis-tools"), "-p", port, "-t", "get", "-c", str(YARDSTICK_CLIENTS), "-r", LOAD["KEYS"],
        "-n", str(YARDSTICK_REQUESTS), "-q",
    ])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    own = {"CONCURRENCY": str(YARDSTICK_CLIENTS), "SET_RATIO": "0", "RUNNER_THREADS": "1", "DURATION": "4s", "FINAL_SWEEP": "false"}
    found = run(binaries, cache, **own)
    return {
        "redis-benchmark, µs per GET": theirs / YARDSTICK_REQUESTS * 1e6,
        "runner, µs per GET": found["cpu"]["client_us_per_op"],
    }


def medians_of(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(figures[name] for figures in rounds) for name in rounds[0]}


class Compared:
    """All that was measured."""

    def __init__(self):
        self.closed: dict[str, list[dict[str, float]]] = {}
        self.open: dict[str, list[dict[str, float]]] = {}
        self.killed: dict[str, dict] = {}
        self.client: list[dict[str, float]] = []
        self.verdicts: dict[str, set[str]] = {}
        self.left_out: dict[str, str] = {}
        self.example: dict = {}
        self.versions: dict[str, str] = {}

    def note(self, name: str, found: dict) -> None:
        self.verdicts.setdefault(name, set()).add(found["verdict"]["correctness"])
        version = next((version for version in found["versions"]["nodes"] if version), None)
        self.versions[name] = version or self.versions.get(name, "unknown")
        self.example = found

    def steady(self, binaries: Path, name: str, seconds: int) -> None:
        with CACHES[name](binaries) as cache:
            found = run(binaries, cache, DURATION=f"{seconds}s")
            self.note(name, found)
            self.closed.setdefault(name, []).append(figures(found))
            found = run(binaries, cache, DURATION=f"{seconds}s", RATE=str(RATE), PREFILL="false", FINAL_SWEEP="false")
            self.note(name, found)
            self.open.setdefault(name, []).append(figures(found))
            if name == "Redis":
                self.client.append(yardstick(binaries, cache))

    def kill(self, binaries: Path, name: str) -> None:
        with CACHES[name](binaries) as cache:
            found = run(binaries, cache, True, DURATION=f"{KILL_RUN_S}s", RATE=str(RATE), ERRORS_MAX_PERCENT="100", REQUEST_TIMEOUT="1s")
            self.note(name, found)
            self.killed[name] = found

    def measure(self, binaries: Path, rounds: int, seconds: int) -> None:
        for number_of_round in range(rounds):
            # Each time another one begins, so that none always has what another one leaves behind.
            names = list(CACHES)[number_of_round % len(CACHES):] + list(CACHES)[:number_of_round % len(CACHES)]
            for name in names:
                self.attempt(name, lambda name=name: self.steady(binaries, name, seconds))
        for name in CACHES:
            self.attempt(name, lambda name=name: self.kill(binaries, name))

    def attempt(self, name: str, measure: Callable[[], None]) -> None:
        if name in self.left_out:
            return
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            measure()
        except Skipped as skipped:
            self.left_out[name] = str(skipped)


def page(compared: Compared, rounds: int, seconds: int) -> str:
    machine, today = compared.example["machine"], datetime.now(timezone.utc).date()
    load_average = machine["load_average"][0] if machine["load_average"] else 0
    names = [name for name in CACHES if name in compared.closed]
    rows = lambda measured: [
        [name, *(number(value) for value in medians_of(measured[name]).values())] for name in names if name in measured
    ]
    head = ["", *compared.closed[names[0]][0]]
    kill_rows = []
    for name, found in compared.killed.items():
        get = row_of(found, "all", "GET")
        kill_rows.append([
            name, found["verdict"]["correctness"], f"{lost(found):,} of {found['sweep']['keys']:,}",
            f"{found['totals']['errors']:,}", f"{found['totals']['indeterminate']:,}", number(without_service_s(found)),
            number(get["p99_ms"]), found["not_kept_because"] or "kept, as promised",
        ])
    client = medians_of(compared.client) if compared.client else {}
    share = [figures["runner, µs per GET"] / figures["redis-benchmark, µs per GET"] for figures in compared.client]
    versions = ", ".join(f"{name} {compared.versions[name]}" for name in names)
    verdicts = ", ".join(f"{name} {' and '.join(sorted(compared.verdicts[name]))}" for name in names)
    text = f"""# The mesh beside Redis, Redis Cluster and memcached

Made by `make compare` on {today}: {machine['cores']} cores of {machine['cpu_model']} for servers and client together, {machine['kernel'].split('-')[0]},
everything on loopback, load average {load_average:.1f} at the last run. Versions: runner {compared.example['versions']['runner']}; {versions}.
The same client makes the same load for all and checks every answer: {int(LOAD['KEYS']):,} keys, uniform, {LOAD['SET_RATIO']} % SET,
values of {LOAD['VALUE_BYTES']} bytes. {'One round' if rounds == 1 else f'Medians of {rounds} rounds'} of {seconds} s, in which the caches take turns. Correctness: {verdicts}.

## As fast as it goes: {LOAD['CONCURRENCY']} in flight

{table(head, rows(compared.closed))}
## At {RATE:,} operations per second, response time from the scheduled start

{table(head, rows(compared.open))}
## Killed

One process is killed (SIGKILL) {KILL_AFTER_S} s into a load of {RATE:,} operations per second, and started again, empty, {AWAY_S} s later: a node of
the mesh, the only Redis or memcached server, a master of the cluster. *Lost* are keys whose last acknowledged write nobody has after the run;
*failing* is the time in which any operation failed, in steps of half a second.

{table(['', 'correctness', 'lost', 'errors', 'outcome unknown', 'failing, s', 'GET p99 ms', 'acknowledged writes'], kill_rows)}
"""
    if client:
        text += f"""## What the client costs

CPU of one client thread per GET, {YARDSTICK_CLIENTS} connections without pipelining, our checks on, alternated with `redis-benchmark`, which checks nothing:

{table(['', 'µs per GET'], [[name, number(value)] for name, value in client.items()])}
Ratio of the same round: {number(median(share))} ({number(min(share))} to {number(max(share))}); at most 1.2 is the target.
`redis-benchmark` registers each socket anew for each request and each reply: most of its time is in the kernel.

"""
    text += """## What this does not say

- Client and servers share the cores, so a figure of one machine is no capacity of a server. The busier the machine, the less the tails say.
- The mesh speaks HTTP and keeps three replicas, two of which have acknowledged each write; memcached and a lone Redis keep one copy, and the
  cluster's replica is not waited for. So a SET is not the same promise in two rows.
- Redis and memcached keep nothing on disk here, as the mesh does. Redis with `appendonly yes` loses less in a restart, and costs more.
- Redis serves requests with one thread, each node of the mesh here with one, memcached with four. No client pipelines.
- A lone Redis or memcached that is restarted has lost everything, and a Redis Cluster what its replica had not received: neither promises more.
  That is counted, and not judged.
"""
    for name, why in compared.left_out.items():
        text += f"- {name} was left out: {why}.\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", type=Path, default=Path("target/release"))
    parser.add_argument("--output", type=Path, default=Path("docs/RESULTS.md"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    compared = Compared()
    compared.measure(arguments.binaries, arguments.rounds, arguments.seconds)
    text = page(compared, arguments.rounds, arguments.seconds)
    arguments.output.write_text(text)
    print(text)
    print(f"written to {arguments.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
