"""What each page answers about the run that has just ended, with links that open at its time."""

import time
import urllib.parse

# Before a fault and after it, so that both sides of it are on the page.
MARGIN_S = 15

CLIENT_P99 = 'histogram_quantile(0.99, sum by (le, op) (rate(runner_op_duration_seconds_bucket{run_id="%s"}[4s])))'
UP = 'sum by (instance) (up{job="mesh-node"})'
BOARD = "mesh-bench"


def guide(results: dict, grafana: str | None, jaeger: str | None, prometheus: str | None) -> list[str]:
    """Lines for a terminal: a question, and below it where the answer is."""
    start, end, what = moment(results)
    found = []
    asked = f"What did clients see{what}?"
    if grafana:
        around = urllib.parse.urlencode({"from": int(start * 1000), "to": int(end * 1000), "var-run_id": results["run_id"]})
        found.append((asked, f"{grafana}/d/{BOARD}?{around}"))
    elif prometheus:
        found.append((asked, graph(prometheus, CLIENT_P99 % results["run_id"], start, end)))
    slowest = max((each for each in results["slowest"] if each["trace"]), key=lambda each: each["response_ms"], default=None)
    if jaeger and slowest:
        at = clock(load_began(results) + slowest["at_s"])
        asked = f"Why did a {slowest['op'].upper()} take {slowest['response_ms']:.0f} ms, until {at}, longest of all that were traced?"
        found.append((asked, f"{jaeger}/trace/{slowest['trace']}"))
    if prometheus:
        found.append(("Which node did not answer, and for how long?", graph(prometheus, UP, start, end)))
    return [line for question, link in found for line in (f"  {question}", f"      {link}")]


def first_fault(results: dict) -> dict | None:
    return next((each for each in results["faults"] if each["begun_at_unix_ms"]), None)


def load_began(results: dict) -> float:
    """Times of the results count from there."""
    fault = first_fault(results)
    if fault:
        return fault["begun_at_unix_ms"] / 1000 - fault["begun_at_s"]
    return results["began_unix_ms"] / 1000 + results["prefill_s"]


def moment(results: dict) -> tuple[float, float, str]:
    """From when to when the pages are to look, and at what: the first fault, or all of the run."""
    fault = first_fault(results)
    if fault is None:
        return results["began_unix_ms"] / 1000, results["ended_unix_ms"] / 1000, ""
    at = fault["begun_at_unix_ms"] / 1000
    over = at + ((fault["recovered_at_s"] or fault["ended_at_s"] or fault["begun_at_s"]) - fault["begun_at_s"])
    return at - MARGIN_S, over + MARGIN_S, f" when {fault['fault']} struck at {clock(at)}"


def graph(prometheus: str, expr: str, start: float, end: float) -> str:
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(end))
    asked = {"g0.expr": expr, "g0.tab": 0, "g0.range_input": f"{end - start:.0f}s", "g0.end_input": until, "g0.moment_input": until}
    return f"{prometheus}/graph?{urllib.parse.urlencode(asked)}"


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
