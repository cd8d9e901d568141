import unittest

import compare


def result(kind: str, lost: int = 0, errors: tuple = (0, 0)) -> dict:
    row = {"p50_ms": 0.5, "p99_ms": 2.0, "p999_ms": 4.0}
    return {
        "machine": {"cores": 2, "cpu_model": "a CPU", "kernel": "linux 6", "load_average": [1.0, 1.0, 1.0]},
        "versions": {"runner": "0.1.0", "nodes": [None, "7.0"]},
        "rows": [{"table": "all", "label": label, **row} for label in ("GET", "SET")],
        "totals": {"ops_per_s": 1000.0, "errors": sum(errors), "indeterminate": 0},
        "cpu": {"client_us_per_op": 9.0, "node_us_per_op": [5.0, None, 6.0]},
        "integrity": {"lost": 0, "explained": {"lost": lost}},
        "samples": [{"errors": count} for count in errors],
        "sweep": {"keys": 50_000},
        "verdict": {"correctness": kind},
        "not_kept_because": "127.0.0.1:1 was restarted" if lost else None,
    }


class Compare(unittest.TestCase):
    def test_figures_are_of_all_servers_and_failing_time_of_all_samples(self):
        self.assertEqual(compare.figures(result("PASS"))["servers µs/op"], 11.0)
        self.assertEqual(compare.without_service_s(result("PASS", errors=(0, 3, 1, 0))), 1.0)

    def test_the_page_has_a_row_for_each_cache_and_names_what_is_left_out(self):
        compared = compare.Compared()
        for name in ("Redis", "memcached"):
            compared.note(name, result("PASS"))
            for measured in (compared.closed, compared.open):
                measured[name] = [compare.figures(result("PASS"))] * 3
        compared.killed["Redis"] = result("PASS", lost=57, errors=(0, 9))
        compared.client = [{"redis-benchmark, µs per GET": 10.0, "runner, µs per GET": 11.0}]
        compared.left_out["Redis Cluster, 3 + 3"] = "redis-cli is not installed"
        text = compare.page(compared, 3, 5)
        self.assertIn("| Redis | PASS | 57 of 50,000 | 9 | 0 | 0.50 | 2.00 | 127.0.0.1:1 was restarted |", text)
        self.assertEqual(text.count("| memcached | 1,000 | 0.50 |"), 2)
        self.assertIn("Ratio of the same round: 1.10", text)
        self.assertIn("Redis Cluster, 3 + 3 was left out: redis-cli is not installed", text)

    def test_a_broken_cache_is_named_so(self):
        compared = compare.Compared()
        compared.note("Redis", result("PASS"))
        compared.note("Redis", result("BROKEN"))
        compared.closed["Redis"] = [compare.figures(result("PASS"))]
        self.assertIn("Redis BROKEN and PASS", compare.page(compared, 1, 5))


if __name__ == "__main__":
    unittest.main()
