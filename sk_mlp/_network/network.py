"""The interface of networks for training and prediction, for gradients in closed form or by autograd."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, Protocol

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
    """The parameters of k networks and their gradient, both flat, with the layout of both."""

    layout: Layout
    parameters: Tensor
    gradient: Tensor


class ValueAndGradient(Protocol):
    """Computes the loss of batches of one size, and its gradient."""

    def value_and_gradient(self, batch: Batch) -> None:
        """Fill the gradient, and the row losses and norms of the batch."""


class Network(ABC):
    """Networks of one shape, as functions of their parameters: `ClosedForm` or `ModuleNetwork`."""

    # Whether the network only computes with given tensors, by the same operations each time. Then several train as one
    # stack, in any thread, their steps are recorded, and sparse rows stay sparse.
    is_pure: ClassVar[bool]

    layer_sizes: tuple[int, ...]
    dropout: tuple[float, ...]  # rates of the hidden layers; empty for a user-defined module

    @property
    def n_outputs(self) -> int:
        """Number of raw predictions per row."""
        return self.layer_sizes[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of units of each hidden layer; empty for a user-defined module."""
        return self.layer_sizes[1:-1]

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Networks with the same key can train as one stack."""

    @abstractmethod
    def layout(self, k: int) -> Layout:
        """Return the layout of the parameters of k networks in a flat buffer."""

    @abstractmethod
    def buffers(self) -> dict[str, np.ndarray]:
        """Return copies of the network's state without its trained parameters."""

    @abstractmethod
    def is_finite(self) -> bool:
        """Whether this state is finite."""

    @abstractmethod
    def arrays(self, weights: Weights) -> list[np.ndarray]:
        """Return the trained parameters among `weights`, with the shapes of `layout(1)`; views if possible."""

    @abstractmethod
    def tensors(self, weights: Weights, device: torch.device, precision: Precision) -> list[Tensor]:
        """Return the parameters that `forward` takes for predictions with `weights`."""

    @abstractmethod
    def attributes(self, parameters: np.ndarray, buffers: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the fitted attributes for these values."""

    @abstractmethod
    def multiply_adds(self, n: int, X: Any) -> int:
        """Return the number of multiply-adds of a member's largest product for a batch of `n` rows of X."""

    @abstractmethod
    def input_values(self, X: Any) -> int:
        """Return how many values of a row of X the network reads."""

    @property
    @abstractmethod
    def values_per_row(self) -> int:
        """Approximate number of values that the prediction of a row needs, in addition to its input."""

    @abstractmethod
    def trains_on_one_row(self) -> bool:
        """Whether the network can be trained on a batch of one row."""

    @abstractmethod
    def context(self) -> AbstractContextManager[Any]:
        """Return the context with PyTorch's mode for the network's computations."""

    @abstractmethod
    def product_dtype(self, precision: Precision) -> torch.dtype:
        """Return the dtype that inputs and parameters are cast to."""

    @abstractmethod
    def move_to(self, device: torch.device, precision: Precision) -> None:
        """Move what the network holds besides its parameters to a device."""

    @abstractmethod
    def value_and_gradient(
        self, buffers: Buffers, n: int, objective: Objective, products: Products, precision: Precision
    ) -> ValueAndGradient:
        """Return the object that computes value and gradient for batches of `n` rows."""

    @abstractmethod
    def forward(self, parameters: Sequence[Tensor], n: int, products: Products, precision: Precision) -> Predictor:
        """Return the predictor of `n` rows, for parameters with the shapes of `layout` and the dtype of products."""


def pack(arrays: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Return a new packed vector of the parameters that `Network.arrays` returns."""
    return np.concatenate([np.ravel(array) for array in arrays], dtype=dtype, casting="unsafe")
