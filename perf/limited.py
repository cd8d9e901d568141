"""Nodes with a memory limit and no other setting: how much of it they use, and whether the kernel ever kills one."""

import os
import threading
import time
from pathlib import Path

from crashes import run
from processes import Mesh, Skipped, answers, wait_for
from ratios import Round, Target, figure

LIMITS_MIB = [64, 128, 192, 512]

# Version 1 and version 2.
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")

TARGETS = [
    Target("default capacity in 64 to 512 MiB, a peer away for a third of the time: killed for memory", figure("limited: kills"), 0, False),
    Target("the same: runs that do not pass", figure("limited: runs that do not pass"), 0, False),
]


class MemoryLimit:
    """A cgroup of our own, of version 1 or 2."""

    def __init__(self, number: int, bytes_max: int):
        self._is_v1 = (V1 / "memory.limit_in_bytes").exists()
        if not self._is_v1 and "memory" not in (V2 / "cgroup.subtree_control").read_text().split():
            raise Skipped("there is no cgroup with a controller of memory")
        self._folder = (V1 if self._is_v1 else V2) / f"mesh-bench-{os.getpid()}-{number}"
        try:
            self._folder.mkdir()
            (self._folder / ("memory.limit_in_bytes" if self._is_v1 else "memory.max")).write_text(str(bytes_max))
        except OSError as error:
            raise Skipped(f"no cgroup can be made: {error}") from error

    def command(self, command: list[str]) -> list[str]:
        """The same, under the limit."""
        return ["sh", "-c", f'echo $$ >{self._folder}/cgroup.procs && exec "$@"', "sh", *command]

    def peak_bytes(self) -> int:
        return int((self._folder / ("memory.max_usage_in_bytes" if self._is_v1 else "memory.peak")).read_text())

    def kills(self) -> int:
        lines = (self._folder / ("memory.oom_control" if self._is_v1 else "memory.events")).read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def remove(self) -> None:
        # Its last process may still be on its way out.
        wait_for("the cgroup to be empty", lambda: not (self._folder / "cgroup.procs").read_text())
        self._folder.rmdir()


def limited(bench, figures: Round) -> None:
    kills = failed = 0
    for mib in LIMITS_MIB:
        limits = [MemoryLimit(number, mib << 20) for number in range(3)]
        try:
            with Mesh(bench.binaries, 3, {}, command=lambda number, command: limits[number].command(command)) as mesh:
                away = threading.Thread(target=lambda: leave_and_return(mesh, bench.seconds))
                away.start()
                found = run(
                    bench, TARGETS=mesh.targets, CONCURRENCY="512", KEYS=str(mib * 2000), VALUE_BYTES="1000:98,1000000:2", SET_RATIO="30",
                    DELETE_RATIO="1", SET_TTL_MS="-1", PREFILL="false", DURATION=f"{bench.seconds}s", ERRORS_MAX_PERCENT="100",
                )
                away.join()
                failed += found["verdict"]["exit_code"] != 0
                figures[f"limited, {mib} MiB: most of the limit in use"] = max(limit.peak_bytes() for limit in limits) / (mib << 20)
                figures[f"limited, {mib} MiB: ops/s"] = found["totals"]["ops_per_s"]
                kills += sum(limit.kills() for limit in limits)
        finally:
            for limit in limits:
                limit.remove()
    figures["limited: kills"], figures["limited: runs that do not pass"] = kills, failed


def leave_and_return(mesh: Mesh, seconds: int) -> None:
    """Hints for it pile up, and it has to be filled again under load."""
    time.sleep(seconds / 3)
    mesh.kill(2)
    time.sleep(seconds / 3)
    mesh.restart(2)
    wait_for("the node to be in sync", lambda: answers(f"{mesh.urls[2]}/ready"), 60)
