"""That figures are read and combined right, on samples of what the tools print."""

import unittest

import disturbance
import restarts
from ratios import Target, extra_tries, latency, medians, ratio, redis_rate, summary, timed_out, unmixed, wrk_figures

WRK = """Running 5s test @ http://127.0.0.1:20000/
  2 threads and 256 connections
  Latency Distribution
     50%    2.10ms
     99%  890.00us
  575000 requests in 5.00s, 50.00MB read
Requests/sec: 115000.50
"""

SUMMARY = """[PROGRESS] whatever
=== Mesh Bench Summary ===
Targets: [http://127.0.0.1:8081]
Total: 1000 | GETs: 700 | SETs: 300 | Errors: 2
Hits: local=200 remote=400 | Miss=98 | WrongValue=0 | HitRatio=85.9%
GET p50=0.50ms p95=1.00ms p99=2.00ms p99.9=3.00ms | SET p50=0.70ms p95=1.50ms p99=2.50ms p99.9=9.00ms
  rate  500 ops/s for 2.0 s
"""


class Reading(unittest.TestCase):
    def test_a_round_is_disturbed_by_what_is_none_of_ours(self):
        for stolen, busy, ours, expected in (
            (0, 90, 90, None), (2, 95, 88, None), (4, 90, 90, "the hypervisor took 4 %"), (0, 90, 80, "other programs took 10 %"), (0, 80, 90, None),
            (9, 90, 70, "and other programs"),
        ):
            found = disturbance.reason((100, 1, 50, 20), (200, 1 + stolen, 50 + busy, 20 + ours))
            self.assertIs(found is None, expected is None, (stolen, busy, ours, found))
            self.assertIn(expected or "", found or "")
        self.assertIsNone(disturbance.Disturbance().reason(), "no time has passed")

    def test_wrk(self):
        self.assertEqual(wrk_figures(WRK), (115000.5, 0.89, 575000))

    def test_wrk_with_errors_is_not_a_measurement(self):
        with self.assertRaises(ValueError):
            wrk_figures(WRK + "  Non-2xx or 3xx responses: 17\n")

    def test_summary(self):
        found = summary(SUMMARY)
        self.assertEqual((found.total, found.errors, found.local, found.remote), (1000, 2, 200, 400))
        self.assertEqual(found.rate, 500.0)
        self.assertEqual(found.percentiles_ms["GET p99"], 2.0)
        self.assertEqual(found.percentiles_ms["SET p99.9"], 9.0)
        self.assertAlmostEqual(found.local_share, 1 / 3)

    def test_no_summary(self):
        with self.assertRaises(ValueError):
            summary("cannot reach anybody")

    def test_results(self):
        results = {
            "totals": {"total": 200, "extra_tries": 5},
            "rows": [{"table": "all", "label": "GET", "p99_ms": 1.0}, {"table": "all", "label": "SET", "p99_ms": 2.0}],
            "reconciliation": {"ops": [{"timed_out": 3}, {"timed_out": 4}]},
        }
        self.assertEqual(latency(results, "all", "SET")["p99_ms"], 2.0)
        self.assertEqual((extra_tries(results), timed_out(results)), (2.5, 7))

    def test_redis(self):
        text = '"test","rps","avg_latency_ms"\n"GET","59000.25","4.1"\n'
        self.assertEqual(redis_rate(text, "get"), 59000.25)
        self.assertIsNone(redis_rate(text, "set"))


class Combining(unittest.TestCase):
    def test_ratios_are_taken_within_a_round(self):
        target = Target("a ÷ b", ratio("a", "b"), 0.5, True)
        rounds = [{"a": 1.0, "b": 2.0}, {"a": 10.0, "b": 10.0}, {"a": 9.0, "b": 10.0}, {"a": 5.0}]
        self.assertEqual(target.values(rounds), [0.5, 1.0, 0.9])
        self.assertEqual(target.row(rounds)[2:], ["0.90", "0.50 to 1.00, 3 rounds", "pass"])

    def test_a_missed_target_says_so(self):
        self.assertEqual(Target("a ÷ b", ratio("a", "b"), 2.0, True).row([{"a": 1.0, "b": 1.0}])[-1], "MISS")
        self.assertEqual(Target("a ÷ b", ratio("a", "b"), 0.5, False).row([{"a": 1.0, "b": 1.0}])[-1], "MISS")
        self.assertEqual(Target("a ÷ b", ratio("a", "b"), 0.5, False).row([{}])[-1], "SKIPPED")

    def test_a_mixture_comes_apart(self):
        local, remote, share = 10.0, 16.0, 1 / 3
        self.assertAlmostEqual(unmixed(share * local + (1 - share) * remote, local, share), remote)

    def test_medians_skip_what_a_round_lacks(self):
        self.assertEqual(medians([{"a": 1.0}, {"a": 3.0, "b": 2.0}, {"a": 2.0}]),
                         [["a", "2.00", "1.00", "3.00"], ["b", "2.00", "2.00", "2.00"]])

    def test_of_many_restarts_the_sums_and_the_worst_count(self):
        well = restarts.Found(operations=1000, errors=10, first_error_s=0.1, last_error_s=0.4, read_gap_s=0.3, ready_s=2.0)
        ill = restarts.Found(operations=1000, lost=3, lost_quiet=1, wrong={"missing": 2, "corrupt": 1}, ready_s=1.0)
        name = restarts.NAMES[3]
        found = restarts.figures_of(name, [well, ill, well])
        expected = {
            "lost": 4, "rounds with losses": 1, "wrong": 3, "longest span of errors s": 0.3, "longest time without a read s": 0.3,
            "longest time until all are ready s": 2.0,
        }
        for what, value in expected.items():
            self.assertAlmostEqual(found[f"{name}: {what}"], value)
        self.assertAlmostEqual(found[f"{name}: errors %"], 2 / 3)
        verdicts = [target.row([found])[-1] for target in restarts.TARGETS]
        self.assertEqual(verdicts, ["SKIPPED"] * 4 + ["MISS"] * 2)
        rounds = [restarts.figures_of(name, [well]) for name in restarts.NAMES.values()]
        self.assertEqual([target.row(rounds)[-1] for target in restarts.TARGETS], ["pass"] * 6)


if __name__ == "__main__":
    unittest.main()
