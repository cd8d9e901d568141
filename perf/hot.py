"""Keys that are not alike: a skewed load beside a uniform one, all writes to one key beside writes to many, and kills under skew."""

from crashes import VIOLATIONS, run
from processes import Mesh
from ratios import Round, Target, figure, latency, ratio, timed_out

KILLS = 20

# As DISTRIBUTION has them, by the name of their figures.
SKEWS = {"uniform": "uniform", "zipf 0.99": "zipf:0.99", "zipf 1.2": "zipf:1.2"}

TARGETS = [
    *(
        target
        for skew, rate in [("zipf 0.99", 0.95), ("zipf 1.2", 0.9)]
        for target in [
            Target(f"{skew} ÷ uniform, 256 in flight, SET_RATIO=30", ratio(f"{skew} hot ops/s", "uniform hot ops/s"), rate, True),
            Target(f"{skew} ÷ uniform: SET p99", ratio(f"{skew} SET p99 ms", "uniform SET p99 ms"), 1.3, False),
            Target(f"{skew} ÷ uniform: SET p99.9", ratio(f"{skew} SET p99.9 ms", "uniform SET p99.9 ms"), 2.0, False),
            Target(f"{skew}: tries timed out", figure(f"{skew} tries timed out"), 0, False),
        ]
    ),
    Target("direct-runner, zipf 0.99 ÷ uniform", ratio("zipf direct ops/s", "direct ops/s"), 1.0, True),
    Target("SETs of one key ÷ of 50 000, 32 in flight", ratio("one key SET/s", "many keys SET/s"), 0.45, True),
    Target("SETs of one key, 32 in flight: p99.9 ÷ p50", ratio("one key SET p99.9 ms", "one key SET p50 ms"), 5.0, False),
    Target("zipf 0.99, 64 in flight, a kill: runs that do not pass", figure("kills: runs that do not pass"), 0, False),
    Target("zipf 0.99, a kill: SET p99.9 outside of it ÷ without", ratio("kills: SET p99.9 ms outside", "kills: SET p99.9 ms without"), 2.0, False),
]


def hot(bench, figures: Round) -> None:
    with Mesh(bench.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
        defaults = {"TARGETS": mesh.targets, "DELETE_RATIO": "0", "FINAL_SWEEP": "false", "DURATION": f"{bench.seconds}s"}
        run(bench, **{**defaults, "DURATION": "1s"})
        for skew, distribution in SKEWS.items():
            found = run(bench, **defaults, PREFILL="false", SET_RATIO="30", DISTRIBUTION=distribution)
            sets = latency(found, "all", "SET")
            figures[f"{skew} hot ops/s"] = found["totals"]["ops_per_s"]
            figures[f"{skew} SET p99 ms"], figures[f"{skew} SET p99.9 ms"] = sets["p99_ms"], sets["p999_ms"]
            figures[f"{skew} tries timed out"] = timed_out(found)
        for name, keys in [("one key", "1"), ("many keys", "50000")]:
            found = run(bench, **defaults, PREFILL="false", SET_RATIO="100", CONCURRENCY="32", KEYS=keys)
            sets = latency(found, "all", "SET")
            figures[f"{name} SET/s"] = found["totals"]["ops_per_s"]
            figures[f"{name} SET p50 ms"], figures[f"{name} SET p99.9 ms"] = sets["p50_ms"], sets["p999_ms"]


def kills(bench, figures: Round) -> None:
    """Each run has a mesh and a kill of its own; between the kill and when the node is ready again, its SETs are left out."""
    load = {"SET_RATIO": "30", "DELETE_RATIO": "0", "CONCURRENCY": "64", "DISTRIBUTION": "zipf:0.99", "DURATION": "15s"}
    without = run(bench, **{**load, "DURATION": f"{bench.seconds}s"}, FINAL_SWEEP="false")
    figures["kills: SET p99.9 ms without"] = latency(without, "all", "SET")["p999_ms"]
    failed, outside, violations = 0, [], 0
    for _ in range(2 if bench.is_quick else KILLS):
        found = run(bench, **load, KILL_MODE="random", KILL_AFTER="4s")
        failed += found["verdict"]["exit_code"] != 0
        violations += sum(found["integrity"][kind] for kind in VIOLATIONS)
        outside += [latency(found, "phase", f"SET {phase}")["p999_ms"] for phase in ("steady", "recovered")]
    figures["kills: runs that do not pass"], figures["kills: violations"] = failed, violations
    figures["kills: SET p99.9 ms outside"] = sum(outside) / len(outside)
