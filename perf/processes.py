"""The processes that are measured: started on loopback, watched through /proc, always ended."""

import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable

START_WITHIN_S = 20.0
SUMMARY = "=== Mesh Bench Summary ==="


class Skipped(Exception):
    """A tool or a part of ours is not there; says which."""


def free_port() -> int:
    """A port below the range that the system hands out by itself, free for TCP and UDP."""
    for port in random.sample(range(12_000, 32_000), 1000):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port")


def need(tool: str, package: str) -> str:
    """The tool's path, from the system's package if it may be installed."""
    if shutil.which(tool) is None:
        subprocess.run([Path(__file__).parent.parent / ".ci" / "need", tool, package], check=False)
    found = shutil.which(tool)
    if found is None:
        raise Skipped(f"{tool} is not installed (package {package})")
    return found


def wait_for(what: str, ready, within_s: float = START_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {within_s:.0f} s still waiting for {what}")
        time.sleep(0.05)


def wait_until_idle(share: float = 0.8, within_s: float = 20.0) -> None:
    """Until the machine's cores have had nothing to do for this share of half a second: what was measured before has work left over, as
    a collector has with the spans that it was sent. A machine that does not become idle is busy with something else: it is measured as it is."""
    def ticks() -> tuple[int, int]:
        user, nice, system, idle, wait, *others = cpu_ticks()
        return idle + wait, user + nice + system + idle + wait + sum(others)

    deadline, before = time.monotonic() + within_s, ticks()
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = ticks()
        if now[0] - before[0] >= share * (now[1] - before[1]):
            return
        before = now


def cpu_ticks() -> list[int]:
    """Of all cores, since the machine began: user, nice, system, idle, wait, irq, softirq, steal."""
    return [int(each) for each in Path("/proc/stat").read_text().split()[1:9]]


def answers(url: str) -> bool:
    """Whether it does, over HTTPS with whatever certificate."""
    try:
        with urllib.request.urlopen(url, timeout=2, context=ssl._create_unverified_context()) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def put(url: str, key: str, value: str) -> None:
    body = json.dumps({"k": key, "v": value, "ttl_ms": -1}).encode()
    request = urllib.request.Request(f"{url}/set", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        response.read()


def entries(url: str) -> int:
    """How many entries a node holds."""
    with urllib.request.urlopen(f"{url}/stats", timeout=5) as response:
        return json.load(response)["Size"]


def payload_bytes(url: str) -> float:
    """Bytes of the keys and values that a node holds."""
    return gauge(url, "mesh_store_payload_bytes")


def gauge(url: str, name: str) -> float:
    """One of a node's metrics that it has once."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


def accepts(port: int) -> bool:
    with socket.socket() as tcp:
        return tcp.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """One process. Ends with the `with` block that it was started in."""

    def __init__(self, command: list[str], settings: dict[str, str] | None = None, log: Path | None = None):
        environment = {**os.environ, **(settings or {})}
        with open(log or os.devnull, "ab") as output:
            self._child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._child.kill()
        self._child.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code once it has ended by itself."""
        self._child.terminate()
        return self._child.wait()

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def cpu_s(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self._child.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Repeated:
    """Calls `look` every so many seconds while the block runs."""

    def __init__(self, every_s: float, look: Callable[[], None]):
        self._every_s, self._look = every_s, look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._look()


class Mesh:
    """Node processes that form one mesh, each with one worker thread, since they share the cores."""

    def __init__(
        self, binaries: Path, count: int, settings: dict[str, str], logs: Path | None = None, ready_within_s: float = START_WITHIN_S,
        command: Callable[[int, list[str]], list[str]] = lambda _, command: command,
    ):
        self.logs = [logs / f"node{number}.log" if logs else None for number in range(count)]
        ports = [(free_port(), free_port()) for _ in range(count)]
        seeds = ",".join(f"127.0.0.1:{udp}" for _, udp in ports)
        scheme = "https" if "HTTP_TLS_CERT" in settings else "http"
        self.urls = [f"{scheme}://127.0.0.1:{http}" for http, _ in ports]
        self.nodes = []
        self._ready_within_s = ready_within_s
        self._settings = []
        self._commands = [command(number, [str(binaries / "node")]) for number in range(count)]
        for number, (http, udp) in enumerate(ports):
            own = {
                "NODE_ID": f"perf{number}",
                "PORT": str(http),
                "HTTP_BIND": "127.0.0.1",
                "CACHE_BIND": f"127.0.0.1:{udp}",
                "CACHE_PUBLIC": f"127.0.0.1:{udp}",
                "CACHE_SEEDS": seeds,
                "CACHE_AUTH": "perf",
                "WORKERS": "1",
            }
            self._settings.append({**own, **settings})
            self.nodes.append(Process(self._commands[number], self._settings[-1], self.logs[number]))

    def __enter__(self):
        try:
            wait_for("the mesh", lambda: all(answers(f"{url}/ready") for url in self.urls), self._ready_within_s)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.__exit__()

    def kill(self, number: int) -> None:
        """Without a graceful shutdown."""
        self.nodes[number].__exit__()

    def restart(self, number: int) -> None:
        """The same node again, with nothing in it."""
        self.nodes[number] = Process(self._commands[number], self._settings[number], self.logs[number])

    @property
    def targets(self) -> str:
        return ",".join(self.urls)

    def cpu_s(self) -> float:
        return sum(node.cpu_s() for node in self.nodes)


def output_of(command: list[str], settings: dict[str, str] | None = None, timeout_s: float = 300.0) -> str:
    """What a command prints. A runner that ends with its summary has measured, whatever its exit code says about the mesh."""
    done = subprocess.run(
        command, env={**os.environ, **(settings or {})}, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0 and SUMMARY not in done.stdout:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout + done.stderr
