"""When to stop: progress after an epoch, and whether it has been too small for too long."""

from __future__ import annotations

from .history import Epoch
from .task import Progress, Settings


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
