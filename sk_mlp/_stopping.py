"""When to stop: progress after an epoch, and whether it has been too small for too long."""

from __future__ import annotations

from dataclasses import replace

from ._task import Progress, Settings


def observe(progress: Progress, settings: Settings, loss: float, score: float | None, n_rows: int) -> Progress:
    """Return the progress after one more epoch over `n_rows` rows; `score` is None without early stopping.

    An epoch counts as an improvement unless it falls short of the best by `tol`. Not-a-number never falls short, as in
    scikit-learn, and never becomes the best: `min` and `max` keep their first argument then.
    """
    best_loss, best_score, scores = progress.best_loss, progress.best_score, progress.validation_scores
    if score is None:
        falls_short = loss > best_loss - settings.tol
        best_loss = min(best_loss, loss)
    else:
        falls_short = score < best_score + settings.tol
        best_score, scores = max(best_score, score), (*scores, score)
    return replace(
        progress,
        loss_curve=(*progress.loss_curve, loss),
        validation_scores=scores,
        best_loss=best_loss,
        best_score=best_score,
        no_improvement=progress.no_improvement + 1 if falls_short else 0,
        t=progress.t + n_rows,
    )


def on_plateau(progress: Progress, settings: Settings) -> bool:
    """Tell whether more than `n_iter_no_change` epochs in a row brought no improvement."""
    return progress.no_improvement > settings.n_iter_no_change
