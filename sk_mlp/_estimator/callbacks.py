"""scikit-learn's callback protocol. Values for callbacks are computed only if a callback asks for them.

A fit is a task whose subtasks are its epochs (iterations with L-BFGS). See
https://scikit-learn.org/stable/developers/callbacks.html for the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator

from sk_mlp._compute.modes import Surroundings, called_in
from sk_mlp._training.task import FitResult

from .sklearn_private import begin_fit_of_callbacks, has_callbacks


class Callbacks:
    """The callbacks of one fit, called in the user's surroundings.

    `fitted` maps the result of a training so far to the attributes of a fitted estimator.
    """

    def __init__(self, estimator: BaseEstimator, users: Surroundings, X: Any, y: Any, sample_weight: Any) -> None:
        self._users = users
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._values = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._fit = begin_fit_of_callbacks(estimator, estimator.max_iter)
        self._fit.call_on_fit_task_begin(**self._values)
        self.fitted: Callable[[FitResult], dict[str, Any]] = lambda result: {}

    def begin_epoch(self, so_far: Callable[[], FitResult]) -> None:
        """Tell the callbacks that an epoch begins."""
        called_in(self._users, self._begin_epoch)(so_far)

    def _begin_epoch(self, so_far: Callable[[], FitResult]) -> None:
        self._epoch = self._fit.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._values, reconstruction_attributes=lambda: self.fitted(so_far()))

    def end_epoch(self, so_far: Callable[[], FitResult]) -> bool:
        """Tell the callbacks that the epoch has ended, and return True if one of them stops the training."""
        is_wanted: bool = called_in(self._users, self._epoch.call_on_fit_task_end)(
            **self._values, reconstruction_attributes=lambda: self.fitted(so_far())
        )
        return is_wanted

    def end_fit(self, result: FitResult) -> None:
        """Tell the callbacks that the fit has ended."""
        with self._users.installed():
            self._fit.call_on_fit_task_end(**self._values, reconstruction_attributes=lambda: self.fitted(result))


def callbacks_of(estimator: BaseEstimator, users: Surroundings, X: Any, y: Any, sample_weight: Any) -> Callbacks | None:
    """Return the callbacks of a fit that begins; None if the estimator has none."""
    return Callbacks(estimator, users, X, y, sample_weight) if has_callbacks(estimator) else None
