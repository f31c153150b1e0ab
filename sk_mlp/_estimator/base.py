"""`BaseMLPTorch`: parameters and data to a `FitTask`, a `FitResult` to fitted attributes, and rows to predictions."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sk_mlp import stacking
from sk_mlp._alike import alike
from sk_mlp._compute.device import PRECISIONS, Precision, precision_for, resolve_device
from sk_mlp._compute.modes import Surroundings, own_modes
from sk_mlp._network.architecture import Architecture, Weights
from sk_mlp._network.autograd import may_draw
from sk_mlp._network.layout import sizes_of
from sk_mlp._network.state import State
from sk_mlp._objective import Objective
from sk_mlp._training.optimizers import resumed
from sk_mlp._training.progress import Progress
from sk_mlp._training.task import FitResult, FitTask, Status
from sk_mlp._training.weights import Scaled, penalty_for
from sk_mlp.exceptions import UntrainedWarning

from .attributes import OfProgress, as_it_is, becoming, changes, twin_of
from .baseline import Fitted, doubts, far_scales
from .callbacks import OF_A_FIT_UNDER_WAY, Callbacks, callbacks_of
from .inputs import (
    generator_for,
    prediction_data,
    rewound_on_error,
)
from .parameters import (
    CONSTRAINTS,
    are_allowed,
    hint_for,
    settings_of,
)
from .prediction import predict_rows, predict_rows_by_module
from .reading import Call, Sample, draw_tables, read

_WARNINGS: dict[Status, type[Warning]] = {
    Status.MAX_ITER: ConvergenceWarning,
    Status.MAX_TIME: ConvergenceWarning,
    Status.DIVERGED: ConvergenceWarning,
    Status.LBFGS_STOPPED: ConvergenceWarning,
    Status.INTERRUPTED: UserWarning,
}


class Network(NamedTuple):
    """A network to be trained: packed parameters, its module where it has no closed form, and number types."""

    parameters: np.ndarray
    module: nn.Module | None
    precision: Precision


def has_partial_fit(estimator: BaseMLPTorch) -> bool:
    """Tell whether the solver takes one epoch at a time."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit needs a solver that works in epochs, got solver='lbfgs'")
    return True


class BaseMLPTorch(CallbackSupportMixin, BaseEstimator, ABC):
    """What the classifier and the regressor share. Not for direct use."""

    _doc_link_module = "sk_mlp"
    _doc_link_template = "https://github.com/sk-mlp/sk-mlp/blob/main/docs/api.md#{anchor}"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS
    # Public attributes that a network's predictions need besides its weights.
    _needed: ClassVar[frozenset[str]] = frozenset({"n_features_in_", "n_outputs_", "out_activation_"})

    # Parameters, as scikit-learn documents them for its MLPs, and ours.
    hidden_layer_sizes: Any
    activation: Any
    solver: Any
    solver_kwargs: dict[str, Any] | None
    batch_size: int | str
    learning_rate_init: float
    random_state: Any
    warm_start: bool
    early_stopping: bool
    validation_fraction: float
    device: str
    dtype: str
    dropout: Any
    normalization: str | None
    init: str
    module: Callable[[int, int], nn.Module] | None
    scoring: Any
    # Fitted attributes.
    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]
    module_state_: dict[str, np.ndarray]
    out_activation_: str
    n_features_in_: int
    n_outputs_: int
    _has_validation: bool
    _network: dict[str, Any]
    _scoring: Any
    _progress: Progress
    _optimizer_state: Mapping[str, Any]

    @property
    def module_(self) -> nn.Module:
        """The network as a live `torch.nn.Sequential` of linear layers and activations, or what `module` builds.

        Its output is the raw prediction (the logits of a classifier), `(n_samples, n_outputs)`. It lives on the CPU, in
        evaluation mode, and shares the memory of `coefs_`, `intercepts_` and `module_state_`: training it further
        changes predictions. (Read-only arrays, and assigned ones of another dtype, are copied.) Each access makes
        another module over that same memory. Its `state_dict()` is contiguous, for which weights are copied.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        self._require_fitted()
        fitted = as_it_is(self)
        fitted._check_what_predictions_read()
        with own_modes():
            architecture, weights = fitted._fitted_architecture(), fitted._weights()
            writable = Weights(
                [_writable(coef) for coef in weights.coefs],
                [_writable(intercept) for intercept in weights.intercepts],
                {name: _writable(value) for name, value in weights.rest.items()},
            )
            return architecture.fitted_module(writable).eval()

    loss_curve_ = OfProgress(lambda fitted: fitted._progress.history.loss.tolist())
    validation_scores_ = OfProgress(lambda fitted: fitted._where_validated("validation_score"))
    validation_loss_curve_ = OfProgress(lambda fitted: fitted._where_validated("validation_loss"))

    @property
    def history_(self) -> dict[str, np.ndarray]:
        """What is known of each epoch, an array `(n_epochs,)` for each quantity.

        'loss', 'validation_loss', 'validation_score', 'learning_rate', 'gradient_norm' and 'seconds'; NaN where there
        is nothing to know. Warm starts and `partial_fit` extend it, as they do `loss_curve_`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        self._require_fitted()
        return getattr(self, "_progress", Progress()).history.arrays()

    def _where_validated(self, name: str) -> list[float] | None:
        """Return what the last fit knows of the epochs that had rows to validate on; None if it had none."""
        return self._progress.history.where_scored(name) if self._has_validation else None

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        """Return what completes the documentation link in the HTML representation."""
        return {"anchor": type(self).__name__.lower()}

    @abstractmethod
    def _read_target(self, y: Any, call: Call) -> np.ndarray:
        """Return the target `(n, n_outputs)` for validated y, and set what describes it (`n_outputs_`, `classes_`)."""

    @abstractmethod
    def _encode(self, y: Any) -> np.ndarray:
        """Return the target for validated y like the one that was read."""

    @abstractmethod
    def _objective(self) -> Objective:
        """Return the objective of the task that y has set."""

    def _weighing(self, target: np.ndarray, weight: np.ndarray | None, call: Call) -> Callable[..., Scaled | None]:
        """Return what maps a target and its rows' weights to the weights that count."""
        return lambda target, weight: None if weight is None else Scaled.of(weight)

    def _stratify(self, target: np.ndarray) -> np.ndarray | None:
        """Return what the validation split keeps the shares of, if anything."""
        return None

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """Return the names of all parameters, looked up once a class: a search asks several times a fit."""
        return list(_parameter_names(cls, cls.__init__))

    @property
    def _precision(self) -> Precision:
        return PRECISIONS[self.dtype]

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: not a fit under way, of which callbacks are handed copies."""
        return {name: value for name, value in super().__getstate__().items() if name not in OF_A_FIT_UNDER_WAY}

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a network to predict and to go on with, fitted or made by setting public attributes."""
        own = vars(self).keys()
        of_layers = {"coefs_", "intercepts_"} if self.module is None else {"module_state_"}
        return own >= self._needed and ("_network" in own or own >= of_layers)

    def _require_fitted(self) -> None:
        """Raise NotFittedError unless there is a network; with the attributes that would complete one set by hand."""
        if self.__sklearn_is_fitted__():
            return
        missing = sorted(self._needed - vars(self).keys())
        if missing and {"coefs_", "intercepts_"} <= vars(self).keys():
            raise NotFittedError(
                f"coefs_ and intercepts_ must come with {missing} to predict without a fit, got them alone"
            )
        check_is_fitted(self)  # raises

    def _validate_params(self) -> None:
        """Raise scikit-learn's error for the first parameter with a value that it may not have."""
        if not are_allowed(self, self._parameter_constraints):
            with hint_for(self):
                super()._validate_params()

    def _check_what_predictions_read(self) -> None:
        """Raise the same for the parameters that predictions read: `set_params` may have changed them since the fit."""
        if not isinstance(self.device, str) or not isinstance(self.dtype, str) or self.dtype not in PRECISIONS:
            super()._validate_params()

    def _fit(self, train: Sample, validation: Sample, call: Call) -> Self:
        """Train a twin, and take over what has become of it: all of it at once, or nothing."""
        users = stacking.surroundings()
        if call.goes_on and call.one_epoch:
            self._validate_params()  # scikit-learn leaves that to the first call
        callbacks = None if call.one_epoch else callbacks_of(self, users, *train)
        before = dict(vars(self))
        with own_modes(), rewound_on_error(None if stacking.is_stacked() else self.random_state):
            twin = twin_of(self)
            task, attributes = twin._task(train, validation, call, callbacks, users)
            if callbacks is not None:
                callbacks.fitted = partial(_attributes_so_far, twin, before, task, attributes)
            result = stacking.run(task)
            if not result.is_finite:
                scales = far_scales(task, getattr(twin, "feature_names_in_", ()))
                raise ValueError(" ".join([Status.DIVERGED.message(task.settings), *scales]))
            twin._record(task, result, attributes)
            with becoming(self, twin, before):
                if callbacks is not None:
                    callbacks.end_fit(result)
                for category, message in _warnings_of(self, task, result):
                    # Past _fit, fit and scikit-learn's wrapper around it, to the line of the user.
                    warnings.warn(message, category, stacklevel=4)
        return self

    def _task(
        self,
        train: Sample,
        validation: Sample,
        call: Call,
        callbacks: Callbacks | None = None,
        users: Surroundings | None = None,
    ) -> tuple[FitTask, Callable[[State], dict[str, Any]]]:
        """Return the training that this call asks for, and what maps its states to fitted attributes.

        Reads and checks everything first. Then it draws, in scikit-learn's order: weights, and the split.
        """
        users = users or stacking.surroundings()
        reading = read(self, train, validation, call)
        architecture, n_rows = reading.architecture, len(reading.table.rows)
        n_train = n_rows - reading.n_held_out
        settings = settings_of(self, n_train, users)
        is_drawn_from = not call.goes_on or architecture.is_random or n_rows > n_train or n_train > settings.batch_size
        rng = generator_for(self.random_state, is_drawn_from=is_drawn_from)
        # From a copy: nothing is drawn that scikit-learn does not draw.
        seed = int(copy.deepcopy(rng).randint(2**31)) if rng is not None and architecture.is_random else 0
        network = self._network_to_train(architecture, rng, seed, n_rows, reading.device, call)
        fewest_rows = architecture.fewest_rows(network.module, n_train, settings.batch_size)
        attributes = partial(self._attributes, architecture, network.module, reading.objective)
        table, checks = draw_tables(self, reading, rng, attributes, users)
        alpha = penalty_for(self.alpha, table.exponent, self._precision.array)
        earlier = getattr(self, "_optimizer_state", {}) if call.goes_on and call.one_epoch else {}
        task = FitTask(
            table=table,
            validation=checks,
            layer_sizes=architecture.layer_sizes,
            activations=architecture.activations,
            dropout=architecture.dropout,
            objective=reading.objective,
            settings=replace(settings, alpha=alpha),
            precision=network.precision,
            device=reading.device,
            rng=rng,
            seed=seed,
            parameters=network.parameters,
            module=network.module,
            draws=network.module is not None and may_draw(network.module),
            fewest_rows=fewest_rows,
            one_epoch=call.one_epoch,
            progress=self._earlier_progress(call, reading.objective),
            optimizer_state=resumed(earlier, settings, architecture.layout(network.module)) if earlier else {},
            watch=callbacks,
        )
        return task, attributes

    def _description(self, layer_sizes: tuple[int, ...]) -> dict[str, Any]:
        """Return what describes the network that the parameters ask for."""
        names = ("activation", "dropout", "normalization", "module")
        return {"layer_sizes": layer_sizes, **{name: getattr(self, name) for name in names}}

    def _network_to_train(
        self,
        architecture: Architecture,
        rng: np.random.RandomState | None,
        seed: int,
        n_rows: int,
        device: torch.device,
        call: Call,
    ) -> Network:
        """Return the network to train, with its first values or those it has."""
        dtype = self._precision.array
        weights = self._current_weights(architecture) if call.goes_on else architecture.draw(rng, seed, dtype)
        module = architecture.trained_module(weights)
        parameters = architecture.pack(weights, module, dtype)
        precision = self._precision_for(architecture, device, n_rows, len(parameters))
        if module is not None:
            module.to(device, precision.master)
            architecture.try_out(module, torch.empty(0, dtype=precision.master, device=device))
        return Network(parameters, module, precision)

    def _precision_for(
        self, architecture: Architecture, device: torch.device, n_rows: int, n_parameters: int
    ) -> Precision:
        """Return the number types to compute with; a user's module gets what `dtype` says, whatever its size."""
        if architecture.factory is not None:
            return self._precision
        return precision_for(self.dtype, device, n_rows, n_parameters)

    def _earlier_progress(self, call: Call, objective: Objective) -> Progress:
        """Return the progress to go on from; a warm start takes a new optimizer, and with it the initial rate."""
        if not call.goes_on or not hasattr(self, "_progress"):
            return Progress()
        is_same_score = alike(self._scored_by(objective), self._scoring)
        progress = self._progress if is_same_score else self._progress.fresh_score()
        return progress if call.one_epoch else progress.fresh_rate()

    def _goes_by_loss(self, objective: Objective) -> bool:
        """Whether the validation score is minus the validation loss."""
        return isinstance(self.scoring, str | None) and (self.scoring or objective.scoring) == "loss"

    def _scored_by(self, objective: Objective) -> Any:
        """Return what makes validation scores ones that can be compared: the scorer, or parameters of the loss."""
        if not self._goes_by_loss(objective):
            return self.scoring
        parameters = {name: value for name, value in vars(objective).items() if name not in ("function", "task")}
        return {"loss": self.loss, **parameters}

    def _current_weights(self, architecture: Architecture) -> Weights:
        """Return the fitted weights, if they are of the network asked for."""
        architecture.require_like(self._fitted_architecture())
        return self._weights()

    def _attributes(
        self, architecture: Architecture, module: nn.Module | None, objective: Objective, state: State
    ) -> dict[str, Any]:
        """Return the fitted attributes that predictions need, for a state of the network."""
        weights = architecture.unpack(state, module)
        attributes: dict[str, Any] = {
            "out_activation_": objective.out_activation,
            "_network": architecture.description,
        }
        if module is not None:
            attributes["module_state_"] = dict(weights.rest)
        if architecture.factory is None:
            attributes |= {"coefs_": weights.coefs, "intercepts_": weights.intercepts}
            attributes["n_layers_"] = len(architecture.layer_sizes)
        return attributes

    def _record(self, task: FitTask, result: FitResult, attributes: Callable[[State], dict[str, Any]]) -> None:
        """Set the fitted attributes, plain NumPy and Python values."""
        for name in ("coefs_", "intercepts_", "n_layers_", "module_state_"):
            self.__dict__.pop(name, None)  # of another kind of network
        for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_"):
            self.__dict__.pop(name, None)  # assigned by a user
        self.__dict__.update(attributes(result.state))
        self.n_iter_, self.loss_ = result.n_iter, result.loss
        progress = self._progress = result.progress
        self._optimizer_state = result.optimizer_state
        self._scoring = self._scored_by(task.objective)
        self.t_ = progress.t
        scored = self._has_validation = task.validation is not None
        self.best_loss_ = None if scored and self.early_stopping else progress.best_loss
        self.best_validation_score_ = progress.best_score if scored else None

    def _predict_rows(self, X: Any, finish: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Return `finish(raw)` for all rows of X; see `predict_rows`."""
        self._require_fitted()
        self._check_what_predictions_read()
        with own_modes():
            return self._predict_checked_rows(prediction_data(self, X), finish)

    def _predict_checked_rows(self, X: Any, finish: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Return the same for rows that have been checked."""
        architecture, weights = self._fitted_architecture(), self._weights()
        n_parameters = sum(array.size for array in (*weights.coefs, *weights.intercepts, *weights.rest.values()))
        device = resolve_device(self.device, self.dtype)
        precision = self._precision_for(architecture, device, X.shape[0], n_parameters)
        if not architecture.has_closed_form:
            module = architecture.predicting_module(weights)
            return predict_rows_by_module(X, module, precision, device, finish)
        activations = architecture.activations
        return predict_rows(X, weights.coefs, weights.intercepts, activations, precision, device, finish)

    def _fitted_sizes(self) -> tuple[int, ...]:
        """Return the layer sizes of the network as it is, whoever has assigned its coefs."""
        description = self._fitted_description()
        fitted: tuple[int, ...] = description["layer_sizes"]
        if description["module"] is not None:
            return fitted
        return sizes_of(self.coefs_, self.intercepts_, self.n_features_in_, fitted[-1])

    def _fitted_description(self) -> dict[str, Any]:
        """Return what describes the network; for attributes that were set by hand, that is what the parameters say."""
        if "_network" in vars(self):
            return self._network
        return self._description((self.n_features_in_, self.n_outputs_ * self._objective().n_raw))

    def _fitted_architecture(self) -> Architecture:
        """Return the network that was fitted, whatever parameters were set since."""
        return Architecture({**self._fitted_description(), "layer_sizes": self._fitted_sizes()})

    def _weights(self) -> Weights:
        """Return the fitted weights, as arrays that PyTorch takes even where a user has assigned others."""
        dtype = self._precision.array
        built = self._fitted_description()["module"] is None
        return Weights(
            [np.ascontiguousarray(coef, dtype) for coef in self.coefs_] if built else [],
            [np.ascontiguousarray(intercept, dtype) for intercept in self.intercepts_] if built else [],
            {name: _of_dtype(value, dtype) for name, value in getattr(self, "module_state_", {}).items()},
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags


@lru_cache(maxsize=64)
def _parameter_names(cls: type[BaseMLPTorch], _: Callable[..., None]) -> list[str]:
    """Return what scikit-learn finds in the signature of a class; another `__init__` is another question."""
    names: list[str] = BaseEstimator._get_param_names.__func__(cls)
    return names


def _attributes_so_far(
    twin: BaseMLPTorch,
    before: dict[str, Any],
    task: FitTask,
    attributes: Callable[[State], dict[str, Any]],
    result: FitResult,
) -> dict[str, Any]:
    """Return what to set on an estimator that was `before`, to have what has come of a twin's fit so far.

    It tells no callbacks of fits of its own.
    """
    fitted = twin_of(twin)
    fitted._record(task, result, attributes)
    return {**changes(before, fitted), "_skl_callbacks": []}


def _warnings_of(fitted: BaseMLPTorch, task: FitTask, result: FitResult) -> Iterator[tuple[type[Warning], str]]:
    """Yield what a user should know of how a fit has ended."""
    if result.status in _WARNINGS:
        yield _WARNINGS[result.status], result.message
    looked_at = Fitted(
        raw_predictions=lambda X: fitted._predict_checked_rows(X, lambda raw: raw),
        module=None if fitted.module is not None else lambda: fitted.module_,
        feature_names=getattr(fitted, "feature_names_in_", ()),
    )
    doubt = doubts(task, result, looked_at)
    if doubt is not None:
        yield UntrainedWarning, doubt


def _of_dtype(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an entry of a module's state, floats in `dtype`; the array itself where it already is."""
    return value.astype(dtype, copy=False) if value.dtype.kind == "f" else value


def _writable(array: np.ndarray) -> np.ndarray:
    """Return the array itself, or a copy of a read-only one."""
    return array if array.flags.writeable else array.copy()
