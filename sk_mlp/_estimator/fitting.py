"""A fit from beginning to end: from parameters and data to a `FitTask`, from a `FitResult` to fitted attributes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sk_mlp._alike import alike
from sk_mlp._compute.modes import Surroundings, own_modes
from sk_mlp._network.architecture import Architecture
from sk_mlp._network.network import Network, pack
from sk_mlp._network.values import State, Weights
from sk_mlp._objective import Objective
from sk_mlp._training import run
from sk_mlp._training.optimizers import resumed
from sk_mlp._training.progress import Progress
from sk_mlp._training.settings import Settings
from sk_mlp._training.task import FitResult, FitTask, Status
from sk_mlp._training.weights import penalty_for
from sk_mlp.exceptions import UntrainedWarning

from .attributes import becoming, changes, twin_of
from .baseline import Fitted, doubts, far_scales
from .callbacks import Callbacks, callbacks_of
from .fitted import fitted_architecture, fitted_weights, predict_checked_rows
from .held_out import draw_tables, goes_by_loss
from .inputs import generator_for, rewound_on_error
from .parameters import settings_of
from .reading import FitMode, Reading, Sample, read
from .sklearn_private import without_callbacks
from .targets import Codec

if TYPE_CHECKING:
    from .base import BaseMLPTorch

E = TypeVar("E", bound="BaseMLPTorch")

_WARNINGS: dict[Status, type[Warning]] = {
    Status.MAX_ITER: ConvergenceWarning,
    Status.MAX_TIME: ConvergenceWarning,
    Status.DIVERGED: ConvergenceWarning,
    Status.LBFGS_STOPPED: ConvergenceWarning,
    Status.INTERRUPTED: UserWarning,
}
# Attributes of a previous fit to remove: of another kind of network, or curves that a user has assigned.
_TO_FORGET = (
    "coefs_", "intercepts_", "n_layers_", "module_state_", "loss_curve_", "validation_scores_",
    "validation_loss_curve_",
)  # fmt: skip


def fit(estimator: E, train: Sample, validation: Sample, mode: FitMode) -> E:
    """Train a twin of the estimator, then copy all its attributes to the estimator; if anything fails, copy none."""
    users = run.surroundings()
    if mode.goes_on and mode.one_epoch:
        estimator._validate_params()  # scikit-learn does this only in the first call
    callbacks = None if mode.one_epoch else callbacks_of(estimator, users, *train)
    before = dict(vars(estimator))
    with own_modes(), rewound_on_error(None if run.is_gathered() else estimator.random_state):
        twin = twin_of(estimator)
        task, attributes = task_of(twin, train, validation, mode, callbacks, users)
        if callbacks is not None:
            callbacks.fitted = partial(_attributes_so_far, twin, before, task, attributes)
        result = run.run(task)
        if not result.is_finite:
            scales = far_scales(task, getattr(twin, "feature_names_in_", ()))
            raise ValueError(" ".join([Status.DIVERGED.message(task.settings), *scales]))
        _record(twin, task, result, attributes)
        with becoming(estimator, twin, before):
            if callbacks is not None:
                callbacks.end_fit(result)
            for category, message in _warnings_of(estimator, task, result):
                # The levels are this function, the estimator's method, scikit-learn's wrapper, and the user's line.
                warnings.warn(message, category, stacklevel=4)
    return estimator


def task_of(
    estimator: BaseMLPTorch,
    train: Sample,
    validation: Sample,
    mode: FitMode,
    callbacks: Callbacks | None = None,
    users: Surroundings | None = None,
) -> tuple[FitTask, Callable[[State], dict[str, Any]]]:
    """Return the task of a call, and a function from a state of the network to fitted attributes.

    First it reads and checks everything. Then it draws the weights and the split, in scikit-learn's order.
    """
    users = users or run.surroundings()
    reading = read(estimator, train, validation, mode)
    architecture, n_rows = reading.architecture, len(reading.table.rows)
    n_train = n_rows - reading.n_held_out
    settings = settings_of(estimator, n_train, users)
    rng, seed = _randomness(estimator, reading, settings.batch_size, mode)
    progress = _earlier_progress(estimator, mode, reading.objective)
    dtype = estimator._precision.array
    weights = _current_weights(estimator, architecture) if mode.goes_on else architecture.draw(rng, seed, dtype)
    precision = architecture.precision(estimator.dtype, reading.device, n_rows, weights.size)
    network = architecture.network_to_train(weights, seed + len(progress.history), reading.device, precision)
    fewest_rows = architecture.fewest_rows(network, n_train, settings.batch_size)
    attributes = partial(_attributes, network, architecture.description, reading.objective, reading.codec)
    table, checks = draw_tables(estimator, reading, rng, attributes, users)
    task = FitTask(
        table=table,
        validation=checks,
        network=network,
        objective=reading.objective,
        settings=replace(settings, alpha=penalty_for(estimator.alpha, table.exponent, dtype)),
        precision=precision,
        device=reading.device,
        rng=rng,
        seed=seed,
        parameters=pack(network.arrays(weights), dtype),
        fewest_rows=fewest_rows,
        one_epoch=mode.one_epoch,
        progress=progress,
        optimizer_state=_earlier_optimizer_state(estimator, mode, settings, network),
        listener=callbacks,
    )
    return task, attributes


def _randomness(
    estimator: BaseMLPTorch, reading: Reading, batch_size: int, mode: FitMode
) -> tuple[np.random.RandomState | None, int]:
    """Return the generator of a fit, or None if nothing is drawn from it, and the seed of random parts of a network."""
    is_random, n_rows = reading.architecture.is_random, len(reading.table.rows)
    shuffles = n_rows - reading.n_held_out > batch_size
    is_drawn_from = not mode.goes_on or is_random or reading.n_held_out > 0 or shuffles
    rng = generator_for(estimator.random_state, is_drawn_from=is_drawn_from)
    # From a copy, because scikit-learn does not draw this number.
    seed = int(copy.deepcopy(rng).randint(2**31)) if rng is not None and is_random else 0
    return rng, seed


def _earlier_optimizer_state(
    estimator: BaseMLPTorch, mode: FitMode, settings: Settings, network: Network
) -> Mapping[str, Any]:
    """Return the optimizer's state to continue from: in `partial_fit` that of the last call, if it fits."""
    if not mode.goes_on or not mode.one_epoch or not getattr(estimator, "_optimizer_state", None):
        return {}
    return resumed(estimator._optimizer_state, settings, network.layout(1))


def _earlier_progress(estimator: BaseMLPTorch, mode: FitMode, objective: Objective) -> Progress:
    """Return the progress to continue from; a warm start has a new optimizer, and therefore the initial rate."""
    if not mode.goes_on or not hasattr(estimator, "_progress"):
        return Progress()
    progress = Progress.of(estimator._progress)
    if not alike(_scored_by(estimator, objective), estimator._scoring):
        progress = progress.fresh_score()
    return progress if mode.one_epoch else progress.fresh_rate()


def _scored_by(estimator: BaseMLPTorch, objective: Objective) -> Any:
    """Return a key: validation scores can be compared if they have the same scorer, or the same loss and parameters."""
    if not goes_by_loss(estimator, objective):
        return estimator.scoring
    parameters = {name: value for name, value in vars(objective).items() if name not in ("function", "task")}
    return {"loss": estimator.loss, **parameters}


def _current_weights(estimator: BaseMLPTorch, architecture: Architecture) -> Weights:
    """Return the fitted weights. Raises ValueError if the parameters describe another network."""
    architecture.require_like(fitted_architecture(estimator))
    return fitted_weights(estimator)


def _attributes(
    network: Network, description: Mapping[str, Any], objective: Objective, codec: Codec, state: State
) -> dict[str, Any]:
    """Return the fitted attributes that predictions need, for a state of the network."""
    return {
        **codec.attributes(),
        **network.attributes(state.parameters, state.buffers),
        "out_activation_": objective.out_activation,
        "_network": dict(description),
    }


def _record(
    twin: BaseMLPTorch, task: FitTask, result: FitResult, attributes: Callable[[State], dict[str, Any]]
) -> None:
    """Set the fitted attributes: NumPy arrays, Python's numbers and strings, dictionaries and lists of them."""
    progress, is_scored = result.progress, task.validation is not None
    for name in _TO_FORGET:
        twin.__dict__.pop(name, None)
    twin.__dict__.update(
        attributes(result.state),
        n_iter_=result.n_iter,
        loss_=result.loss,
        t_=progress.t,
        best_loss_=None if is_scored and twin.early_stopping else progress.best_loss,
        best_validation_score_=progress.best_score if is_scored else None,
        _progress=progress.plain(),
        _optimizer_state=result.optimizer_state,
        _scoring=_scored_by(twin, task.objective),
        _has_validation=is_scored,
    )


def _attributes_so_far(
    twin: BaseMLPTorch,
    before: dict[str, Any],
    task: FitTask,
    attributes: Callable[[State], dict[str, Any]],
    result: FitResult,
) -> dict[str, Any]:
    """Return the attributes to set on an estimator with attributes `before`, for the state of its fit so far.

    The resulting estimator has no callbacks.
    """
    fitted = twin_of(twin)
    _record(fitted, task, result, attributes)
    return {**changes(before, fitted), **without_callbacks()}


def _warnings_of(fitted: BaseMLPTorch, task: FitTask, result: FitResult) -> Iterator[tuple[type[Warning], str]]:
    """Yield the warnings about the end of a fit."""
    if result.status in _WARNINGS:
        yield _WARNINGS[result.status], result.message
    looked_at = Fitted(
        raw_predictions=lambda X: predict_checked_rows(fitted, X, lambda raw: raw),
        module=None if fitted.module is not None else lambda: fitted.module_,
        feature_names=getattr(fitted, "feature_names_in_", ()),
    )
    doubt = doubts(task, result, looked_at)
    if doubt is not None:
        yield UntrainedWarning, doubt
