#!/usr/bin/env python3
"""`make perf`: measures the mesh against yardsticks on the same machine, in alternated rounds, and writes a table of ratios.

A ratio is taken within a round and its median over the rounds, since a shared machine is never twice the same. A missed
target does not fail the command: this is a measurement, not a test.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import crashes
import full
import hot
import large
import limited
import many
import overhead
import restarts
import resync
import saturation
import sizes
import tls
from disturbance import Disturbance
from processes import Mesh, Process, Skipped, accepts, answers, entries, free_port, need, output_of, put, wait_for
from ratios import Round, Summary, Target, figure, medians, ratio, redis_rate, summary, table, unmixed, worst, wrk_figures

CONNECTIONS = 256
KEYS = 50_000
PAYLOAD_BYTES = 16 + 24

# Most of what follows is measured with uniform keys, and with the skew of most benchmarks.
ZIPF = {"": "uniform", "zipf ": "zipf:0.99"}

TARGETS = [
    Target("wrk → node GET local ÷ wrk → bare responder", ratio("wrk local ops/s", "responder ops/s"), 0.88, True),
    Target("runner GET local ÷ runner → bare responder", ratio("local ops/s", "responder, runner closed ops/s"), 0.82, True),
    Target("runner GET local ÷ wrk → bare responder", ratio("local ops/s", "responder ops/s"), 0.82, True),
    Target("runner GET at another owner ÷ wrk → bare responder", ratio("remote ops/s", "responder ops/s"), 0.60, True),
    Target("runner SET RF3/WC2 ÷ wrk → bare responder", ratio("set ops/s", "responder ops/s"), 0.60, True),
    Target("runner SET_RATIO=30 ÷ wrk → bare responder", ratio("mixed ops/s", "responder ops/s"), 0.68, True),
    Target("nodes' CPU per GET at another owner ÷ responder's", ratio("remote CPU µs", "responder CPU µs"), 2.4, False),
    Target("nodes' CPU per SET RF3/WC2 ÷ responder's", ratio("set CPU µs", "responder CPU µs"), 2.9, False),
    Target("runner GET local ÷ redis-benchmark GET", ratio("local ops/s", "redis get ops/s"), 1.3, True),
    Target("runner SET RF3/WC2 ÷ redis-benchmark SET", ratio("set ops/s", "redis set ops/s"), 1.0, True),
    Target("runner SET_RATIO=30 ÷ redis-benchmark GET (60 000 ÷ 59 000)", ratio("mixed ops/s", "redis get ops/s"), 60 / 59, True),
    Target("zipf 0.99: runner SET RF3/WC2 ÷ redis-benchmark SET", ratio("zipf set ops/s", "redis set ops/s"), 1.0, True),
    Target("zipf 0.99: runner SET_RATIO=30 ÷ redis-benchmark GET", ratio("zipf mixed ops/s", "redis get ops/s"), 60 / 59, True),
    Target("runner SET_RATIO=30, CHECK=on ÷ CHECK=off", ratio("checked ops/s", "unchecked ops/s"), 0.95, True),
    Target("runner SET_RATIO=30, p99", figure("mixed p99 ms"), 11.0, False, " ms"),
    Target("open loop 20 000/s, SET_RATIO=30, response p50", figure("open p50 ms"), 0.4, False, " ms"),
    Target("open loop 20 000/s, SET_RATIO=30, response p99", figure("open p99 ms"), 2.0, False, " ms"),
    Target("open loop 20 000/s, SET_RATIO=30, response p99 ÷ bare responder's", ratio("open p99 ms", "responder, runner open p99 ms"), 2.0, False),
    Target("open loop 20 000/s, SET_RATIO=30: nodes' CPU per operation ÷ bare responder's", ratio("open CPU µs", "responder, runner open CPU µs"), 4.0, False),
    Target("zipf 0.99: runner SET_RATIO=30, p99", figure("zipf mixed p99 ms"), 11.0, False, " ms"),
    Target("zipf 0.99: open loop 20 000/s, response p50", figure("zipf open p50 ms"), 0.4, False, " ms"),
    Target("zipf 0.99: open loop 20 000/s, response p99", figure("zipf open p99 ms"), 2.0, False, " ms"),
    Target("direct-runner SET_RATIO=30 RF3/WC2 ÷ redis-benchmark GET", ratio("direct ops/s", "redis get ops/s"), 7.0, True),
    Target("memory per entry beyond key and value", figure("entry overhead bytes"), 120.0, False, " bytes"),
    Target("open loop at twice the maximum: goodput ÷ maximum of as many connections", ratio("overload goodput ops/s", "overload maximum ops/s"), 0.85, True),
    Target("open loop at twice the maximum: goodput ÷ maximum of 256 connections", ratio("overload goodput ops/s", "overload maximum of 256 connections ops/s"), 0.85, True),
    Target("open loop at twice the maximum: p99 from sending to answer", figure("overload p99 ms"), 250.0, False, " ms"),
    Target("open loop at twice the maximum: nodes declared dead", figure("overload deaths"), 0, False),
    Target("zipf 0.99, twice the maximum: goodput ÷ maximum of as many connections", ratio("zipf overload goodput ops/s", "zipf overload maximum ops/s"), 0.85, True),
    Target("zipf 0.99, twice the maximum: goodput ÷ maximum of 256 connections", ratio("zipf overload goodput ops/s", "zipf overload maximum of 256 connections ops/s"), 0.85, True),
    Target("zipf 0.99, twice the maximum: p99 from sending to answer", figure("zipf overload p99 ms"), 250.0, False, " ms"),
    Target("zipf 0.99, twice the maximum: nodes declared dead", figure("zipf overload deaths"), 0, False),
    Target("all cores busy: nodes declared dead", figure("false deaths"), 0, False),
    Target("an empty node's resync from two that serve, keys/s", figure("resync keys/s"), 50_000, True),
    Target("the others' p99 during that resync ÷ before", ratio("p99 ms during resync", "p99 ms before resync"), 2.0, False),
    Target("20 crashes at half the maximum: wrong, lost or resurrected", figure("crash violations"), 0, False),
    Target("20 crashes at half the maximum: errors", figure("crash errors %"), 0.1, False, " %"),
    Target("20 crashes at half the maximum: start of a failed request, from its crash", figure("crash error distance s"), 1.0, False, " s"),
    *restarts.TARGETS,
    Target("nodes' CPU per operation at 20 000/s ÷ at 10 000/s", ratio("open CPU µs", "half open CPU µs"), 1.05, False),
    Target("nodes' CPU per GET, traced by default ÷ untraced", ratio("traced GET CPU µs", "untraced GET CPU µs"), 1.05, False),
    Target("GET/s, collector refuses ÷ untraced", ratio("collector refuses GET ops/s", "untraced GET ops/s"), 0.95, True),
    Target("GET/s, collector hangs ÷ untraced", ratio("collector hangs GET ops/s", "untraced GET ops/s"), 0.95, True),
    Target("GET/s, collector is slow ÷ untraced", ratio("collector is slow GET ops/s", "untraced GET ops/s"), 0.95, True),
    *tls.TARGETS,
    *hot.TARGETS,
    *large.TARGETS,
    *sizes.TARGETS,
    *full.TARGETS,
    *limited.TARGETS,
    *many.TARGETS,
]


class Bench:
    """The measurements, each of which adds its figures to a round."""

    def __init__(self, binaries: Path, seconds: int, is_quick: bool):
        self.binaries = binaries
        self.seconds = seconds
        self.is_quick = is_quick
        self.entries = 100_000 if is_quick else 1_000_000

    def wrk(self, url: str, seconds: int, *more: str) -> str:
        command = [need("wrk", "wrk"), "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", *more, url]
        return output_of(command)

    def runner(self, mesh: Mesh | str, **settings: str) -> Summary:
        """One measured run. The keys must be there: filling up is not part of it."""
        defaults = {
            "TARGETS": mesh if isinstance(mesh, str) else mesh.targets,
            "DURATION": f"{self.seconds}s",
            "CONCURRENCY": str(CONNECTIONS),
            "KEYS": str(KEYS),
            "PREFILL": "false",
            "FINAL_SWEEP": "false",
            "RESULTS": "off",
        }
        found = summary(output_of([str(self.binaries / "runner")], {**defaults, **settings}))
        if found.errors > found.total / 100:
            raise RuntimeError(f"{found.errors} errors in {found.total} operations: not a measurement")
        return found

    def cpu_us(self, mesh: Mesh, run) -> tuple[Summary, float]:
        """A run, and the nodes' CPU per operation of it."""
        before = mesh.cpu_s()
        found = run()
        return found, (mesh.cpu_s() - before) / found.total * 1e6

    def responder(self, figures: Round) -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}/"
        with Process([str(self.binaries / "runner"), "null-server", "--port", str(port)]) as server:
            wait_for("the bare responder", lambda: answers(url))
            before = server.cpu_s()
            rate, p99, count = wrk_figures(self.wrk(url, self.seconds))
            figures["responder ops/s"] = rate
            figures["responder p99 ms"] = p99
            figures["responder CPU µs"] = (server.cpu_s() - before) / count * 1e6
            # By the client that the mesh is driven by, too: what it and this machine add is not the mesh's.
            for name, rate in [("closed", "0"), ("open", "20000")]:
                before = server.cpu_s()
                found = self.runner(url, SET_RATIO="0", CHECK="off", RECONCILE="report", RATE=rate)
                figures[f"responder, runner {name} ops/s"] = found.rate
                figures[f"responder, runner {name} p50 ms"], figures[f"responder, runner {name} p99 ms"] = worst(found, "p50"), worst(found, "p99")
                figures[f"responder, runner {name} CPU µs"] = (server.cpu_s() - before) / found.total * 1e6

    def mesh(self, figures: Round) -> None:
        with Mesh(self.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
            self.runner(mesh, PREFILL="true", DURATION="1s")
            put(mesh.urls[0], "perf", "v" * 24)
            rate, p99, _ = wrk_figures(self.wrk(f"{mesh.urls[0]}/get?k=perf", self.seconds))
            figures["wrk local ops/s"], figures["wrk local p99 ms"] = rate, p99
            for name, settings in [
                ("local", {"SET_RATIO": "0"}), ("set", {"SET_RATIO": "100"}), ("mixed", {"SET_RATIO": "30"}),
                ("half open", {"SET_RATIO": "30", "RATE": "10000"}), ("open", {"SET_RATIO": "30", "RATE": "20000"}),
            ]:
                for skew, distribution in ZIPF.items():
                    run = lambda: self.runner(mesh, DISTRIBUTION=distribution, **settings)
                    found, cpu = self.cpu_us(mesh, run)
                    figures[f"{skew}{name} ops/s"], figures[f"{skew}{name} CPU µs"] = found.rate, cpu
                    figures[f"{skew}{name} p50 ms"], figures[f"{skew}{name} p99 ms"] = worst(found, "p50"), worst(found, "p99")

    def check(self, figures: Round) -> None:
        """What checking every answer costs: the same load twice on one mesh. Which goes first alternates, so that neither
        always meets the warmer one; take at least 8 rounds."""
        self.check_first = not getattr(self, "check_first", False)
        with Mesh(self.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
            self.runner(mesh, PREFILL="true", DURATION="1s")
            for switch in ["on", "off"] if self.check_first else ["off", "on"]:
                found = self.runner(mesh, SET_RATIO="30", CHECK=switch)
                figures["checked ops/s" if switch == "on" else "unchecked ops/s"] = found.rate

    def remote(self, figures: Round) -> None:
        """With one replica on three nodes two thirds of the reads go to another owner. What such a read costs follows from
        the mixture and from the local read of the same round, in time and in CPU."""
        with Mesh(self.binaries, 3, {"REPLICATION_FACTOR": "1", "WRITE_CONCERN": "1"}) as mesh:
            self.runner(mesh, PREFILL="true", DURATION="1s")
            found, cpu = self.cpu_us(mesh, lambda: self.runner(mesh, SET_RATIO="0"))
        figures["one replica ops/s"] = found.rate
        if "local ops/s" in figures:
            share = found.local_share
            figures["remote ops/s"] = 1 / unmixed(1 / found.rate, 1 / figures["local ops/s"], share)
            figures["remote CPU µs"] = unmixed(cpu, figures["local CPU µs"], share)

    def redis(self, figures: Round) -> None:
        server, benchmark = need("redis-server", "redis-server"), need("redis-benchmark", "redis-tools")
        port = str(free_port())
        with Process([server, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]):
            wait_for("redis", lambda: accepts(int(port)))
            for test in ["set", "get"]:
                count = str(60_000 * self.seconds)
                command = [benchmark, "-p", port, "-c", str(CONNECTIONS), "-n", count, "-r", str(KEYS), "-d", "24", "-t", test, "--csv"]
                for name, more in {"": [], ", two threads": ["--threads", "2"]}.items():
                    rate = redis_rate(output_of([*command, *more]), test)
                    if rate is not None:
                        figures[f"redis{name} {test} ops/s"] = rate

    def direct(self, figures: Round) -> None:
        for skew, distribution in ZIPF.items():
            settings = {
                "DURATION": f"{self.seconds}s", "CONCURRENCY": str(CONNECTIONS), "KEYS": str(KEYS), "SET_RATIO": "30",
                "CACHE_AUTH": "perf", "FINAL_SWEEP": "false", "RESULTS": "off", "DISTRIBUTION": distribution,
            }
            found = summary(output_of([str(self.binaries / "direct-runner")], settings))
            figures[f"{skew}direct ops/s"], figures[f"{skew}direct p99 ms"] = found.rate, worst(found, "p99")
            figures[f"{skew}direct SET p99.9 ms"] = found.percentiles_ms["SET p99.9"]

    def overhead(self, figures: Round) -> None:
        """Whether tracing costs what it may, and what TRACE_MODE=all costs: that is a figure, and has no target."""
        overhead.measure(self, figures)

    def tls(self, figures: Round) -> None:
        tls.tls(self, figures)

    def hot(self, figures: Round) -> None:
        hot.hot(self, figures)

    def kills(self, figures: Round) -> None:
        hot.kills(self, figures)

    def large(self, figures: Round) -> None:
        large.large(self, figures)

    def values(self, figures: Round) -> None:
        sizes.values(self, figures)

    def keys(self, figures: Round) -> None:
        sizes.keys(self, figures)

    def beside(self, figures: Round) -> None:
        large.beside(self, figures)

    def full(self, figures: Round) -> None:
        full.full(self, figures)

    def held(self, figures: Round) -> None:
        full.held(self, figures)

    def changing(self, figures: Round) -> None:
        full.changing(self, figures)

    def limited(self, figures: Round) -> None:
        limited.limited(self, figures)

    def small(self, figures: Round) -> None:
        full.small(self, figures)

    def peers(self, figures: Round) -> None:
        full.peers(self, figures)

    def many(self, figures: Round) -> None:
        many.many(self, figures)

    def overload(self, figures: Round) -> None:
        for skew, distribution in ZIPF.items():
            saturation.overload(self, figures, skew, distribution)

    def false_deaths(self, figures: Round) -> None:
        saturation.false_deaths(self, figures)

    def resync(self, figures: Round) -> None:
        resync.resync(self, figures)

    def crashes(self, figures: Round) -> None:
        crashes.crashes(self, figures)

    def restarts(self, figures: Round) -> None:
        restarts.restarts(self, figures)

    def memory(self, figures: Round) -> None:
        """How much one node grows by, per entry. Warmed up first, so that buffers and stacks are not counted."""
        with Mesh(self.binaries, 1, {"REPLICATION_FACTOR": "1", "WRITE_CONCERN": "1"}) as mesh:
            self.wrk(f"{mesh.urls[0]}/get?k=absent", 1)
            before_bytes, before_entries = mesh.nodes[0].rss_bytes(), entries(mesh.urls[0])
            # One thread, so that no key is written twice within a run; every run starts over, so one long run it is.
            seconds = max(2, self.entries // 40_000)
            output_of([need("wrk", "wrk"), "-t1", "-c64", f"-d{seconds}s", "-s", str(Path(__file__).parent / "fill.lua"), mesh.urls[0]])
            grown = entries(mesh.urls[0]) - before_entries
            figures["entries filled"] = grown
            figures["entry overhead bytes"] = (mesh.nodes[0].rss_bytes() - before_bytes) / grown - PAYLOAD_BYTES


# In the order in which a round runs them. `remote` needs the local figures of `mesh`.
MEASUREMENTS = [
    "responder", "mesh", "check", "remote", "redis", "direct", "hot", "large", "values", "beside", "overhead", "tls", "overload",
    "false_deaths", "resync", "crashes", "restarts", "kills", "memory", "full", "held", "changing", "limited", "small", "peers", "many", "keys",
]

# What is measured unless told otherwise: five rounds of these take a quarter of an hour.
USUAL = ["responder", "mesh", "check", "remote", "redis", "direct", "overload"]

# They do not vary from round to round, or take minutes.
ONCE = ["crashes", "restarts", "kills", "memory", "changing", "limited", "small", "peers", "many", "keys"]


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    control = congestion.read_text().strip() if congestion.exists() else "unknown"
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    pages = huge.read_text().partition("[")[2].partition("]")[0] if huge.exists() else "unknown"
    system = f"{platform.system()} {platform.release()}, TCP congestion control {control}, huge pages {pages}"
    return f"{model}, {os.cpu_count()} cores, {system}"


def commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def report(rounds: list[Round], chosen: list[str], skipped: dict[str, str], disturbed: list[str], seconds: int) -> str:
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    head = f"# make perf\n\n{machine()}; {date}; commit {commit()}; {len(rounds)} rounds of {seconds} s each, "
    head += f"{CONNECTIONS} in flight, everything on loopback.\n\n"
    head += f"Command: `{' '.join(['perf/perf.py', *sys.argv[1:]])}`\n\n"
    measured_rows = [row for row in (target.row(rounds) for target in TARGETS) if row[-1] != "SKIPPED"]
    targets = table(["measure", "target", "median", "spread", ""], measured_rows)
    figures = table(["figure", "median", "lowest", "highest"], medians(rounds))
    notes = "".join(f"- SKIPPED {name}: {why}\n" for name, why in skipped.items())
    notes += "".join(f"- {each}\n" for each in disturbed)
    if rest := ", ".join(name for name in MEASUREMENTS if name not in chosen):
        notes += f"- Not chosen (--only NAME, or --all): {rest}.\n"
    notes += "- Work per GET and per gossip round from 3 to 9 nodes is counted by the simulation, not measured here.\n"
    return f"{head}{targets}\n{figures}\n{notes}"


def measured(bench: Bench, names: list[str], skipped: dict[str, str], what: str) -> Round:
    """One round. What cannot be measured here is skipped from then on, and why is said."""
    figures: Round = {}
    for name in names:
        if name in skipped:
            continue
        start = time.monotonic()
        try:
            getattr(bench, name)(figures)
        except (Skipped, RuntimeError, ValueError, OSError, subprocess.TimeoutExpired) as why:
            skipped[name] = str(why)
            print(f"SKIPPED {name}: {why}", file=sys.stderr)
        print(f"{what}: {name}, {time.monotonic() - start:.0f} s", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", type=Path, default=Path("target/release"), help="where the built binaries are")
    parser.add_argument("--output", type=Path, default=Path("target/perf.md"), help="where the table goes")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured, in turn")
    parser.add_argument("--seconds", type=int, default=5, help="how long each measurement takes")
    parser.add_argument("--quick", action="store_true", help="one round of 2 s: to see that it works, not to quote")
    parser.add_argument("--all", action="store_true", help=f"every part, which takes hours; unless told otherwise: {', '.join(USUAL)}")
    parser.add_argument("--only", choices=MEASUREMENTS, action="append", help="only this part; may be repeated")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 2
    bench = Bench(options.binaries, options.seconds, options.quick)
    chosen = [name for name in MEASUREMENTS if options.all or name in (options.only or USUAL)]
    rounds: list[Round] = []
    skipped: dict[str, str] = {}
    disturbed: list[str] = []
    for number in range(options.rounds):
        names = [name for name in chosen if name not in ONCE or number == 0]
        disturbance = Disturbance()
        figures = measured(bench, names, skipped, f"round {number + 1}/{options.rounds}")
        if why := disturbance.reason():
            disturbed.append(f"Round {number + 1} was disturbed and made again: {why}.")
            print(disturbed[-1], file=sys.stderr)
            disturbance = Disturbance()
            figures |= measured(bench, [name for name in names if name not in ONCE], skipped, f"round {number + 1} again")
            if why := disturbance.reason():
                disturbed.append(f"So was its repetition, which counts: {why}.")
        rounds.append(figures)
    text = report(rounds, chosen, skipped, disturbed, options.seconds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
