"""Raw predictions of k networks in closed form, written to preallocated buffers: no graph, no allocation per step.

With `h_0 = X`, `z_l = h_l W_l + b_l`, `h_(l+1) = act(z_l)`, the raw predictions are `z_L`. Every view that a step needs
is made once, because in small networks making a view takes as long as a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from sk_mlp._compute.kernels import Products

from .activations import Activation
from .batch import DenseRows, Rows, copy_if_cast
from .layout import Layers


class Hidden:
    """Buffers of one hidden layer, `(k, n, units)`: its input and output, which may be the same buffer."""

    mask: Tensor  # of dropout, (k, n, units), a new one in each step; only read with dropout

    def __init__(self, z: Tensor, activation: Activation, products: Products) -> None:
        assert activation.forward is not None
        assert activation.backward is not None
        self._activation, self._products = activation, products
        self._forward, self._backward = activation.forward, activation.backward
        self._set_buffers(z, torch.empty_like(z) if activation.keeps_input else z)

    def _set_buffers(self, z: Tensor, h: Tensor) -> None:
        self.z, self._h = z, h
        self._kept = z if self._activation.keeps_input else h
        self.rows = DenseRows(h, self._products)

    def shard(self, rows: slice) -> Hidden:
        """Return the layer for some of the rows, over the same buffers."""
        shard = copy(self)
        z = self.z[:, rows]
        shard._set_buffers(z, self._h[:, rows] if self._activation.keeps_input else z)
        return shard

    def activate(self) -> None:
        """Fill `rows` from `z`."""
        self._forward(self.z, self._h)

    def chain(self, delta: Tensor) -> None:
        """Change the delta of `rows` in place to the delta of `z`."""
        self._backward(delta, self._kept)


class DroppedHidden(Hidden):
    """A hidden layer with dropout: its rows are the activation's output times `mask`, zeros and `1 / (1 - rate)`."""

    def __init__(self, z: Tensor, activation: Activation, products: Products) -> None:
        super().__init__(z, activation, products)
        # A separate buffer, because derivatives are computed from the output before the mask.
        self._set_dropped(torch.empty_like(z))

    def _set_dropped(self, dropped: Tensor) -> None:
        self._dropped = dropped
        self.rows = DenseRows(dropped, self._products)

    def shard(self, rows: slice) -> Hidden:
        shard = super().shard(rows)
        assert isinstance(shard, DroppedHidden)
        shard._set_dropped(self._dropped[:, rows])
        return shard

    def activate(self) -> None:
        super().activate()
        torch.mul(self._h, self.mask, out=self._dropped)

    def chain(self, delta: Tensor) -> None:
        delta.mul_(self.mask)
        super().chain(delta)


def hidden_layers(
    coefs: Sequence[Tensor],  # of all layers, with the shapes of `Layout.layers`
    n: int,
    activations: Sequence[Activation],  # of each hidden layer
    products: Products,
    kind: type[Hidden] = Hidden,
) -> list[Hidden]:
    """Return the hidden layers for `n` rows of k networks."""
    return [
        kind(coef.new_empty(coef.shape[0], n, coef.shape[2]), activation, products)
        for coef, activation in zip(coefs[:-1], activations, strict=True)
    ]


class Forward:
    """Raw predictions of k networks for batches of `n` rows, in the dtype `raw_dtype`."""

    def __init__(
        self,
        layers: Layers,
        hidden: Sequence[Hidden],  # for `n` rows each
        n: int,
        raw_dtype: torch.dtype,
    ) -> None:
        coefs, intercepts = layers
        self._hidden_weights = list(zip(coefs[:-1], intercepts[:-1], hidden, strict=True))
        self._output_weights = coefs[-1], intercepts[-1]
        k, n_outputs, _ = coefs[-1].shape
        self._product_raw = coefs[-1].new_empty(k, n_outputs, n)
        self._raw = self._product_raw.to(raw_dtype)

    def __call__(self, inputs: Rows) -> Tensor:
        """Return raw predictions `(k, n_outputs, n)` in a buffer that the next call overwrites."""
        for coef, intercept, layer in self._hidden_weights:
            inputs.affine(coef, intercept, layer.z)
            layer.activate()
            inputs = layer.rows
        inputs.affine_outputs_first(*self._output_weights, self._product_raw)
        copy_if_cast(self._product_raw, self._raw)
        return self._raw
