"""Figures, and what becomes of them: medians over rounds, ratios between figures of the same round, verdicts."""

import re
from dataclasses import dataclass
from statistics import median
from typing import Callable, Optional

# One round's figures by name, such as {"redis get ops/s": 59000.0}. A figure that was not measured is not there.
Round = dict[str, float]


def ratio(over: str, under: str) -> Callable[[Round], float]:
    """The quotient of two figures of one round: what disturbed the machine then disturbed both."""
    return lambda figures: figures[over] / figures[under]


def figure(name: str) -> Callable[[Round], float]:
    return lambda figures: figures[name]


def unmixed(mixed: float, local: float, local_share: float) -> float:
    """What a remote read costs, from a load of which `local_share` was local, and the cost of a local read."""
    return (mixed - local_share * local) / (1 - local_share)


@dataclass(frozen=True)
class Target:
    """One row of the table: what is measured, how it follows from a round's figures, and what it should be."""

    measure: str
    value: Callable[[Round], float]
    bound: float
    at_least: bool
    unit: str = ""

    def values(self, rounds: list[Round]) -> list[float]:
        values = []
        for figures in rounds:
            try:
                values.append(self.value(figures))
            except (KeyError, ZeroDivisionError):
                continue  # Not measured in this round.
        return values

    def row(self, rounds: list[Round]) -> list[str]:
        sign = "≥" if self.at_least else "≤"
        wanted = f"{sign} {number(self.bound)}{self.unit}"
        values = self.values(rounds)
        if not values:
            return [self.measure, wanted, "not measured", "", "SKIPPED"]
        middle = median(values)
        met = middle >= self.bound if self.at_least else middle <= self.bound
        spread = f"{number(min(values))} to {number(max(values))}, {len(values)} rounds"
        return [self.measure, wanted, f"{number(middle)}{self.unit}", spread, "pass" if met else "MISS"]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def medians(rounds: list[Round]) -> list[list[str]]:
    names = sorted({name for figures in rounds for name in figures})
    found = {name: [figures[name] for figures in rounds if name in figures] for name in names}
    return [[name, number(median(v)), number(min(v)), number(max(v))] for name, v in found.items()]


def wrk_figures(text: str) -> tuple[float, float, int]:
    """Requests per second, p99 in ms and the number of requests, from `wrk --latency`."""
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))
    amount, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()
    count = int(re.search(r"(\d+) requests in", text).group(1))
    if (bad := re.search(r"Non-2xx or 3xx responses: (\d+)", text)) is not None:
        raise ValueError(f"wrk: {bad.group(0)}")
    return rate, float(amount) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit], count


def latency(results: dict, table: str, label: str) -> dict[str, float]:
    """One row of percentiles in a runner's results."""
    return next(row for row in results["rows"] if (row["table"], row["label"]) == (table, label))


def extra_tries(results: dict) -> float:
    """Tries beyond the first of each operation, in percent of the operations."""
    return results["totals"]["extra_tries"] / results["totals"]["total"] * 100


def timed_out(results: dict) -> float:
    """Tries that got no answer in time, of all operations and nodes."""
    return sum(op["timed_out"] for op in results["reconciliation"]["ops"])


@dataclass(frozen=True)
class Summary:
    """What the runners' summary says."""

    total: int
    errors: int
    local: int
    remote: int
    seconds: float
    percentiles_ms: dict[str, float]

    @property
    def rate(self) -> float:
        return self.total / self.seconds

    @property
    def local_share(self) -> float:
        return self.local / max(self.local + self.remote, 1)


def summary(text: str) -> Summary:
    """Reads the lines that every summary has."""
    total = re.search(r"^Total: (\d+) .*Errors: (\d+)", text, re.MULTILINE)
    hits = re.search(r"^Hits: local=(\d+) remote=(\d+)", text, re.MULTILINE)
    took = re.search(r"ops/s for ([\d.]+) s", text)
    if total is None or hits is None or took is None:
        raise ValueError(f"no summary in:\n{text[-2000:]}")
    line = re.search(r"^GET p50=.*$", text, re.MULTILINE).group(0)
    percentiles = {}
    for part in line.split("|"):
        op = part.split()[0]
        for name, value in re.findall(r"(p[\d.]+)=([\d.]+)ms", part):
            percentiles[f"{op} {name}"] = float(value)
    return Summary(*map(int, total.groups()), *map(int, hits.groups()), float(took.group(1)), percentiles)


def worst(found: Summary, name: str) -> float:
    """The larger of the GETs' and the SETs' percentile."""
    return max(value for key, value in found.percentiles_ms.items() if key.endswith(f" {name}"))


def redis_rate(text: str, test: str) -> Optional[float]:
    """Requests per second of one test, from `redis-benchmark --csv`."""
    found = re.search(rf'^"{test}[^"]*","([\d.]+)"', text, re.MULTILINE | re.IGNORECASE)
    return float(found.group(1)) if found else None
