"""Networks of linear layers and activations whose gradient is known in closed form."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sk_mlp._compute.device import Precision, as_tensor
from sk_mlp._compute.kernels import Products
from sk_mlp._objective import Objective

from .activations import Activation
from .backprop import Backprop
from .batch import values_in_a_row
from .forward import DroppedHidden, Forward, Hidden, hidden_layers
from .layout import Layers, Layout
from .network import Buffers, Network
from .values import Weights

_PASSES = 10  # passes of a step over the coefs: for gradient, penalty and norm, and for Adam's five arrays


@dataclass(frozen=True)
class ClosedForm(Network):
    """A `Network` of linear layers, with an activation and a dropout rate for each hidden layer."""

    layer_sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    dropout: tuple[float, ...]

    is_pure = True

    @property
    def key(self) -> Hashable:
        """Networks with the same key train as one stack; their dropout rates may differ."""
        return self.layer_sizes, self.activations, any(self.dropout)

    def layout(self, k: int) -> Layout:
        """Return the layout of the parameters of k networks in a flat buffer."""
        return Layout.of_layers(self.layer_sizes, k)

    def buffers(self) -> dict[str, np.ndarray]:
        """Return an empty dictionary: the network has only parameters."""
        return {}

    def is_finite(self) -> bool:
        """Whether all values besides the parameters are finite: there are none."""
        return True

    def arrays(self, weights: Weights) -> list[np.ndarray]:
        """Return views of `weights` with the shapes of `layout(1)`."""
        *hidden, output = weights.coefs
        *below, last = weights.intercepts
        return [*hidden, output.T, *(intercept[None] for intercept in below), last[:, None]]

    def tensors(self, weights: Weights, device: torch.device, precision: Precision) -> list[Tensor]:
        """Return the parameters on a device, of the products' dtype, with the shapes of `layout(1)`."""
        return [as_tensor(array[None], device, precision.product) for array in self.arrays(weights)]

    def attributes(self, parameters: np.ndarray, _: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the fitted attributes for packed parameters."""
        arrays = self.layout(1).arrays(parameters)
        n = len(arrays) // 2
        return {
            "coefs_": [*arrays[: n - 1], np.ascontiguousarray(arrays[n - 1].T)],
            "intercepts_": [intercept.ravel() for intercept in arrays[n:]],
            "n_layers_": len(self.layer_sizes),
        }

    def multiply_adds(self, n: int, X: Any) -> int:
        """Return the number of multiply-adds of a member's largest product for a batch of `n` rows of X.

        Products with sparse rows use only the stored values. Then most of the time is for the passes over the coefs,
        because each coef has a gradient nevertheless.
        """
        products = [n * fan_in * fan_out for fan_in, fan_out in pairwise(self.layer_sizes)]
        if sp.issparse(X):
            n_coefs = products[0] // n
            products[0] = max(n * values_in_a_row(X) * self.layer_sizes[1], _PASSES * n_coefs)
        return max(products)

    def input_values(self, X: Any) -> int:
        """Return how many values of a row of X the network reads: all, or the stored values and their columns."""
        return values_in_a_row(X)

    @property
    def values_per_row(self) -> int:
        """Number of values that the prediction of a row needs, in addition to its input."""
        kept = sum(n for n, activation in zip(self.widths, self.activations, strict=True) if activation.keeps_input)
        return kept + sum(self.layer_sizes[1:])

    def trains_on_one_row(self) -> bool:
        """Whether the network can be trained on a batch of one row: always True."""
        return True

    def context(self) -> AbstractContextManager[Any]:
        """Return PyTorch's inference mode, in which no graph is recorded."""
        return torch.inference_mode()

    def product_dtype(self, precision: Precision) -> torch.dtype:
        """Return the dtype that inputs and parameters are cast to."""
        return precision.product

    def move_to(self, _device: torch.device, _precision: Precision) -> None:
        """Do nothing: there are parameters alone."""

    def value_and_gradient(
        self, buffers: Buffers, n: int, objective: Objective, products: Products, _precision: Precision
    ) -> Backprop:
        """Return the function that computes value and gradient for batches of `n` rows."""
        hidden = DroppedHidden if any(self.dropout) else Hidden
        return Backprop(buffers, n, self.activations, objective, products, hidden)

    def forward(self, parameters: Sequence[Tensor], n: int, products: Products, precision: Precision) -> Forward:
        """Return the predictor of `n` rows, for parameters with the shapes of `layout` and the dtype of products."""
        half = len(parameters) // 2
        layers = Layers(parameters[:half], parameters[half:])
        return Forward(layers, hidden_layers(layers.coefs, n, self.activations, products), n, precision.master)
