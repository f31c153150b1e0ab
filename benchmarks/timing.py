"""Time several contestants by turns, and print medians and ratios."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

OURS = "sk_mlp"


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant in one case."""

    case: str
    contestant: str
    seconds: list[float]

    @property
    def median(self) -> float:
        """Median over the repetitions."""
        return statistics.median(self.seconds)


def interleave(case: str, contestants: Mapping[str, Callable[[], object]], repetitions: int) -> list[Timing]:
    """Run every contestant once to warm up, then all of them by turns, `repetitions` times."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repetition in range(repetitions + 1):
        for name, run in contestants.items():
            start = perf_counter()
            run()
            if repetition > 0:
                seconds[name].append(perf_counter() - start)
    return [Timing(case, name, values) for name, values in seconds.items()]


def table(timings: list[Timing]) -> str:
    """Return a Markdown table of one case's timings, and of each median over ours."""
    ours = next(timing for timing in timings if timing.contestant == OURS)
    lines = [f"### {ours.case}", "", "| | median ms | min | max | times ours |", "|---|---|---|---|---|"]
    for timing in timings:
        low, high = min(timing.seconds) * 1e3, max(timing.seconds) * 1e3
        ratio = timing.median / ours.median
        lines.append(f"| {timing.contestant} | {timing.median * 1e3:.3g} | {low:.3g} | {high:.3g} | {ratio:.2f} |")
    return "\n".join([*lines, ""])


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    packages = ("torch", "scikit-learn", "numpy", "scipy", "skorch")
    return {
        "processor": _processor(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def to_json(timings: list[Timing]) -> str:
    """Return all timings for machines."""
    return json.dumps({"machine": machine(), "timings": [asdict(timing) for timing in timings]}, indent=1)


def has_native_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 itself."""
    return bool({"avx512_bf16", "amx_bf16"} & _flags())


def _flags() -> set[str]:
    """Return the processor's instruction sets that matter here."""
    path = Path("/proc/cpuinfo")
    words = set(path.read_text().split()) if path.exists() else set()
    return words & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"}


def _processor() -> str:
    """Name the processor, its cores and its instructions."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {' '.join(sorted(_flags()))}"
