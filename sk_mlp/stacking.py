"""Where a fit's task meets its solver."""

from __future__ import annotations

from ._lbfgs import minimise
from ._task import FitResult, FitTask
from ._training import train


def run(task: FitTask) -> FitResult:
    """Carry out one task and return what came of it."""
    if task.settings.solver == "lbfgs":
        return minimise(task)
    return train([task])[0]
