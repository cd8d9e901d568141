"""The live check's judgement, on traces made up."""

import unittest

import check_live
from check_live import Complaint, Stack, check_exemplars, check_wholeness, eventually, is_excused, received, warnings_of
from watchers import Watcher

KILLED = 1000.0
VICTIM = "beef"


def span(id: str, parent: str | None, name: str = "mesh.serve", start: float = KILLED, **tags) -> dict:
    return {"id": id, "parent": parent, "name": name, "start": start, "service": "node1", "tags": tags}


class FakeStack(Stack):
    @property
    def killed_at(self) -> float:
        return KILLED


STACK = FakeStack("", Watcher("", "", None, ""), ["a", "b", "c"], None, 0.0, "")


class Judgement(unittest.TestCase):
    def setUp(self):
        self.before = {name: getattr(check_live, name) for name in ("trace_of", "api", "ARRIVES_WITHIN_S")}
        check_live.ARRIVES_WITHIN_S = 0.0

    def tearDown(self):
        for name, value in self.before.items():
            setattr(check_live, name, value)

    def test_an_orphan_is_a_span_whose_parent_is_named_and_missing(self):
        check_live.trace_of = lambda *_: [span("1", None), span("2", "1"), span("3", "9")]
        self.assertEqual([each["id"] for each in check_live.orphans(STACK, "t")], ["3"])

    def test_only_what_the_killed_node_asked_for_around_its_end_is_excused(self):
        self.assertTrue(is_excused(STACK, span("1", "9", peer=VICTIM), VICTIM))
        self.assertFalse(is_excused(STACK, span("1", "9", peer="f00d"), VICTIM))
        self.assertFalse(is_excused(STACK, span("1", "9", peer=VICTIM, start=KILLED - 60), VICTIM))
        self.assertFalse(is_excused(STACK, span("1", "9", name="mesh.leg", peer=VICTIM), VICTIM))
        probe = span("1", "9", name="gossip.probe", peer="f00d")
        self.assertTrue(is_excused(STACK, {**probe, "service": "node2"}, VICTIM))
        self.assertFalse(is_excused(STACK, probe, VICTIM))
        self.assertFalse(is_excused(STACK, {**probe, "service": "node2", "start": KILLED + 60}, VICTIM))

    def test_an_exemplar_that_leads_nowhere_is_a_complaint_unless_it_died_with_the_node(self):
        def exemplars(at: float):
            series = lambda node: {"seriesLabels": {"node": node}, "exemplars": [{"labels": {"trace_id": node}, "timestamp": at}]}
            check_live.api = lambda *_: {"data": [series("a"), series("b"), series("c")]}

        check_live.trace_of = lambda *_: []
        exemplars(KILLED - 0.1)
        self.assertIn("3 died", check_exemplars(STACK))
        exemplars(KILLED + 60)
        with self.assertRaises(Complaint):
            check_exemplars(STACK)

    def test_an_orphan_without_excuse_is_a_complaint(self):
        check_live.trace_of = lambda *_: [span("3", "9", peer="f00d")]
        check_live.api = lambda *_: {"incomplete": ["t"], "traces": 1}
        before, check_live.killed_node_id = check_live.killed_node_id, lambda _: VICTIM
        try:
            with self.assertRaises(Complaint):
                check_wholeness(STACK)
        finally:
            check_live.killed_node_id = before

    def test_what_a_jaeger_has_received_is_counted_in_its_traces(self):
        of = lambda service, *spans: {"traceID": service, "processes": {"p": {"serviceName": service}}, "spans": list(spans)}
        told = lambda id, *parents, warnings=None: {
            "spanID": id, "processID": "p", "references": [{"spanID": parent} for parent in parents] or None,
            "operationName": "GET", "warnings": warnings, "startTime": 0, "duration": 0, "tags": [],
        }
        whole, broken = of("node1", told("1"), told("2", "1", warnings=["duplicate"])), of("node2", told("3", "9", warnings=["no parent"]))
        skew = "clock skew adjustment disabled"
        # Each service finds the traces that it has a part in.
        check_live.api = lambda url, path, **_: {"data": ["node1", "node2"] if path == "/api/services" else [whole, broken]}
        stack = FakeStack("", Watcher("", "", None, "", is_jaeger=True), [], None, 0.0, "")
        self.assertEqual(received(stack), {"traces": 2, "spans_by_sender": {"node1": 2, "node2": 1}, "incomplete": ["node2"], "warnings": ["GET in node1: duplicate"]})
        leg, late, early = told("1"), told("2", "1", warnings=[skew]), told("3", "1", warnings=[skew])
        late["duration"], early["startTime"] = 5000, -5000
        self.assertEqual(len(warnings_of(of("node1", leg, late, early))), 2)
        leg["tags"] = [{"key": "outcome", "value": "pending"}]
        self.assertEqual(warnings_of(of("node1", leg, late, early)), [f"GET in node1: {skew}"])
        early["startTime"] = -900
        self.assertEqual(warnings_of(of("node1", leg, late, early)), [])

    def test_waiting_ends(self):
        with self.assertRaises(Complaint):
            eventually("nothing", lambda: None, within_s=0.0)


if __name__ == "__main__":
    unittest.main()
