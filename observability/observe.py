#!/usr/bin/env python3
"""What `make observe` does: the whole stack in containers where there is a Docker engine; else three local nodes, the
runner, the trace UI and, if it is installed, a real Prometheus. Either way a run with a kill in it, which Ctrl-C, SIGTERM and a
closed terminal end with its summary.

`--check` is for CI: local, short, on free ports; then check_live.py looks at what the run has left behind.
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "perf"))
from processes import accepts, answers, free_port, wait_for  # noqa: E402

from check_live import FakeExporter, Stack, check_stack  # noqa: E402
from signals import Signals, apart  # noqa: E402

KILL_TOKEN = "demo"

# The run that is watched; each can be set in the environment.
RUN = {
    "CONCURRENCY": "256", "DURATION": "120s", "SET_RATIO": "30", "SET_TTL_MS": "-1", "STATS_EVERY": "10s",
    "KILL_MODE": "random", "KILL_AFTER": "30s", "KILL_TOKEN": KILL_TOKEN,
    # Requests that a person sends with curl reach the same nodes.
    "RECONCILE": "report",
}
# Long enough for suspicion, death, return and recovery; light enough for two slow cores.
CHECK_RUN = {
    "CONCURRENCY": "8", "DURATION": "18s", "KEYS": "2000", "SET_RATIO": "30", "SET_TTL_MS": "-1", "WARMUP": "1s",
    "KILL_MODE": "target", "KILL_AFTER": "4s", "KILL_TARGET": "2", "KILL_TOKEN": KILL_TOKEN, "FINAL_SWEEP": "false",
    # The line of a fault that is no kill, and over before that.
    "FAULTS": "at=2s slow node3 5ms for=500ms",
    # What is checked here is the board; a few failures on a slow machine are no reason to fail.
    "ERRORS_MAX_PERCENT": "20",
}
RESTART_AFTER_S = 5.0


class Node:
    """A local node that comes back when it dies, as `restart: unless-stopped` would have it."""

    def __init__(self, binary: Path, settings: dict[str, str], log: Path):
        self._command, self._environment, self._log = [str(binary)], {**os.environ, **settings}, log
        self._stopped = threading.Event()
        self._child = self._start("w")
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _start(self, mode: str) -> subprocess.Popen:
        with self._log.open(mode) as log:
            return apart(self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _keep(self) -> None:
        while True:
            self._child.wait()
            if self._stopped.wait(RESTART_AFTER_S):
                return
            self._child = self._start("a")

    def stop(self) -> None:
        self._stopped.set()
        self._child.kill()
        self._keeper.join()


class Ports:
    """Where everything listens."""

    def __init__(self, free: bool, nodes: int = 3):
        self.http = [free_port() for _ in range(nodes)] if free else [8081 + at for at in range(nodes)]
        self.quic = [free_port() for _ in range(nodes)] if free else [5011 + at for at in range(nodes)]
        self.runner = free_port() if free else 9464
        self.prometheus = free_port() if free else 9090
        self.ui = free_port() if free else 16686
        self.otlp = free_port() if free else 4317
        # For alerts that no run provokes.
        self.fake: int | None = free_port() if free else None

    def all(self) -> list[tuple[str, int]]:
        """Those over TCP, by what they are for."""
        nodes = [(f"node{number}", port) for number, port in enumerate(self.http, 1)]
        watchers = [("Prometheus", self.prometheus), ("the trace UI", self.ui), ("traces", self.otlp)]
        return [*nodes, ("the runner's metrics", self.runner), *watchers]

    @property
    def targets(self) -> str:
        return ",".join(f"http://127.0.0.1:{port}" for port in self.http)


def telemetry_settings(ports: Ports, service: str, traced: bool) -> dict[str, str]:
    """Without anybody to take traces none are made."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports.otlp}", "OTEL_SERVICE_NAME": service} if traced else {}


def start_nodes(binaries: Path, ports: Ports, folder: Path, traced: bool) -> list[Node]:
    seeds = ",".join(f"127.0.0.1:{port}" for port in ports.quic)
    nodes = []
    for number, (http, quic) in enumerate(zip(ports.http, ports.quic), 1):
        settings = {
            "NODE_ID": f"node{number}", "PORT": str(http), "HTTP_BIND": "127.0.0.1", "CACHE_BIND": f"127.0.0.1:{quic}",
            "CACHE_PUBLIC": f"127.0.0.1:{quic}", "CACHE_SEEDS": seeds, "CACHE_AUTH": "demo", "WORKERS": "1",
            "ALLOW_KILL": "true", "KILL_TOKEN": KILL_TOKEN, **telemetry_settings(ports, f"node{number}", traced),
        }
        nodes.append(Node(binaries / "node", settings, folder / f"node{number}.log"))
    return nodes


def local_config(ports: Ports) -> str:
    """prometheus.yml with local addresses; Jaeger's job stays, with nobody to ask."""
    config = (ROOT / "prometheus.yml").read_text()
    nodes = ", ".join(f"'127.0.0.1:{port}'" for port in ports.http)
    for container, local in (
        ("[node1:8081, node2:8082, node3:8083]", f"[{nodes}]"),
        ("[runner:9464]", f"['127.0.0.1:{ports.runner}']"),
        ("[jaeger:8888, jaeger:8889]", "[]"),
        ("[localhost:9090]", f"['127.0.0.1:{ports.prometheus}']"),
        ("observability/rules", f"{ROOT}/observability/rules"),
    ):
        if container not in config:
            raise RuntimeError(f"prometheus.yml no longer says {container}")
        config = config.replace(container, local)
    if ports.fake:
        config += f"\n  - {{job_name: fake, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{ports.fake}']}}]}}\n"
    return config


def start_prometheus(ports: Ports, folder: Path) -> subprocess.Popen:
    config, data = folder / "prometheus.yml", folder / "prometheus"
    config.write_text(local_config(ports))
    shutil.rmtree(data, ignore_errors=True)
    with (folder / "prometheus.log").open("w") as log:
        return apart(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}", "--enable-feature=exemplar-storage",
             f"--web.listen-address=127.0.0.1:{ports.prometheus}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )


def start_trace_ui(binary: Path, ports: Ports, folder: Path) -> subprocess.Popen:
    settings = {"OTLP_BIND": f"127.0.0.1:{ports.otlp}", "UI_BIND": f"127.0.0.1:{ports.ui}"}
    with (folder / "trace-ui.log").open("w") as log:
        return apart([str(binary)], env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class LocalStack:
    """Nodes and what watches them, without containers. Starts with the `with` block, and ends with it."""

    def __init__(self, binaries: Path, ports: Ports, folder: Path, signals: Signals):
        folder.mkdir(parents=True, exist_ok=True)
        self.binaries, self.ports, self.folder, self.signals = binaries, ports, folder, signals
        self.prometheus = self.ui = None
        self.url = f"http://127.0.0.1:{ports.prometheus}"
        self.ui_url = f"http://127.0.0.1:{ports.ui}"
        self._nodes: list[Node] = []
        self._fake = FakeExporter(ports.fake) if ports.fake else None

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        # Otherwise what is there already would be taken for ours.
        for what, port in self.ports.all():
            if accepts(port):
                raise RuntimeError(f"port {port}, for {what}, is taken: stop what listens there")
        ui_binary = trace_ui()
        if shutil.which("prometheus"):
            self.prometheus = start_prometheus(self.ports, self.folder)
            self._wait("Prometheus", self.prometheus, f"{self.url}/-/ready", "prometheus.log")
        if ui_binary:
            self.ui = start_trace_ui(ui_binary, self.ports, self.folder)
            self._wait("the trace UI", self.ui, f"{self.ui_url}/status", "trace-ui.log")
        self._nodes = start_nodes(self.binaries, self.ports, self.folder, traced=self.ui is not None)
        wait_for("the nodes", lambda: all(answers(f"http://127.0.0.1:{port}/ready") for port in self.ports.http))

    def _wait(self, what: str, child: subprocess.Popen, url: str, log: str) -> None:
        wait_for(what, lambda: child.poll() is not None or answers(url))
        if child.poll() is not None:
            raise RuntimeError(f"{what} did not start: {(self.folder / log).read_text().strip().splitlines()[-1]}")

    def run(self, settings: dict[str, str]) -> int:
        """A runner's run; gives its exit code."""
        ports = self.ports
        own = {"TARGETS": ports.targets, "METRICS_PORT": str(ports.runner), "RESULTS": str(self.folder / "results.json")}
        own |= {"PROMETHEUS_URL": self.url} if self.prometheus else {}
        own |= {"JAEGER_URL": self.ui_url} | telemetry_settings(ports, "runner", traced=self.ui is not None)
        return self.signals.run([str(self.binaries / "runner")], env={**os.environ, **settings, **own})

    def __exit__(self, *_):
        self.signals.closing()
        for node in self._nodes:
            node.stop()
        if self._fake:
            self._fake.stop()
        for watcher in filter(None, (self.prometheus, self.ui)):
            watcher.terminate()
            watcher.wait()


def run_local(given: argparse.Namespace, signals: Signals) -> int:
    binaries, check, ports = given.binaries or built(), given.check, Ports(free=given.check or given.free_ports)
    folder = given.folder or ROOT / "target" / ("observe-check" if check else "observe")
    try:
        with LocalStack(binaries, ports, folder, signals) as local:
            tell(ports, local.url if local.prometheus else None, local.ui_url if local.ui else None)
            began = time.time()
            if check:
                code = local.run(CHECK_RUN)
                stack = Stack(local.url, local.ui_url if local.ui else None, local.ui, ports.targets.split(","), local.folder, began, KILL_TOKEN)
                return code or int(not check_stack(stack))
            code = local.run({name: os.environ.get(name, value) for name, value in RUN.items()})
            if (local.prometheus or local.ui) and sys.stdin.isatty() and not signals.received:
                say("\nThe nodes and what watches them stay up. Ctrl-C ends them.")
                signals.wait()
            return code
    except RuntimeError as why:
        say(f"observe: {why}", sys.stderr)
        return 2


def say(text: str, to=sys.stdout) -> None:
    """Output is best effort: a terminal that is gone ends no run."""
    try:
        print(text, file=to, flush=True)
    except OSError:
        # Nor is what is left of it a reason to complain at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), to.fileno())


def trace_ui() -> Path | None:
    """The trace UI, built if that is possible."""
    done = subprocess.run([ROOT / ".ci" / "trace-ui"], stdout=subprocess.PIPE, text=True, check=False)
    return Path(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None


def tell(ports: Ports, prometheus: str | None, ui: str | None) -> None:
    say("Three local nodes and the runner, no containers.")
    say(f"  nodes       {ports.targets.replace(',', '  ')}")
    say(f"  Prometheus  {prometheus or 'MISSING: install the package prometheus'}")
    say(f"  Jaeger UI   {ui or 'MISSING: it could not be built, see above'}")
    say("  Grafana     MISSING: needs a Docker engine that can pull its image; then http://localhost:3000")


def compose() -> list[str] | None:
    """The command for Compose, if there is an engine to talk to."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        return None
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def run_stack(command: list[str], signals: Signals) -> int | None:
    """Nothing if the stack does not start, for want of images most likely."""
    run = {name: os.environ.get(name, value) for name, value in RUN.items()}
    if subprocess.run([*command, "up", "--build", "--detach"], env={**os.environ, **run}, cwd=ROOT, check=False).returncode != 0:
        subprocess.run([*command, "down"], cwd=ROOT, capture_output=True, check=False)
        return None
    wait_for("Grafana", lambda: answers("http://127.0.0.1:3000/api/health"))
    say("\n  Grafana     http://localhost:3000\n  Jaeger      http://localhost:16686\n  Prometheus  http://localhost:9090")
    say(f"  to end it   {' '.join(command)} down\n")
    # The log goes on until the runner's container has ended, which is after its summary.
    interrupt = [*command, "kill", "--signal", "INT", "runner"]
    return signals.run([*command, "logs", "--follow", "runner"], lambda _: apart(interrupt, cwd=ROOT), cwd=ROOT)


def built() -> Path:
    subprocess.run(["cargo", "build", "--locked", "--release", "-p", "node", "-p", "runner"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binaries", type=Path, help="the folder of node and runner; built if it is not given")
    arguments.add_argument("--check", action="store_true", help="a short local run, then check the board on it")
    arguments.add_argument("--local", action="store_true", help="without containers, even if there is Docker")
    arguments.add_argument("--free-ports", action="store_true", help="any free ports instead of the documented ones")
    arguments.add_argument("--folder", type=Path, help="where logs and results of a local run go")
    given, signals = arguments.parse_args(), Signals()
    try:
        return observe(given, signals)
    except KeyboardInterrupt:
        say("observe: ended by a signal before the run began", sys.stderr)
        return 2


def observe(given: argparse.Namespace, signals: Signals) -> int:
    command = None if given.check or given.local else compose()
    if command:
        code = run_stack(command, signals)
        if code is not None:
            return code
        say("The containers did not start: see above. So this is the stack without them.\n")
    elif not (given.check or given.local):
        say("No Docker engine with Compose answers, so this is the stack without containers.\n")
    return run_local(given, signals)


if __name__ == "__main__":
    sys.exit(main())
