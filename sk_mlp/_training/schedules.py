"""Learning rates as functions of progress: the factor of `learning_rate_init` in each epoch.

A schedule can change the factor before every epoch, and at a plateau (no improvement for more than `n_iter_no_change`
epochs), where it may lower the rate instead of stopping the training. During warmup, another factor multiplies it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, isfinite, pi
from numbers import Real
from typing import NamedTuple

from .progress import Progress
from .settings import Settings

_SMALLEST_RATE = 1e-6  # "adaptive" and "plateau" stop if the rate is not above this
# The defaults of torch.optim.lr_scheduler.OneCycleLR.
_RISE, _FIRST_FACTOR, _LAST_FACTOR = 0.3, 1 / 25, 1 / 250_000


def _stop(_progress: Progress, _settings: Settings) -> None:
    """Stop at a plateau."""


class Schedule(NamedTuple):
    """`factor` returns the factor of the next epoch, `on_plateau` a lower factor, or None to stop.

    `every_solver` is False for schedules only for SGD. `has_end` is True for schedules that end with `max_iter` epochs,
    so that training is then complete.
    """

    factor: Callable[[Progress, Settings], float]
    on_plateau: Callable[[Progress, Settings], float | None] = _stop
    every_solver: bool = True
    has_end: bool = False

    @property
    def lowers(self) -> bool:
        """Whether a plateau lowers the rate, until it is too small."""
        return self.on_plateau is not _stop


def _same(progress: Progress, _settings: Settings) -> float:
    """Return the factor of the last epoch."""
    return progress.rate_factor


def _inverse_scaling(progress: Progress, settings: Settings) -> float:
    """Return `1 / (t + 1)**power_t`, with `t` the training rows seen so far; a new optimizer begins at 1."""
    try:
        return 1.0 / (progress.t + 1) ** settings.power_t if progress.n_scheduled else 1.0
    except OverflowError:
        raise ValueError(
            f"power_t must leave (t + 1)**power_t a number for all training rows t, got {settings.power_t!r} at "
            f"t={progress.t}"
        ) from None


def _divide_by(divisor: float) -> Callable[[Progress, Settings], float | None]:
    """Return a function that divides the factor at a plateau, until the rate is too small."""

    def lower(progress: Progress, settings: Settings) -> float | None:
        if settings.learning_rate_init * progress.rate_factor <= _SMALLEST_RATE:
            return None
        return progress.rate_factor / divisor

    return lower


def _between(start: float, stop: float, share: float) -> float:
    """Return the value at `share` of half a cosine wave from `start` to `stop`."""
    return stop + (start - stop) * (1 + cos(pi * min(share, 1.0))) / 2


def _share(progress: Progress, settings: Settings) -> float:
    """Return the completed fraction of the epochs after the warmup."""
    n = settings.max_iter - settings.warmup_epochs
    return max(0, progress.n_scheduled - settings.warmup_epochs) / max(1, n)


def _cosine(progress: Progress, settings: Settings) -> float:
    """Return a factor that falls from 1 to 0 (Loshchilov and Hutter, "SGDR", 2017)."""
    return _between(1.0, 0.0, _share(progress, settings))


def _one_cycle(progress: Progress, settings: Settings) -> float:
    """Return a factor that rises to 1 and falls again (Smith and Topin, "Super-convergence", 2018)."""
    share = _share(progress, settings)
    if share < _RISE:
        return _between(_FIRST_FACTOR, 1.0, share / _RISE)
    return _between(1.0, _LAST_FACTOR, (share - _RISE) / (1 - _RISE))


def _called(progress: Progress, settings: Settings) -> float:
    """Return the factor of the user-defined function of the epoch."""
    assert callable(settings.learning_rate)
    factor = settings.learning_rate(progress.n_scheduled)
    if not isinstance(factor, Real) or not isfinite(factor) or factor < 0:
        raise ValueError(
            f"learning_rate must return a finite factor >= 0 for each epoch, got {factor!r} for {progress.n_scheduled}"
        )
    return float(factor)


SCHEDULES = {
    "constant": Schedule(_same, every_solver=False),
    "invscaling": Schedule(_inverse_scaling, every_solver=False),
    "adaptive": Schedule(_same, _divide_by(5.0), every_solver=False),
    "cosine": Schedule(_cosine, has_end=True),
    "one_cycle": Schedule(_one_cycle, has_end=True),
    "plateau": Schedule(_same, _divide_by(10.0)),
}
_CALLED = Schedule(_called)


def schedule_name(settings: Settings) -> str:
    """Return the name of the schedule that is used; as in scikit-learn, its three schedules are only for SGD."""
    if not isinstance(settings.learning_rate, str):
        return "callable"
    serves = SCHEDULES[settings.learning_rate].every_solver or settings.solver == "sgd"
    return settings.learning_rate if serves else "constant"


def schedule_of(progress: Progress) -> Schedule:
    """Return the schedule that a training follows."""
    return SCHEDULES.get(progress.schedule, _CALLED)


def take_up(progress: Progress, settings: Settings) -> Progress:
    """Return the progress to continue from; if the schedule has changed, at the beginning of the new one."""
    name = schedule_name(settings)
    return progress if progress.schedule == name else progress.fresh_rate()._replace(schedule=name)


def with_next_rate(progress: Progress, settings: Settings) -> Progress:
    """Return progress with the rate of its next epoch."""
    factor = schedule_of(progress).factor(progress, settings)
    return progress if factor == progress.rate_factor else progress._replace(rate_factor=factor)


def rate(progress: Progress, settings: Settings) -> float:
    """Return the learning rate of the next epoch; during warmup it grows in equal steps."""
    warmth = min(1.0, (progress.n_scheduled + 1) / (settings.warmup_epochs + 1))
    return settings.learning_rate_init * progress.rate_factor * warmth
