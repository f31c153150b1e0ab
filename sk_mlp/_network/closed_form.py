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

from sk_mlp._compute.device import Precision
from sk_mlp._compute.kernels import Products
from sk_mlp._objective import Objective

from .activations import Activation
from .backprop import Backprop
from .batch import values_in_a_row
from .forward import DroppedHidden, Forward, Hidden, hidden_layers
from .layout import Layers, Layout
from .network import Buffers
from .values import Weights

_PASSES = 10  # of a step over the coefs: their gradient, penalty and norm, and Adam's five arrays


@dataclass(frozen=True)
class ClosedForm:
    """Linear layers with an activation and a dropout rate for each hidden one; a kind of `Network`."""

    layer_sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    dropout: tuple[float, ...]

    stacks = True

    @property
    def n_outputs(self) -> int:
        """Number of raw predictions a row."""
        return self.layer_sizes[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return self.layer_sizes[1:-1]

    @property
    def key(self) -> Hashable:
        """What networks agree in that train as one stack: rates of dropout may differ."""
        return self.layer_sizes, self.activations, any(self.dropout)

    def layout(self, k: int) -> Layout:
        """Return where the parameters of k networks lie in a flat buffer."""
        return Layout.of_layers(self.layer_sizes, k)

    def buffers(self) -> dict[str, np.ndarray]:
        """Return nothing: there are parameters alone."""
        return {}

    def arrays(self, weights: Weights) -> list[np.ndarray]:
        """Return views of `weights`, shaped as `layout(1)` has them."""
        *hidden, output = weights.coefs
        *below, last = weights.intercepts
        return [*hidden, output.T, *(intercept[None] for intercept in below), last[:, None]]

    def attributes(self, parameters: np.ndarray, _: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the fitted attributes that hold packed parameters."""
        coefs, intercepts = self.layout(1).layers(torch.from_numpy(parameters))
        *hidden, output = (coef[0].numpy() for coef in coefs)
        return {
            "coefs_": [*hidden, np.ascontiguousarray(output.T)],
            "intercepts_": [intercept.numpy().ravel() for intercept in intercepts],
            "n_layers_": len(self.layer_sizes),
        }

    def multiply_adds(self, n: int, X: Any) -> int:
        """Return the multiply-adds of a member's largest product for a batch of `n` rows of X.

        Sparse rows multiply what they store. What takes long then is the coefs, each of which has a gradient all the
        same.
        """
        products = [n * fan_in * fan_out for fan_in, fan_out in pairwise(self.layer_sizes)]
        if sp.issparse(X):
            n_coefs = products[0] // n
            products[0] = max(n * values_in_a_row(X) * self.layer_sizes[1], _PASSES * n_coefs)
        return max(products)

    def input_values(self, X: Any) -> int:
        """Return how many values the network reads in a row of X: all, or those that are stored and their columns."""
        return values_in_a_row(X)

    @property
    def values_per_row(self) -> int:
        """How many values a row's prediction takes, besides its input."""
        kept = sum(n for n, activation in zip(self.widths, self.activations, strict=True) if activation.keeps_input)
        return kept + sum(self.layer_sizes[1:])

    def trains_on_one_row(self) -> bool:
        """Whether a batch of one row can be trained on: yes."""
        return True

    def context(self) -> AbstractContextManager[Any]:
        """Return a mode without any record of operations."""
        return torch.inference_mode()

    def product_dtype(self, precision: Precision) -> torch.dtype:
        """Return the dtype that inputs and parameters are cast to."""
        return precision.product

    def on(self, _device: torch.device, _precision: Precision) -> ClosedForm:
        """Return the network as it is: it holds nothing."""
        return self

    def value_and_gradient(
        self, buffers: Buffers, n: int, objective: Objective, products: Products, _precision: Precision
    ) -> Backprop:
        """Return value and gradient for batches of `n` rows."""
        hidden = DroppedHidden if any(self.dropout) else Hidden
        return Backprop(buffers, n, self.activations, objective, products, hidden)

    def forward(self, parameters: Sequence[Tensor], n: int, products: Products, precision: Precision) -> Forward:
        """Return what predicts `n` rows with parameters shaped as `layout` has them, of the products' dtype."""
        half = len(parameters) // 2
        layers = Layers(parameters[:half], parameters[half:])
        return Forward(layers, hidden_layers(layers.coefs, n, self.activations, products), n, precision.master)
