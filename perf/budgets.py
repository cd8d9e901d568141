"""Instructions and allocations per operation, counted under callgrind and held against perf/budgets.toml.

`python3 perf/budgets.py` builds the crate `budgets` and compares; WRITE_BUDGETS=1 writes what it has counted into the file instead.
Names of scenarios as arguments: only those. --sites lists who allocates. Exit code 75: valgrind is not installed."""

import argparse
import concurrent.futures
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib

from callgrind import Profile, parse

HERE = pathlib.Path(__file__).parent
FILE = HERE / "budgets.toml"

# Percent by which a figure may grow.
BOUND = 2
# The same where another compiler, valgrind, C library or processor counts than the one that made the figures.
BOUND_ELSEWHERE = 10
# Allocations are few: what may come on top for buffers that grow now and then.
ALLOCATIONS_SLACK = 0.05
# Functions with less than this share of a scenario's instructions are left out of the file.
SHARE_KEPT = 0.01

# How many operations, and what they are.
SCENARIOS = {
    "get-local": (4096, "GET through the mesh's API, from the node's own replica"),
    "get-remote": (1024, "GET through the mesh's API, from another owner: both nodes, and the network in memory"),
    "set": (1024, "SET through the mesh's API: the coordinator, which is an owner, two other replicas, the network in memory"),
    "set-replica": (1024, "SET at one replica, and the bare peer that sends the frame and reads the reply"),
    "http-get-local": (1024, "GET over HTTP bytes in memory, from the node's own replica"),
    "http-get-remote": (1024, "GET over HTTP bytes in memory, from another owner"),
    "http-set": (1024, "SET over HTTP bytes in memory, JSON: coordinator and two other replicas"),
    "codec-write": (4096, "a write's frame and its reply, encoded and decoded"),
    "codec-read": (4096, "a read's frame and its reply, encoded and decoded"),
    "store-get": (4096, "store: a look-up that finds a value"),
    "store-set": (4096, "store: a newer version of a key"),
    "store-set-evicting": (4096, "store: a new key in a full store"),
    "checker-get": (4096, "load: a read announced, its value proven and judged"),
    "checker-set": (4096, "load: a write announced, its value made, and judged"),
    "recorder": (4096, "load: one latency recorded"),
    "pacer": (4096, "load: one operation made due and begun"),
}
# What is computed from others: the first less so many of the second.
DERIVED = {"set-coordinator": ("set", 2, "set-replica", "SET at the coordinator: `set` less two of `set-replica`")}


def made_with():
    """What instruction counts depend on besides the code."""

    def output(*command):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    flags = set()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        line = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "")
        flags = set(line.split()) & {"aes", "avx2", "bmi2", "erms", "fsrm", "sha_ni"}
    return {
        "rustc": output("rustc", "--version"),
        "valgrind": output("valgrind", "--version"),
        "libc": "-".join(platform.libc_ver()),
        "cpu": " ".join([platform.machine(), *sorted(flags)]),
    }


def build():
    """The crate in the product's profile; the path of its binary."""
    environment = dict(os.environ, CARGO_INCREMENTAL="0")
    subprocess.run(["cargo", "build", "--locked", "--release", "-p", "budgets", "--example", "budgets"], check=True, env=environment)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "release" / "examples" / "budgets"


def measure(binary, scenario):
    """Runs one scenario under callgrind."""
    count = SCENARIOS[scenario][0]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out"
        command = [shutil.which("valgrind"), "--tool=callgrind", f"--callgrind-out-file={out}", "--dump-line=no"]
        command += [f"--dump-before=budgets::counted_{which}_here" for which in ("from", "to")]
        # Without decay and garbage collection jemalloc never looks at a clock; without other variables the stack always lies at the same place.
        environment = {"_RJEM_MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1,tcache_gc_incr_bytes:1073741824"}
        ran = subprocess.run([*command, binary, scenario, str(count)], capture_output=True, text=True, env=environment)
        dump = out.with_name("out.2")
        if ran.returncode != 0 or not dump.exists():
            sys.exit(f"{scenario}: it did not run to its end:\n{ran.stderr}")
        with dump.open() as lines:
            return parse(lines, count)


def measure_all(binary, scenarios):
    """Profiles by scenario, those that follow from others included."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        profiles = dict(zip(scenarios, pool.map(lambda scenario: measure(binary, scenario), scenarios)))
    for name, (whole, times, part, _) in DERIVED.items():
        if whole in profiles and part in profiles:
            profiles[name] = less(profiles[whole], times, profiles[part])
    return profiles


def less(whole, times, part):
    """A profile without so many of another one."""

    def difference(counts, taken):
        return {name: count - times * taken.get(name, 0.0) for name, count in counts.items()}

    return Profile(
        whole.instructions - times * part.instructions,
        whole.allocations - times * part.allocations,
        difference(whole.functions, part.functions),
        difference(whole.sites, part.sites),
    )


def compare(scenario, budget, profile, percent):
    """What is to be said of a scenario: (grown, fallen), lists of lines."""
    grown, fallen = [], []
    for what, slack in (("instructions", 0.0), ("allocations", ALLOCATIONS_SLACK)):
        allowed, now = budget[what], getattr(profile, what)
        change = f"{allowed:.1f} -> {now:.1f} {what} per operation"
        if allowed > 0:
            change += f" ({100 * (now / allowed - 1):+.1f} %)"
        if now > allowed * (1 + percent / 100) + slack:
            grown.append(f"{scenario}: {change}, more than {percent} %")
        elif now < allowed * (1 - percent / 100) - slack:
            fallen.append(f"{scenario}: {change}")
    if grown:
        grown += growth(budget["functions"], profile.functions)
        grown += more_sites(budget["sites"], profile.sites)
    return grown, fallen


def growth(before, now, count=8):
    """The functions whose own instructions grew most. One that is not in the file had less than its least, and may be new."""
    least = min(before.values(), default=0.0)
    grown = sorted(((cost - before.get(name, 0.0), name) for name, cost in now.items()), reverse=True)
    lines = []
    for growth, name in grown[:count]:
        if name not in before and growth <= least:
            continue
        if growth >= 1:
            was = f"{before[name]:.0f}" if name in before else "not listed"
            lines.append(f"    {growth:+8.0f}  {name} ({was} -> {now[name]:.0f})")
    return lines


def more_sites(before, now):
    """The functions that ask for more allocations than before."""
    more = ((count - before.get(name, 0.0), name) for name, count in now.items())
    return [f"    {count:+8.2f}  allocations in {name}" for count, name in sorted(more, reverse=True) if count > ALLOCATIONS_SLACK]


def render(made, budgets):
    """The text of the file."""
    lines = [
        "# Instructions and allocations of one operation, as perf/budgets.py counts them under callgrind. `make test` fails when one",
        f"# has grown by more than {BOUND} %, or by more than {BOUND_ELSEWHERE} % where what is named below is not the same.",
        "# To accept new figures on purpose: WRITE_BUDGETS=1 make budgets, and say why in the commit.",
        "# Under `functions` stand the instructions of the largest functions themselves, so that growth can be placed, and under",
        "# `sites` the allocations that each function asks for.",
        "",
        "[made_with]",
        *(f'{name} = "{value}"' for name, value in made.items()),
    ]
    for scenario in [*SCENARIOS, *DERIVED]:
        if scenario not in budgets:
            continue
        budget = budgets[scenario]
        what = SCENARIOS[scenario][1] if scenario in SCENARIOS else DERIVED[scenario][3]
        lines += [
            "",
            f"# {what[0].upper()}{what[1:]}.",
            f"[scenario.{scenario}]",
            f"instructions = {budget['instructions']:.1f}",
            f"allocations = {budget['allocations']:.2f}",
            f"[scenario.{scenario}.functions]",
        ]
        largest = sorted(budget["functions"].items(), key=lambda entry: (-entry[1], entry[0]))
        lines += [f"'{name}' = {cost:.1f}" for name, cost in largest]
        lines += [f"[scenario.{scenario}.sites]"]
        lines += [f"'{name}' = {count:.2f}" for name, count in sorted(budget["sites"].items(), key=lambda entry: (-entry[1], entry[0]))]
    return "\n".join(lines) + "\n"


def budget_of(profile):
    """What the file holds of a profile."""
    least = SHARE_KEPT * profile.instructions
    # A literal string of TOML cannot hold its own quote.
    functions = {name.replace("'", "`"): cost for name, cost in profile.functions.items() if cost >= least}
    sites = {name.replace("'", "`"): count for name, count in profile.sites.items() if count >= ALLOCATIONS_SLACK}
    return {"instructions": profile.instructions, "allocations": profile.allocations, "functions": functions, "sites": sites}


def told(profiles, file, made):
    """Compares, prints, and says whether all is within its bounds."""
    same = file["made_with"] == made
    percent = BOUND if same else BOUND_ELSEWHERE
    if not same:
        other = [f"{name} {made[name]}, not {value}" for name, value in file["made_with"].items() if made.get(name) != value]
        print(f"counted with {'; '.join(other)}: the bound is {percent} % instead of {BOUND} %")
    ok = True
    for scenario, profile in profiles.items():
        budget = file["scenario"].get(scenario)
        print(f"{scenario:>20} {profile.instructions:10.1f} instructions {profile.allocations:7.2f} allocations")
        if budget is None:
            print(f"GREW: {scenario} has no budget yet")
            ok = False
            continue
        grown, fallen = compare(scenario, budget, profile, percent)
        for line in fallen:
            print(f"LESS: {line}: lower its budget")
        if grown:
            ok = False
            print("GREW: " + "\n".join(grown))
    if not ok:
        print("To accept the new figures on purpose: WRITE_BUDGETS=1 make budgets, and say why in the commit.")
    return ok


def write(profiles, file, made):
    """Puts the new figures into the file."""
    kept = file["scenario"] if file["made_with"] == made else {}
    missing = [name for name in [*SCENARIOS, *DERIVED] if name not in profiles and name not in kept]
    if missing:
        sys.exit(f"other tools than those that made {FILE.name}: write all scenarios, not only {', '.join(profiles)}")
    budgets = kept | {name: budget_of(profile) for name, profile in profiles.items()}
    FILE.write_text(render(made, budgets))
    print(f"wrote {FILE}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    arguments.add_argument("--sites", action="store_true", help="list who allocates, and the largest functions")
    arguments = arguments.parse_args()
    unknown = set(arguments.scenarios) - set(SCENARIOS)
    if unknown:
        sys.exit(f"no scenario is called {', '.join(sorted(unknown))}: there are {', '.join(SCENARIOS)}")
    if shutil.which("valgrind") is None:
        print("valgrind is not installed (the system's package valgrind)", file=sys.stderr)
        return 75
    profiles = measure_all(build(), arguments.scenarios or list(SCENARIOS))
    if arguments.sites:
        for scenario, profile in profiles.items():
            print(f"{scenario}: {profile.instructions:.0f} instructions, {profile.allocations:.2f} allocations")
            for counts, least in ((profile.functions, 0.005 * profile.instructions), (profile.sites, 0.05)):
                for name, count in sorted(counts.items(), key=lambda entry: -entry[1]):
                    if count >= least:
                        print(f"  {count:9.2f}  {name}")
    made = made_with()
    file = tomllib.loads(FILE.read_text()) if FILE.exists() else {"made_with": {}, "scenario": {}}
    if os.environ.get("WRITE_BUDGETS") == "1":
        write(profiles, file, made)
        return 0
    return 0 if told(profiles, file, made) else 1


if __name__ == "__main__":
    sys.exit(main())
