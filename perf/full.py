"""A full store: how much of what is resident is keys and values, beside Redis and memcached with the same bound, and what evicting
costs."""

import socket
import time

from crashes import run
from processes import Mesh, Process, Repeated, accepts, answers, entries, free_port, gauge, need, output_of, payload_bytes, wait_for
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
    Target("full ÷ not full, keys that are held: throughput", ratio("held, full ops/s", "held, roomy ops/s"), 0.9, True),
    Target("full ÷ not full, keys that are held: GET p99", ratio("held, full GET p99 ms", "held, roomy GET p99 ms"), 1.2, False),
    Target("full ÷ not full, keys that are held: SET p99", ratio("held, full SET p99 ms", "held, roomy SET p99 ms"), 1.2, False),
    Target("full ÷ not full, SETs only: throughput", ratio("evicting, full ops/s", "evicting, roomy ops/s"), 0.9, True),
    Target("full ÷ not full, SETs only: p99", ratio("evicting, full SET p99 ms", "evicting, roomy SET p99 ms"), 1.2, False),
    Target("sizes that change, with TTLs and deletions: payload ÷ resident, at worst", figure("changing: payload ÷ resident"), 0.75, True),
    Target("sizes that change: resident beyond CAPACITY_BYTES", figure("changing: beyond the bound MB"), 64, False, " MB"),
    Target("resident ÷ what is held beyond an idle node, 10 s after expiry of most", figure("after expiry: resident ÷ held"), 1.1, False),
    Target("the same after deletion of most", figure("after deletion: resident ÷ held"), 1.1, False),
    Target("the same after a peer's return", figure("after a return: resident ÷ held"), 1.1, False),
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


def held(bench, figures: Round) -> None:
    """What evicting costs by itself. Where every second GET is for a key that is gone, and all owners have to be asked, GETs cost more
    however cheap an eviction is: so these are for keys that are held, in a store that is full of others."""
    for name, bound in {"full": BOUND_BYTES, "roomy": BOUND_BYTES * 4}.items():
        with Mesh(bench.binaries, 3, {"CAPACITY_BYTES": str(bound)}) as mesh:
            fixed = {"VALUE_BYTES": str(VALUE_BYTES), "CONCURRENCY": "64", "SET_TTL_MS": "-1", "DELETE_RATIO": "0", "FINAL_SWEEP": "false"}
            for what, load in {
                # The prefill of all keys fills the store; that of a few is what is asked for.
                "held": [{"KEYS": str(KEYS), "DURATION": "1s"}, {"KEYS": str(KEYS // 4), "SET_RATIO": "30", "DURATION": f"{bench.seconds}s"}],
                "evicting": [{"KEYS": str(KEYS), "SET_RATIO": "100", "DURATION": f"{bench.seconds}s", "PREFILL": "false"}],
            }.items():
                for settings in load:
                    found = run(bench, **fixed, **settings, TARGETS=mesh.targets)
                figures[f"{what}, {name} ops/s"] = found["totals"]["ops_per_s"]
                for op in ["GET", "SET"] if what == "held" else ["SET"]:
                    figures[f"{what}, {name} {op} p99 ms"] = latency(found, "all", op)["p99_ms"]


def changing(bench, figures: Round) -> None:
    """What a store keeps when sizes change, and what it gives back when there is less to keep."""
    load = {"CONCURRENCY": "64", "FINAL_SWEEP": "false", "KEYS": "400000"}
    with Mesh(bench.binaries, 3, {"CAPACITY_BYTES": str(BOUND_BYTES)}) as mesh:
        time.sleep(2)
        idle = max(node.rss_bytes() for node in mesh.nodes)
        worst = 1.0
        with Watch(mesh) as watch:
            for sizes in ["1000-3000", "100-30000", "20000", "800-1200", "16-65536", "2000"]:
                run(
                    bench, **load, TARGETS=mesh.targets, VALUE_BYTES=sizes, SET_RATIO="60", DELETE_RATIO="5",
                    SET_TTL_MS="20000:20,-1:80", DURATION=f"{bench.seconds}s",
                )
                ratios = [payload_bytes(url) / node.rss_bytes() for url, node in zip(mesh.urls, mesh.nodes)]
                worst = min(worst, *ratios)
        figures["changing: payload ÷ resident"] = worst
        figures["changing: beyond the bound MB"] = (watch.most - BOUND_BYTES) / 1e6
        keep = {"KEYS": "100000", "VALUE_BYTES": "1000"}
        run(bench, **load | keep, TARGETS=mesh.targets, SET_RATIO="0", SET_TTL_MS="-1", DURATION="1s")
        mesh.kill(2)
        time.sleep(5)
        run(bench, **load | keep, TARGETS=",".join(mesh.urls[:2]), SET_RATIO="100", DELETE_RATIO="0", SET_TTL_MS="-1", DURATION="5s", PREFILL="false")
        mesh.restart(2)
        wait_for("the node to be in sync", lambda: answers(f"{mesh.urls[2]}/ready"), 60)
        time.sleep(10)
        # Those that were there all the time hold hints no longer.
        figures["after a return: resident ÷ held"] = share(mesh, idle, mesh.urls[:2])
    for name, gone in {"expiry": {"SET_TTL_MS": "8000:80,-1:20"}, "deletion": {"SET_TTL_MS": "-1", "DELETE_RATIO": "100"}}.items():
        with Mesh(bench.binaries, 3, {"CAPACITY_BYTES": str(BOUND_BYTES)}) as mesh:
            time.sleep(2)
            idle = max(node.rss_bytes() for node in mesh.nodes)
            settings = {"KEYS": "350000", "VALUE_BYTES": "1000", "SET_RATIO": "0", "DELETE_RATIO": "0"} | gone
            run(bench, **load | settings, TARGETS=mesh.targets, DURATION="12s" if name == "deletion" else "9s")
            time.sleep(10)
            figures[f"after {name}: resident ÷ held"] = share(mesh, idle, mesh.urls)


def share(mesh: Mesh, idle: int, urls: list[str]) -> float:
    """Of the worst node: resident ÷ (an idle node and what is held: values, tombstones, and stubs of what has expired)."""
    held = lambda url: payload_bytes(url) + gauge(url, "mesh_store_tombstone_bytes")
    return max(node.rss_bytes() / (idle + held(url)) for url, node in zip(mesh.urls, mesh.nodes) if url in urls)


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
