"""What `helm template` makes of values, good and bad. Needs helm, and no cluster."""

import json
import re
import subprocess
import unittest
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
CHART = Path(__file__).parent / "helm" / "mesh-bench"

# Settings that the chart itself gives, or that make no sense in a pod.
OF_THE_CHART = {
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_RESOURCE_ATTRIBUTES", "KILL_TOKEN", "HTTP_TLS_CERT", "HTTP_TLS_KEY", "HTTP_TOKEN", "HTTP_ADMIN_TOKEN",
}
OF_NODES = OF_THE_CHART | {
    "PORT", "CACHE_PUBLIC", "CACHE_SEEDS", "NODE_ID", "CACHE_AUTH", "CACHE_NAME", "TLS_CA", "TLS_CERT", "TLS_KEY", "ALLOW_KILL",
}
OF_RUNNERS = OF_THE_CHART | {
    "TARGETS", "SHARD", "RUN_ID", "START_AT", "RESULTS", "METRICS_PORT", "LOCAL", "NODE_BIN", "NODE_WORKERS", "LOG_DIR",
    "HTTP_TLS_CA", "TARGET_USER", "TARGET_PASSWORD", "PLAIN", "PROGRESS",
}


def template(*options: str) -> subprocess.CompletedProcess:
    command = ["helm", "template", "mesh", str(CHART), "--kube-version", "1.34.0"]
    return subprocess.run(
        [*command, *[part for option in options for part in ("--set", option)]], capture_output=True, text=True, check=False
    )


def rendered(*options: str) -> dict[tuple[str, str], dict]:
    """Every object, by its kind and name."""
    done = template(*options)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def pod_of(found: dict) -> dict:
    return found["spec"]["template"]["spec"]


def environment(pod: dict) -> dict:
    return {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}


class TheChart(unittest.TestCase):
    def test_it_refuses_what_it_does_not_know(self):
        for option, expected in [
            ("nodes.replica=3", "additional properties 'replica' not allowed"),
            ("nodes.settings.WORKER=2", "additional properties 'WORKER' not allowed"),
            ("nodes.settings.NODE_ID=a", "additional properties 'NODE_ID' not allowed"),
            ("run.settings.TARGETS=a", "additional properties 'TARGETS' not allowed"),
            ("run.id=A_b", "does not match pattern"),
            ("nodes.replicas=1", "nodes.replicas=1: expected at least nodes.settings.WRITE_CONCERN, which is 2"),
            ("nodes.settings.REPLICATION_FACTOR=1", "WRITE_CONCERN=2: expected at most REPLICATION_FACTOR, which is 1"),
        ]:
            done = template(option)
            self.assertNotEqual(done.returncode, 0, option)
            self.assertIn(expected, done.stderr, option)

    def test_it_knows_every_setting(self):
        """Those of docs/SETTINGS.md, without those that it gives itself."""
        rows = re.findall(r"^\| `([A-Z_]+)` \|.*\| ([a-z, -]+) \|$", (ROOT / "docs/SETTINGS.md").read_text(), re.MULTILINE)
        schema = json.loads((CHART / "values.schema.json").read_text())
        for part, binary, given in [("nodes", "node", OF_NODES), ("run", "runner", OF_RUNNERS)]:
            known = {name for name, of in rows if binary in of.split(", ")}
            self.assertLessEqual(given, known, "the chart gives what is no setting")
            allowed = set(schema["properties"][part]["properties"]["settings"]["properties"])
            self.assertEqual(allowed, known - given, f"values.schema.json, {part}.settings")

    def test_nodes_keep_their_names_and_may_take_their_time_to_leave(self):
        found = rendered("nodes.settings.DRAIN_TIMEOUT_MS=20001", "nodes.preStopSeconds=3", "nodes.settings.CAPACITY_BYTES=1000000000")
        nodes = found["StatefulSet", "mesh"]
        self.assertEqual(nodes["spec"]["podManagementPolicy"], "Parallel")
        pod = pod_of(nodes)
        self.assertEqual(pod["terminationGracePeriodSeconds"], 3 + 21 + 7)
        given = environment(pod)
        self.assertEqual(given["NODE_ID"], "$(POD_NAME)")
        self.assertEqual(given["CACHE_PUBLIC"], "$(POD_NAME).mesh-nodes:5011")
        self.assertEqual((given["CACHE_SEEDS"], given["CACHE_NAME"]), ("mesh-nodes:5011", "mesh"))
        self.assertEqual(given["CAPACITY_BYTES"], "1000000000", "no 1e+09")
        self.assertNotIn("ALLOW_KILL", given)
        self.assertTrue(found["Service", "mesh-nodes"]["spec"]["publishNotReadyAddresses"])
        self.assertEqual(environment(pod_of(rendered("nodes.allowFaults=true")["StatefulSet", "mesh"]))["ALLOW_KILL"], "true")

    def test_no_more_are_evicted_than_writes_can_do_without(self):
        for replicas, factor, concern, away in [(3, 3, 2, 1), (3, 3, 1, 1), (5, 5, 3, 2), (3, 3, 3, 1), (2, 2, 2, 1), (9, 8, 4, 3)]:
            options = [f"nodes.replicas={replicas}", f"nodes.settings.REPLICATION_FACTOR={factor}", f"nodes.settings.WRITE_CONCERN={concern}"]
            budget = rendered(*options)["PodDisruptionBudget", "mesh"]
            self.assertEqual(budget["spec"]["maxUnavailable"], away, options)

    def test_every_pod_is_confined(self):
        pods = [pod_of(found) for (kind, _), found in rendered("run.id=a", "run.shards=2").items() if kind in ("StatefulSet", "Job")]
        self.assertEqual(len(pods), 3)
        for pod in pods:
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
            self.assertFalse(pod["enableServiceLinks"])
            for container in pod["containers"] + pod.get("initContainers", []):
                self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
                self.assertEqual(container["securityContext"]["capabilities"]["drop"], ["ALL"])
                self.assertFalse(container["securityContext"]["allowPrivilegeEscalation"])
                self.assertIn("memory", container["resources"]["limits"])

    def test_one_runner_needs_neither_volume_nor_merge(self):
        found = rendered("run.id=a")
        job = found["Job", "mesh-run-a"]
        self.assertEqual((job["spec"]["completionMode"], job["spec"]["backoffLimitPerIndex"]), ("Indexed", 0))
        self.assertNotIn("SHARD", environment(pod_of(job)))
        self.assertEqual({kind for kind, _ in found} & {"PersistentVolumeClaim", "Role"}, set())
        claims = pod_of(rendered("run.id=a", "results.existingClaim=c")["Job", "mesh-run-a"])["volumes"]
        self.assertEqual(claims[0]["persistentVolumeClaim"]["claimName"], "c")
        self.assertNotIn("Job", {kind for kind, _ in rendered()})

    def test_several_runners_share_one_start(self):
        found = rendered("run.id=a", "run.shards=3", "run.settings.KEYS=200000")
        given = environment(pod_of(found["Job", "mesh-run-a"]))
        self.assertEqual((given["SHARD"], given["START_AFTER"]), ("3", "40"))
        settings = found["ConfigMap", "mesh-run-a"]["data"]
        self.assertEqual(settings["TARGETS"], ",".join(f"http://mesh-{node}.mesh-nodes:8081" for node in range(3)))
        self.assertEqual(settings["KEYS"], "200000")
        self.assertEqual(found["Role", "mesh-merge-a"]["rules"][0]["resourceNames"], ["mesh-run-a"])

    def test_a_run_is_left_alone_by_whatever_an_upgrade_changes(self):
        jobs = [
            {name: found["spec"] for (kind, name), found in rendered("run.id=a", "run.shards=2", *options).items() if kind == "Job"}
            for options in ([], ["nodes.replicas=5", "nodes.settings.READ_PER_TRY_MS=1", "run.settings.DURATION=9s"])
        ]
        self.assertEqual(*jobs)

    def test_what_prometheus_and_grafana_get_is_what_the_repository_has(self):
        found = rendered("monitoring.serviceMonitor=true", "monitoring.prometheusRule=true", "monitoring.dashboard=true", "monitoring.labels.x=y")
        rules = yaml.safe_load((ROOT / "observability/rules/mesh.rules.yml").read_text())
        self.assertEqual(found["PrometheusRule", "mesh"]["spec"], rules)
        self.assertEqual(found["PrometheusRule", "mesh"]["metadata"]["labels"]["x"], "y")
        board = json.loads((ROOT / "grafana/dashboards/mesh.json").read_text())
        self.assertEqual(json.loads(found["ConfigMap", "mesh-dashboard"]["data"]["mesh.json"]), board)
        chosen = found["ServiceMonitor", "mesh"]["spec"]["selector"]["matchLabels"].items()
        matching = [name for (kind, name), other in found.items() if kind == "Service" and chosen <= other["metadata"]["labels"].items()]
        self.assertEqual(matching, ["mesh"], "each node is scraped once")

    def test_secrets_are_made_once_or_come_from_elsewhere(self):
        self.assertIn(("Secret", "mesh"), rendered())
        found = rendered("auth.existingSecret=mine", "run.id=a", "nodes.allowFaults=true")
        self.assertNotIn("Secret", {kind for kind, _ in found})
        pods = [pod_of(found["StatefulSet", "mesh"]), pod_of(found["Job", "mesh-run-a"])]
        secrets = [entry["valueFrom"]["secretKeyRef"] for pod in pods for entry in pod["containers"][0]["env"] if "secretKeyRef" in entry.get("valueFrom", {})]
        self.assertEqual({secret["name"] for secret in secrets}, {"mine"})
        self.assertEqual({secret["key"] for secret in secrets}, {"cache-auth", "kill-token"})

    def test_https_and_tokens_reach_nodes_probes_runners_and_prometheus(self):
        options = ["http.tlsSecret=tls", "http.tokenSecret=tokens", "run.id=a", "monitoring.serviceMonitor=true"]
        found = rendered(*options)
        nodes, runner = pod_of(found["StatefulSet", "mesh"]), pod_of(found["Job", "mesh-run-a"])
        given = environment(nodes)
        self.assertEqual((given["HTTP_TLS_CERT"], given["HTTP_TLS_KEY"]), ("/tls/tls.crt", "/tls/tls.key"))
        self.assertEqual(nodes["volumes"][0]["secret"]["secretName"], "tls")
        self.assertEqual(nodes["containers"][0]["volumeMounts"], [{"name": "tls", "mountPath": "/tls", "readOnly": True}])
        self.assertEqual(environment(runner)["HTTP_TLS_CA"], "/tls/ca.crt")
        volume = next(volume for volume in runner["volumes"] if volume["name"] == "tls")
        self.assertEqual([item["key"] for item in volume["secret"]["items"]], ["ca.crt"], "runners need no private key")
        for probe in ("readinessProbe", "livenessProbe"):
            asked = nodes["containers"][0][probe]["httpGet"]
            self.assertEqual(asked["scheme"], "HTTPS")
            self.assertIn(asked["path"], ("/ready", "/metrics"), "which need no token")
        targets = found["ConfigMap", "mesh-run-a"]["data"]["TARGETS"].split(",")
        self.assertEqual(targets[2], "https://mesh-2.mesh-nodes.default.svc:8081")
        for pod in (nodes, runner):
            tokens = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in pod["containers"][0]["env"] if entry["name"].endswith("_TOKEN")}
            self.assertEqual(tokens["HTTP_TOKEN"], {"name": "tokens", "key": "http-token"})
            self.assertEqual(tokens["HTTP_ADMIN_TOKEN"], {"name": "tokens", "key": "http-admin-token"})
        endpoint = found["ServiceMonitor", "mesh"]["spec"]["endpoints"][0]
        self.assertEqual((endpoint["scheme"], endpoint["tlsConfig"]["serverName"]), ("https", "mesh.default.svc"))
        plain = pod_of(rendered("run.id=a")["StatefulSet", "mesh"])
        self.assertEqual(plain["containers"][0]["readinessProbe"]["httpGet"]["scheme"], "HTTP")
        self.assertNotIn("HTTP_TOKEN", environment(plain))
        self.assertNotIn("volumes", plain)


if __name__ == "__main__":
    unittest.main()
