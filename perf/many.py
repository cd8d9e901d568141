"""Many nodes on one machine: how soon they are ready when all start at once beside busy loops, whom they suspect, what each further
peer costs an idle one, and whether they lose anything."""

import statistics
import time

from crashes import run
from processes import Mesh, Process
from ratios import Round, Target, figure
from saturation import SUSPICIONS, metrics, total

FEW, MANY = 3, 30
BUSY_LOOPS = 6

# Until what has started is done with starting, and how long it is then watched.
SETTLE_S, IDLE_S = 15, 20

TARGETS = [
    Target("30 nodes at once beside 6 busy loops: ready after", figure("many: ready after s"), 20, False, " s"),
    Target("the same: suspicions for each pair", figure("many: suspicions per pair"), 1, False),
    Target("an idle node: resident for each further peer", figure("many: MB per peer"), 0.5, False, " MB"),
    Target("an idle node: CPU for each further peer, thousandths of a core", figure("many: mcores per peer"), 0.2, False),
    Target("30 nodes, 30 % SET: runs that do not pass", figure("many: runs that do not pass"), 0, False),
]


def idle(mesh: Mesh) -> tuple[float, float]:
    """What a node takes: megabytes, and thousandths of a core."""
    time.sleep(SETTLE_S)
    before = [node.cpu_s() for node in mesh.nodes]
    time.sleep(IDLE_S)
    used = [node.cpu_s() - cpu for node, cpu in zip(mesh.nodes, before)]
    return statistics.mean(node.rss_bytes() for node in mesh.nodes) / 1e6, statistics.mean(used) / IDLE_S * 1000


def many(bench, figures: Round) -> None:
    settings = {"CAPACITY_BYTES": "64MiB"}
    with Mesh(bench.binaries, FEW, settings) as mesh:
        few_mb, few_mcores = idle(mesh)
    loops = [Process(["sh", "-c", "while :; do :; done"]) for _ in range(BUSY_LOOPS)]
    try:
        began = time.monotonic()
        mesh = Mesh(bench.binaries, MANY, settings, ready_within_s=120)
        with mesh:
            figures["many: ready after s"] = time.monotonic() - began
            while loops:
                loops.pop().__exit__()
            many_mb, many_mcores = idle(mesh)
            suspicions = sum(total(SUSPICIONS, metrics(url)) for url in mesh.urls)
            figures["many: suspicions per pair"] = suspicions / (MANY * (MANY - 1))
            figures["many: MB per peer"] = (many_mb - few_mb) / (MANY - FEW)
            figures["many: mcores per peer"] = (many_mcores - few_mcores) / (MANY - FEW)
            load = {"KEYS": "20000", "CONCURRENCY": "64", "SET_RATIO": "30"}
            found = run(bench, **load, TARGETS=mesh.targets, DURATION=f"{bench.seconds}s")
            figures["many: runs that do not pass"] = int(found["verdict"]["correctness"] != "PASS")
    finally:
        for loop in loops:
            loop.__exit__()
