"""What `make observe` plans, configures and tells, without starting anything that lasts."""

import json
import os
import shutil
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import observe
import watchers
from guide import guide
from observe import Ports, run_stack, stays_up
from watchers import jaeger_config, planned, prometheus_config, start_traces

KILLED = 1_800_000_000.0
CRASH = {"fault": "crash node2", "begun_at_unix_ms": KILLED * 1000, "begun_at_s": 30.0, "ended_at_s": 35.0, "recovered_at_s": 36.0}
SLOW = [{"op": "get", "response_ms": 9.0, "at_s": 31.0, "trace": "aa"}, {"op": "set", "response_ms": 412.4, "at_s": 30.4, "trace": "bb"},
        {"op": "set", "response_ms": 500.0, "at_s": 2.0, "trace": None}]
RESULTS = {"run_id": "the-run", "began_unix_ms": (KILLED - 32) * 1000, "ended_unix_ms": (KILLED + 90) * 1000, "prefill_s": 1.0}
GRAFANA, JAEGER, PROMETHEUS = "http://g:3000", "http://j:16686", "http://p:9090"


def told(faults: list[dict], slowest: list[dict], *pages: str | None) -> str:
    return "\n".join(guide({**RESULTS, "faults": faults, "slowest": slowest}, *pages))


class Guide(unittest.TestCase):
    def setUp(self):
        patch = mock.patch("guide.time.localtime", time.gmtime)
        patch.start()
        self.addCleanup(patch.stop)

    def test_each_page_opens_at_what_happened_in_this_run(self):
        text = told([CRASH], SLOW, GRAFANA, JAEGER, PROMETHEUS)
        self.assertIn("What did clients see when crash node2 struck at 08:00:00?", text)
        self.assertIn(f"{GRAFANA}/d/mesh-bench?from={1_799_999_985_000}&to={1_800_000_021_000}&var-run_id=the-run", text)
        self.assertIn("Why did a SET take 412 ms, until 08:00:00, longest", text)
        self.assertIn(f"{JAEGER}/trace/bb", text)
        self.assertIn("g0.range_input=36s&g0.end_input=2027-01-15+08%3A00%3A21", text)

    def test_a_page_that_is_missing_is_not_named(self):
        text = told([CRASH], SLOW, None, None, PROMETHEUS)
        self.assertEqual(text.count(PROMETHEUS), 2)
        self.assertNotIn("trace", text)
        self.assertEqual(told([CRASH], SLOW, None, None, None), "")

    def test_without_a_fault_it_is_about_the_whole_run(self):
        text = told([], [], GRAFANA, JAEGER, None)
        self.assertIn("What did clients see?", text)
        self.assertIn(f"from={1_799_999_968_000}&to={1_800_000_090_000}", text)


class OwnPath(unittest.TestCase):
    """With nothing on the PATH but what the test puts there."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        patch = mock.patch.dict(os.environ, {"PATH": str(self.bin)})
        patch.start()
        self.addCleanup(patch.stop)

    def program(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)


class Containers(OwnPath):
    def test_the_runner_s_exit_code_is_passed_on_and_the_containers_go(self):
        results = self.folder / "result.json"
        results.write_text(json.dumps({**RESULTS, "faults": [CRASH], "slowest": SLOW}))
        self.program("docker", f"""echo "$*" >>{self.folder}/calls
case "$*" in
    "compose ps --all --quiet runner") echo the-id ;;
    "wait the-id") echo 1 ;;
    "cp the-id:"*) for last; do :; done; /bin/mkdir -p "$last/the-run" && /bin/cp {results} "$last/the-run/result.json" ;;
esac""")
        signals = mock.Mock(received=False, run=lambda *_, **__: 0)
        with mock.patch("observe.wait_for"), mock.patch("observe.say") as said, mock.patch.dict(os.environ, {"KEEP": "0"}):
            self.assertEqual(run_stack(["docker", "compose"], signals), 1)
        self.assertIn(f"      {observe.JAEGER}/trace/bb", [call.args[0] for call in said.call_args_list])
        self.assertEqual((self.folder / "calls").read_text().splitlines()[-1], "compose down")


class Watchers(OwnPath):
    def test_configurations_are_local(self):
        ports = Ports(free=True)
        self.program("jaeger", "")
        for config in (prometheus_config(ports), jaeger_config(ports, 1)):
            lines = [line for line in config.splitlines() if not line.lstrip().startswith("#")]
            for container in ("0.0.0.0", "node1", "runner:", "jaeger:8", "prometheus:9090"):
                self.assertFalse([line for line in lines if container in line], container)
        self.assertIn(f"127.0.0.1:{ports.jaeger_own}", prometheus_config(ports))

    def test_what_is_missing_is_named_with_what_to_do(self):
        self.assertIn("install the package prometheus", planned()["Prometheus"])
        self.assertIn("protobuf-compiler", planned()["Jaeger UI"])
        self.program("protoc", "")
        self.assertIn("our trace UI", planned()["Jaeger UI"])

    def test_a_jaeger_on_the_path_comes_before_the_trace_ui(self):
        self.program("jaeger", "echo no such setting >&2; exit 1")
        self.assertEqual(planned()["Jaeger UI"], str(self.bin / "jaeger"))
        with self.assertRaisesRegex(RuntimeError, "jaeger.* did not start: no such setting"):
            start_traces(Ports(free=True), self.folder, quiet=True)

    def test_a_watcher_that_never_answers_is_ended(self):
        self.program("jaeger", "exec /bin/sleep 60")
        started = []
        launch = watchers.launch
        with mock.patch("watchers.launch", lambda *given: started.append(launch(*given)) or started[0]), \
                mock.patch("watchers.wait_for", side_effect=RuntimeError("late")), self.assertRaises(RuntimeError):
            start_traces(Ports(free=True), self.folder, quiet=True)
        self.assertIsNotNone(started[0].poll())

    def test_it_stays_up_if_asked(self):
        for keep, stays in (("1", True), ("0", False)):
            with mock.patch.dict(os.environ, {"KEEP": keep}):
                self.assertEqual(stays_up(), stays)


if __name__ == "__main__":
    unittest.main()
