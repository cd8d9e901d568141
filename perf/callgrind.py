"""What callgrind wrote, per operation: instructions, by function, and allocations, by who asked for them."""

import re
from dataclasses import dataclass, field

# jemalloc's entries under the prefix of the crate tikv-jemallocator, and what the compiler puts in front of them.
ALLOCATORS = re.compile(
    r"_rjem_(malloc|calloc|realloc|mallocx|rallocx|posix_memalign|aligned_alloc)$"
    r"|(.*::)?(__rust|__rg|__rdl)_(alloc|alloc_zeroed|realloc)$"
)
NUMBERED = re.compile(r"\((\d+)\)(?: (.*))?$")
# Recursion levels, and what a link with optimisation appends.
ENDINGS = re.compile(r"('\d+|\.llvm\.\d+|::h[0-9a-f]{16}|\.constprop\.\d+|\.isra\.\d+|\.part\.\d+)+$")


@dataclass
class Profile:
    """Figures of one operation, a mean over all that were counted."""

    instructions: float = 0.0
    allocations: float = 0.0
    functions: dict = field(default_factory=dict)
    sites: dict = field(default_factory=dict)


def parse(lines, operations):
    """Adds up a profile of so many operations from the lines of one dump.

    The format is that of the Callgrind Format Specification: a cost line is `POSITION INSTRUCTIONS` and belongs to the last `fn=`,
    but the one after `calls=` is what the callee took, which is counted where the callee stands."""
    names, function, callee, skips = {}, "", "", False
    total, functions, sites = 0, {}, {}

    def name_of(text):
        number, name = NUMBERED.match(text).groups()
        if name is not None:
            names[number] = ENDINGS.sub("", name)
        return names[number]

    for line in lines:
        if line[:1].isdigit() or line.startswith(("+", "-", "*")):
            if not skips:
                cost = int(line.split()[1])
                total += cost
                functions[function] = functions.get(function, 0) + cost
            skips = False
        elif line.startswith("fn="):
            function = name_of(line[3:].rstrip())
        elif line.startswith("cfn="):
            callee = name_of(line[4:].rstrip())
        elif line.startswith("calls="):
            skips = True
            if ALLOCATORS.match(callee) and not ALLOCATORS.match(function):
                calls = int(line[6:].split()[0])
                sites[function] = sites.get(function, 0) + calls

    def each(counts):
        return {name: count / operations for name, count in counts.items()}

    return Profile(total / operations, sum(sites.values()) / operations, each(functions), each(sites))
