"""A full store: how much of what is resident is keys and values, beside Redis and memcached with the same bound, and what evicting
costs."""

import socket
import time

from crashes import run
from processes import Mesh, Process, Repeated, accepts, entries, free_port, need, output_of, wait_for
from ratios import Round, Target, figure, latency, ratio

BOUND_BYTES = 400 << 20
KEYS = 700_000
VALUE_BYTES = 1000

SMALL_KEYS = 1_500_000
SMALL_VALUE_BYTES = 45

# As VALUE_BYTES has them, by the name of their figures; and the mean of each.
SIZES = {"full": ("1000", 1000), "full, sizes mixed": ("16-65536", 32_776)}

TARGETS = [
    Target("a full node: values ÷ resident", figure("full: values ÷ resident"), 0.85, True),
    Target("a full node: resident beyond CAPACITY_BYTES", figure("full: beyond the bound MB"), 64, False, " MB"),
    Target("a full node, 16 B to 64 KiB: values ÷ resident", figure("full, sizes mixed: values ÷ resident"), 0.75, True),
    Target("a full node, 16 B to 64 KiB: resident beyond CAPACITY_BYTES", figure("full, sizes mixed: beyond the bound MB"), 64, False, " MB"),
    Target("full ÷ not full: throughput", ratio("full ops/s", "roomy ops/s"), 0.9, True),
    Target("full ÷ not full: GET p99", ratio("full GET p99 ms", "roomy GET p99 ms"), 1.2, False),
    Target("full ÷ not full: SET p99", ratio("full SET p99 ms", "roomy SET p99 ms"), 1.2, False),
    Target("full: runs that do not pass", figure("full: runs that do not pass"), 0, False),
    Target("1.5 M values of 45 bytes: resident", figure("small values: resident MB"), 200, False, " MB"),
    Target("an idle node with two peers: resident", figure("idle: resident MB"), 20, False, " MB"),
]


def full(bench, figures: Round) -> None:
    failed = 0
    for name, (sizes, mean) in {**SIZES, "roomy": SIZES["full"]}.items():
        bound = BOUND_BYTES * 4 if name == "roomy" else BOUND_BYTES
        keys = KEYS * VALUE_BYTES // mean if mean != VALUE_BYTES else KEYS
        with Mesh(bench.binaries, 3, {"CAPACITY_BYTES": str(bound)}) as mesh:
            time.sleep(2)
            figures["idle: resident MB"] = max(node.rss_bytes() for node in mesh.nodes) / 1e6
            with Watch(mesh) as watch:
                load = {"KEYS": str(keys), "VALUE_BYTES": sizes, "CONCURRENCY": "64", "SET_RATIO": "30", "SET_TTL_MS": "-1", "DELETE_RATIO": "0"}
                found = run(bench, **load, TARGETS=mesh.targets, DURATION=f"{bench.seconds}s")
            failed += found["verdict"]["exit_code"] != 0
            figures[f"{name} ops/s"] = found["totals"]["ops_per_s"]
            figures[f"{name} GET p99 ms"] = latency(found, "all", "GET")["p99_ms"]
            figures[f"{name} SET p99 ms"] = latency(found, "all", "SET")["p99_ms"]
            if name != "roomy":
                held = [entries(url) * mean for url in mesh.urls]
                figures[f"{name}: values ÷ resident"] = min(held) / watch.most
                figures[f"{name}: beyond the bound MB"] = (watch.most - bound) / 1e6
    figures["full: runs that do not pass"] = failed


def small(bench, figures: Round) -> None:
    with Mesh(bench.binaries, 1, {"REPLICATION_FACTOR": "1", "WRITE_CONCERN": "1"}) as mesh:
        load = {"KEYS": str(SMALL_KEYS), "VALUE_BYTES": str(SMALL_VALUE_BYTES), "SET_RATIO": "0", "DELETE_RATIO": "0", "SET_TTL_MS": "-1"}
        run(bench, **load, TARGETS=mesh.targets, DURATION="1s", FINAL_SWEEP="false")
        figures["small values"] = entries(mesh.urls[0])
        figures["small values: resident MB"] = mesh.nodes[0].rss_bytes() / 1e6


def peers(_, figures: Round) -> None:
    """What users would pick instead, with the same bound and values: for the table, without a target."""
    port = free_port()
    with Process([need("memcached", "memcached"), "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-m", "400"]) as server:
        wait_for("memcached", lambda: accepts(port))
        fill_memcached(port)
        figures["memcached: values ÷ resident"] = memcached_items(port) * VALUE_BYTES / server.rss_bytes()
    port = free_port()
    bound = ["--maxmemory", "400mb", "--maxmemory-policy", "allkeys-lru"]
    command = [need("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", *bound]
    with Process(command) as server:
        wait_for("redis", lambda: accepts(port))
        fill = ["-t", "set", "-r", str(KEYS), "-n", str(KEYS * 3), "-d", str(VALUE_BYTES), "-P", "16", "-q"]
        output_of([need("redis-benchmark", "redis-tools"), "-p", str(port), *fill])
        count = output_of([need("redis-cli", "redis-tools"), "-p", str(port), "dbsize"])
        figures["redis: values ÷ resident"] = int(count.split()[-1]) * VALUE_BYTES / server.rss_bytes()


class Watch(Repeated):
    """The most that any node of a mesh had resident while the block ran."""

    def __init__(self, mesh: Mesh):
        super().__init__(0.5, lambda: self._look_at(mesh))
        self.most = 0

    def _look_at(self, mesh: Mesh) -> None:
        self.most = max(self.most, *(node.rss_bytes() for node in mesh.nodes))


def fill_memcached(port: int) -> None:
    value = b"v" * VALUE_BYTES
    with socket.create_connection(("127.0.0.1", port)) as client:
        for first in range(0, KEYS, 100):
            keys = range(first, first + 100)
            client.sendall(b"".join(b"set key-%08d 0 0 %d noreply\r\n%s\r\n" % (key, VALUE_BYTES, value) for key in keys))
        client.sendall(b"version\r\n")
        client.recv(100)


def memcached_items(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rwb") as lines:
        lines.write(b"stats\r\n")
        lines.flush()
        for line in lines:
            if line.startswith(b"STAT curr_items"):
                return int(line.split()[2])
    return 0
