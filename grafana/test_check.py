"""A checker that has stopped seeing anything must be found out."""

import unittest

import board
import check


class Metrics(unittest.TestCase):
    def test_names_are_found_and_nothing_else(self):
        expr = 'sum by (le, node) (rate(a_bucket{b="c_total"}[4s])) / on (op) group_left (addr) clamp_min(mesh:d:rate, 1e-9) > 0.5'
        self.assertEqual(check.metrics_in(expr), {"a_bucket", "mesh:d:rate"})

    def test_the_catalogue_is_read(self):
        exposed = check.exposed()
        self.assertLessEqual({"mesh_requests_total", "runner_op_duration_seconds_bucket", "mesh:error_ratio:rate10s"}, exposed)
        self.assertNotIn("mesh_op_duration_seconds", exposed, "a histogram has no series of its own name")

    def test_rules_are_read_whole(self):
        rules = dict(check.rule_expressions())
        self.assertIn("mesh_requests_total", rules["rule mesh:error_ratio:rate10s"])
        self.assertEqual(check.metrics_in(rules["rule MeshRingSplit"]), {"mesh_ring_hash"})


class Outcomes(unittest.TestCase):
    def test_a_list_that_lacks_one_is_found(self):
        self.assertLessEqual({"abandoned", "refused"} | check.ANSWERS, check.outcomes())
        found: list[str] = []
        kept, check.rule_expressions = check.rule_expressions, lambda: [("rule r", 'a{outcome=~"refused|unavailable"}')]
        try:
            check.check_outcomes(found.append)
        finally:
            check.rule_expressions = kept
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith("rule r: "), found)


class Board(unittest.TestCase):
    def complaints(self, panels) -> list[str]:
        found: list[str] = []
        kept = board.ROWS
        board.ROWS = [("Row", lambda: panels)]
        try:
            for each in (check.check_shape, check.check_names):
                each(found.append)
        finally:
            board.ROWS = kept
        return [each for each in found if each.startswith("Panel")]

    def test_a_good_panel_passes(self):
        self.assertEqual(self.complaints([board.lines("Panel", "A sentence.", "s", board.query("mesh_ring_hash"))]), [])

    def test_each_fault_is_seen(self):
        good = board.query("mesh_ring_hash")
        for fault in (
            board.lines("Panel", "", "s", good),
            board.lines("Panel", "A sentence.", "", good),
            board.lines("Panel", "A sentence.", "s", board.query("mesh_nothing_total")),
            board.lines("Panel", "A sentence.", "s", board.query("mesh_ring_hash", exemplar=True)),
            board.lines("Panel", "A sentence.", "s", {**good, "expr": 'mesh_op_duration_seconds_bucket{le="1"}'}),
        ):
            self.assertEqual(len(self.complaints([fault])), 1, fault["description"])

    def test_panels_do_not_overlap(self):
        taken = set()
        for each in board.place(board.ROWS):
            at = each["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, each["title"])
            self.assertLessEqual(at["x"] + at["w"], board.WIDTH)
            taken |= cells


if __name__ == "__main__":
    unittest.main()
