"""Time fits and searches beside busy processes: `python -m benchmarks.busy`, with the options of `benchmarks.fit`.

A busy process burns its processor in Python, as a browser, a notebook or another job would. Alone, beside one and
beside two: by turns in one run, so that whoever else is on the machine disturbs all alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter

from . import fit, search
from .timing import Timing

Contestants = Mapping[str, Callable[[], object]]
LOADS = (0, 1, 2)
SLOW = {"skorch", search.ONE_BY_ONE}  # to be waited for here


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Have `n` other processes burn their processors."""
    with ExitStack() as stack:
        for _ in range(n):
            process = subprocess.Popen(
                [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()  # it is there
        yield


def interleave(case: str, contestants: Contestants, repetitions: int) -> list[Timing]:
    """Run every contestant once to warm up, then all of them by turns under each load, `repetitions` times."""
    seconds: dict[tuple[str, int], list[float]] = {(name, load): [] for name in contestants for load in LOADS}
    for run in contestants.values():
        run()
    for _ in range(repetitions):
        for load in LOADS:
            with busy(load):
                for name, run in contestants.items():
                    start = perf_counter()
                    run()
                    seconds[name, load].append(perf_counter() - start)
    return [Timing(case, f"{name}, {load} busy", values) for (name, load), values in seconds.items()]


def table(timings: list[Timing]) -> str:
    """Return a Markdown table: a line for each contestant, milliseconds alone, and times that beside others."""
    medians: dict[str, list[float]] = {}
    for timing in timings:
        medians.setdefault(timing.contestant.rsplit(",", 1)[0], []).append(statistics.median(timing.seconds))
    lines = [f"### {timings[0].case}", "", "| | ms alone | beside one | beside two |", "|---|---|---|---|"]
    for name, (alone, *beside) in medians.items():
        ratios = " | ".join(f"{median / alone:.2f}" for median in beside)
        lines.append(f"| {name} | {alone * 1e3:.3g} | {ratios} |")
    return "\n".join([*lines, ""])


def _without_slow(contestants: Callable[[], Contestants]) -> Contestants:
    return {name: run for name, run in contestants().items() if name not in SLOW}


# Cases of the other benchmarks.
CASES = {
    name: (partial(_without_slow, contestants), is_long)
    for name, (contestants, is_long) in {**fit.CASES, **search.CASES}.items()
    if "batch" in name and "sparse" not in name
}

if __name__ == "__main__":
    fit.main(CASES, "Beside busy processes", interleave, table)
