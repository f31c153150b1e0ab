"""What a fit reads of parameters and data, all of it checked first, and the tables that are drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import check_scoring
from sklearn.utils import _safe_indexing

from sk_mlp import stacking
from sk_mlp._compute.device import resolve_device
from sk_mlp._compute.modes import Surroundings, called_in
from sk_mlp._network.architecture import Architecture
from sk_mlp._network.state import State
from sk_mlp._objective import Objective
from sk_mlp._training.task import Table, Validation
from sk_mlp._training.weights import Scaled, penalty_for

from .attributes import twin_of
from .inputs import (
    accepts_sample_weight,
    hidden_sizes,
    require_pair,
    size_of_split,
    split_validation,
    training_data,
)
from .parameters import check_representable, check_together, warn_of_unread
from .targets import labels_for_numpy

if TYPE_CHECKING:
    from .base import BaseMLPTorch


class Call(NamedTuple):
    """What a call asks for: to go on from the fitted state, one epoch alone, all classes listed."""

    goes_on: bool
    one_epoch: bool = False
    classes: np.ndarray | None = None


class Sample(NamedTuple):
    """Rows as a user passes them."""

    X: Any
    y: Any
    sample_weight: Any = None


class Reading(NamedTuple):
    """What a fit reads, all of it checked before anything is drawn or built."""

    device: torch.device
    architecture: Architecture
    objective: Objective
    table: Table
    validation: Table | None  # rows that a user wants to validate on
    n_held_out: int  # rows to hold out
    scorer: Callable[..., float] | None
    scored: Sample  # rows for it, whole; those held out are still to be drawn from them


def read(estimator: BaseMLPTorch, train: Sample, validation: Sample, call: Call) -> Reading:
    """Read parameters and data; raise ValueError for what breaks a rule."""
    device = resolve_device(estimator.device, estimator.dtype)
    check_together(estimator, has_validation=validation.X is not None)
    check_representable(estimator)
    require_pair(*validation)
    if call.one_epoch and _splits(estimator, validation):
        raise ValueError("partial_fit does not support early_stopping=True without X_val: it keeps no split")
    hidden = hidden_sizes(estimator.hidden_layer_sizes)
    X, y, weight = _read_sample(estimator, train, reset=not call.goes_on)
    target = estimator._read_target(y, call)
    weigh = estimator._weighing(target, weight, call)
    objective = estimator._objective()
    n_held_out = 0
    if _splits(estimator, validation):
        n_held_out = size_of_split(len(target), estimator.validation_fraction, estimator._stratify(target))
    widths = () if estimator.module is not None else hidden
    layer_sizes = (X.shape[1], *widths, estimator.n_outputs_ * objective.n_raw)
    architecture = Architecture(estimator._description(layer_sizes), estimator.init)
    architecture.check()
    table = _table(stacking.held(X, train.X), target, weigh(target, weight))
    penalty_for(estimator.alpha, table.exponent, estimator._precision.array)  # raises
    to_validate = None if validation.X is None else _validation_table(estimator, validation, weigh)
    scorer = None if estimator.scoring in (None, "loss") else check_scoring(estimator, estimator.scoring)
    scored = _sample_to_score(train, validation, table, y) if scorer else validation
    warn_of_unread(estimator, has_validation=validation.X is not None, one_epoch=call.one_epoch)
    return Reading(device, architecture, objective, table, to_validate, n_held_out, scorer, scored)


def _splits(estimator: BaseMLPTorch, validation: Sample) -> bool:
    """Tell whether rows are to be held out."""
    return estimator.early_stopping and estimator.solver != "lbfgs" and validation.X is None


def _read_sample(estimator: BaseMLPTorch, sample: Sample, reset: bool) -> tuple[Any, Any, np.ndarray | None]:
    """Return validated X, y and weights."""
    has_numbers = isinstance(estimator, RegressorMixin)
    sample = sample if has_numbers else sample._replace(y=labels_for_numpy(sample.y))
    return training_data(estimator, *sample, dtype=estimator._precision.array, reset=reset, y_numeric=has_numbers)


def _validation_table(estimator: BaseMLPTorch, validation: Sample, weigh: Callable[..., Scaled | None]) -> Table:
    """Return the rows that a user wants to validate on."""
    try:
        X, y, weight = _read_sample(estimator, validation, reset=False)
        target = estimator._encode(y)
    except (TypeError, ValueError) as error:
        raise ValueError(f"in X_val, y_val or sample_weight_val: {error}") from error
    weights = weigh(target, weight)
    if weights is not None and not weights.values.any():
        raise ValueError("X_val must have rows with a weight above 0, times class_weight, got only zeros")
    return _table(stacking.held(X, validation.X), target, weights)


def _table(X: Any, target: np.ndarray, weight: Scaled | None) -> Table:
    """Return a table of all the rows."""
    values, exponent = (None, 0) if weight is None else weight
    return Table(X, target, values, np.arange(len(target)), exponent)


def draw_tables(
    estimator: BaseMLPTorch,
    reading: Reading,
    rng: np.random.RandomState | None,
    attributes: Callable[[State], dict[str, Any]],
    users: Surroundings,
) -> tuple[Table, Validation | None]:
    """Return the rows to train on, and those to validate on, if any."""
    table, checks, scored = reading.table, reading.validation, reading.scored
    if reading.n_held_out:
        stratify = estimator._stratify(table.target)
        rows, held_out = split_validation(
            len(table.rows), table.sample_weight, estimator.validation_fraction, stratify, rng
        )
        checks, table = table.of_rows(held_out), table.of_rows(rows)
    if checks is None or reading.scorer is None:
        by_loss = estimator._goes_by_loss(reading.objective)
        return table, None if checks is None else Validation(checks, by_loss=by_loss)
    if reading.n_held_out:
        scored = Sample(_safe_indexing(scored.X, checks.rows), _safe_indexing(scored.y, checks.rows))
    scored = scored._replace(sample_weight=checks.users_weight)
    score = _score_of(estimator, reading.scorer, scored, attributes)
    return table, Validation(checks, called_in(users, score))


def _sample_to_score(train: Sample, validation: Sample, table: Table, y: Any) -> Sample:
    """Return the rows to score, or to take held-out rows from, as they were passed where that is possible."""
    if validation.X is not None:
        return Sample(*map(stacking.held_as_given, validation))
    # Not every sparse format has rows to take.
    return Sample(table.X if sp.issparse(train.X) else train.X, y if sp.issparse(train.y) else train.y)


def _score_of(
    estimator: BaseMLPTorch,
    scorer: Callable[..., float],
    sample: Sample,
    attributes: Callable[[State], dict[str, Any]],
) -> Callable[[State], float]:
    """Return what scores a state of the estimator's network on a sample, weighted if the scorer knows weights."""
    weight = {}
    if sample.sample_weight is not None and accepts_sample_weight(scorer):
        weight = {"sample_weight": sample.sample_weight}

    def score(state: State) -> float:
        fitted = twin_of(estimator, **attributes(state))
        return scorer(fitted, sample.X, sample.y, **weight)

    return score
