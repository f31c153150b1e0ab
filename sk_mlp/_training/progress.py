"""The progress of a training so far, and when it ends the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .history import Epoch, History
from .settings import Settings


class Progress(NamedTuple):
    """The progress of a training so far; a warm start or `partial_fit` continues from it.

    `rate_factor` multiplies `learning_rate_init`; `schedule` has set it, in its `n_scheduled` epochs so far. `t` is the
    number of training rows seen.
    """

    history: History = History()  # a history does not change, so the default can be shared
    best_loss: float = np.inf
    best_score: float = -np.inf
    no_improvement: int = 0
    t: int = 0
    schedule: str = "constant"
    n_scheduled: int = 0
    rate_factor: float = 1.0

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Progress:
        """Return the progress from the dictionary of `plain`."""
        return cls(**{**plain, "history": History.of(plain["history"])})

    def plain(self) -> dict[str, Any]:
        """Return the progress as a dictionary of numbers, strings and arrays."""
        return {**self._asdict(), "history": self.history.plain()}

    def fresh_rate(self) -> Progress:
        """Return the same progress at the beginning of the schedule, for a new optimizer."""
        return self._replace(rate_factor=1.0, n_scheduled=0)

    def fresh_score(self) -> Progress:
        """Return the same progress without a best score, if the next scores cannot be compared with it."""
        return self._replace(best_score=-np.inf, no_improvement=0)


def observe(progress: Progress, settings: Settings, epoch: Epoch, n_rows: int) -> Progress:
    """Return the progress after one more epoch over `n_rows` rows.

    With early stopping the validation score counts, otherwise the loss. An epoch counts as an improvement unless it is
    less than `tol` better than the best. As in scikit-learn, NaN counts as an improvement; but NaN never becomes the
    best, because `min` and `max` then return their first argument.
    """
    best_loss, best_score, score = progress.best_loss, progress.best_score, epoch.validation_score
    if settings.early_stopping and score is not None:
        falls_short = score < best_score + settings.tol
    else:
        falls_short = epoch.loss > best_loss - settings.tol
        best_loss = min(best_loss, epoch.loss)
    return progress._replace(
        best_loss=best_loss,
        best_score=best_score if score is None else max(best_score, score),
        no_improvement=progress.no_improvement + 1 if falls_short else 0,
        t=progress.t + n_rows,
        n_scheduled=progress.n_scheduled + 1,
    )


def on_plateau(progress: Progress, settings: Settings) -> bool:
    """Whether more than `n_iter_no_change` consecutive epochs had no improvement."""
    return progress.no_improvement > settings.n_iter_no_change
