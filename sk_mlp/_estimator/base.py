"""`BaseMLPTorch`, the base class of both estimators: parameters, fitted attributes and predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sk_mlp._compute.device import PRECISIONS, Precision
from sk_mlp._compute.modes import own_modes
from sk_mlp._objective import Objective
from sk_mlp._training.history import History
from sk_mlp._training.weights import Scaled

from .attributes import OfProgress, as_it_is
from .fitted import live_module, predict_checked_rows
from .inputs import prediction_data
from .parameters import CONSTRAINTS, are_allowed, hint_for
from .reading import FitMode
from .sklearn_private import OF_A_FIT_UNDER_WAY
from .stored import restore, store
from .targets import Codec

# Private attributes, which copies and files hold in a form of their own.
_STORED = ("_network", "_labels", "_progress", "_optimizer_state", "_scoring", "_has_validation")


def has_partial_fit(estimator: BaseMLPTorch) -> bool:
    """Whether the solver works in epochs; raises AttributeError if not, as `available_if` expects."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit needs a solver that works in epochs, got solver='lbfgs'")
    return True


class BaseMLPTorch(CallbackSupportMixin, BaseEstimator, ABC):
    """Base class of the classifier and the regressor. Not for direct use."""

    _doc_link_module = "sk_mlp"
    _doc_link_template = "https://github.com/sk-mlp/sk-mlp/blob/main/docs/api.md#{anchor}"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS
    # Public attributes that predictions need in addition to the weights.
    _needed: ClassVar[frozenset[str]] = frozenset({"n_features_in_", "n_outputs_", "out_activation_"})

    # Parameters; the subclasses document them.
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
    _progress: dict[str, Any]
    _optimizer_state: dict[str, Any]

    @property
    def module_(self) -> nn.Module:
        """The network as a `torch.nn.Sequential` of linear layers and activations, or the module that `module` builds.

        Its output is the raw prediction (the logits of a classifier), `(n_samples, n_outputs)`. The module is on the
        CPU, in evaluation mode, and shares the memory of `coefs_`, `intercepts_` and `module_state_`: training it
        further changes predictions. (Read-only arrays, and assigned arrays of another dtype, are copied.) Each access
        makes a new module over the same memory. Its `state_dict()` contains contiguous copies of the weights.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        self._require_fitted()
        fitted = as_it_is(self)
        fitted._check_what_predictions_read()
        with own_modes():
            return live_module(fitted)

    loss_curve_ = OfProgress(lambda fitted: fitted._history().loss.tolist())
    validation_scores_ = OfProgress(lambda fitted: fitted._where_validated("validation_score"))
    validation_loss_curve_ = OfProgress(lambda fitted: fitted._where_validated("validation_loss"))

    @property
    def history_(self) -> dict[str, np.ndarray]:
        """Values of each epoch, one array `(n_epochs,)` for each quantity.

        The quantities are 'loss', 'validation_loss', 'validation_score', 'learning_rate', 'gradient_norm' and
        'seconds'; NaN where there is no value. Warm starts and `partial_fit` extend the arrays, like `loss_curve_`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        self._require_fitted()
        return self._history().arrays()

    def _where_validated(self, name: str) -> list[float] | None:
        """Return the values of the epochs that had rows to validate on; None if the last fit had no such rows."""
        return self._history().where_scored(name) if self._has_validation else None

    def _history(self) -> History:
        """Return the history of all epochs; an empty one if a user has set the attributes without a fit."""
        return History.of(self._progress["history"]) if "_progress" in vars(self) else History()

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        """Return the anchor that completes the documentation link in the HTML representation."""
        return {"anchor": type(self).__name__.lower()}

    @abstractmethod
    def _read_y(self, y: Any) -> Any:
        """Return the labels or values in a form that a codec accepts."""

    @abstractmethod
    def _codec_for(self, y: Any, mode: FitMode) -> Codec:
        """Return the codec for `y`, which `_read_y` has read; if training continues, the fitted one.

        Raises ValueError if `y` does not fit the fitted codec.
        """

    @abstractmethod
    def _fitted_codec(self) -> Codec:
        """Return the codec that the fitted attributes describe."""

    @abstractmethod
    def _objective(self, codec: Codec) -> Objective:
        """Return the objective for the kind of `y` that the codec describes."""

    def _weighing(
        self, codec: Codec, target: np.ndarray, weight: np.ndarray | None, mode: FitMode
    ) -> Callable[..., Scaled | None]:
        """Return a function from a target and its sample weights to the weights that training uses."""
        return lambda target, weight: None if weight is None else Scaled.of(weight)

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """Return the names of all parameters, from a cache: a search calls this several times for each fit."""
        return list(_parameter_names(cls, cls.__init__))

    @property
    def _precision(self) -> Precision:
        return PRECISIONS[self.dtype]

    def __copy__(self) -> Self:
        """Return an estimator with the same attributes, without those of a running fit; no array is copied."""
        twin = object.__new__(type(self))
        own = vars(self).items()
        twin.__dict__.update((name, value) for name, value in own if name not in OF_A_FIT_UNDER_WAY)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickles and deep copies, without attributes of a running fit."""
        state = {name: value for name, value in super().__getstate__().items() if name not in OF_A_FIT_UNDER_WAY}
        private = {name: state.pop(name) for name in _STORED if name in state}
        if "_progress" in private:
            progress = private["_progress"]
            private["_progress"] = {**progress, "history": History.of(progress["history"]).compact()}
        return {**state, "_stored": store(private)} if private else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the state that `__getstate__` has returned. Raises ValueError if a later version has stored it."""
        public = {name: value for name, value in state.items() if name != "_stored"}
        super().__setstate__({**public, **restore(state["_stored"])} if "_stored" in state else public)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a network for predictions, from a fit or from public attributes that a user has set."""
        own = vars(self).keys()
        of_layers = {"coefs_", "intercepts_"} if self.module is None else {"module_state_"}
        return own >= self._needed and ("_network" in own or own >= of_layers)

    def _require_fitted(self) -> None:
        """Raise NotFittedError unless there is a network; name the missing attributes if a user has set some."""
        if self.__sklearn_is_fitted__():
            return
        missing = sorted(self._needed - vars(self).keys())
        if missing and {"coefs_", "intercepts_"} <= vars(self).keys():
            raise NotFittedError(
                f"coefs_ and intercepts_ must come with {missing} to predict without a fit, got them alone"
            )
        check_is_fitted(self)  # raises

    def _validate_params(self) -> None:
        """Raise scikit-learn's error for the first parameter with an invalid value."""
        if not are_allowed(self, self._parameter_constraints):
            with hint_for(self):
                super()._validate_params()

    def _check_what_predictions_read(self) -> None:
        """Raise the same error for the parameters that predictions read; `set_params` may have changed them."""
        if not isinstance(self.device, str) or not isinstance(self.dtype, str) or self.dtype not in PRECISIONS:
            super()._validate_params()

    def _predict_rows(self, X: Any, finish: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Return `finish(raw)` for all rows of X; see `predict_rows`."""
        self._require_fitted()
        self._check_what_predictions_read()
        with own_modes():
            return predict_checked_rows(self, prediction_data(self, X), finish)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags


@lru_cache(maxsize=64)
def _parameter_names(cls: type[BaseMLPTorch], _: Callable[..., None]) -> list[str]:
    """Return the parameter names that scikit-learn finds in the signature of a class.

    The second argument is the `__init__`; it makes the cache notice that it was replaced.
    """
    names: list[str] = BaseEstimator._get_param_names.__func__(cls)
    return names
