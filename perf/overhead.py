"""What telemetry costs: the same load on meshes that differ only in their collector, in turn and back again, several times a round."""

import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from processes import Mesh, Process, Skipped, answers, free_port, wait_for, wait_until_idle
from ratios import Round

# How often the meshes take turns in one round; every other time in reverse, so that a drift of the machine hits all alike.
TURNS = 2

# How long the slow collector keeps each piece of what it is sent.
SLOW_S = 0.3

ROOT = Path(__file__).parent.parent


def variants(live: str, refused: str, hung: str, slow: str) -> dict[str, dict[str, str]]:
    """The nodes' settings by what is measured."""
    endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
    return {
        "untraced": {},
        "traced": {endpoint: live},
        "all traced": {endpoint: live, "TRACE_MODE": "all"},
        "collector refuses": {endpoint: refused},
        "collector hangs": {endpoint: hung},
        "collector is slow": {endpoint: slow},
    }


def measure(bench, figures: Round) -> None:
    """Adds CPU per GET and throughput of every variant. All meshes are up all the time; an idle one costs gossip."""
    with ExitStack() as stack:
        live = collector(stack)
        # Nobody listens on port 1; a listener that never accepts hangs.
        hung = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        slow = stack.enter_context(SlowProxy(live))
        endpoints = [f"http://127.0.0.1:{port}" for port in (live, 1, hung.getsockname()[1], slow.port)]
        meshes = {
            name: stack.enter_context(Mesh(bench.binaries, 3, {"REPLICATION_FACTOR": "3", "WRITE_CONCERN": "2", **settings}))
            for name, settings in variants(*endpoints).items()
        }
        for mesh in meshes.values():
            bench.runner(mesh, PREFILL="true", DURATION="1s")
        spent = {name: [0, 0.0, 0.0] for name in meshes}
        for turn in range(TURNS):
            for name in sorted(meshes, reverse=turn % 2 == 1):
                wait_until_idle()
                before = meshes[name].cpu_s()
                found = bench.runner(meshes[name], SET_RATIO="0")
                sums = spent[name]
                spent[name] = [sums[0] + found.total, sums[1] + meshes[name].cpu_s() - before, sums[2] + found.rate / TURNS]
        for name, (total, cpu_s, rate) in spent.items():
            figures[f"{name} GET CPU µs"], figures[f"{name} GET ops/s"] = cpu_s / total * 1e6, rate


def collector(stack: ExitStack) -> int:
    """The port of a collector that takes everything."""
    try:
        # Standard output alone: what the build says goes elsewhere.
        binary = subprocess.run([str(ROOT / ".ci" / "trace-ui")], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]
    except subprocess.CalledProcessError as why:
        raise Skipped(f"the trace UI cannot be built: {why}") from why
    otlp, ui = free_port(), free_port()
    stack.enter_context(Process([binary], {"OTLP_BIND": f"127.0.0.1:{otlp}", "UI_BIND": f"127.0.0.1:{ui}"}))
    wait_for("the trace UI", lambda: answers(f"http://127.0.0.1:{ui}/status"))
    return otlp


class SlowProxy:
    """Passes connections on to a port, a piece at a time."""

    def __init__(self, port: int):
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return  # Closed.
            for source, sink, delay_s in ((near, far, SLOW_S), (far, near, 0.0)):
                threading.Thread(target=pump, args=(source, sink, delay_s), daemon=True).start()


def pump(source: socket.socket, sink: socket.socket, delay_s: float) -> None:
    try:
        while piece := source.recv(65_536):
            time.sleep(delay_s)
            sink.sendall(piece)
    except OSError:
        pass  # One side has gone; so does the other.
    finally:
        source.close()
        sink.close()
