#!/usr/bin/env python3
"""What `make observe` does: the whole stack in containers where there is a Docker engine; else three local nodes, the
runner, the trace UI and, if it is installed, a real Prometheus. Either way a run with a kill in it, which Ctrl-C, SIGTERM and a
closed terminal end with its summary.

`--check` is for CI: local, short, on free ports; then check_live.py looks at what the run has left behind.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "perf"))
from processes import accepts, answers, free_port, wait_for  # noqa: E402

from check_live import FakeExporter, Stack, check_stack  # noqa: E402
from guide import guide  # noqa: E402
from signals import Signals, apart  # noqa: E402
from watchers import Watcher, planned, start_prometheus, start_traces, version  # noqa: E402

BEGAN = time.monotonic()
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
        # What a Jaeger counts of itself, and what it derives from spans.
        self.jaeger_own, self.jaeger_spans = (free_port() for _ in range(2))
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


class LocalStack:
    """Nodes and what watches them, without containers. Starts with the `with` block, and ends with it."""

    def __init__(self, binaries: Path, ports: Ports, folder: Path, signals: Signals):
        folder.mkdir(parents=True, exist_ok=True)
        self.binaries, self.ports, self.folder, self.signals = binaries, ports, folder, signals
        self.prometheus: Watcher | None = None
        self.traces: Watcher | None = None
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
        self.prometheus = start_prometheus(self.ports, self.folder)
        self._tell("Prometheus", self.prometheus)
        self.traces = start_traces(self.ports, self.folder, quiet=self._fake is not None)
        self._tell("traces", self.traces)
        self._nodes = start_nodes(self.binaries, self.ports, self.folder, traced=self.traces is not None)
        wait_for("the nodes", lambda: all(answers(f"http://127.0.0.1:{port}/ready") for port in self.ports.http))
        progress(f"three nodes are ready: {self.ports.targets.replace(',', '  ')}")

    def _tell(self, what: str, watcher: Watcher | None) -> None:
        if watcher is None:
            progress(f"{what}: none")
            return
        progress(f"{watcher.name} is up: {watcher.url}, {watcher.program}{version(watcher.program)}")
        if watcher.is_jaeger and not watcher.has_pages:
            say("       It was built without its UI and has no pages: take it off the PATH to see traces in our trace UI.")

    def run(self, settings: dict[str, str]) -> int:
        """A runner's run; gives its exit code."""
        ports = self.ports
        own = {"TARGETS": ports.targets, "METRICS_PORT": str(ports.runner), "RESULTS": str(self.folder / "results.json")}
        own |= {"PROMETHEUS_URL": self.prometheus.url} if self.prometheus else {}
        own |= {"JAEGER_URL": self.traces.url} if self.traces else {}
        own |= telemetry_settings(ports, "runner", traced=self.traces is not None)
        return self.signals.run([str(self.binaries / "runner")], env={**os.environ, **settings, **own})

    def __exit__(self, *_):
        self.signals.closing()
        for node in self._nodes:
            node.stop()
        if self._fake:
            self._fake.stop()
        for watcher in filter(None, (self.prometheus, self.traces)):
            watcher.stop()


def run_local(given: argparse.Namespace, signals: Signals) -> int:
    check, ports = given.check, Ports(free=given.check or given.free_ports)
    folder = given.folder or ROOT / "target" / ("observe-check" if check else "observe")
    if not check:
        tell(ports)
    try:
        binaries = given.binaries or built()
        with LocalStack(binaries, ports, folder, signals) as local:
            began = time.time()
            if check and not local.prometheus:
                raise RuntimeError("--check needs prometheus: install the package prometheus")
            if check:
                code = local.run(CHECK_RUN)
                stack = Stack(local.prometheus.url, local.traces, ports.targets.split(","), local.folder, began, KILL_TOKEN)
                return code or int(not check_stack(stack))
            (folder / "results.json").unlink(missing_ok=True)
            run = settings_of_run()
            progress(f"the run: {run['DURATION']}{', with a kill after ' + run['KILL_AFTER'] if run['KILL_MODE'] != 'none' else ''}")
            code = local.run(run)
            results = folder / "results.json"
            if results.exists():
                pages = (watcher.url if watcher else None for watcher in (local.traces, local.prometheus))
                tell_of_run(json.loads(results.read_text()), None, *pages)
            if stays_up() and not signals.received:
                say("\nThe nodes and what watches them stay up. Ctrl-C ends them.")
                signals.wait()
            return code
    except RuntimeError as why:
        say(f"observe: {why}", sys.stderr)
        return 2


def settings_of_run() -> dict[str, str]:
    return {name: os.environ.get(name, value) for name, value in RUN.items()}


def stays_up() -> bool:
    """As KEEP says; else if there is a person at the terminal, since links to what is gone lead nowhere."""
    keep = os.environ.get("KEEP", "")
    return keep not in ("0", "no", "false", "off") if keep else sys.stdin.isatty()


def tell_of_run(results: dict, *pages: str | None) -> None:
    """Which page answers what."""
    say("\nWhat this run can tell you, and where:")
    for line in guide(results, *pages):
        say(line)


def say(text: str, to=sys.stdout) -> None:
    """Output is best effort: a terminal that is gone ends no run."""
    try:
        print(text, file=to, flush=True)
    except OSError:
        # Nor is what is left of it a reason to complain at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), to.fileno())


def progress(text: str) -> None:
    say(f"{time.monotonic() - BEGAN:4.0f} s  {text}")


def tell(ports: Ports) -> None:
    """What comes up and where, before anything takes its time."""
    say("Three local nodes and the runner, no containers:")
    say(f"  nodes       {ports.targets.replace(',', '  ')}")
    urls = {"Prometheus": f"http://127.0.0.1:{ports.prometheus}", "Jaeger UI": f"http://127.0.0.1:{ports.ui}"}
    for page, program in planned().items():
        is_missing = program.startswith("MISSING")
        say(f"  {page:10}  {program if is_missing else f'{urls[page]}  ({program})'}")


def compose() -> list[str] | None:
    """The command for Compose, if there is an engine to talk to."""
    try:
        if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=5).returncode != 0:
            return None
    except subprocess.TimeoutExpired:
        return None
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            return command
    return None


GRAFANA, JAEGER, PROMETHEUS = "http://localhost:3000", "http://localhost:16686", "http://localhost:9090"


def run_stack(command: list[str], signals: Signals) -> int | None:
    """Nothing if the stack does not start, for want of images most likely."""
    say("The whole stack in containers; the first time, images are pulled and built, which takes minutes:")
    say(f"  Grafana     {GRAFANA}\n  Jaeger      {JAEGER}\n  Prometheus  {PROMETHEUS}")
    code = None
    try:
        if subprocess.run([*command, "up", "--build", "--detach"], env={**os.environ, **settings_of_run()}, cwd=ROOT, check=False).returncode != 0:
            return None
        wait_for("Grafana", lambda: answers(f"{GRAFANA}/api/health"))
        progress("all containers are up; the run begins when the nodes are ready")
        # The log goes on until the runner's container has ended, which is after its summary.
        interrupt = [*command, "kill", "--signal", "INT", "runner"]
        code = signals.run([*command, "logs", "--follow", "runner"], lambda _: apart(interrupt, cwd=ROOT), cwd=ROOT)
        runner = output([*command, "ps", "--all", "--quiet", "runner"])
        # That of the log says only that there was one.
        code = int(output(["docker", "wait", runner]) or code)
        results = copied_results(runner)
        if results:
            tell_of_run(results, GRAFANA, JAEGER, PROMETHEUS)
        if stays_up() and not signals.received:
            say("\nThe containers stay up. Ctrl-C ends them.")
            signals.wait()
        return code
    finally:
        if code is not None:
            signals.closing()
        subprocess.run([*command, "down"], cwd=ROOT, capture_output=True, check=False)


def output(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def copied_results(container: str) -> dict | None:
    """What the runner has written in its container, which has ended and is still there."""
    with tempfile.TemporaryDirectory() as folder:
        output(["docker", "cp", f"{container}:/results/.", folder])
        found = sorted(Path(folder).glob("*/result.json"))
        return json.loads(found[-1].read_text()) if found else None


def built() -> Path:
    progress("building node and runner; the first time this takes minutes")
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
