"""What a training has seen so far, and when that ends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .history import Epoch, History
from .settings import Settings


class Progress(NamedTuple):
    """What a training has seen so far; a warm start or `partial_fit` goes on from here.

    `rate_factor` multiplies `learning_rate_init`, as `schedule` left it `n_scheduled` epochs after its beginning; `t`
    counts training rows seen.
    """

    history: History = History()  # which does not change
    best_loss: float = np.inf
    best_score: float = -np.inf
    no_improvement: int = 0
    t: int = 0
    schedule: str = "constant"
    n_scheduled: int = 0
    rate_factor: float = 1.0

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Progress:
        """Return the progress that `plain` has written."""
        return cls(**{**plain, "history": History.of(plain["history"])})

    def plain(self) -> dict[str, Any]:
        """Return the same as a dictionary of numbers, text and arrays."""
        return {**self._asdict(), "history": self.history.plain()}

    def fresh_rate(self) -> Progress:
        """Return the same progress at the beginning of the schedule, as a new optimizer has it."""
        return self._replace(rate_factor=1.0, n_scheduled=0)

    def fresh_score(self) -> Progress:
        """Return the same progress without a best score, where the next ones are of another kind."""
        return self._replace(best_score=-np.inf, no_improvement=0)


def observe(progress: Progress, settings: Settings, epoch: Epoch, n_rows: int) -> Progress:
    """Return the progress after one more epoch over `n_rows` rows.

    With early stopping the validation score counts, else the loss. An epoch is an improvement unless it falls short of
    the best by `tol`. Not-a-number never falls short, as in scikit-learn, and never becomes the best: `min` and `max`
    keep their first argument then.
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
    """Tell whether more than `n_iter_no_change` epochs in a row brought no improvement."""
    return progress.no_improvement > settings.n_iter_no_change
