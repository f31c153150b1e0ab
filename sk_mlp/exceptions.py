"""Warnings of this package."""

from __future__ import annotations

from sklearn.exceptions import ConvergenceWarning


class UntrainedWarning(ConvergenceWarning):
    """Warning that the network of a finished fit is not useful.

    The loss that was minimized is no better than that of the best constant prediction, or the weights have hardly
    changed, or early stopping monitored a score that was the same after each epoch. The message names the likely cause
    and the measured values. A filter that ignores scikit-learn's `ConvergenceWarning` also ignores this warning.

    Examples
    --------
    >>> import warnings
    >>> from sk_mlp.exceptions import UntrainedWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", UntrainedWarning)  # a search gives such candidates its `error_score`
    """
