"""`BaseMLPTorch`: parameters and data to a `FitTask`, a `FitResult` to fitted attributes, and rows to predictions."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, _fit_context, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from . import stacking
from ._activations import ACTIVATIONS
from ._device import PRECISIONS, Precision, precision_for, resolve_device
from ._network import build_module, glorot_uniform, pack, unpack
from ._objective import Objective
from ._prediction import predict_rows
from ._task import FitResult, FitTask, Progress, Settings, Status
from ._validation import (
    check_split,
    clip_batch_size,
    hidden_sizes,
    prediction_data,
    split_validation,
    training_data,
    unchanged_on_error,
)

_WARNINGS: dict[Status, type[Warning]] = {
    Status.MAX_ITER: ConvergenceWarning,
    Status.DIVERGED: ConvergenceWarning,
    Status.LBFGS_STOPPED: ConvergenceWarning,
    Status.INTERRUPTED: UserWarning,
}


class Call(NamedTuple):
    """What a call asks for: to go on from the fitted state, one epoch alone, all classes listed."""

    goes_on: bool
    one_epoch: bool = False
    classes: np.ndarray | None = None


def has_partial_fit(estimator: BaseMLPTorch) -> bool:
    """Tell whether the solver takes one epoch at a time."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit needs a solver that works in epochs ('adam' or 'sgd'), got solver='lbfgs'")
    return True


class BaseMLPTorch(BaseEstimator, ABC):
    """What the classifier and the regressor share. Not for direct use."""

    _doc_link_module = "sk_mlp"
    _doc_link_template = "https://github.com/sk-mlp/sk-mlp/blob/main/docs/api.md#{anchor}"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "dtype": [StrOptions(set(PRECISIONS))],
    }

    # Parameters, as scikit-learn documents them for its MLPs.
    hidden_layer_sizes: Any
    activation: str
    solver: str
    batch_size: int | str
    random_state: Any
    warm_start: bool
    early_stopping: bool
    validation_fraction: float
    device: str
    dtype: str
    # Fitted attributes.
    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]
    out_activation_: str
    n_outputs_: int
    _progress: Progress
    _optimizer_state: dict[str, Any]

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the network to X and y.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Numbers of any real dtype, a data frame, a memory map, or a sparse matrix, which stays sparse. Cast once to
            `dtype`; a C-contiguous array of that dtype is used in place.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels or target values; an indicator matrix for multilabel classification.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights, not all zero. A weight of 2 counts as the row twice.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or the data break a rule, or the weights become non-finite. The estimator is then
            left as it was before the call.
        """
        return self._fit(X, y, sample_weight, Call(goes_on=self.warm_start and hasattr(self, "coefs_")))

    @property
    def module_(self) -> nn.Sequential:
        """The network as a live `torch.nn.Sequential` of linear layers and activations.

        Its output is the raw prediction (the logits of a classifier), `(n_samples, n_outputs)`. It lives on the CPU and
        shares the memory of `coefs_` and `intercepts_`: training it further changes predictions. (Read-only arrays,
        and assigned ones of another dtype, are copied.)

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        coefs, intercepts = ([torch.from_numpy(_writable(a)) for a in arrays] for arrays in self._layers())
        return build_module(coefs, intercepts, ACTIVATIONS[self.activation].module)

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        """Return what completes the documentation link in the HTML representation."""
        return {"anchor": type(self).__name__.lower()}

    @abstractmethod
    def _read_target(self, y: Any, call: Call) -> np.ndarray:
        """Return the target `(n, n_outputs)` for validated y, and set what describes it (`n_outputs_`, `classes_`)."""

    @abstractmethod
    def _objective(self) -> Objective:
        """Return the objective of the task that y has set."""

    @property
    def _precision(self) -> Precision:
        return PRECISIONS[self.dtype]

    def _fit(self, X: Any, y: Any, sample_weight: Any, call: Call) -> Self:
        """Train and record the result."""
        with unchanged_on_error(self):
            task = self._task(X, y, sample_weight, call)
            result = stacking.run(task)
            self._record(task, result)
        if result.status in _WARNINGS:
            # Past _fit, fit and scikit-learn's wrapper around it, to the line of the user.
            warnings.warn(result.message, _WARNINGS[result.status], stacklevel=4)
        return self

    def _task(self, X: Any, y: Any, sample_weight: Any, call: Call) -> FitTask:
        """Return the training that this call asks for; validates everything first."""
        device = resolve_device(self.device, self.dtype)
        hidden = hidden_sizes(self.hidden_layer_sizes)
        stops_early = self.early_stopping and self.solver != "lbfgs"
        if call.one_epoch and stops_early:
            raise ValueError("partial_fit does not support early_stopping=True: it has no validation split to keep")
        dtype = self._precision.array
        X, y, sample_weight = training_data(
            self, X, y, sample_weight, dtype=dtype, reset=not call.goes_on, y_numeric=is_regressor(self)
        )
        target = self._read_target(y, call)
        if stops_early:
            check_split(len(target), self.validation_fraction)
        layer_sizes = (X.shape[1], *hidden, self.n_outputs_)
        rng = check_random_state(self.random_state)
        activation = ACTIVATIONS[self.activation]
        parameters = (
            self._current_parameters(layer_sizes)
            if call.goes_on
            else glorot_uniform(layer_sizes, activation.init_factor, rng).astype(dtype)
        )
        train_rows, validation_rows = np.arange(len(target)), None
        if stops_early:
            train_rows, validation_rows = split_validation(
                len(target), sample_weight, self.validation_fraction, self._stratify(target), rng
            )
        return FitTask(
            X=stacking.shared(X),
            target=target,
            sample_weight=sample_weight,
            train_rows=train_rows,
            validation_rows=validation_rows,
            layer_sizes=layer_sizes,
            activation=activation,
            objective=self._objective(),
            settings=self._settings(len(train_rows)),
            precision=precision_for(self.dtype, device, len(target), len(parameters)),
            device=device,
            rng=rng,
            parameters=parameters,
            one_epoch=call.one_epoch,
            progress=self._earlier_progress(call),
            optimizer_state=self._optimizer_state if call.goes_on and call.one_epoch else {},
        )

    def _settings(self, n_train: int) -> Settings:
        """Return the parameters that training reads."""
        values = {f.name: getattr(self, f.name) for f in fields(Settings)}
        values["batch_size"] = n_train if self.solver == "lbfgs" else clip_batch_size(self.batch_size, n_train)
        return Settings(**values)

    def _earlier_progress(self, call: Call) -> Progress:
        """Return the progress to go on from; a warm start takes a new optimizer, and with it the initial rate."""
        if not call.goes_on:
            return Progress()
        return self._progress if call.one_epoch else self._progress.fresh_rate()

    def _current_parameters(self, layer_sizes: tuple[int, ...]) -> np.ndarray:
        """Return the fitted parameters, packed, if they have the shape asked for."""
        fitted = (np.shape(self.coefs_[0])[0], *(np.shape(coef)[1] for coef in self.coefs_))
        if fitted != layer_sizes:
            raise ValueError(
                f"warm_start and partial_fit must go on with the network they left, of layers {fitted}, "
                f"got layers {layer_sizes}"
            )
        return pack(*self._layers(), self._precision.array)

    def _stratify(self, target: np.ndarray) -> np.ndarray | None:
        """Return what the validation split keeps the shares of, if anything."""
        return None

    def _record(self, task: FitTask, result: FitResult) -> None:
        """Set the fitted attributes, plain NumPy and Python values."""
        if not np.isfinite(result.parameters).all():
            raise ValueError(Status.DIVERGED.message(task.settings))
        self.coefs_, self.intercepts_ = unpack(result.parameters, task.layer_sizes)
        self.n_layers_ = len(task.layer_sizes)
        self.out_activation_ = task.objective.out_activation
        self.n_iter_, self.loss_ = result.n_iter, result.loss
        progress = self._progress = result.progress
        self._optimizer_state = result.optimizer_state
        self.t_, self.loss_curve_ = progress.t, list(progress.loss_curve)
        scored = task.validation_rows is not None
        self.best_loss_ = None if scored else progress.best_loss
        self.validation_scores_ = list(progress.validation_scores) if scored else None
        self.best_validation_score_ = progress.best_score if scored else None

    def _predict_rows(self, X: Any, finish: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Return `finish(raw)` for all rows of X; see `predict_rows`."""
        if not hasattr(self, "coefs_"):
            check_is_fitted(self)  # raises; what it asks first takes a tenth of a prediction of one row
        X = prediction_data(self, X)
        coefs, intercepts = self._layers()
        n_parameters = sum(array.size for array in (*coefs, *intercepts))
        device = resolve_device(self.device, self.dtype)
        precision = precision_for(self.dtype, device, X.shape[0], n_parameters)
        return predict_rows(X, coefs, intercepts, ACTIVATIONS[self.activation], precision, device, finish)

    def _layers(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return `coefs_` and `intercepts_`, as arrays that PyTorch takes even where a user has assigned others."""
        dtype = self._precision.array
        return (
            [np.ascontiguousarray(coef, dtype) for coef in self.coefs_],
            [np.ascontiguousarray(intercept, dtype) for intercept in self.intercepts_],
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags


def _writable(array: np.ndarray) -> np.ndarray:
    """Return the array itself, or a copy of a read-only one."""
    return array if array.flags.writeable else array.copy()
