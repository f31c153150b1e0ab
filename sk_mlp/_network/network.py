"""What training and prediction ask of a network, whichever way its gradient comes about."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sk_mlp._compute.device import Precision
from sk_mlp._compute.kernels import Products
from sk_mlp._objective import Objective

from .batch import Batch, Rows
from .layout import Layout
from .values import Weights

Predictor = Callable[[Rows], Tensor]  # from rows (k, n, n_features) to raw predictions (k, n_outputs, n)


class Buffers(NamedTuple):
    """The parameters of k networks and their gradient, both flat, and where each parameter lies in them."""

    layout: Layout
    parameters: Tensor
    gradient: Tensor


class ValueAndGradient(Protocol):
    """The loss of batches of one size, and its gradient."""

    def value_and_gradient(self, batch: Batch) -> None:
        """Fill the gradient, and the batch's row losses and norms."""


class Network(Protocol):
    """Networks of one shape, as functions of their parameters. `ClosedForm` and `ModuleNetwork` are the two kinds."""

    @property
    def n_outputs(self) -> int:
        """Number of raw predictions a row."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each hidden layer that was built here."""

    @property
    def dropout(self) -> tuple[float, ...]:
        """Dropout rate of each of these layers."""

    @property
    def stacks(self) -> bool:
        """Whether several train as one stack: each step is the same operations on given tensors, in any thread."""

    @property
    def key(self) -> Hashable:
        """What networks agree in that train as one stack."""

    def layout(self, k: int) -> Layout:
        """Return where the parameters of k networks lie in a flat buffer."""

    def buffers(self) -> dict[str, np.ndarray]:
        """Return copies of what the network holds besides its trained parameters."""

    def arrays(self, weights: Weights) -> list[np.ndarray]:
        """Return the trained parameters among `weights`, shaped as `layout(1)` has them; views where possible."""

    def attributes(self, parameters: np.ndarray, buffers: Any) -> dict[str, Any]:
        """Return the fitted attributes that hold these values."""

    def multiply_adds(self, n: int, X: Any) -> int:
        """Return the multiply-adds of a member's largest product for a batch of `n` rows of X."""

    def input_values(self, X: Any) -> int:
        """Return how many values the network reads in a row of X."""

    @property
    def values_per_row(self) -> int:
        """About how many values a row's prediction takes, besides its input."""

    def trains_on_one_row(self) -> bool:
        """Whether a batch of one row can be trained on."""

    def context(self) -> AbstractContextManager[Any]:
        """Return PyTorch's mode in which the network computes."""

    def product_dtype(self, precision: Precision) -> torch.dtype:
        """Return the dtype that inputs and parameters are cast to."""

    def on(self, device: torch.device, precision: Precision) -> Network:
        """Return the network with all that it holds on a device."""

    def value_and_gradient(
        self, buffers: Buffers, n: int, objective: Objective, products: Products, precision: Precision
    ) -> ValueAndGradient:
        """Return value and gradient for batches of `n` rows."""

    def forward(self, parameters: Sequence[Tensor], n: int, products: Products, precision: Precision) -> Predictor:
        """Return what predicts `n` rows with parameters shaped as `layout` has them, of the products' dtype."""


def pack(arrays: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Return a new packed vector of parameters as `Network.arrays` has them."""
    return np.concatenate([np.ravel(array) for array in arrays], dtype=dtype, casting="unsafe")
