"""What watches the nodes of a local stack: Prometheus, and for traces a real Jaeger where one is on the PATH, else our trace UI."""

import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "perf"))
from processes import answers, free_port, wait_for  # noqa: E402

from signals import apart  # noqa: E402


@dataclass
class Watcher:
    """A process that watches."""

    name: str
    url: str
    process: subprocess.Popen
    # The program that runs.
    program: str
    is_jaeger: bool = False

    @property
    def has_pages(self) -> bool:
        """A Jaeger that was built without its UI has an API alone."""
        if not self.is_jaeger:
            return True
        try:
            with urllib.request.urlopen(self.url, timeout=10) as response:
                return b"not compiled with the UI assets" not in response.read()
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def replaced(config: str, file: str, *pairs: tuple[str, str]) -> str:
    for container, local in pairs:
        if container not in config:
            raise RuntimeError(f"{file} no longer says {container}")
        config = config.replace(container, local)
    return config


def started(watcher: Watcher, ready: str, log: Path) -> Watcher:
    """Once it answers at `ready`."""
    try:
        wait_for(watcher.name, lambda: watcher.process.poll() is not None or answers(ready))
    except BaseException:
        watcher.stop()
        raise
    if watcher.process.poll() is not None:
        raise RuntimeError(f"{watcher.name} ({watcher.program}) did not start: {log.read_text().strip().splitlines()[-1]}")
    return watcher


def launch(command: list[str], log: Path, settings: dict[str, str] | None = None) -> subprocess.Popen:
    with log.open("w") as output:
        return apart(command, env={**os.environ, **(settings or {})}, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def prometheus_config(ports) -> str:
    """prometheus.yml with local addresses."""
    nodes = ", ".join(f"'127.0.0.1:{port}'" for port in ports.http)
    jaeger = f"['127.0.0.1:{ports.jaeger_own}', '127.0.0.1:{ports.jaeger_spans}']" if shutil.which("jaeger") else "[]"
    config = replaced(
        (ROOT / "prometheus.yml").read_text(), "prometheus.yml",
        ("[node1:8081, node2:8082, node3:8083]", f"[{nodes}]"),
        ("[runner:9464]", f"['127.0.0.1:{ports.runner}']"),
        ("[jaeger:8888, jaeger:8889]", jaeger),
        ("[localhost:9090]", f"['127.0.0.1:{ports.prometheus}']"),
        ("observability/rules", f"{ROOT}/observability/rules"),
    )
    if ports.fake:
        config += f"\n  - {{job_name: fake, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{ports.fake}']}}]}}\n"
    return config


def start_prometheus(ports, folder: Path) -> Watcher | None:
    """Nothing if there is none on the PATH."""
    program = shutil.which("prometheus")
    if not program:
        return None
    config, data, log = folder / "prometheus.yml", folder / "prometheus", folder / "prometheus.log"
    config.write_text(prometheus_config(ports))
    shutil.rmtree(data, ignore_errors=True)
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={data}", "--enable-feature=exemplar-storage",
               f"--web.listen-address=127.0.0.1:{ports.prometheus}"]
    url = f"http://127.0.0.1:{ports.prometheus}"
    return started(Watcher("Prometheus", url, launch(command, log), program), f"{url}/-/ready", log)


def jaeger_config(ports, health: int) -> str:
    """jaeger.yaml with local addresses."""
    grpc = f"http: {{ endpoint: '127.0.0.1:{ports.ui}' }}\n    grpc: {{ endpoint: '127.0.0.1:{free_port()}' }}"
    return replaced(
        (ROOT / "observability" / "jaeger.yaml").read_text(), "jaeger.yaml",
        ("host: 0.0.0.0, port: 8888", f"host: 127.0.0.1, port: {ports.jaeger_own}"),
        ("0.0.0.0:8889", f"127.0.0.1:{ports.jaeger_spans}"),
        ("0.0.0.0:13133", f"127.0.0.1:{health}"),
        ("http: { endpoint: '0.0.0.0:16686' }", grpc),
        ("0.0.0.0:4317", f"127.0.0.1:{ports.otlp}"),
        ("0.0.0.0:4318", f"127.0.0.1:{free_port()}"),
        ("http://prometheus:9090", f"http://127.0.0.1:{ports.prometheus}"),
    )


def start_traces(ports, folder: Path, quiet: bool) -> Watcher | None:
    """A Jaeger on the PATH, else the trace UI; nothing if that cannot be built."""
    url, program = f"http://127.0.0.1:{ports.ui}", shutil.which("jaeger")
    if program:
        config, log, health = folder / "jaeger.yaml", folder / "jaeger.log", free_port()
        config.write_text(jaeger_config(ports, health))
        process = launch([program, f"--config={config}"], log)
        return started(Watcher("Jaeger", url, process, program, is_jaeger=True), f"http://127.0.0.1:{health}/status", log)
    program = built_trace_ui(quiet)
    if not program:
        return None
    log = folder / "trace-ui.log"
    settings = {"OTLP_BIND": f"127.0.0.1:{ports.otlp}", "UI_BIND": f"127.0.0.1:{ports.ui}"}
    return started(Watcher("the trace UI", url, launch([program], log, settings), program), f"{url}/status", log)


def built_trace_ui(quiet: bool) -> str | None:
    """The trace UI, built if that is possible; nothing is installed for it."""
    settings = {"INSTALL": "no"} | ({"CARGO_TERM_QUIET": "true"} if quiet else {})
    done = subprocess.run(
        [ROOT / ".ci" / "trace-ui"], env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True, check=False,
    )
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else None


def planned() -> dict[str, str]:
    """Which program each page comes from, as far as it can be known before anything is built or started."""
    found = {name: shutil.which(name) for name in ("prometheus", "jaeger", "protoc")}
    return {
        "Prometheus": found["prometheus"] or "MISSING: install the package prometheus",
        "Jaeger UI": found["jaeger"] or (
            "our trace UI, which is built first" if found["protoc"]
            else "MISSING: put a jaeger on the PATH, or install protobuf-compiler and libprotobuf-dev, to build our trace UI"),
        "Grafana": "MISSING: needs a Docker engine that can pull its image",
    }


def version(program: str) -> str:
    """Its version, as far as it says one."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d[\w.+~-]*)", done.stdout + done.stderr)
    return f" {found[1]}" if done.returncode == 0 and found else ""
