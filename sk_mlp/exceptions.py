"""Warnings of this package."""

from __future__ import annotations

from sklearn.exceptions import ConvergenceWarning


class UntrainedWarning(ConvergenceWarning):
    """A fit has ended, and its network is of no use.

    It predicts no better than the best constant does, by the loss that was minimised; or its weights have hardly moved;
    or early stopping went by a score that was the same after each epoch. The message names the likely cause, as it was
    measured. Who ignores scikit-learn's `ConvergenceWarning` ignores this one, too.

    Examples
    --------
    >>> import warnings
    >>> from sk_mlp.exceptions import UntrainedWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", UntrainedWarning)  # a search gives such candidates its `error_score`
    """
