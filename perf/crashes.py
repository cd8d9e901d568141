"""Crash after crash under half of what the mesh can do, each right after the node before is ready again: what is lost, and which
requests it costs."""

import json
import tempfile
from pathlib import Path

from processes import output_of
from ratios import Round

CRASHES = 20

# Findings of the checker that mean that data is wrong, lost or back from the dead. What was merely stale is none.
VIOLATIONS = ["wrong_object", "corrupt", "unwritten", "missing", "lost", "out_of_order", "resurrected", "outlived", "version_changed"]


def run(bench, **settings: str) -> dict:
    """One run on three nodes of the runner's own, and its results; on those of `TARGETS`, if there are any."""
    local = [] if "TARGETS" in settings else ["--local", "3"]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        defaults = {
            "KEYS": "50000", "SET_RATIO": "20", "DELETE_RATIO": "5", "CONCURRENCY": "256", "RESULTS": str(results),
            "LOG_DIR": folder,
        }
        timeout_s = 400 + int(settings["DURATION"].rstrip("s"))
        output_of([str(bench.binaries / "runner"), *local], {**defaults, **settings}, timeout_s=timeout_s)
        return json.loads(results.read_text())


def crashes(bench, figures: Round) -> None:
    count = 3 if bench.is_quick else CRASHES
    most = run(bench, DURATION=f"{bench.seconds}s", FINAL_SWEEP="false")["totals"]["ops_per_s"]
    # 20 times 3 s away and about 1 s to be ready again; three minutes are the end in any case.
    found = run(
        bench, DURATION="180s", RATE=str(round(most / 2)), KILL_MODE="random", KILL_AFTER="2s", KILL_COUNT=str(count),
        KILL_EVERY="1s", RESTART_AFTER="3s",
    )
    totals, failed = found["totals"], found["failed"]
    figures["crash rate ops/s"] = totals["ops_per_s"]
    figures["crashes, each recovered from"] = sum(kill["ready_at_s"] is not None for kill in found["faults"])
    figures["crash run s"] = found["load_s"]
    figures["crash violations"] = sum(found["integrity"][kind] for kind in VIOLATIONS)
    figures["crash lost writes"] = found["sweep"]["lost"]
    figures["crash errors %"] = totals["errors"] / totals["total"] * 100
    figures["crash writes with outcome unknown %"] = totals["indeterminate"] / totals["total"] * 100
    # Of the first thousand; more are beyond the allowed share anyway.
    figures["crash error distance s"] = max((abs(request["after_fault_s"]) for request in failed), default=0.0)
    if found["verdict"]["invalid"]:
        raise RuntimeError("; ".join(found["verdict"]["invalid"]))
