"""A release of the chart on the cluster that KUBECONFIG names, and what its nodes and runners say. Nodes are asked through the API server,
so this runs on any host that can reach that."""

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "helm" / "mesh-bench"

# Light enough for all of it on two cores.
SMALL = {
    "nodes": {"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}},
    "run": {
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        # What fails is counted here, not judged by a percentage; looking at /cluster meanwhile does no harm.
        "settings": {"CONCURRENCY": 32, "RATE": 300, "KEYS": 10000, "DURATION": "30s", "ERRORS_MAX_PERCENT": 100},
    },
}


def run(*command: str, check: bool = True, given: str | None = None) -> str:
    """What the command prints; with `check` it raises an error that has both its outputs."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def until(what: str, ready, within_s: float, every_s: float = 0.2):
    """Waits until `ready` gives something true, and gives that."""
    deadline = time.monotonic() + within_s
    while not (found := ready()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {within_s:.0f} s still waiting for {what}")
        time.sleep(every_s)
    return found


class Cluster:
    """A namespace of its own, and `kubectl proxy` to look into it."""

    def __init__(self, image: str, namespace: str):
        self.image, self.namespace = image, namespace
        run("kubectl", "create", "namespace", namespace)
        self._proxy = subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._url = "http://" + self._proxy.stdout.readline().split()[-1]

    def close(self) -> None:
        self._proxy.terminate()
        self._proxy.wait()
        # The last node of a mesh would wait for another one.
        self.kubectl("delete", "statefulsets,jobs", "--all", "--wait=false", check=False)
        self.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", check=False)
        run("kubectl", "delete", "namespace", self.namespace, "--wait=true", "--timeout=120s", check=False)

    def kubectl(self, *arguments: str, check: bool = True, given: str | None = None) -> str:
        return run("kubectl", "--namespace", self.namespace, *arguments, check=check, given=given)

    def get(self, path: str, timeout_s: float = 5.0):
        """JSON of the API server; nothing if there is none."""
        try:
            with urllib.request.urlopen(self._url + path, timeout=timeout_s) as response:
                return json.load(response)
        except (urllib.error.URLError, OSError, ValueError):
            return None

    def pods(self, release: str, component: str = "node") -> list[dict]:
        chosen = f"app.kubernetes.io%2Finstance%3D{release},app.kubernetes.io%2Fcomponent%3D{component}"
        found = self.get(f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={chosen}")
        return sorted((found or {}).get("items", []), key=lambda pod: pod["metadata"]["name"])

    def ask(self, pod: str, path: str, port: int = 8081):
        return self.get(f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy{path}")


class Release:
    """One installation of the chart."""

    def __init__(self, cluster: Cluster, name: str, values: dict):
        self.cluster, self.name = cluster, name
        image = {"node": cluster.image, "runner": cluster.image}
        self.values = merged(merged({"image": image}, SMALL), values)

    def helm(self, verb: str, *arguments: str, values: dict | None = None) -> str:
        self.values = merged(self.values, values or {})
        command = ["helm", verb, self.name, str(CHART), "--namespace", self.cluster.namespace, "--values", "-", *arguments]
        return run(*command, given=yaml.safe_dump(self.values))

    def install(self, *arguments: str) -> float:
        """Gives the seconds until every node is ready."""
        began = time.monotonic()
        self.helm("install", "--wait", "--timeout", "120s", *arguments)
        return time.monotonic() - began

    def uninstall(self) -> None:
        run("helm", "uninstall", self.name, "--namespace", self.cluster.namespace, "--wait", "--timeout", "120s")

    def load(self, run_id: str, shards: int = 1, **settings) -> "Load":
        """Begins a load."""
        self.helm("upgrade", values={"run": {"id": run_id, "shards": shards, "settings": settings}})
        return Load(self, run_id, shards)

    def nodes(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.cluster.pods(self.name)]

    def view(self, node: str) -> dict[str, tuple[str, int]]:
        """State and incarnation of every member by the name of its pod, as this node sees them; nothing if it gives no answer."""
        seen = self.cluster.ask(node, "/cluster") or {}
        return {member["addr"].split(".")[0]: (member["state"], member["incarnation"]) for member in seen.get("members", [])}

    def in_sync(self, count: int) -> bool:
        """Whether there are so many nodes, all ready, which means in sync, and all alive in the eyes of each."""
        pods = self.cluster.pods(self.name)
        names = {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
        if len(names) != count or len(pods) != count:
            return False
        for name in names:
            alive = {member for member, (state, _) in self.view(name).items() if state == "alive"}
            if alive | {name} != names or self.cluster.ask(name, "/ready") is None:
                return False
        return True

    def await_sync(self, count: int, within_s: float = 90.0) -> float:
        """Gives the seconds that it took."""
        began = time.monotonic()
        until(f"{count} nodes of {self.name} in sync", lambda: self.in_sync(count), within_s)
        return time.monotonic() - began


class Load:
    """A load, and its result once it is there."""

    def __init__(self, release: Release, run_id: str, shards: int):
        self.release, self.shards = release, shards
        self.runners = f"{release.name}-run-{run_id}"
        self.judge = self.runners if shards == 1 else f"{release.name}-merge-{run_id}"

    def log(self) -> str:
        return self.release.cluster.kubectl("logs", f"job/{self.judge}", check=False).replace("\r", "")

    def await_begun(self, within_s: float = 90.0) -> None:
        """Of several runners it begins some time after the prefill."""
        line = "keys in" if self.shards == 1 else "[PROGRESS]"

        def begun() -> bool:
            return line in self.release.cluster.kubectl("logs", f"job/{self.runners}", check=False)

        until(f"the load of {self.runners}", begun, within_s, 0.5)

    def result(self, within_s: float = 180.0) -> "Result":
        chosen = f"batch.kubernetes.io%2Fjob-name%3D{self.judge}"
        cluster = self.release.cluster

        def ended():
            pods = (cluster.get(f"/api/v1/namespaces/{cluster.namespace}/pods?labelSelector={chosen}") or {}).get("items", [])
            states = [status["state"] for pod in pods for status in pod["status"].get("containerStatuses", [])]
            return states and states[0].get("terminated")

        code = until(f"the end of {self.judge}", ended, within_s, 0.5)["exitCode"]
        return Result(code, self.log())


class Result:
    """What the log of the Job that has the verdict says."""

    def __init__(self, exit_code: int, log: str):
        self.exit_code, self.log = exit_code, log
        self.operations, self.errors = self._number(r"Total: (\d+)"), self._number(r"Errors: (\d+)")
        self.unknown = self._number(r"outcome of ([\d ]+) writes", 0)
        self.lost, self.p99_ms = self._number(r"lost writes +([\d ]+) of"), self._number(r"GET p50=\S+ p95=\S+ p99=([\d.]+)ms")

    def _number(self, form: str, otherwise=None):
        found = re.search(form, self.log)
        return otherwise if found is None else float(found[1].replace(" ", "").replace("\u202f", ""))

    def observed(self, name: str) -> list[str]:
        """What the runner saw of a node and had not ordered."""
        return re.findall(rf"\[OBSERVED\] (t=\S+ \S*\b{name}\b.*)", self.log)

    def invalid(self) -> list[str]:
        """Why the measurement is invalid, without the figures."""
        return re.findall(r"^INVALID ([^:\n]*)", self.log, re.MULTILINE)

    def failed(self) -> int:
        return int(self.errors + self.unknown)


class Watch:
    """What every node thinks of every other one over time, five times a second."""

    def __init__(self, release: Release):
        self._release, self._stop = release, threading.Event()
        # When which node first saw which member in which state and incarnation.
        self.seen: list[tuple[float, str, str, str, int]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        last = {}
        while not self._stop.wait(0.2):
            for node in self._release.nodes():
                for member, seen in self._release.view(node).items():
                    if member != node and last.get((node, member)) != seen:
                        last[node, member] = seen
                        self.seen.append((time.monotonic(), node, member, *seen))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def found_after(self, member: str, since: float) -> float | None:
        """The seconds until another node saw that this member had left, was silent, or was a new process."""
        before = [seen for at, _, who, _, seen in self.seen if who == member and at <= since]
        for at, _, who, state, incarnation in self.seen:
            if who == member and at > since and (state != "alive" or incarnation not in before):
                return at - since
        return None


def merged(one: dict, other: dict) -> dict:
    """Both, and where both have something, the other's."""
    both = dict(one)
    for key, value in other.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both
