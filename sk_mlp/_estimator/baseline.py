"""Checks whether a network is better than the best constant prediction, and finds the likely cause if it is not.

The check uses the result of a fit and some of its rows. A good fit is recognized by its last loss; the check then takes
no longer than a few training steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ldexp
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from sk_mlp._compute.intra_op import threads
from sk_mlp._network.batch import values_in_a_row
from sk_mlp._training.task import FitResult, FitTask, Status, Table

_SOME_ROWS, _MANY_ROWS = 2000, 100_000  # rows to predict; many if some do not decide
_MOST_VALUES = 2**20  # maximum number of features and raw predictions
_CLEARLY = 0.1  # if the loss of the kept epoch is below that of the constant by this fraction, the fit is good
_BARELY = 1e-4  # minimum fraction by which the network's loss must be below that of the constant
_SURELY = 3.0  # in standard errors of a difference between two losses
_UNMOVED = 1e-3  # a loss did not move if it changed by less than this fraction from the first epoch to the last
_IN_PLACE = 1e-4  # weights have moved if they changed by more than this fraction of their norm
_RISEN = 0.1  # a loss has risen if it is larger at the end by this fraction, which is not by chance
_FAR_FROM_ONE = 105.0  # a scale far from one, or its inverse; a little above 100, because data near 100 scatter
_MANY = 0.5  # fraction of the units of a layer
_STRONG = 0.1  # a penalty is strong if it is this large relative to the weight of a batch; also a decay in one step
_CUT = 1e3  # a gradient is cut if it is this many times longer than max_grad_norm
_NEXT_TO_NOTHING = 1e-5  # fraction of the weight of all rows
_FEW_ROWS = 100  # with so few rows, a constant may be as good as the network by luck
_FEW_EPOCHS = 5  # with fewer epochs, a user expects no good fit
_USUAL_TOL = 1e-4

_ENDED = {Status.CONVERGED, Status.NO_BETTER_SCORE, Status.LBFGS_DONE}
_CUT_SHORT = {Status.MAX_ITER, Status.MAX_TIME, Status.SCHEDULE_DONE, Status.STOPPED, Status.LBFGS_STOPPED}
_UNKNOWN = (
    "Nothing in the data's scale, the units or the losses shows why: X may tell nothing about y, or the network, its "
    "learning rate or the end of its training may not suit it."
)


class Fitted(NamedTuple):
    """Access to a fitted network."""

    raw_predictions: Callable[[Any], np.ndarray]  # from rows like those of the task to (n, n_raw) float64
    module: Callable[[], nn.Module] | None  # makes the network; None for a user-defined `module`
    feature_names: Sequence[str]


def doubts(task: FitTask, result: FitResult, fitted: Fitted) -> str | None:
    """Return a text that says why a network is not useful, and what may help; None if nothing is wrong."""
    is_barely_begun = result.status in _CUT_SHORT and result.n_iter < _FEW_EPOCHS
    if result.status not in _ENDED | _CUT_SHORT or is_barely_begun:
        return None
    with threads(1):
        unmoved, blind = _unmoved_weights(task, result), _blind_score(task, result)
        constant = _constant_loss(task) if unmoved is blind is None else None
        if constant is not None and _kept_loss(task, result) < constant - _CLEARLY * abs(constant):
            return None
        if _is_constant(task.table) and _size_of_values(task) <= _FAR_FROM_ONE:
            return blind
        verdict = _verdict(task, result, fitted, unmoved, blind)
        return verdict or (blind if unmoved is None else f"The network is as it was drawn. {unmoved}")


def far_scales(task: FitTask, feature_names: Sequence[str]) -> list[str]:
    """Return texts that say which features and targets of a task have a scale far from one."""
    sample = _Sample.of(task, _SOME_ROWS)
    return list(_far_scales(task, sample.table.X[sample.rows], feature_names))


def _verdict(task: FitTask, result: FitResult, fitted: Fitted, unmoved: str | None, blind: str | None) -> str | None:
    """Compare a network with a constant. Return a text with the likely causes if it is no better, else None."""
    sample, look = _closer_look(task, fitted)
    lead = _stand_still(result, look.raw) if look.constant is None else look.lead
    if lead is None or (_is_constant(task.table) and _is_near(sample.target, look.raw)):
        return None
    scales = list(_far_scales(task, look.X, fitted.feature_names))
    causes = [*filter(None, [unmoved or blind]), *scales]
    if unmoved is None:
        causes += _failures(task, result, sample, look, fitted.module, is_explained=bool(scales))
    is_unfinished = result.status in _CUT_SHORT or task.settings.tol > _USUAL_TOL
    if not causes and (is_unfinished or len(task.table.rows) <= _FEW_ROWS):
        return None  # more epochs may suffice; another warning says so, or the user has chosen the number of epochs
    return " ".join([lead, *(causes or [_UNKNOWN])])


class _Sample(NamedTuple):
    """Some rows of a table: targets `(1, n_outputs, n)`, float64 or class indices, and weights `(n,)`, float64."""

    table: Table
    rows: np.ndarray
    target: Tensor
    weight: Tensor

    @classmethod
    def of(cls, task: FitTask, most: int) -> _Sample:
        """Return at most `most` of the rows that are trained on."""
        table, rows = task.table, _some(task.table, most)
        weight = _weight_of(table, rows)
        target = torch.from_numpy(table.target[rows].T.copy()).unsqueeze(0)
        target = target.double() if target.is_floating_point() else target
        return cls(table, rows, target, torch.from_numpy(weight))

    @property
    def has_one_target(self) -> bool:
        """Whether all targets are the same."""
        return bool((self.target == self.target[..., :1]).all())


def _is_constant(table: Table) -> bool:
    """Whether there is nothing to learn: one target has all or almost all of the weight."""
    target, weight = table.target[table.rows], _weight_of(table, table.rows)
    others = weight[(target != target[weight.argmax()]).any(1)]
    return bool(others.sum() <= _NEXT_TO_NOTHING * weight.sum())


def _some(table: Table, most: int) -> np.ndarray:
    """Return at most `most` of the rows with a weight above 0.

    A separate generator draws them, so that nothing is drawn from the user's generator.
    """
    rows = table.rows if table.sample_weight is None else table.rows[table.sample_weight[table.rows] > 0]
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(0).integers(len(rows), size=most))]


def _weight_of(table: Table, rows: np.ndarray) -> np.ndarray:
    """Return the weights of rows, float64."""
    return np.ones(len(rows)) if table.sample_weight is None else table.sample_weight[rows]


def _constant_loss(task: FitTask) -> float | None:
    """Return the loss of the best constant prediction on some rows; None if it is not known."""
    table, rows = task.table, _some(task.table, _SOME_ROWS)
    return task.objective.constant_loss(table.target[rows], _weight_of(table, rows), task.network.n_outputs)


class _Look(NamedTuple):
    """Raw predictions `(n, n_raw)` of a network for rows X, its loss, and the loss of the best constant, if known."""

    X: Any
    raw: np.ndarray
    share: str  # which training rows these are, in words
    loss: float
    constant: float | None
    error: float  # standard error of the difference

    @classmethod
    def at(cls, task: FitTask, fitted: Fitted, sample: _Sample) -> _Look:
        """Predict a sample."""
        X = sample.table.X[sample.rows]
        raw = fitted.raw_predictions(X)
        known = _Sample.of(task, _MANY_ROWS)  # many rows: a few do not show the frequencies of thousands of classes
        constant = task.objective.constant(known.target, known.weight, raw.shape[1])
        if constant is None:
            return cls(X, raw, "", np.nan, None, 0.0)
        n, n_all = len(sample.rows), len(task.table.rows)
        where = "the training rows" if n == n_all else f"{n} of the training rows"
        losses = task.objective.losses(torch.from_numpy(raw.T.copy()).unsqueeze(0), sample.target)
        of_constant = task.objective.losses(constant.expand(-1, -1, n).contiguous(), sample.target)
        share = sample.weight / sample.weight.sum()
        mean, of_constant_mean = (losses * share).sum().item(), (of_constant * share).sum().item()
        difference = (losses - of_constant - (mean - of_constant_mean)) * share
        return cls(X, raw, where, mean, of_constant_mean, difference.square().sum().sqrt().item())

    @property
    def is_undecided(self) -> bool:
        """Whether other rows might give the opposite result."""
        return self.constant is not None and abs(self.loss - self.constant) <= _SURELY * self.error

    @property
    def lead(self) -> str | None:
        """Return a text that says that the network is no better than a constant; None if it is better."""
        assert self.constant is not None
        if self.loss < self.constant - _BARELY * abs(self.constant):
            return None
        return (
            f"The network is no better than a constant prediction: its loss on {self.share} is {self.loss:.4g}, that "
            f"of the best constant {self.constant:.4g}."
        )


def _closer_look(task: FitTask, fitted: Fitted) -> tuple[_Sample, _Look]:
    """Predict some rows, and many rows if some do not decide."""
    for most in (_SOME_ROWS, _MANY_ROWS):
        most = max(1, min(most, _MOST_VALUES // (values_in_a_row(task.table.X) + task.network.n_outputs)))
        sample = _Sample.of(task, most)
        look = _Look.at(task, fitted, sample)
        if len(sample.rows) < most or not (look.is_undecided or sample.has_one_target):
            break
    return sample, look


def _kept_epoch(task: FitTask, result: FitResult) -> int:
    """Return the index, among the epochs of this fit, of the epoch whose weights were kept."""
    if task.settings.early_stopping and task.validation is not None:
        return int(result.progress.history.last("validation_score", result.n_iter).argmax())
    return result.n_iter - 1


def _kept_loss(task: FitTask, result: FitResult) -> float:
    """Return the loss of the epoch whose weights were kept."""
    if result.n_iter == 0:
        return result.loss
    return float(result.progress.history.last("loss", result.n_iter)[_kept_epoch(task, result)])


def _goes_on(result: FitResult) -> bool:
    """Whether the network had been trained before."""
    return len(result.progress.history) > result.n_iter


def _unmoved_weights(task: FitTask, result: FitResult) -> str | None:
    """Return a text that says that the weights have hardly changed, and what may help; None if they have changed."""
    before, now = task.parameters, result.state.parameters
    moved, length = float(np.linalg.norm(now - before)), float(np.linalg.norm(before))
    if moved > _IN_PLACE * length or result.n_iter < _FEW_EPOCHS or task.settings.solver == "lbfgs":
        return None
    if task.settings.max_grad_norm is not None or _goes_on(result):
        return None  # clipped gradients may be the reason; and a network that was already trained need not change
    share = moved / length if length else 0.0
    losses = result.progress.history.last("loss", result.n_iter)
    return (
        f"The loss never moved from {losses[0]:.4g} in {len(losses)} epochs, and the weights by a share of "
        f"{share:.1g}: learning_rate_init={task.settings.learning_rate_init:g} may be too small."
    )


def _stand_still(result: FitResult, raw: np.ndarray) -> str | None:
    """Return a text that says that all predictions are equal, or that the loss has not decreased; None otherwise."""
    losses = result.progress.history.last("loss", result.n_iter)
    if (raw == raw[:1]).all():
        return "The network predicts the same for every row."
    if len(losses) > 1 and not _goes_on(result) and not losses[-1] < losses[0] - _UNMOVED * abs(losses[0]):
        return f"Training has not lowered the loss: it is {losses[-1]:.4g}, and was {losses[0]:.4g} in the first epoch."
    return None


def _blind_score(task: FitTask, result: FitResult) -> str | None:
    """Return a text that says that early stopping monitored a score that was the same after each epoch.

    None if the score has changed, or if a constant score is normal: it is perfect, the network was already trained, or
    there is nothing to learn.
    """
    validation = task.validation
    if validation is None or validation.by_loss or result.status is not Status.NO_BETTER_SCORE or _goes_on(result):
        return None
    scores = result.progress.history.last("validation_score", result.n_iter)
    if (scores != scores[0]).any() or _has_one_target(task.table):
        return None
    has_one_target = _has_one_target(validation.table)
    is_by_chance = scores[0] == 1 or (len(task.table.rows) <= _FEW_ROWS and task.objective.scoring != "r2")
    if is_by_chance and not has_one_target:
        return None
    n = len(validation.table.rows)
    rows = "1 row" if n == 1 else f"{n} rows with the same y" if has_one_target else f"{n} rows"
    return (
        f"Early stopping could not tell epochs apart: the validation score was {scores[0]:.6g} after each of "
        f"{result.n_iter} epochs (on {rows}), so that the first counts as the best. Pass scoring='loss', or "
        f"other rows to validate on."
    )


def _has_one_target(table: Table) -> bool:
    """Whether all targets of a table are the same."""
    target = table.target[table.rows]
    return bool((target == target[:1]).all())


def _far_scales(task: FitTask, X: Any, names: Sequence[str]) -> Iterator[str]:
    """Yield texts that say which features and targets have a scale far from one."""
    scaling = f"scale X, with {'MaxAbsScaler' if sp.issparse(X) else 'StandardScaler'}() before the network"
    sizes, largest = _sizes_of_columns(X)
    j = int(sizes.argmax())
    if sizes[j] > _FAR_FROM_ONE:
        column = repr(str(names[j])) if len(names) else j
        yield f"X holds values of about {sizes[j]:.3g} in column {column}: {scaling}."
    elif 0 < largest < 1 / _FAR_FROM_ONE:
        yield f"X holds no value beyond {largest:.3g}: {scaling}."
    size = _size_of_target(task)
    if not 1 / _FAR_FROM_ONE <= size <= _FAR_FROM_ONE:
        advice = {
            "identity": "scale y, with TransformedTargetRegressor(..., transformer=StandardScaler())",
            "exp": "divide y by its mean",
        }
        yield f"y holds values of about {size:.3g}: {advice[task.objective.out_activation]}."


def _sizes_of_columns(X: Any) -> tuple[np.ndarray, float]:
    """Return the root mean squares of columns `(n_columns,)`, and the largest absolute value."""
    largest = float(abs(X).max())
    if largest == 0 or X.shape[1] == 0:
        return np.zeros(max(1, X.shape[1])), 0.0
    shares = X.astype(float) / largest  # the squares of these do not overflow
    squares = shares.multiply(shares) if sp.issparse(X) else np.square(shares)
    return largest * np.sqrt(np.asarray(squares.mean(axis=0)).ravel()), largest


def _size_of_target(task: FitTask) -> float:
    """Return the root mean square of the largest output; 1 for classes."""
    if task.objective.out_activation not in ("identity", "exp"):
        return 1.0
    sizes, _ = _sizes_of_columns(task.table.target[_some(task.table, _MANY_ROWS)])
    return float(sizes.max())


def _size_of_values(task: FitTask) -> float:
    """Return the size of the target; 0 if raw predictions are not values of the target but, for example, logarithms."""
    return _size_of_target(task) if task.objective.out_activation == "identity" else 0.0


def _is_near(target: Tensor, raw: np.ndarray) -> bool:
    """Whether predictions are within a tenth of the targets, which are all equal."""
    targets = target[0].numpy().T
    return bool((np.abs(raw[:, : targets.shape[1]] - targets) <= _CLEARLY * np.abs(targets)).all())


def _failures(
    task: FitTask,
    result: FitResult,
    sample: _Sample,
    look: _Look,
    module: Callable[[], nn.Module] | None,
    *,
    is_explained: bool,
) -> Iterator[str]:
    """Yield texts of what went wrong in training; they blame the learning rate only if no other cause is known."""
    by_options = list(_strong_options(task, result, sample))
    if by_options:
        yield from by_options
        return
    settings = task.settings
    losses = result.progress.history.last("loss", result.n_iter)
    has_rate = settings.solver != "lbfgs" and not is_explained
    too_large = f": learning_rate_init={settings.learning_rate_init:g} may be too large" if has_rate else ""
    size = float(np.sqrt(np.square(look.raw).mean()))
    kept = _kept_epoch(task, result) + 1
    idle = None if module is None or is_explained else _idle_units(module(), look.X)
    if idle is not None:
        yield idle.format(too_large=too_large)
    elif not size <= _FAR_FROM_ONE * max(1.0, _size_of_target(task)):
        yield f"Raw predictions are of about {size:.3g}{too_large}."
    elif len(losses) > 1 and not losses[-1] <= losses[0] + _RISEN * abs(losses[0]):
        yield f"The loss rose from {losses[0]:.4g} to {losses[-1]:.4g}{too_large}."
    elif len(losses) > 1 and abs(losses[-1] - losses[0]) <= _UNMOVED * abs(losses[0]):
        yield f"The loss never moved from {losses[0]:.4g} in {len(losses)} epochs."
    elif kept < len(losses) and _goes_by_a_score(task) and not is_explained:
        yield (
            f"Early stopping kept epoch {kept} of {len(losses)} by its score; in the last the loss was "
            f"{losses[-1]:.4g}: pass scoring='loss'."
        )


def _goes_by_a_score(task: FitTask) -> bool:
    """Whether a score, and not the loss, decides which epoch is the best, and there are more than a few rows."""
    return task.validation is not None and not task.validation.by_loss and len(task.table.rows) > _FEW_ROWS


def _strong_options(task: FitTask, result: FitResult, sample: _Sample) -> Iterator[str]:
    """Yield texts that say which options keep a network from learning."""
    settings, table = task.settings, task.table
    in_a_batch = settings.batch_size * sample.weight.mean().item()
    if settings.alpha > _STRONG * in_a_batch:
        alpha, weight = ldexp(settings.alpha, table.exponent), ldexp(in_a_batch, table.exponent)
        heavy = "" if table.sample_weight is None else f" that weigh {weight:.3g}"
        yield f"alpha={alpha:.3g} is large beside a batch of {settings.batch_size} rows{heavy}."
    if settings.solver == "adamw" and settings.learning_rate_init * settings.weight_decay > _STRONG:
        shrinkage = settings.learning_rate_init * settings.weight_decay
        yield f"weight_decay={settings.weight_decay:.3g} takes a share of {shrinkage:.3g} from the coefs in each step."
    norms = result.progress.history.last("gradient_norm", result.n_iter)
    if settings.max_grad_norm is not None and len(norms) and norms[-1] > _CUT * settings.max_grad_norm:
        yield f"max_grad_norm={settings.max_grad_norm:.3g} cuts gradients of about {norms[-1]:.3g}."


@torch.no_grad()
def _idle_units(module: nn.Module, X: Any) -> str | None:
    """Return a text that names a hidden layer in which many units give about one value for all rows; None if none does.

    The text has a placeholder `{too_large}` for a remark on the learning rate.
    """
    for i, values in enumerate(_hidden_values(module, X), start=1):
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
    """Yield the inputs `(n, units)` of each linear layer except the first."""
    first, *layers = module.children()
    assert isinstance(first, nn.Linear)
    values = torch.from_numpy(X @ first.weight.numpy().T) + first.bias
    for layer in layers:
        if isinstance(layer, nn.Linear):
            yield values
        values = layer(values)
