"""What TLS costs: the same GETs over HTTPS and over HTTP, in turn and back again, on two meshes that differ only in that."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from processes import Mesh, need, output_of
from ratios import Round, Target, ratio

# How often both take turns in one round; every other time in reverse, so that a drift of the machine hits both alike.
TURNS = 2

TARGETS = [
    Target("nodes' CPU per GET, HTTPS ÷ HTTP", ratio("https GET CPU µs", "http GET CPU µs"), 1.25, False),
    Target("GET/s, HTTP ÷ HTTPS", ratio("http GET ops/s", "https GET ops/s"), 1.25, False),
]


def tls(bench, figures: Round) -> None:
    with ExitStack() as stack:
        cert, key = certificate(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        settings = {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2"}
        of_nodes = {"http": settings, "https": {**settings, "HTTP_TLS_CERT": cert, "HTTP_TLS_KEY": key}}
        meshes = {name: stack.enter_context(Mesh(bench.binaries, 3, told)) for name, told in of_nodes.items()}
        spent = {name: [0, 0.0, 0.0] for name in meshes}
        for mesh in meshes.values():
            bench.runner(mesh, PREFILL="true", DURATION="1s", HTTP_TLS_CA=cert)
        for turn in range(TURNS):
            for name in sorted(meshes, reverse=turn % 2 == 1):
                before = meshes[name].cpu_s()
                found = bench.runner(meshes[name], SET_RATIO="0", HTTP_TLS_CA=cert)
                sums = spent[name]
                spent[name] = [sums[0] + found.total, sums[1] + meshes[name].cpu_s() - before, sums[2] + found.rate / TURNS]
        for name, (total, cpu_s, rate) in spent.items():
            figures[f"{name} GET CPU µs"], figures[f"{name} GET ops/s"] = cpu_s / total * 1e6, rate


def certificate(folder: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    output_of([
        need("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=mesh", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
        "-out", cert, "-keyout", key,
    ])
    return cert, key
