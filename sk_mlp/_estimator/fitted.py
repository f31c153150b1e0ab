"""The network that an estimator's attributes describe, set by a fit or by a user, and its predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from sk_mlp._compute.device import resolve_device
from sk_mlp._network.architecture import Architecture
from sk_mlp._network.layout import sizes_of
from sk_mlp._network.values import Weights

from .prediction import predict_rows

if TYPE_CHECKING:
    from .base import BaseMLPTorch


def description_of(estimator: BaseMLPTorch, layer_sizes: tuple[int, ...]) -> dict[str, Any]:
    """Return the description of the network that the parameters ask for."""
    names = ("activation", "dropout", "normalization", "module")
    return {"layer_sizes": layer_sizes, **{name: getattr(estimator, name) for name in names}}


def fitted_description(estimator: BaseMLPTorch) -> dict[str, Any]:
    """Return the description of the fitted network; that of the parameters if a user has set the attributes."""
    if "_network" in vars(estimator):
        return estimator._network
    n_raw = estimator._objective(estimator._fitted_codec()).n_raw
    return description_of(estimator, (estimator.n_features_in_, estimator.n_outputs_ * n_raw))


def fitted_sizes(estimator: BaseMLPTorch) -> tuple[int, ...]:
    """Return the layer sizes of the current `coefs_`, which a user may have assigned."""
    description = fitted_description(estimator)
    fitted: tuple[int, ...] = description["layer_sizes"]
    if description["module"] is not None:
        return fitted
    return sizes_of(estimator.coefs_, estimator.intercepts_, estimator.n_features_in_, fitted[-1])


def fitted_architecture(estimator: BaseMLPTorch) -> Architecture:
    """Return the fitted network, which does not depend on parameters that were set since the fit."""
    return Architecture({**fitted_description(estimator), "layer_sizes": fitted_sizes(estimator)})


def fitted_weights(estimator: BaseMLPTorch) -> Weights:
    """Return the fitted weights as arrays that PyTorch accepts, also if a user has assigned other arrays."""
    dtype = estimator._precision.array
    has_layers = fitted_description(estimator)["module"] is None
    return Weights(
        [np.ascontiguousarray(coef, dtype) for coef in estimator.coefs_] if has_layers else [],
        [np.ascontiguousarray(intercept, dtype) for intercept in estimator.intercepts_] if has_layers else [],
        {name: _of_dtype(value, dtype) for name, value in getattr(estimator, "module_state_", {}).items()},
    )


def live_module(estimator: BaseMLPTorch) -> nn.Module:
    """Return the fitted network as a module over the memory of the attributes; read-only arrays are copied."""
    architecture, weights = fitted_architecture(estimator), fitted_weights(estimator)
    writable = Weights(
        [_writable(coef) for coef in weights.coefs],
        [_writable(intercept) for intercept in weights.intercepts],
        {name: _writable(value) for name, value in weights.rest.items()},
    )
    return architecture.fitted_module(writable).eval()


def predict_checked_rows(estimator: BaseMLPTorch, X: Any, finish: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Return `finish(raw)` for all rows of the checked X; see `predict_rows`."""
    architecture, weights = fitted_architecture(estimator), fitted_weights(estimator)
    device = resolve_device(estimator.device, estimator.dtype)
    precision = architecture.precision(estimator.dtype, device, X.shape[0], weights.size)
    network = architecture.network_to_predict(weights)
    return predict_rows(X, network, weights, precision, device, finish)


def _of_dtype(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an entry of a module's state, floats in `dtype`; the array itself if it already has this dtype."""
    return value.astype(dtype, copy=False) if value.dtype.kind == "f" else value


def _writable(array: np.ndarray) -> np.ndarray:
    """Return the array itself, or a copy of a read-only one."""
    return array if array.flags.writeable else array.copy()
