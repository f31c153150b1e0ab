"""Value and gradient of k networks in closed form, into preallocated buffers: no graph, no allocation per step.

With `h_0 = X`, `z_l = h_l W_l + b_l`, `h_(l+1) = act(z_l)` and raw predictions `z_L`, the chain rule reads
`delta_L = dloss/dz_L`, `delta_(l-1) = (delta_l W_l^T) * act'(z_(l-1))`, and `dloss/dW_l = h_l^T delta_l`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._activations import Activation
from ._batches import Batch, DenseRows, Rows, copy_if_cast
from ._network import Layout
from ._objective import Objective


class _HiddenLayer:
    """Buffers of one hidden layer for `(k, n, units)` values: input and output, one buffer where that is enough."""

    def __init__(self, shape: tuple[int, int, int], activation: Activation, like: Tensor) -> None:
        self.z = like.new_empty(shape)
        self.h = like.new_empty(shape) if activation.keeps_input else self.z
        self.kept = self.z if activation.keeps_input else self.h
        self.rows = DenseRows(self.h)


class Forward:
    """Raw predictions of k networks for batches of `n` rows, in the number type `raw_dtype`."""

    def __init__(
        self,
        coefs: Sequence[Tensor],  # each (k, fan_in, fan_out)
        intercepts: Sequence[Tensor],  # each (k, 1, fan_out)
        n: int,
        activation: Activation,
        raw_dtype: torch.dtype,
    ) -> None:
        self._coefs, self._intercepts, self._activation = coefs, intercepts, activation
        k, _, n_outputs = coefs[-1].shape
        self.hidden = [_HiddenLayer((k, n, coef.shape[2]), activation, coef) for coef in coefs[:-1]]
        self._product_raw = coefs[-1].new_empty(k, n_outputs, n)
        self._raw = self._product_raw.to(raw_dtype)

    def __call__(self, inputs: Rows) -> Tensor:
        """Return raw predictions `(k, n_outputs, n)` in a buffer that the next call overwrites."""
        for layer, coef, intercept in zip(self.hidden, self._coefs, self._intercepts, strict=False):
            inputs.affine(coef, intercept, out=layer.z)
            self._activation.forward(layer.z, layer.h)
            inputs = layer.rows
        inputs.affine_outputs_first(self._coefs[-1], self._intercepts[-1], out=self._product_raw)
        copy_if_cast(self._product_raw, self._raw)
        return self._raw


class Backprop:
    """Value and gradient of k networks for batches of `n` rows.

    `parameters` and `gradient` are flat buffers, read and filled. Where `product` is a lower precision than theirs, the
    products run on copies; losses, the delta of raw predictions and the penalty stay in theirs.
    """

    def __init__(
        self,
        layout: Layout,
        parameters: Tensor,
        gradient: Tensor,
        n: int,
        activation: Activation,
        objective: Objective,
        product: torch.dtype,
    ) -> None:
        self._activation, self._objective = activation, objective
        self._parameters, self._working = parameters, parameters.to(product)
        self._gradient, self._working_gradient = gradient, gradient.to(product)
        self._coefs = layout.coefs(self._working)
        self._forward = Forward(self._coefs, layout.intercepts(self._working), n, activation, parameters.dtype)
        self._hidden = self._forward.hidden
        self._deltas = [torch.empty_like(layer.z) for layer in self._hidden]  # gradients of the hidden layers' inputs
        self._coef_gradients = layout.coefs(self._working_gradient)
        self._intercept_gradients = layout.intercepts(self._working_gradient)
        self._coef_runs, self._gradient_runs = layout.coef_runs(parameters), layout.coef_runs(gradient)
        self._delta = parameters.new_empty(layout.k, layout.shapes[-1][1], n)
        self._working_delta = self._delta.to(product)

    def value_and_gradient(self, batch: Batch) -> None:
        """Fill the gradient, and the batch's row losses and squared norm."""
        copy_if_cast(self._parameters, self._working)
        raw = self._forward(batch.inputs)
        self._objective.loss_and_gradient(raw, batch.target, batch.losses, self._delta)
        self._delta.mul_(batch.scale)
        copy_if_cast(self._delta, self._working_delta)
        self._backward(batch.inputs)
        copy_if_cast(self._working_gradient, self._gradient)
        self._penalise(batch)

    def _backward(self, inputs: Rows) -> None:
        """Fill the gradient of the data term from the delta of the raw predictions."""
        delta = self._working_delta.mT
        layer_inputs = [inputs, *(layer.rows for layer in self._hidden)]
        for i in reversed(range(len(layer_inputs))):
            layer_inputs[i].coef_gradient(delta, out=self._coef_gradients[i])
            torch.sum(delta, 1, keepdim=True, out=self._intercept_gradients[i])
            if i > 0:
                torch.bmm(delta, self._coefs[i].mT, out=self._deltas[i - 1])
                delta = self._deltas[i - 1]
                self._activation.backward(delta, self._hidden[i - 1].kept)

    def _penalise(self, batch: Batch) -> None:
        """Add `decay * coefs` to the gradient and note the coefs' squared norm."""
        batch.squared_norm.zero_()
        for coefs, gradient in zip(self._coef_runs, self._gradient_runs, strict=True):
            gradient.addcmul_(coefs, batch.decay)
            batch.squared_norm.baddbmm_(coefs.unsqueeze(1), coefs.unsqueeze(2))
