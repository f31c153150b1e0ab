"""The parameters and data that a fit reads, all of them checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import check_scoring

from sk_mlp._compute.device import resolve_device
from sk_mlp._network.architecture import Architecture
from sk_mlp._objective import Objective
from sk_mlp._training import run
from sk_mlp._training.task import Table
from sk_mlp._training.weights import Scaled, penalty_for

from .fitted import description_of
from .inputs import (
    hidden_sizes,
    require_pair,
    training_data,
)
from .parameters import check_representable, check_together, warn_of_unread
from .targets import Codec, labels_for_numpy

if TYPE_CHECKING:
    from .base import BaseMLPTorch


class FitMode(NamedTuple):
    """How to fit: whether to continue from the fitted state, whether for one epoch only, and the classes if given."""

    goes_on: bool
    one_epoch: bool = False
    classes: np.ndarray | None = None


class Sample(NamedTuple):
    """Rows in the form in which a user passes them."""

    X: Any
    y: Any
    sample_weight: Any = None


class Reading(NamedTuple):
    """The parameters and data of a fit, checked before anything is drawn or built."""

    device: torch.device
    architecture: Architecture
    codec: Codec
    objective: Objective
    table: Table
    validation: Table | None  # the rows X_val
    n_held_out: int  # number of rows to hold out
    scorer: Callable[..., float] | None
    scored: Sample  # rows for the scorer; if n_held_out > 0, all rows, from which held-out rows are drawn later


def read(estimator: BaseMLPTorch, train: Sample, validation: Sample, mode: FitMode) -> Reading:
    """Read parameters and data. Raises ValueError if they are not valid."""
    device = resolve_device(estimator.device, estimator.dtype)
    check_together(estimator, has_validation=validation.X is not None)
    check_representable(estimator)
    require_pair(*validation)
    if mode.one_epoch and _splits(estimator, validation):
        raise ValueError("partial_fit does not support early_stopping=True without X_val: it keeps no split")
    hidden = hidden_sizes(estimator.hidden_layer_sizes)
    X, y, weight = _read_sample(estimator, train, reset=not mode.goes_on)
    y_read = estimator._read_y(y)
    codec = estimator._codec_for(y_read, mode)
    target = codec.encode(y_read, estimator._precision.array)
    weigh = estimator._weighing(codec, target, weight, mode)
    objective = estimator._objective(codec)
    n_held_out = 0
    if _splits(estimator, validation):
        n_held_out = size_of_split(len(target), estimator.validation_fraction, codec.strata(target))
    widths = () if estimator.module is not None else hidden
    layer_sizes = (X.shape[1], *widths, codec.n_outputs * objective.n_raw)
    architecture = Architecture(description_of(estimator, layer_sizes), estimator.init)
    architecture.check()
    table = _table(run.held(X, train.X), target, weigh(target, weight))
    penalty_for(estimator.alpha, table.exponent, estimator._precision.array)  # raises
    to_validate = None if validation.X is None else _validation_table(estimator, validation, codec, weigh)
    scorer = None if estimator.scoring in (None, "loss") else check_scoring(estimator, estimator.scoring)
    scored = _sample_to_score(train, validation, table, y) if scorer else validation
    warn_of_unread(estimator, has_validation=validation.X is not None, one_epoch=mode.one_epoch)
    return Reading(device, architecture, codec, objective, table, to_validate, n_held_out, scorer, scored)


def _splits(estimator: BaseMLPTorch, validation: Sample) -> bool:
    """Whether rows are to be held out."""
    return estimator.early_stopping and estimator.solver != "lbfgs" and validation.X is None


def _read_sample(estimator: BaseMLPTorch, sample: Sample, reset: bool) -> tuple[Any, Any, np.ndarray | None]:
    """Return validated X, y and weights."""
    has_numbers = isinstance(estimator, RegressorMixin)
    sample = sample if has_numbers else sample._replace(y=labels_for_numpy(sample.y))
    return training_data(estimator, *sample, dtype=estimator._precision.array, reset=reset, y_numeric=has_numbers)


def _validation_table(
    estimator: BaseMLPTorch, validation: Sample, codec: Codec, weigh: Callable[..., Scaled | None]
) -> Table:
    """Return the rows of `X_val`."""
    try:
        X, y, weight = _read_sample(estimator, validation, reset=False)
        target = codec.encode(estimator._read_y(y), estimator._precision.array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"in X_val, y_val or sample_weight_val: {error}") from error
    weights = weigh(target, weight)
    if weights is not None and not weights.values.any():
        raise ValueError("X_val must have rows with a weight above 0, times class_weight, got only zeros")
    return _table(run.held(X, validation.X), target, weights)


def _table(X: Any, target: np.ndarray, weight: Scaled | None) -> Table:
    """Return a table of all rows."""
    values, exponent = (None, 0) if weight is None else weight
    return Table(X, target, values, np.arange(len(target)), exponent)


def _sample_to_score(train: Sample, validation: Sample, table: Table, y: Any) -> Sample:
    """Return the rows for the scorer, or those to draw held-out rows from; if possible, in the form that was passed."""
    if validation.X is not None:
        return Sample(*map(run.held_as_given, validation))
    # Some sparse formats cannot be indexed by rows.
    return Sample(table.X if sp.issparse(train.X) else train.X, y if sp.issparse(train.y) else train.y)


def size_of_split(n_samples: int, fraction: float, stratify: np.ndarray | None) -> int:
    """Return how many rows early stopping holds out. Raises ValueError unless both parts will have enough rows."""
    n_validation = int(np.ceil(fraction * n_samples))
    if n_validation < 2 or n_validation >= n_samples:
        raise ValueError(
            f"early_stopping must have at least 2 validation rows and 1 to train on, got {n_validation} and "
            f"{n_samples - n_validation} (validation_fraction={fraction} of {n_samples} samples)"
        )
    counts = [] if stratify is None else np.unique(stratify, return_counts=True)[1].tolist()
    if counts and (min(counts) < 2 or min(n_validation, n_samples - n_validation) < len(counts)):
        raise ValueError(
            f"y must have at least 2 rows of each class for early_stopping, and one of each class in both parts, got "
            f"{counts} rows of the classes and {n_validation} to hold out"
        )
    return n_validation
