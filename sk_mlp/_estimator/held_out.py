"""The rows that a fit validates on: which ones are held out, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import train_test_split

from sk_mlp._compute.modes import Surroundings, called_in
from sk_mlp._network.values import State
from sk_mlp._objective import Objective
from sk_mlp._training.task import Table, Validation

from .attributes import twin_of
from .reading import Reading, Sample
from .sklearn_private import accepts_sample_weight, safe_indexing

if TYPE_CHECKING:
    from .base import BaseMLPTorch


def draw_tables(
    estimator: BaseMLPTorch,
    reading: Reading,
    rng: np.random.RandomState | None,
    attributes: Callable[[State], dict[str, Any]],
    users: Surroundings,
) -> tuple[Table, Validation | None]:
    """Return the rows to train on, and those to validate on if there are any."""
    table, checks, scored = reading.table, reading.validation, reading.scored
    if reading.n_held_out:
        stratify = reading.codec.strata(table.target)
        rows, held_out = split_validation(
            len(table.rows), table.sample_weight, estimator.validation_fraction, stratify, rng
        )
        checks, table = table.of_rows(held_out), table.of_rows(rows)
    if checks is None or reading.scorer is None:
        by_loss = goes_by_loss(estimator, reading.objective)
        return table, None if checks is None else Validation(checks, by_loss=by_loss)
    if reading.n_held_out:
        scored = Sample(safe_indexing(scored.X, checks.rows), safe_indexing(scored.y, checks.rows))
    scored = scored._replace(sample_weight=checks.users_weight)
    score = _score_of(estimator, reading.scorer, scored, attributes)
    return table, Validation(checks, called_in(users, score))


def goes_by_loss(estimator: BaseMLPTorch, objective: Objective) -> bool:
    """Whether the validation score is minus the validation loss."""
    return isinstance(estimator.scoring, str | None) and (estimator.scoring or objective.scoring) == "loss"


def _score_of(
    estimator: BaseMLPTorch,
    scorer: Callable[..., float],
    sample: Sample,
    attributes: Callable[[State], dict[str, Any]],
) -> Callable[[State], float]:
    """Return a function from a network's state to its score on a sample, weighted if the scorer accepts weights."""
    weight = {}
    if sample.sample_weight is not None and accepts_sample_weight(scorer):
        weight = {"sample_weight": sample.sample_weight}

    def score(state: State) -> float:
        fitted = twin_of(estimator, **attributes(state))
        return scorer(fitted, sample.X, sample.y, **weight)

    return score


def split_validation(
    n_samples: int,
    sample_weight: np.ndarray | None,
    fraction: float,
    stratify: np.ndarray | None,
    rng: np.random.RandomState | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and to validate on, drawn as scikit-learn's MLP draws them."""
    assert rng is not None
    train, validation = train_test_split(np.arange(n_samples), test_size=fraction, stratify=stratify, random_state=rng)
    for name, rows in (("training", train), ("validation", validation)):
        if sample_weight is not None and not sample_weight[rows].any():
            raise ValueError(
                f"sample_weight must not be all zero on the {name} rows of early_stopping, got {len(rows)} zeros"
            )
    return train, validation
