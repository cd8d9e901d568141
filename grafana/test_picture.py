"""Pictures of panels, without a browser."""

import unittest
from pathlib import Path
from unittest import mock

import picture

PANEL = {"title": "Rate", "type": "timeseries", "fieldConfig": {"defaults": {"unit": "ops"}}, "targets": [{"expr": "x", "legendFormat": "{{node}}"}]}


class Pictures(unittest.TestCase):
    def test_axes_end_at_a_round_number_above_all_values(self):
        for value, top in ((0.0, 1.0), (3.9, 4.0), (4.1, 8.0), (95.0, 100.0), (0.0123, 0.02), (1201.0, 2000.0)):
            self.assertAlmostEqual(picture.Axes(0, 10, value).top, top, msg=str(value))

    def test_a_gap_stays_a_gap(self):
        points = [(0.0, 1.0), (1.0, 1.0), (5.0, 1.0), (6.0, 1.0)]
        svg = picture.drawn(PANEL, [("node1", points)], [(2.0, "crash")], 0.0, 10.0)
        self.assertEqual(svg.count("<polyline"), 2)
        self.assertIn(">crash<", svg)

    def test_a_limit_of_the_board_is_a_line_across(self):
        of_board = {each["title"]: each for each in picture.board.panels()}
        for title, limit in (("Hedged share", 0.05), ("Scrapes", 0.9), ("Store, share of its limit", 1)):
            self.assertEqual(picture.limits(of_board[title]), [limit])
            drawings = [picture.drawn(of_board[title], [("node1", [(0.0, value)])], [], 0.0, 10.0) for value in (limit / 9, limit * 2)]
            self.assertEqual([svg.count('stroke="red"') for svg in drawings], [0, 1], title)
        self.assertEqual(picture.limits(PANEL), [])

    def test_what_comes_from_labels_is_text(self):
        svg = picture.drawn(PANEL, [("<script>", [(0.0, 1.0)])], [], 0.0, 10.0)
        self.assertNotIn("<script>", svg)

    def test_of_many_lines_the_eventful_ones_are_drawn_and_addresses_have_names(self):
        def line(node: str, values: list[int]) -> dict:
            return {"metric": {"node": node}, "values": [[at, str(value)] for at, value in enumerate(values)]}

        many = [line(f"10.0.0.{number}:1", [0, 0]) for number in range(20)] + [line("10.0.1.1:1", [0, 1])]
        with mock.patch.object(picture, "ask", return_value=many):
            found = picture.series_of("", PANEL, 0, 1, {"10.0.1.1:1": "node7"})
        self.assertEqual([legend for legend, _ in found], ["node7"])

    def test_without_a_browser_it_says_so(self):
        with mock.patch("shutil.which", return_value=None), self.assertRaises(picture.NoBrowser):
            picture.browse("about:blank", Path("never.png"), 1, 1)


if __name__ == "__main__":
    unittest.main()
