"""Value and gradient of k networks in closed form, into preallocated buffers: no graph, no allocation per step.

With `h_0 = X`, `z_l = h_l W_l + b_l`, `h_(l+1) = act(z_l)` and raw predictions `z_L`, the chain rule reads
`delta_L = dloss/dz_L`, `delta_(l-1) = (delta_l W_l^T) * act'(z_(l-1))`, and `dloss/dW_l = h_l^T delta_l`.

Every view that a step needs is made once: on small networks a view costs as much as a product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from sk_mlp._compute.kernels import Products
from sk_mlp._objective import Objective

from .activations import Activation
from .batch import Batch, DenseRows, Rows, copy_if_cast, part_of
from .layout import Layout


class Hidden:
    """Buffers of one hidden layer for `(k, n, units)` values: input and output, one buffer where that is enough."""

    mask: Tensor  # of dropout, (k, n, units), another one in each step; only read where there is dropout

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
        """Turn the delta of `rows` into that of `z`, in place."""
        self._backward(delta, self._kept)


class DroppedHidden(Hidden):
    """A hidden layer with dropout: its rows are the activation's output times `mask`, zeros and `1 / (1 - rate)`."""

    def __init__(self, z: Tensor, activation: Activation, products: Products) -> None:
        super().__init__(z, activation, products)
        # A buffer of its own: derivatives are computed from the output before the mask.
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
    coefs: Sequence[Tensor],  # of all layers, shaped as `Layout.layers` has them
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
    """Raw predictions of k networks for batches of `n` rows, in the number type `raw_dtype`."""

    def __init__(
        self,
        coefs: Sequence[Tensor],  # of each layer, shaped as `Layout.layers` has them,
        intercepts: Sequence[Tensor],  # these too
        hidden: Sequence[Hidden],  # for `n` rows each
        n: int,
        raw_dtype: torch.dtype,
    ) -> None:
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


def forward_for(
    coefs: Sequence[Tensor],
    intercepts: Sequence[Tensor],
    n: int,
    activations: Sequence[Activation],
    products: Products,
    raw_dtype: torch.dtype,
) -> Forward:
    """Return what predicts `n` rows, in buffers of its own."""
    return Forward(coefs, intercepts, hidden_layers(coefs, n, activations, products), n, raw_dtype)


class _Deltas:
    """The way of a batch's rows forward to their losses, and back to the delta of each layer."""

    def __init__(
        self,
        coefs: Sequence[Tensor],
        intercepts: Sequence[Tensor],
        hidden: Sequence[Hidden],
        deltas: Sequence[Tensor],  # of the hidden layers' z, (k, n, units) each, to be filled
        output_delta: Tensor,  # of the raw predictions, (k, n_outputs, n), to be filled
        objective: Objective,
        products: Products,
        raw_dtype: torch.dtype,
    ) -> None:
        self._weights, self._hidden = (coefs, intercepts), hidden
        self._deltas, self._output_delta = deltas, output_delta
        self._objective, self._products, self._raw_dtype = objective, products, raw_dtype
        self._forward = Forward(coefs, intercepts, hidden, output_delta.shape[2], raw_dtype)
        # Buffers of its own where the one to be filled is of a lower precision, or has gaps.
        contiguous = output_delta if output_delta.is_contiguous() else output_delta.new_empty(output_delta.shape)
        self._product_raw_delta, self._raw_delta = contiguous, contiguous.to(raw_dtype)
        above = [contiguous.mT, *reversed(deltas)], [coefs[-1], *(coef.mT for coef in reversed(coefs[1:-1]))]
        # From the last hidden layer to the first: the delta and the coefs above it, its own delta, and the layer.
        self._back = list(zip(*above, reversed(deltas), reversed(hidden), strict=False))

    def shard(self, rows: slice) -> _Deltas:
        """Return the way of some of the rows, which fills its part of the same buffers."""
        hidden = [layer.shard(rows) for layer in self._hidden]
        deltas, output_delta = [delta[:, rows] for delta in self._deltas], self._output_delta[..., rows]
        return _Deltas(*self._weights, hidden, deltas, output_delta, self._objective, self._products, self._raw_dtype)

    def __call__(self, batch: Batch) -> None:
        """Fill the deltas, and the batch's row losses."""
        for layer, mask in zip(self._hidden, batch.masks, strict=False):  # no masks without dropout
            layer.mask = mask
        raw = self._forward(batch.inputs)
        self._objective.loss_and_gradient(raw, batch.target, batch.losses, self._raw_delta)
        self._raw_delta.mul_(batch.scale)
        copy_if_cast(self._raw_delta, self._product_raw_delta)
        copy_if_cast(self._product_raw_delta, self._output_delta)
        for delta_above, coef_above, delta, layer in self._back:
            self._products.bmm(delta_above, coef_above, out=delta)
            layer.chain(delta)


class Penalty:
    """The L2 penalty of k networks' coefs."""

    def __init__(self, coefs: Sequence[Tensor], gradient: Sequence[Tensor]) -> None:
        self._runs = list(zip(coefs, gradient, strict=True))  # (k, size) each

    def add(self, batch: Batch) -> None:
        """Add `decay * coefs` to the gradient and note the coefs' norms."""
        for (coefs, gradient), norms in zip(self._runs, batch.norms, strict=True):
            gradient.addcmul_(coefs, batch.decay)
            torch.linalg.vector_norm(coefs, 2, 1, out=norms)


class _DataGradient:
    """The gradient of the data term from the deltas and the rows below them: that of all parameters, or of a span."""

    def __init__(
        self,
        layout: Layout,
        span: slice,
        gradient: Tensor,  # of all parameters, to be filled
        below: Sequence[DenseRows | None],  # the rows that each layer reads; None for the first, where these vary
        deltas: Sequence[Tensor],  # of each layer
    ) -> None:
        coefs, intercepts = layout.layers(gradient)
        # A product with ones sums over the rows in less time than a sum.
        ones = gradient.new_ones(layout.k, 1, deltas[-1].shape[-1])
        output, self._fill = len(coefs) - 1, []
        for block, rows in layout.rows_in(span):
            layer = block % len(coefs)  # all coefs come before the intercepts
            # The output layer's matrices have outputs as rows, those of the others inputs.
            delta = deltas[layer][:, rows] if layer == output else deltas[layer]
            if block >= len(coefs):
                factors = (delta, ones.mT) if layer == output else (ones, delta)
                self._fill.append(_fill_product(*factors, intercepts[layer][:, rows]))
            elif layer == output:
                self._fill.append(_fill_outputs_first(below[layer], delta, coefs[layer][:, rows]))
            else:
                self._fill.append(_fill_coefs(below[layer], rows, delta, coefs[layer][:, rows]))

    def __call__(self, inputs: Rows) -> None:
        """Fill the gradient for a batch's inputs."""
        for fill in self._fill:
            fill(inputs)


def _fill_coefs(below: DenseRows | None, columns: slice, delta: Tensor, out: Tensor) -> Callable[[Rows], None]:
    """Return what fills some rows of the gradient of a hidden layer's coefs; all rows where the inputs vary."""
    if below is None:
        return lambda inputs: inputs.coef_gradient(delta, out)
    read = below.columns(columns)
    return lambda _: read.coef_gradient(delta, out)


def _fill_outputs_first(below: DenseRows | None, delta: Tensor, out: Tensor) -> Callable[[Rows], None]:
    """Return what fills some rows of the gradient of the output layer's coefs; likewise."""
    if below is None:
        return lambda inputs: inputs.coef_gradient_outputs_first(delta, out)
    return lambda _: below.coef_gradient_outputs_first(delta, out)


def _fill_product(a: Tensor, b: Tensor, out: Tensor) -> Callable[[Rows], object]:
    """Return what fills in a product that does not depend on the inputs."""
    return lambda _: torch.bmm(a, b, out=out)


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
        self._layout = layout
        self._parameters, self._working = parameters, parameters.to(products.dtype)
        self._gradient, self._working_gradient = gradient, gradient.to(products.dtype)
        coefs, intercepts = layout.layers(self._working)
        layers = hidden_layers(coefs, n, activations, products, hidden)
        output_delta = coefs[-1].new_empty(layout.k, coefs[-1].shape[1], n)
        self._hidden_rows = [layer.rows for layer in layers]
        self._all_deltas = [*(torch.empty_like(layer.z) for layer in layers), output_delta]
        self._deltas = _Deltas(
            coefs, intercepts, layers, self._all_deltas[:-1], output_delta, objective, products, parameters.dtype
        )
        self._data_gradient = self._data_gradient_of(layout.whole, None)
        self._penalty = Penalty(layout.coef_runs(parameters), layout.coef_runs(gradient))

    def value_and_gradient(self, batch: Batch) -> None:
        """Fill the gradient, and the batch's row losses and norms."""
        copy_if_cast(self._parameters, self._working)
        self._deltas(batch)
        self._data_gradient(batch.inputs)
        copy_if_cast(self._working_gradient, self._gradient)
        self._penalty.add(batch)

    def shard(self, rows: slice, span: slice, inputs: DenseRows) -> BackpropShard:
        """Return a thread's share of one network, over the same buffers: some rows of each batch, some parameters.

        `inputs` are all rows of a batch, which lie in the same place in each step.
        """
        coefs = self._layout.coefs_in(span)
        penalty = Penalty([self._parameters[coefs].unsqueeze(0)], [self._gradient[coefs].unsqueeze(0)])
        return BackpropShard(
            self._deltas.shard(rows),
            self._data_gradient_of(span, inputs),
            penalty,
            part_of(self._parameters, self._working, span),
            part_of(self._working_gradient, self._gradient, span),
        )

    def _data_gradient_of(self, span: slice, inputs: DenseRows | None) -> _DataGradient:
        """Return what fills a span of the gradient."""
        below = [inputs, *self._hidden_rows]
        return _DataGradient(self._layout, span, self._working_gradient, below, self._all_deltas)


class BackpropShard:
    """A thread's share of a `Backprop`: a span of cast parameters, deltas of some rows, a span of the gradient.

    Each of the three reads what all threads have filled of the one before, so they have to meet in between.
    """

    def __init__(
        self,
        deltas: _Deltas,
        data_gradient: _DataGradient,
        penalty: Penalty,
        parameters: tuple[Tensor, Tensor],  # and what products read, one tensor where there is no need to cast
        gradient: tuple[Tensor, Tensor],  # of the products, and what it is to be cast to; likewise
    ) -> None:
        self._deltas, self._data_gradient, self._penalty = deltas, data_gradient, penalty
        self._parameters, self._gradient = parameters, gradient

    @property
    def casts(self) -> bool:
        """Whether products read the parameters in another number type."""
        source, target = self._parameters
        return target is not source

    def cast_parameters(self, _: Batch) -> None:
        """Cast the span of the parameters."""
        copy_if_cast(*self._parameters)

    def fill_deltas(self, batch: Batch) -> None:
        """Fill the deltas of the rows, which are those of the batch, and their losses."""
        self._deltas(batch)

    def fill_gradient(self, batch: Batch) -> None:
        """Fill the span of the gradient, and the norm of the coefs in it."""
        self._data_gradient(batch.inputs)
        copy_if_cast(*self._gradient)
        self._penalty.add(batch)
