"""A node that comes back empty takes everything from the other two while they serve: how fast, and what their clients feel of it."""

import os
import signal
import subprocess
import time

from processes import Mesh, answers, entries, output_of, wait_for
from ratios import Round, summary, worst

KEYS = 500_000

# A small share of what two nodes can do, so that the percentiles are those of requests, not of a queue.
RATE = 2_000

# In percent.
SET_RATIO = 10

# More than it takes to declare the dead node dead.
DEAD_AFTER_S = 4.0


def resync(bench, figures: Round) -> None:
    keys = KEYS // 10 if bench.is_quick else KEYS
    with Mesh(bench.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
        bench.runner(mesh, PREFILL="true", KEYS=str(keys), DURATION="1s")
        load = {
            "TARGETS": ",".join(mesh.urls[:2]), "KEYS": str(keys), "SET_RATIO": str(SET_RATIO), "RATE": str(RATE),
            "CONCURRENCY": "64", "PREFILL": "false", "FINAL_SWEEP": "false", "RESULTS": "off",
        }
        runner = str(bench.binaries / "runner")
        before = summary(output_of([runner], {**load, "DURATION": f"{bench.seconds}s"}))
        mesh.kill(2)
        time.sleep(DEAD_AFTER_S)
        client = subprocess.Popen(
            [runner], env={**os.environ, **load, "DURATION": "60s"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        try:
            time.sleep(0.5)
            mesh.restart(2)
            started = time.monotonic()
            wait_for("the first record", lambda: answers(f"{mesh.urls[2]}/stats") and entries(mesh.urls[2]) > 0)
            first, had = time.monotonic(), entries(mesh.urls[2])
            wait_for("the node to be in sync", lambda: answers(f"{mesh.urls[2]}/ready"))
            ready, has = time.monotonic(), entries(mesh.urls[2])
            client.send_signal(signal.SIGINT)
            during = summary(client.communicate(timeout=60)[0])
        finally:
            client.kill()
            client.wait()
        figures["resync keys"] = has
        figures["resync start to ready s"] = ready - started
        figures["resync keys/s"] = (has - had) / (ready - first)
        figures["p99 ms before resync"], figures["p99 ms during resync"] = worst(before, "p99"), worst(during, "p99")
