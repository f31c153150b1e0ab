"""Whether a fit was of any use: its network against the best constant prediction, and where it lost, the likely cause.

It looks at a fit that has ended, and at no more than some thousand of its rows. A fit that went well is known by its
last loss, and costs no more than a few steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ldexp, sqrt
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from ._batches import values_in_a_row
from ._task import FitResult, FitTask, Status, Table

_MOST_ROWS, _MOST_VALUES = 2000, 2**22  # to look at
_FEW_ROWS = 100  # that tell a network from a constant by luck
_USUAL_TOL = 1e-4
_CLEARLY = 0.1  # a loss that is below the constant's by this share, over a whole epoch, needs no closer look
_BARELY = 1e-3  # share of the constant's loss by which the network's has to be below it
_UNMOVED = 1e-3  # a loss that changes by less than this share from the first epoch to the last
_FAR_FROM_ONE = 100.0  # a scale, or the inverse of one
_MANY = 0.5  # of a layer's units
_NEXT_TO_NOTHING = 1e-5  # of the weight of all rows
_STRONG = 0.1  # a penalty that is this large beside the weights of a batch

_ENDED = {Status.CONVERGED, Status.NO_BETTER_SCORE, Status.LBFGS_DONE}
_CUT_SHORT = {Status.MAX_ITER, Status.MAX_TIME, Status.SCHEDULE_DONE, Status.LBFGS_STOPPED}


def doubts(
    task: FitTask,
    result: FitResult,
    raw_predictions: Callable[[Any], np.ndarray],
    module: Callable[[], nn.Module] | None,
    feature_names: Sequence[str],
) -> str | None:
    """Say why a network is of no use, and what may help; None where nothing is wrong.

    `raw_predictions` maps rows like those of the task to `(n, n_raw)`; `module` makes the network, if it is a sequence
    of layers.
    """
    if result.status not in _ENDED | _CUT_SHORT:
        return None
    blind = _blind_score(task, result)
    sample = _Sample.of(task)
    if len(task.table.rows) <= _FEW_ROWS or sample.is_constant:
        return blind
    constant = sample.constant_loss(task)
    if constant is not None and blind is None and _kept_loss(task, result) < constant - _CLEARLY * abs(constant):
        return None
    X = sample.X
    raw = raw_predictions(X)
    lead = _comparison(task, result, sample, constant, raw)
    if lead is None:
        return blind
    causes = [*([] if blind is None else [blind]), *_far_scales(task, sample, X, feature_names)]
    causes += _failures(task, result, sample, raw, None if module is None else partial(_idle_units, module, X), causes)
    if not causes and (result.status in _CUT_SHORT or task.settings.tol > _USUAL_TOL):
        return None  # more epochs may be all it takes: there is a warning of them, or a user has set their number
    return " ".join([lead, *(causes or [_UNKNOWN])])


_UNKNOWN = (
    "Nothing in the data's scale, the units or the losses shows why: X may tell nothing about y, or the network, its "
    "learning rate or the end of its training may not suit it."
)


class _Sample(NamedTuple):
    """Some rows of a table: targets `(1, n_outputs, n)`, float64 or class indices, and weights `(n,)`, float64."""

    table: Table
    rows: np.ndarray
    target: Tensor
    weight: Tensor

    @classmethod
    def of(cls, task: FitTask) -> _Sample:
        """Return all rows that are trained on, or as many as are enough."""
        table, rows = task.table, task.table.rows
        most = max(1, min(_MOST_ROWS, _MOST_VALUES // max(1, values_in_a_row(table.X))))
        if len(rows) > most:
            # Of a generator of its own: nothing is drawn from a user's.
            rows = rows[np.sort(np.random.default_rng(0).integers(len(rows), size=most))]
        weight = np.ones(len(rows)) if table.sample_weight is None else table.sample_weight[rows].astype(float)
        target = torch.from_numpy(table.target[rows].T.copy()).unsqueeze(0)
        target = target.double() if target.is_floating_point() else target
        return cls(table, rows, target, torch.from_numpy(weight))

    @property
    def X(self) -> Any:
        """Inputs as the table has them; a copy, and so only for who needs it."""
        return self.table.X[self.rows]

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to learn: one target has all the weight, or next to all of it."""
        if not self.weight.any():
            return True
        heaviest = self.target[..., self.weight.argmax()].unsqueeze(-1)
        others = self.weight[(self.target != heaviest).any(1)[0]]
        return bool(others.sum() <= _NEXT_TO_NOTHING * self.weight.sum())

    def constant_loss(self, task: FitTask) -> float | None:
        """Return the loss of the best constant prediction, if that is known."""
        constant = task.objective.constant(self.target, self.weight, task.layer_sizes[-1])
        if constant is None:
            return None
        raw = constant.expand(-1, -1, self.target.shape[-1]).contiguous()
        return task.objective.mean_loss(raw, self.target, self.weight)


def _kept_loss(task: FitTask, result: FitResult) -> float:
    """Return the loss of the epoch whose weights were kept."""
    history, n = result.progress.history, result.n_iter
    if n and task.settings.early_stopping and task.validation is not None:
        return float(history.last("loss", n)[history.last("validation_score", n).argmax()])
    return result.loss


def _comparison(
    task: FitTask, result: FitResult, sample: _Sample, constant: float | None, raw: np.ndarray
) -> str | None:
    """Say that a network's raw predictions `(n, n_raw)` are no better than a constant; None if they are."""
    if constant is None:  # a loss of the user's own
        return _stand_still(result, raw)
    loss = task.objective.mean_loss(torch.from_numpy(raw.T.copy()).unsqueeze(0), sample.target, sample.weight)
    if loss < constant - _BARELY * abs(constant):
        return None
    return (
        f"The network is no better than a constant prediction: its loss on the training rows is {loss:.4g}, that of "
        f"the best constant {constant:.4g}."
    )


def _stand_still(result: FitResult, raw: np.ndarray) -> str | None:
    """Say that a network predicts one value for all rows, or that its loss has not become smaller."""
    losses = result.progress.history.last("loss", result.n_iter)
    if (raw == raw[:1]).all():
        return "The network predicts the same for every row."
    if len(losses) > 1 and not losses[-1] < losses[0] - _UNMOVED * abs(losses[0]):
        return f"Training has not lowered the loss: it is {losses[-1]:.4g}, and was {losses[0]:.4g} in the first epoch."
    return None


def _blind_score(task: FitTask, result: FitResult) -> str | None:
    """Say that early stopping went by a score that was the same after each epoch.

    None where that is as it should be: the score is perfect, or there is nothing to learn.
    """
    validation, n = task.validation, result.n_iter
    if validation is None or validation.by_loss or not task.settings.early_stopping or n < 2:
        return None
    scores = result.progress.history.last("validation_score", n)
    if (scores != scores[0]).any() or scores[0] == 1:
        return None
    is_by_chance = len(task.table.rows) <= _FEW_ROWS and task.objective.scoring != "r2"
    if is_by_chance or _has_one_target(task.table):
        return None
    return (
        f"Early stopping could not tell epochs apart: the validation score was {scores[0]:.6g} after each of {n} "
        f"epochs ({_described(validation.table)}), so that the first counts as the best. Pass scoring='loss', or other "
        f"rows to validate on."
    )


def _described(table: Table) -> str:
    """Say how many rows a table has, and whether their targets are all one."""
    n = len(table.rows)
    if n == 1:
        return "there is 1 row to validate on"
    return f"all {n} rows to validate on have the same y" if _has_one_target(table) else f"of {n} rows to validate on"


def _has_one_target(table: Table) -> bool:
    """Whether all targets of a table are the same."""
    target = table.target[table.rows]
    return bool((target == target[:1]).all())


def _far_scales(task: FitTask, sample: _Sample, X: Any, names: Sequence[str]) -> Iterator[str]:
    """Say which features and targets are of a scale far from one."""
    squares = X.multiply(X) if sp.issparse(X) else np.square(X, dtype=float)
    sizes = np.sqrt(np.asarray(squares.mean(axis=0)).ravel())
    j = int(sizes.argmax())
    scaling = "scale X, with StandardScaler() before the network"
    if sizes[j] > _FAR_FROM_ONE:
        column = repr(str(names[j])) if len(names) else j
        yield f"X holds values of about {sizes[j]:.3g} in column {column}: {scaling}."
    elif 0 < sizes[j] < 1 / _FAR_FROM_ONE:
        yield f"X holds values of at most about {sizes[j]:.3g}: {scaling}."
    size = _size_of_target(task, sample)
    if size > _FAR_FROM_ONE or size < 1 / _FAR_FROM_ONE:
        by_hand = "divide y by its mean"
        scaling = "scale y, with TransformedTargetRegressor(..., transformer=StandardScaler())"
        yield f"y holds values of about {size:.3g}: {by_hand if task.objective.out_activation == 'exp' else scaling}."


def _size_of_target(task: FitTask, sample: _Sample) -> float:
    """Return the root mean square of the largest output; 1 for classes."""
    if task.objective.out_activation not in ("identity", "exp"):
        return 1.0
    share = sample.weight / sample.weight.sum()
    return sqrt((sample.target.square() * share).sum(-1).max().item())


def _failures(
    task: FitTask,
    result: FitResult,
    sample: _Sample,
    raw: np.ndarray,
    idle_units: Callable[[], str | None] | None,
    known: Sequence[str],
) -> Iterator[str]:
    """Say what went wrong in training; the learning rate is to blame only where no other cause is known."""
    settings = task.settings
    penalty = settings.alpha / (settings.batch_size * sample.weight.mean().item())
    if penalty > _STRONG:
        alpha = ldexp(settings.alpha, task.table.exponent)
        yield f"alpha={alpha:.3g} is large beside a batch of {settings.batch_size} rows."
        return
    blames_rate = settings.solver != "lbfgs" and not known
    too_large, too_small = (
        f": learning_rate_init={settings.learning_rate_init:g} may be too {what}" if blames_rate else ""
        for what in ("large", "small")
    )
    losses = result.progress.history.last("loss", result.n_iter)
    size = float(np.sqrt(np.square(raw).mean()))
    idle = None if idle_units is None or known else idle_units()
    if idle is not None:
        yield idle.format(too_large=too_large)
    elif not size <= _FAR_FROM_ONE * max(1.0, _size_of_target(task, sample)):
        yield f"Raw predictions are of about {size:.3g}{too_large}."
    elif len(losses) > 1 and abs(losses[-1] - losses[0]) <= _UNMOVED * abs(losses[0]):
        yield f"The loss never moved from {losses[0]:.4g} in {len(losses)} epochs{too_small}."
    elif len(losses) > 1 and not losses[-1] <= losses[0]:
        yield f"The loss rose from {losses[0]:.4g} to {losses[-1]:.4g}{too_large}."


@torch.no_grad()
def _idle_units(module: Callable[[], nn.Module], X: Any) -> str | None:
    """Say in which hidden layer many units give about one value for all rows; None if in no layer.

    With a place for what is said of a learning rate that is too large.
    """
    for i, values in enumerate(_hidden_values(module(), X), start=1):
        n, first = values.shape[1], values[0]
        is_idle = (values - first).abs().amax(0) <= _UNMOVED * first.abs()
        n_idle = int(is_idle.sum())
        if n_idle < _MANY * n:
            continue
        units = f"{'All' if n_idle == n else f'{n_idle} of'} {n} units of hidden layer {i}"
        if bool((first[is_idle] == 0).all()):
            return f"{units} are zero for every row{{too_large}}."
        at_limit = (first[is_idle].abs() - 0.5).abs() >= 0.5 - _UNMOVED  # of tanh and the logistic function
        if bool(at_limit.all()):
            return f"{units} give the same value for every row{{too_large}}."
        return (
            f"{units} give about the same value for every row: fewer layers, another activation or normalization may "
            f"help."
        )
    return None


def _hidden_values(module: nn.Module, X: Any) -> Iterator[Tensor]:
    """Yield the values `(n, units)` that each linear layer but the first is given."""
    first, *layers = module.children()
    assert isinstance(first, nn.Linear)
    values = torch.from_numpy(X @ first.weight.numpy().T) + first.bias
    for layer in layers:
        if isinstance(layer, nn.Linear):
            yield values
        values = layer(values)
