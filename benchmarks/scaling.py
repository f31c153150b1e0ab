"""Time an epoch against the number of rows and the width: `python -m benchmarks.scaling --plot docs/scaling.png`."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np

from . import peers
from .peers import Job
from .timing import OURS, interleave, machine

mpl.use("Agg")
import matplotlib.pyplot as plt

CONTESTANTS: dict[str, Callable[[Job], Callable[[], object]]] = {
    OURS: peers.ours,
    "scikit-learn": peers.scikit_learn,
    "skorch": peers.skorch,
    "torch loop": peers.torch_loop,
    "products alone": peers.floor,
}
ROWS = [1_000, 10_000, 100_000, 1_000_000]
WIDTHS = [16, 64, 256, 1024, 2048]
# Above these the slow ones would take minutes a fit.
LIMITS = {"scikit-learn": 100_000, "skorch": 100_000}


def _job(n: int, width: int) -> Job:
    rng = np.random.default_rng(0)
    return Job(rng.standard_normal((n, 50)), rng.integers(10, size=n), (width,), 200, 1)


def _seconds(job: Job, repetitions: int) -> dict[str, float]:
    """Return the median time of one epoch for everyone who can be waited for."""
    able = {name: make(job) for name, make in CONTESTANTS.items() if len(job.X) <= LIMITS.get(name, np.inf)}
    return {timing.contestant: timing.median for timing in interleave("", able, repetitions)}


def _draw(found: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Draw time against rows and against width, log-log."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    labels = {"rows": "rows (50 features, 100 units)", "width": "units (10,000 rows, 50 features)"}
    for axes, (axis, points) in zip(panels, found.items(), strict=True):
        for name in CONTESTANTS:
            at = [x for x in points if name in points[x]]
            axes.loglog(at, [points[x][name] for x in at], "k:" if name == "products alone" else "o-", label=name)
        axes.set(xlabel=labels[axis], ylabel="seconds an epoch, batch 200")
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print seconds and microseconds a row, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, help="where to write a PNG")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {
        "rows": {n: _seconds(_job(n, 100), arguments.repetitions) for n in ROWS},
        "width": {width: _seconds(_job(10_000, width), arguments.repetitions) for width in WIDTHS},
    }
    print(json.dumps({"machine": machine(), "seconds": found}, indent=1))
    for n, seconds in found["rows"].items():
        floors = seconds[OURS] / seconds["products alone"]
        print(f"{n:>9} rows: {seconds[OURS] / n * 1e6:.2f} us a row, {floors:.2f} times the products alone")
    if arguments.plot:
        _draw(found, arguments.plot)


if __name__ == "__main__":
    main()
