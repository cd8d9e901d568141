#!/usr/bin/env python3
"""lifecycle.py IMAGE: the chart on the cluster that KUBECONFIG names, from its installation to nothing left. IMAGE holds node, runner, sh
and curl, and the cluster has it or can pull it."""

import os
import sys
import tempfile
import time
from pathlib import Path

import yaml

from cluster import CHART, Cluster, Load, Release, Result, run, until

# All kinds that the chart may leave behind.
KINDS = (
    "statefulsets,jobs,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,persistentvolumeclaims,"
    "networkpolicies,poddisruptionbudgets"
)


def results_values(namespace: str) -> tuple[dict, list[str]]:
    """Where shards leave their results here, and what is to be removed afterwards: a claim from the default storage class, which may have
    no ReadWriteMany, or a folder of this machine if there is none."""
    classes = yaml.safe_load(run("kubectl", "get", "storageclasses", "-o", "yaml"))["items"]
    if any("storageclass.kubernetes.io/is-default-class" in item["metadata"].get("annotations", {}) for item in classes):
        return {"results": {"accessMode": "ReadWriteOnce"}}, []
    folder = Path(tempfile.mkdtemp(prefix="mesh-bench-results-"))
    os.chmod(folder, 0o777)
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "hostPath": {"path": str(folder)}},
    }
    run("kubectl", "create", "-f", "-", given=yaml.safe_dump(volume))
    return {}, [namespace]


def expect(result: Result, exit_code: int, *words: str) -> None:
    """The verdict, and what the log must say, however its lines are wrapped."""
    text = " ".join(result.log.split())
    missing = [word for word in words if word not in text]
    if result.exit_code != exit_code or missing:
        raise RuntimeError(f"exit code {result.exit_code}, expected {exit_code}; the log lacks {missing}:\n{result.log}")


def accepted_by_the_server(cluster: Cluster) -> None:
    """Everything that the chart can render, but what needs Prometheus Operator, in the eyes of the real API server."""
    options = ["run.id=a", "run.shards=3", "nodes.allowFaults=true", "monitoring.dashboard=true", "otlp.endpoint=http://c:4317"]
    rendered = run(
        "helm", "template", "checked", str(CHART), "--namespace", cluster.namespace, "--kube-version", "1.34.0",
        *[part for option in options for part in ("--set", option)],
    )
    answers = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", given=rendered).splitlines()
    print(f"{len(answers)} objects are accepted by the API server", flush=True)


def one_load(release: Release) -> None:
    """One runner: its own Job has the verdict."""
    result = release.load("one", DURATION="5s", KEYS=2000).result()
    expect(result, 0, "CORRECTNESS PASS", "Verdict: PASS (exit code 0)")
    print(f"one runner: exit code 0, {result.operations:.0f} operations, {result.failed()} failed", flush=True)


def merged_load(release: Release) -> None:
    """Three runners: the merge Job has it, and its log is the first screen."""
    result = release.load("three", shards=3, DURATION="8s", KEYS=3000).result()
    expect(result, 0, "CORRECTNESS PASS", "MEASUREMENT", "EXIT CODE 0")
    lines = result.log.strip().splitlines()
    if len(lines) > 26:
        raise RuntimeError(f"the log has {len(lines)} lines:\n{result.log}")
    print("three runners, merged:\n  " + "\n  ".join(lines), flush=True)


def upgraded_under_load(release: Release) -> None:
    """New settings for the nodes, and back, while three runners go on; their Job is left alone."""
    load = release.load("upgraded", shards=3, DURATION="75s", KEYS=3000)
    load.await_begun()
    began = time.monotonic()
    release.helm("upgrade", "--wait", "--timeout", "120s", values={"nodes": {"settings": {"READ_PER_TRY_MS": 210}}})
    upgraded = time.monotonic()
    run("helm", "rollback", release.name, "--namespace", release.cluster.namespace, "--wait", "--timeout", "120s")
    back = time.monotonic()
    del release.values["nodes"]["settings"]["READ_PER_TRY_MS"]
    result = load.result()
    expect(result, 0, "CORRECTNESS PASS", "0 lost, 0 wrong")
    outcomes = " ".join(result.log.split("Outcomes", 1)[1].split("\n\n", 1)[0].split())
    print(f"upgraded in {upgraded - began:.1f} s, rolled back in {back - upgraded:.1f} s under load: {outcomes}", flush=True)


def a_shard_that_dies(release: Release) -> None:
    """The others go on, and the merge says which one is missing."""
    load: Load = release.load("missing", shards=3, DURATION="12s", KEYS=3000)
    load.await_begun()
    pods = release.cluster.pods(release.name, "runner")
    victim = next(pod["metadata"]["name"] for pod in pods if pod["metadata"]["name"].startswith(f"{load.runners}-1-"))
    release.cluster.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
    expect(load.result(), 2, "CORRECTNESS PASS", "INVALID these shards are missing: 1/3")
    print("a runner was killed: exit code 2, missing 1/3, correctness of the others PASS", flush=True)


def nothing_left(release: Release) -> None:
    release.uninstall()

    def left() -> list[str]:
        return release.cluster.kubectl("get", KINDS, "-l", f"app.kubernetes.io/instance={release.name}", "-o", "name").split()

    until(f"nothing left, but there is {left()}", lambda: not left(), 60)
    others = [name for name in release.cluster.kubectl("get", KINDS, "-o", "name").split() if f"/{release.name}" in name]
    if others:
        raise RuntimeError(f"these are left: {others}")
    print("uninstalled: nothing is left", flush=True)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    cluster = Cluster(sys.argv[1], f"mesh-bench-lifecycle-{os.getpid()}")
    volumes = []
    try:
        values, volumes = results_values(cluster.namespace)
        accepted_by_the_server(cluster)
        release = Release(cluster, "mesh", values)
        print(f"installed: three nodes in sync after {release.install():.1f} s", flush=True)
        for step in (one_load, merged_load, upgraded_under_load, a_shard_that_dies, nothing_left):
            step(release)
    finally:
        cluster.close()
        for volume in volumes:
            run("kubectl", "delete", "persistentvolume", volume, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
