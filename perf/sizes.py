"""Values of every size against a bare responder of that size, and ten million keys against fifty thousand."""

from crashes import run
from processes import Mesh, Process, answers, free_port, put, wait_for
from ratios import Round, Target, figure, ratio, wrk_figures

SIZES = {"1 KiB": 1 << 10, "64 KiB": 1 << 16, "1 MiB": 1 << 20}

FEW_KEYS, MANY_KEYS = 50_000, 10_000_000
# Nothing is evicted, wherever ten million small values end up.
MANY_KEYS_BYTES = 4 << 30

TARGETS = [
    *(
        Target(f"values of {name}: wrk → node GET ÷ wrk → bare responder, bytes/s", ratio(f"{name} GET MB/s", f"{name} responder MB/s"), 0.75, True)
        for name in SIZES
    ),
    Target("10 M keys: hits", figure("10 M keys hit %"), 100.0, True, " %"),
    Target("10 M keys ÷ 50 000: nodes' CPU per operation, SET_RATIO=30", ratio("10 M keys CPU µs", "50 000 keys CPU µs"), 1.5, False),
]


def values(bench, figures: Round) -> None:
    """The same client for both; and how many bytes SETs move, which no responder has to compare with."""
    with Mesh(bench.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
        for name, size in SIZES.items():
            put(mesh.urls[0], name[0], "v" * size)
            port = free_port()
            with Process([str(bench.binaries / "runner"), "null-server", "--port", str(port), "--value-bytes", str(size)]):
                wait_for("the bare responder", lambda: answers(f"http://127.0.0.1:{port}/"))
                for what, url in {"responder": f"http://127.0.0.1:{port}/", "GET": f"{mesh.urls[0]}/get?k={name[0]}"}.items():
                    rate, figures[f"{name} {what} p99 ms"], _ = wrk_figures(bench.wrk(url, bench.seconds))
                    figures[f"{name} {what} MB/s"] = rate * size / 1e6
            found = run(
                bench, TARGETS=mesh.targets, KEYS="100", VALUE_BYTES=str(size), SET_RATIO="100", DELETE_RATIO="0", CONCURRENCY="16",
                FINAL_SWEEP="false", DURATION=f"{bench.seconds}s",
            )
            figures[f"{name} SET MB/s"] = found["totals"]["ops_per_s"] * size / 1e6


def keys(bench, figures: Round) -> None:
    """Both on nodes of their own, in which each key has its place."""
    for name, count in {"50 000 keys": FEW_KEYS, "10 M keys": MANY_KEYS // (100 if bench.is_quick else 1)}.items():
        with Mesh(bench.binaries, 3, {"CAPACITY_BYTES": str(MANY_KEYS_BYTES), "REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}) as mesh:
            fixed = {"TARGETS": mesh.targets, "KEYS": str(count), "DELETE_RATIO": "0", "SET_TTL_MS": "-1", "FINAL_SWEEP": "false"}
            run(bench, **fixed, DURATION="1s", SET_RATIO="0")
            before = mesh.cpu_s()
            found = run(bench, **fixed, DURATION=f"{bench.seconds}s", SET_RATIO="30", PREFILL="false")
            totals = found["totals"]
            figures[f"{name} CPU µs"] = (mesh.cpu_s() - before) / totals["total"] * 1e6
            figures[f"{name} ops/s"] = totals["ops_per_s"]
            figures[f"{name} hit %"] = (totals["hits_local"] + totals["hits_remote"]) / totals["gets"] * 100
            figures[f"{name}: resident MB"] = max(node.rss_bytes() for node in mesh.nodes) / 1e6
