"""Learning rates as functions of progress: what multiplies `learning_rate_init`, epoch by epoch.

A schedule has two moments: the end of every epoch, and a plateau (no improvement for more than `n_iter_no_change`
epochs), where it may lower the rate instead of letting the training stop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ._task import Progress, Settings

_SMALLEST_RATE = 1e-6  # below it "adaptive" stops
_ADAPTIVE_STEP = 5.0


class Schedule(NamedTuple):
    """`after_epoch` returns the next factor; `on_plateau` a lower one, or None to stop."""

    after_epoch: Callable[[Progress, Settings], float]
    on_plateau: Callable[[Progress, Settings], float | None]


def _same(progress: Progress, _settings: Settings) -> float:
    """Keep the rate."""
    return progress.rate_factor


def _inverse_scaling(progress: Progress, settings: Settings) -> float:
    """Return `1 / (t + 1)**power_t`, with `t` the training rows seen so far."""
    return 1.0 / (progress.t + 1) ** settings.power_t


def _stop(_progress: Progress, _settings: Settings) -> None:
    """Give up at a plateau."""


def _fifth(progress: Progress, settings: Settings) -> float | None:
    """Divide the rate by five, until it is too small to matter."""
    if settings.learning_rate_init * progress.rate_factor <= _SMALLEST_RATE:
        return None
    return progress.rate_factor / _ADAPTIVE_STEP


SCHEDULES = {
    "constant": Schedule(_same, _stop),
    "invscaling": Schedule(_inverse_scaling, _stop),
    "adaptive": Schedule(_same, _fifth),
}


def schedule_name(settings: Settings) -> str:
    """Name the schedule in force: as in scikit-learn, Adam knows a constant rate alone."""
    return settings.learning_rate if settings.solver == "sgd" else "constant"


def take_up(progress: Progress, settings: Settings) -> Progress:
    """Return progress to go on from; after another schedule than before, at the initial rate."""
    name = schedule_name(settings)
    return progress if progress.schedule == name else replace(progress, schedule=name, rate_factor=1.0)
