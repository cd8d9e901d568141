"""That callgrind's dumps are read right, and that growth is found and placed."""

import tomllib
import unittest

import budgets
from callgrind import Profile, parse

DUMP = """# callgrind format
version: 1
desc: Trigger: --dump-before=budgets::counted_to_here
positions: line
events: Ir
summary: 1234

ob=(1) /a/budgets
fl=(1) a.rs
fn=(10) mesh::worker::set
12 100
+1 20
cfn=(11) mesh::call::WriteCall::new.llvm.123
calls=10 0
* 300
-3 30
cfn=(20) __rustc::__rust_alloc
calls=30 0
* 90

fn=(11)
0 200
cfn=(20)
calls=10 0
0 100

fn=(12) mesh::call::WriteCall::new'2
0 50

fn=(20)
0 10
cfn=(21) _rjem_malloc
calls=40 0
0 100

fn=(21)
0 100

totals: 510
"""


def profile(**functions):
    return Profile(sum(functions.values()), 3.0, functions)


class Reading(unittest.TestCase):
    def test_a_call_costs_its_caller_nothing(self):
        found = parse(DUMP.splitlines(keepends=True), 10)
        self.assertEqual(found.instructions, 51.0)
        self.assertEqual(found.functions["mesh::worker::set"], 15.0)
        self.assertEqual(sum(found.functions.values()), found.instructions)

    def test_levels_of_recursion_and_endings_of_the_linker_are_one_function(self):
        self.assertEqual(parse(DUMP.splitlines(), 10).functions["mesh::call::WriteCall::new"], 25.0)

    def test_an_allocation_counts_once_where_it_is_asked_for(self):
        found = parse(DUMP.splitlines(), 10)
        self.assertEqual(found.allocations, 4.0)
        self.assertEqual(found.sites, {"mesh::worker::set": 3.0, "mesh::call::WriteCall::new": 1.0})


class Comparing(unittest.TestCase):
    BUDGET = {"instructions": 1000.0, "allocations": 3.0, "functions": {"f": 600.0, "g": 300.0}, "sites": {"f": 3.0}}

    def compare(self, percent=budgets.BOUND, **functions):
        return budgets.compare("set", self.BUDGET, profile(**functions), percent)

    def test_within_the_bound_there_is_nothing_to_say(self):
        self.assertEqual(self.compare(f=620.0, g=390.0), ([], []))

    def test_growth_is_said_with_the_functions_that_grew_most(self):
        grown, fallen = self.compare(f=600.0, g=320.0, h=400.0, rest=50.0)
        self.assertEqual(grown[0], "set: 1000.0 -> 1370.0 instructions per operation (+37.0 %), more than 2 %")
        self.assertEqual([line.split() for line in grown[1:]], [
            ["+400", "h", "(not", "listed", "->", "400)"],
            ["+20", "g", "(300", "->", "320)"],
        ])
        self.assertEqual(fallen, [])

    def test_other_tools_have_a_wider_bound(self):
        self.assertTrue(self.compare(f=1060.0)[0])
        self.assertFalse(self.compare(budgets.BOUND_ELSEWHERE, f=1060.0)[0])

    def test_one_allocation_more_is_growth(self):
        for allocations, grows in ((3.0, False), (3.05, False), (4.0, True)):
            now = Profile(1000.0, allocations, {"f": 1000.0})
            self.assertEqual(bool(budgets.compare("set", self.BUDGET, now, budgets.BOUND)[0]), grows, allocations)

    def test_more_allocations_are_placed(self):
        now = Profile(1000.0, 5.0, {"f": 1000.0}, {"f": 3.0, "h": 2.0})
        self.assertIn("       +2.00  allocations in h", budgets.compare("set", self.BUDGET, now, budgets.BOUND)[0])

    def test_what_has_become_cheaper_is_said_and_does_not_fail(self):
        grown, fallen = self.compare(f=500.0)
        self.assertEqual(grown, [])
        self.assertEqual(fallen, ["set: 1000.0 -> 500.0 instructions per operation (-50.0 %)"])


class Writing(unittest.TestCase):
    def test_what_is_written_is_read_again(self):
        made = {"rustc": "rustc 1.0.0", "cpu": "x86_64 avx2"}
        budget = budgets.budget_of(Profile(1000.0, 3.0, {"<a::B as C>::d": 990.0, "small": 5.0, "e'": 20.0}, {"f": 3.0}))
        read = tomllib.loads(budgets.render(made, {"set": budget}))
        self.assertEqual(read["made_with"], made)
        functions = {"<a::B as C>::d": 990.0, "e`": 20.0}
        expected = {"instructions": 1000.0, "allocations": 3.0, "functions": functions, "sites": {"f": 3.0}}
        self.assertEqual(read["scenario"]["set"], expected)

    def test_what_is_derived_is_the_whole_less_its_parts(self):
        less = budgets.less(Profile(100.0, 9.0, {"f": 60.0, "g": 40.0}), 2, Profile(20.0, 2.0, {"f": 20.0}))
        self.assertEqual((less.instructions, less.allocations, less.functions), (60.0, 5.0, {"f": 20.0, "g": 40.0}))

    def test_every_scenario_has_a_budget(self):
        file = tomllib.loads(budgets.FILE.read_text())
        self.assertEqual(set(file["scenario"]), {*budgets.SCENARIOS, *budgets.DERIVED})


if __name__ == "__main__":
    unittest.main()
