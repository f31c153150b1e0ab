"""Value and gradient of k networks in closed form, into preallocated buffers: no graph, no allocation per step.

With `h_0 = X`, `z_l = h_l W_l + b_l`, `h_(l+1) = act(z_l)` and raw predictions `z_L`, the chain rule reads
`delta_L = dloss/dz_L`, `delta_(l-1) = (delta_l W_l^T) * act'(z_(l-1))`, and `dloss/dW_l = h_l^T delta_l`.

Every view that a step needs is made once: on small networks a view costs as much as a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ._activations import Activation
from ._batches import Batch, DenseRows, Rows, copy_if_cast
from ._network import Layout
from ._objective import Objective
from ._products import Products


class Hidden:
    """Buffers of one hidden layer for `(k, n, units)` values: input and output, one buffer where that is enough."""

    mask: Tensor  # of dropout, (k, n, units), another one in each step; only read where there is dropout

    def __init__(self, coef: Tensor, n: int, activation: Activation, products: Products) -> None:
        assert activation.forward is not None
        assert activation.backward is not None
        self._forward, self._backward = activation.forward, activation.backward
        k, _, units = coef.shape
        self.z = coef.new_empty(k, n, units)
        self._h = torch.empty_like(self.z) if activation.keeps_input else self.z
        self._kept = self.z if activation.keeps_input else self._h
        self.rows = DenseRows(self._h, products)

    def activate(self) -> None:
        """Fill `rows` from `z`."""
        self._forward(self.z, self._h)

    def chain(self, delta: Tensor) -> None:
        """Turn the delta of `rows` into that of `z`, in place."""
        self._backward(delta, self._kept)


class DroppedHidden(Hidden):
    """A hidden layer with dropout: its rows are the activation's output times `mask`, zeros and `1 / (1 - rate)`."""

    def __init__(self, coef: Tensor, n: int, activation: Activation, products: Products) -> None:
        super().__init__(coef, n, activation, products)
        # A buffer of its own: derivatives are computed from the output before the mask.
        self._dropped = torch.empty_like(self.z)
        self.rows = DenseRows(self._dropped, products)

    def activate(self) -> None:
        super().activate()
        torch.mul(self._h, self.mask, out=self._dropped)

    def chain(self, delta: Tensor) -> None:
        delta.mul_(self.mask)
        super().chain(delta)


class Forward:
    """Raw predictions of k networks for batches of `n` rows, in the number type `raw_dtype`."""

    def __init__(
        self,
        coefs: Sequence[Tensor],  # of each layer, shaped as `Layout.layers` has them,
        intercepts: Sequence[Tensor],  # these too
        n: int,
        activations: Sequence[Activation],  # of each hidden layer
        products: Products,
        raw_dtype: torch.dtype,
        hidden: type[Hidden] = Hidden,
    ) -> None:
        self.hidden = [hidden(coef, n, act, products) for coef, act in zip(coefs[:-1], activations, strict=True)]
        self._hidden_weights = list(zip(coefs[:-1], intercepts[:-1], self.hidden, strict=True))
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


class _Step(NamedTuple):
    """What the backward pass does at one hidden layer."""

    delta_above: Tensor  # (k, n, units_above)
    coef_above: Tensor  # (k, units_above, units)
    delta: Tensor  # of the layer's z, (k, n, units), to be filled
    layer: Hidden
    below: Rows | None  # the layer's inputs; None where these are the batch's
    coef_gradient: Tensor  # to be filled
    intercept_gradient: Tensor


class Penalty:
    """The L2 penalty of k networks' coefs."""

    def __init__(self, layout: Layout, parameters: Tensor, gradient: Tensor) -> None:
        self._runs = list(zip(layout.coef_runs(parameters), layout.coef_runs(gradient), strict=True))

    def add(self, batch: Batch) -> None:
        """Add `decay * coefs` to the gradient and note the coefs' norms."""
        for (coefs, gradient), norms in zip(self._runs, batch.norms, strict=True):
            gradient.addcmul_(coefs, batch.decay)
            torch.linalg.vector_norm(coefs, 2, 1, out=norms)


class Backprop:
    """Value and gradient of k networks for batches of `n` rows.

    `parameters` and `gradient` are flat buffers, read and filled. Where `products` have a lower precision than theirs,
    they run on copies; losses, the delta of raw predictions and the penalty stay in theirs.
    """

    def __init__(
        self,
        layout: Layout,
        parameters: Tensor,
        gradient: Tensor,
        n: int,
        activations: Sequence[Activation],
        objective: Objective,
        products: Products,
        hidden: type[Hidden] = Hidden,
    ) -> None:
        self._objective, self._products = objective, products
        product = products.dtype
        self._parameters, self._working = parameters, parameters.to(product)
        self._gradient, self._working_gradient = gradient, gradient.to(product)
        coefs, intercepts = layout.layers(self._working)
        self._forward = Forward(coefs, intercepts, n, activations, products, parameters.dtype, hidden)
        self._raw_delta = parameters.new_empty(layout.k, coefs[-1].shape[1], n)
        self._working_raw_delta = self._raw_delta.to(product)
        # A product with ones sums over the rows in less time than a sum.
        self._ones = self._working.new_ones(layout.k, 1, n)
        self._column_of_ones = self._ones.mT
        self._hidden = self._forward.hidden
        coef_gradients, intercept_gradients = layout.layers(self._working_gradient)
        self._steps = self._backward_steps(coefs, coef_gradients, intercept_gradients)
        self._output_gradients = coef_gradients[-1], intercept_gradients[-1]
        self._penalty = Penalty(layout, parameters, gradient)

    def value_and_gradient(self, batch: Batch) -> None:
        """Fill the gradient, and the batch's row losses and norms."""
        copy_if_cast(self._parameters, self._working)
        for layer, mask in zip(self._hidden, batch.masks, strict=False):  # no masks without dropout
            layer.mask = mask
        raw = self._forward(batch.inputs)
        self._objective.loss_and_gradient(raw, batch.target, batch.losses, self._raw_delta)
        self._raw_delta.mul_(batch.scale)
        copy_if_cast(self._raw_delta, self._working_raw_delta)
        self._backward(batch.inputs)
        copy_if_cast(self._working_gradient, self._gradient)
        self._penalty.add(batch)

    def _backward(self, inputs: Rows) -> None:
        """Fill the gradient of the data term from the delta of the raw predictions."""
        last = self._hidden[-1].rows if self._hidden else inputs
        coef_gradient, intercept_gradient = self._output_gradients
        last.coef_gradient_outputs_first(self._working_raw_delta, coef_gradient)
        torch.bmm(self._working_raw_delta, self._column_of_ones, out=intercept_gradient)
        for delta_above, coef_above, delta, layer, below, coef_gradient, intercept_gradient in self._steps:
            self._products.bmm(delta_above, coef_above, out=delta)
            layer.chain(delta)
            (below or inputs).coef_gradient(delta, coef_gradient)
            torch.bmm(self._ones, delta, out=intercept_gradient)

    def _backward_steps(
        self, coefs: Sequence[Tensor], coef_gradients: Sequence[Tensor], intercept_gradients: Sequence[Tensor]
    ) -> list[_Step]:
        """Return the steps of the hidden layers, last layer first."""
        steps: list[_Step] = []
        delta_above, coef_above = self._working_raw_delta.mT, coefs[-1]
        for i in reversed(range(len(self._hidden))):
            layer, below = self._hidden[i], self._hidden[i - 1].rows if i else None
            delta = torch.empty_like(layer.z)
            gradients = coef_gradients[i], intercept_gradients[i]
            steps.append(_Step(delta_above, coef_above, delta, layer, below, *gradients))
            delta_above, coef_above = delta, coefs[i].mT
        return steps
