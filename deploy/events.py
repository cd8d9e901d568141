#!/usr/bin/env python3
"""events.py IMAGE [NAME...]: what Kubernetes does to a mesh by itself, under a load that checks every answer, on the cluster that KUBECONFIG
names: without names all of it. Each event must be found by the mesh, all replicas must be in sync afterwards, nothing may be lost,
and no more operations may fail than were in flight to the nodes that died."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cluster import SMALL, Cluster, Load, Release, Watch, run, until

CONCURRENCY = SMALL["run"]["settings"]["CONCURRENCY"]
RELEASE = "mesh"


class Skipped(Exception):
    """This cluster has no way to do that; says why."""


class Scene:
    """One release under one load, and what an event did to it."""

    def __init__(self, cluster: Cluster, name: str, values: dict | None = None, **settings):
        self.cluster, self.name = cluster, name.replace("_", "-")
        self.release = Release(cluster, RELEASE, values or {})
        self.release.install()
        self.load: Load = self.release.load(self.name, **settings)
        self.load.await_begun()
        self.watch = Watch(self.release)
        time.sleep(1)
        self.since, self.notes, self.missed = time.monotonic(), [], []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def found(self, *members: str) -> None:
        """Every one of these must have been missed by another node, and the runner must name it."""
        self.missed += members
        until(f"{', '.join(members)} to be found", lambda: all(self.watch.found_after(who, self.since) is not None for who in members), 30)
        times = ", ".join(f"{self.watch.found_after(who, self.since):.1f}" for who in members)
        self.note(f"found after {times} s")

    def in_sync(self, count: int) -> None:
        self.release.await_sync(count)
        self.note(f"in sync {time.monotonic() - self.since:.1f} s after its start")

    def end(self, may_fail: int) -> None:
        """The verdict, with as many failures as were in flight."""
        result = self.load.result()
        self.watch.close()
        failed = f"{result.failed()} of {result.operations:.0f} operations failed ({may_fail} may), {result.lost:.0f} lost"
        print(f"{self.name}: {'; '.join([*self.notes, failed])}, GET p99 {result.p99_ms} ms", flush=True)
        seen = [line for member in self.missed for line in result.observed(member)]
        print("\n".join(f"    the runner: {line}" for line in seen), flush=True)
        for member in self.missed:
            if not result.observed(member):
                raise RuntimeError(f"{self.name}: the runner did not see what became of {member}:\n{result.log}")
        # A machine that is too slow for the load proves as much about the mesh.
        is_valid = result.exit_code == 0 or (result.exit_code == 2 and result.invalid() == ["the rate was too high"])
        if "CORRECTNESS  PASS" not in result.log or result.lost != 0 or result.failed() > may_fail or not is_valid:
            raise RuntimeError(f"{self.name}: exit code {result.exit_code}\n{result.log}")


def node(ordinal: int) -> str:
    return f"{RELEASE}-{ordinal}"


def two_deleted(cluster: Cluster) -> None:
    """Two of three pods at once, by `kubectl delete pod`: they return with new addresses."""
    scene = Scene(cluster, "two_deleted")
    cluster.kubectl("delete", "pod", node(1), node(2))
    scene.found(node(1), node(2))
    scene.in_sync(3)
    scene.end(may_fail=2 * CONCURRENCY)


def rolling_restart(cluster: Cluster) -> None:
    scene = Scene(cluster, "rolling_restart", DURATION="60s")
    cluster.kubectl("rollout", "restart", f"statefulset/{RELEASE}")
    cluster.kubectl("rollout", "status", f"statefulset/{RELEASE}", "--timeout=120s")
    scene.found(node(0), node(1), node(2))
    scene.in_sync(3)
    scene.end(may_fail=3 * CONCURRENCY)


def three_five_three(cluster: Cluster) -> None:
    scene = Scene(cluster, "three_five_three", DURATION="45s")
    cluster.kubectl("scale", f"statefulset/{RELEASE}", "--replicas=5")
    scene.in_sync(5)
    scene.since = time.monotonic()
    cluster.kubectl("scale", f"statefulset/{RELEASE}", "--replicas=3")
    scene.found(node(3), node(4))
    scene.in_sync(3)
    # The runner has no connection to the two that came and went.
    scene.end(may_fail=0)


def all_but_one(cluster: Cluster) -> None:
    """Four of five at once: they take turns, since each leaves only when others hold what it held."""
    scene = Scene(cluster, "all_but_one", {"nodes": {"replicas": 5}}, DURATION="45s")
    gone = [node(ordinal) for ordinal in range(1, 5)]
    cluster.kubectl("delete", "pod", *gone)
    scene.found(*gone)
    scene.in_sync(5)
    scene.end(may_fail=4 * CONCURRENCY)


def host_drained(cluster: Cluster) -> None:
    """Hosts are closed and nodes evicted: the PodDisruptionBudget lets one go, which is Pending until a host is open again."""
    scene = Scene(cluster, "host_drained", DURATION="45s")
    hosts = [name.removeprefix("node/") for name in run("kubectl", "get", "nodes", "-o", "name").split()]
    chosen = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=node"
    try:
        for host in hosts:
            run("kubectl", "drain", host, f"--pod-selector={chosen}", "--ignore-daemonsets", "--timeout=10s", check=False)
        phases = sorted(pod["status"]["phase"] for pod in cluster.pods(RELEASE))
        if phases != ["Pending", "Running", "Running"]:
            raise RuntimeError(f"expected that one pod is evicted and waits for a host: {phases}")
        gone = next(pod["metadata"]["name"] for pod in cluster.pods(RELEASE) if pod["status"]["phase"] == "Pending")
        scene.found(gone)
        scene.note(f"{gone} was evicted and Pending, the budget kept the others")
    finally:
        for host in hosts:
            run("kubectl", "uncordon", host)
    scene.in_sync(3)
    scene.end(may_fail=CONCURRENCY)


def killed_for_memory(cluster: Cluster) -> None:
    """The kernel kills a node because its container is full, by files in memory that count for it: 64 MiB beside what it holds."""
    limits = {"nodes": {"resources": {"requests": {"memory": "96Mi"}, "limits": {"memory": "96Mi"}}}}
    scene = Scene(cluster, "killed_for_memory", limits, DURATION="45s", VALUE_BYTES=2500)
    fill = ["kubectl", "--namespace", cluster.namespace, "exec", node(1), "--", "sh", "-c", "cat /dev/zero >/dev/shm/full"]
    subprocess.run(fill, capture_output=True, timeout=60, check=False)

    def killed() -> str | None:
        pod = next(pod for pod in cluster.pods(RELEASE) if pod["metadata"]["name"] == node(1))
        last = pod["status"]["containerStatuses"][0].get("lastState", {}).get("terminated")
        return last and last["reason"]

    try:
        reason = until("the kernel to kill the node", killed, 20)
    finally:
        until("room again", lambda: "empty" in cluster.kubectl("exec", node(1), "--", "sh", "-c", ": >/dev/shm/full; echo empty", check=False), 60)
    if reason != "OOMKilled":
        raise RuntimeError(f"expected OOMKilled: {reason}")
    scene.note(reason)
    scene.found(node(1))
    scene.in_sync(3)
    scene.end(may_fail=CONCURRENCY)


def pending_pod(cluster: Cluster) -> None:
    """An upgrade asks for more memory than any host has: its first pod stays Pending, the others go on; then a rollback."""
    scene = Scene(cluster, "pending_pod", DURATION="60s")
    before = scene.release.values
    more = {"nodes": {"resources": {"requests": {"memory": "9Ti"}, "limits": {"memory": "9Ti"}}}}
    scene.release.helm("upgrade", values=more)

    def phases() -> list[str]:
        return until("three pods", lambda: [pod["status"]["phase"] for pod in cluster.pods(RELEASE)], 30)

    until("a Pending pod", lambda: phases()[2:] == ["Pending"], 60)
    scene.found(node(2))
    time.sleep(8)
    if phases()[:2] != ["Running", "Running"]:
        raise RuntimeError("the upgrade went on while its first pod was Pending")
    run("helm", "rollback", RELEASE, "--namespace", cluster.namespace)
    scene.release.values = before
    scene.note("the upgrade stood still at one Pending pod and was rolled back")
    # A pod of a broken revision may stay where it is.
    cluster.kubectl("delete", "pod", node(2))
    scene.in_sync(3)
    scene.end(may_fail=CONCURRENCY)


def changed_secret(cluster: Cluster) -> None:
    """A pod that starts with another secret is refused and says so; with the right one it is back."""
    scene = Scene(cluster, "changed_secret", DURATION="60s")
    right = cluster.kubectl("get", "secret", RELEASE, "-o", "jsonpath={.data.cache-auth}")
    patch = '{"data": {"cache-auth": "%s"}}'
    cluster.kubectl("patch", "secret", RELEASE, "-p", patch % "b3RoZXI=")
    cluster.kubectl("delete", "pod", node(2))
    scene.found(node(2))
    time.sleep(8)
    others = [name for name in (node(0), node(1)) if scene.release.view(name).get(node(2), ("",))[0] == "alive"]
    if others or cluster.ask(node(2), "/ready") is not None:
        raise RuntimeError(f"a node with another secret is alive for {others}")
    said = cluster.kubectl("logs", node(2))
    log = [line for line in said.splitlines() if "secret" in line.lower() or "CACHE_AUTH" in line]
    if not log:
        raise RuntimeError(f"its log does not name the secret:\n{said}")
    scene.note(f"with another secret it stays out: {log[-1].split('  ')[-1].strip()[:160]}")
    cluster.kubectl("patch", "secret", RELEASE, "-p", patch % right)
    cluster.kubectl("delete", "pod", node(2))
    scene.in_sync(3)
    scene.end(may_fail=CONCURRENCY)


def two_releases(cluster: Cluster) -> None:
    """A second mesh in the namespace comes and goes with the same secret; the first does not notice."""
    scene = Scene(cluster, "two_releases", DURATION="45s")
    other = Release(cluster, "other", {"auth": {"existingSecret": RELEASE}})
    other.install()
    own = {name: sorted(scene.release.view(name)) for name in scene.release.nodes()}
    theirs = {name: sorted(other.view(name)) for name in other.nodes()}
    if any(not member.startswith(f"{RELEASE}-") for members in own.values() for member in members):
        raise RuntimeError(f"the first mesh has others' nodes: {own}")
    if any(not member.startswith("other-") for members in theirs.values() for member in members):
        raise RuntimeError(f"the second mesh has others' nodes: {theirs}")
    other.uninstall()
    scene.note("both meshes knew their own nodes only")
    scene.in_sync(3)
    scene.end(may_fail=0)


class NameService:
    """The cluster's DNS: a Deployment, or a process in this network namespace."""

    def __init__(self):
        self._deployed = "coredns" in run("kubectl", "-n", "kube-system", "get", "deployments", "-o", "name")
        self._pids = [] if self._deployed else [pid for pid in _pids("coredns") if _same_network(pid)]
        if not self._deployed and not self._pids:
            raise Skipped("no CoreDNS was found that could be stopped")

    def stop(self) -> None:
        self._set("0", signal.SIGSTOP)

    def start(self) -> None:
        self._set("2", signal.SIGCONT)

    def _set(self, replicas: str, by: signal.Signals) -> None:
        if self._deployed:
            run("kubectl", "-n", "kube-system", "scale", "deployment/coredns", f"--replicas={replicas}")
        for pid in self._pids:
            os.kill(pid, by)


def _pids(name: str) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/comm") if path.read_text().strip() == name]


def _same_network(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")


def no_names(cluster: Cluster) -> None:
    """No name service for 12 s while a pod returns with a new address."""
    names = NameService()
    scene = Scene(cluster, "no_names", DURATION="45s")
    names.stop()
    try:
        cluster.kubectl("delete", "pod", node(2))
        time.sleep(12)
    finally:
        names.start()
    scene.found(node(2))
    scene.in_sync(3)
    scene.end(may_fail=CONCURRENCY)


def runner_stopped(cluster: Cluster) -> None:
    """SIGTERM to a runner among far more keys than 30 s are enough for: its summary is printed before it is killed."""
    release = Release(cluster, RELEASE, {})
    release.install()
    load = release.load("stopped", KEYS=5_000_000, RATE=0)
    pod = until("the runner", lambda: cluster.pods(RELEASE, "runner"), 30)[0]["metadata"]["name"]
    until("the prefill", lambda: "[PREFILL]" in load.log(), 60, 0.5)
    command = ["kubectl", "--namespace", cluster.namespace, "logs", "--follow", pod]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        began = time.monotonic()
        cluster.kubectl("delete", "pod", pod, "--wait=false")
        log = following.communicate(timeout=60)[0]
    took = time.monotonic() - began
    print(f"runner_stopped: ended {took:.1f} s after SIGTERM, in the prefill of 5 000 000 keys", flush=True)
    if "Verdict:" not in log or took > 30:
        raise RuntimeError(f"no verdict, or too late:\n{log}")


EVENTS = [
    two_deleted, rolling_restart, three_five_three, all_but_one, host_drained, killed_for_memory, pending_pod, changed_secret,
    two_releases, no_names, runner_stopped,
]


def main() -> int:
    known = {event.__name__: event for event in EVENTS}
    image, names = sys.argv[1:2], sys.argv[2:] or list(known)
    if not image or not set(names) <= set(known):
        print(f"{__doc__}\nNames: {' '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in names:
        cluster = Cluster(image[0], f"mesh-bench-{name.replace('_', '-')}-{os.getpid()}")
        try:
            known[name](cluster)
        except Skipped as reason:
            print(f"{name}: skipped: {reason}", flush=True)
        except (RuntimeError, LookupError, StopIteration, subprocess.SubprocessError) as reason:
            failed.append(name)
            print(f"{name}: FAILED: {type(reason).__name__} {reason}", flush=True)
        finally:
            cluster.close()
    print(f"{len(names) - len(failed)} of {len(names)} events passed{''.join(f', {name} failed' for name in failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
