"""Values of a megabyte: what more of them at a time cost, what is done twice, and what small reads feel of them."""

import http.client
import threading
import time
import urllib.parse

from crashes import run
from processes import Mesh
from ratios import Round, Target, extra_tries, figure, latency, ratio

LARGE_BYTES = 1_000_000

# Three nodes hold all of them, beside the client.
LARGE_KEYS = 100

IN_FLIGHT = [1, 4, 16, 32]

# Large SETs in flight beside small reads.
WRITERS = 4

TARGETS = [
    Target("values of 1 MB, 32 in flight ÷ best of 1, 4, 16, 32", ratio("1 MB × 32 ops/s", "1 MB best ops/s"), 0.9, True),
    Target("values of 1 MB, 32 in flight: extra tries", figure("1 MB × 32 extra tries %"), 10.0, False, " %"),
    Target("values of 1 MB: runs that do not pass", figure("1 MB runs that do not pass"), 0, False),
    Target("small GETs beside SETs of 1 MB ÷ alone: p99", ratio("beside local GET p99 ms", "alone local GET p99 ms"), 3.0, False),
    Target("small GETs at other owners beside SETs of 1 MB ÷ alone: p99", ratio("beside remote GET p99 ms", "alone remote GET p99 ms"), 3.0, False),
]


def large(bench, figures: Round) -> None:
    with Mesh(bench.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
        load = {
            "TARGETS": mesh.targets, "KEYS": str(LARGE_KEYS), "VALUE_BYTES": str(LARGE_BYTES), "SET_RATIO": "30",
            "DELETE_RATIO": "0", "DURATION": f"{bench.seconds}s",
        }
        failed = 0
        for count in IN_FLIGHT:
            found = run(bench, **load, CONCURRENCY=str(count))
            figures[f"1 MB × {count} ops/s"] = found["totals"]["ops_per_s"]
            figures[f"1 MB × {count} extra tries %"] = extra_tries(found)
            figures[f"1 MB × {count} SET p99 ms"] = latency(found, "all", "SET")["p99_ms"]
            failed += found["verdict"]["exit_code"] != 0
        figures["1 MB best ops/s"] = max(figures[f"1 MB × {count} ops/s"] for count in IN_FLIGHT)
        figures["1 MB runs that do not pass"] = failed


def beside(bench, figures: Round) -> None:
    """Small reads at an owner, and with one replica at others, alone and while others write large values to other keys."""
    for place, replicas, concern in [("local", "3", "2"), ("remote", "1", "1")]:
        with Mesh(bench.binaries, 3, {"REPLICATION_FACTOR": replicas, "WRITE_CONCERN": concern}) as mesh:
            load = {
                "TARGETS": mesh.targets, "SET_RATIO": "0", "DELETE_RATIO": "0", "CONCURRENCY": "32", "FINAL_SWEEP": "false",
                # Others count operations that this client knows nothing of.
                "RECONCILE": "report",
            }
            run(bench, **load, DURATION="1s")
            for name in ["alone", "beside"]:
                with Writers(mesh.urls, WRITERS if name == "beside" else 0) as writers:
                    found = run(bench, **load, PREFILL="false", DURATION=f"{bench.seconds}s")
                label = {"local": "GET HIT_LOCAL", "remote": "GET HIT_REMOTE"}[place]
                figures[f"{name} {place} GET p99 ms"] = latency(found, "outcome", label)["p99_ms"]
                figures[f"{name} {place} GET/s"] = found["totals"]["ops_per_s"]
                if name == "beside":
                    figures[f"beside {place}: 1 MB SET/s"] = writers.rate


class Writers:
    """Clients that write large values, each to keys of its own, while the block runs."""

    def __init__(self, urls: list[str], count: int):
        self._over = threading.Event()
        self._done = [0] * count
        self._threads = [
            threading.Thread(target=self._write, args=(number, urls[number % len(urls)])) for number in range(count)
        ]

    def __enter__(self):
        self._start = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.rate = sum(self._done) / (time.monotonic() - self._start)

    def _write(self, number: int, url: str) -> None:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
        headers, body = {"Content-Type": "application/octet-stream"}, bytes(LARGE_BYTES)
        while not self._over.is_set():
            connection.request("POST", f"/set?k=large-{number}-{self._done[number] % 8}", body, headers)
            connection.getresponse().read()
            self._done[number] += 1
        connection.close()
