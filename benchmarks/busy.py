"""Time fits and searches beside busy processes: `python -m benchmarks.busy`, with the options of `benchmarks.fit`.

A busy process burns its processor in Python, as a browser, a notebook or another job would. Alone, beside one and
beside two: by turns in one run, so that whoever else is on the machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import perf_counter

from . import fit, search
from .timing import OURS, Timing, machine, to_json

Contestants = Mapping[str, Callable[[], object]]
LOADS = (0, 1, 2)
# Cases of the other benchmarks, and who is too slow to wait for here.
CASES = {
    **{name: fit.CASES[name] for name in fit.CASES if "batch" in name and "sparse" not in name},
    **{name: search.CASES[name] for name in search.CASES if "grid" in name},
}
SLOW = {"skorch", search.ONE_BY_ONE}


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


def main() -> None:
    """Parse the command line, run the cases, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ours alone, in the short cases")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--repetitions", type=int, default=3, help="of each case and load (default: 3)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    found: list[Timing] = []
    if not arguments.json:
        print(f"## Beside busy processes\n\n{machine()}\n")
    for name, (contestants, is_long) in CASES.items():
        if arguments.case not in name or (arguments.quick and is_long):
            continue
        made = contestants()
        chosen = {who: made[who] for who in made if (who == OURS if arguments.quick else who not in SLOW)}
        timings = interleave(name, chosen, arguments.repetitions)
        found += timings
        if not arguments.json:
            print(table(timings), flush=True)
    if arguments.json:
        print(to_json(found))


if __name__ == "__main__":
    main()
