"""Whether something else used the machine while it was measured."""

import os
import resource

from processes import cpu_ticks

# Of all cores' time, in percent: more than this was taken by the hypervisor, or by programs that are none of ours.
STOLEN_MAX, OTHERS_MAX = 3.0, 8.0


class Disturbance:
    """Counts from where it is made. Ours is what this process and its children use, if they have ended."""

    def __init__(self):
        self._before = sample()

    def reason(self) -> str | None:
        """What took too much of the machine since, if anything did."""
        return reason(self._before, sample())


def sample() -> tuple[float, float, float, float]:
    """In seconds of all cores: all, stolen, busy in processes, and ours of it."""
    user, nice, system, idle, wait, irq, softirq, steal = cpu_ticks()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    total = user + nice + system + idle + wait + irq + softirq + steal
    return total * tick_s, steal * tick_s, (user + nice + system) * tick_s, sum(each.ru_utime + each.ru_stime for each in used)


def reason(before: tuple[float, float, float, float], after: tuple[float, float, float, float]) -> str | None:
    """See [`Disturbance`]."""
    total, stolen, busy, ours = (late - early for early, late in zip(before, after))
    if total <= 0:
        return None
    shares = {"the hypervisor": (stolen / total * 100, STOLEN_MAX), "other programs": (max(0.0, busy - ours) / total * 100, OTHERS_MAX)}
    found = [f"{who} took {percent:.0f} % of the machine, more than {most:.0f} %" for who, (percent, most) in shares.items() if percent > most]
    return " and ".join(found) or None
