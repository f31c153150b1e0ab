"""Value and gradient of k networks in closed form, written to preallocated buffers: no graph, no allocation per step.

With `h_l` and `z_l` as in `forward.py`, the chain rule is `delta_L = dloss/dz_L`,
`delta_(l-1) = (delta_l W_l^T) * act'(z_(l-1))`, and `dloss/dW_l = h_l^T delta_l`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sk_mlp._compute.kernels import Products
from sk_mlp._objective import Objective

from .activations import Activation
from .batch import Batch, DenseRows, Rows, copy_if_cast, part_of
from .forward import Forward, Hidden, hidden_layers
from .layout import Layers, Layout
from .network import Buffers


class _Deltas:
    """Computes the losses of a batch's rows by a forward pass, and the delta of each layer by a backward pass."""

    def __init__(
        self,
        layers: Layers,
        hidden: Sequence[Hidden],
        deltas: Sequence[Tensor],  # of the hidden layers' z, (k, n, units) each, to be filled
        output_delta: Tensor,  # of the raw predictions, (k, n_outputs, n), to be filled
        objective: Objective,
        products: Products,
        raw_dtype: torch.dtype,
    ) -> None:
        self._layers, self._hidden = layers, hidden
        self._deltas, self._output_delta = deltas, output_delta
        self._objective, self._products, self._raw_dtype = objective, products, raw_dtype
        self._forward = Forward(layers, hidden, output_delta.shape[2], raw_dtype)
        # Separate buffers if the one to be filled has a lower precision, or is not contiguous.
        contiguous = output_delta if output_delta.is_contiguous() else output_delta.new_empty(output_delta.shape)
        self._product_raw_delta, self._raw_delta = contiguous, contiguous.to(raw_dtype)
        coefs = layers.coefs
        above = [contiguous.mT, *reversed(deltas)], [coefs[-1], *(coef.mT for coef in reversed(coefs[1:-1]))]
        # From the last hidden layer to the first: the delta and the coefs above it, its own delta, and the layer.
        self._back = list(zip(*above, reversed(deltas), reversed(hidden), strict=False))

    def shard(self, rows: slice) -> _Deltas:
        """Return the same for some of the rows, which fills their part of the same buffers."""
        hidden = [layer.shard(rows) for layer in self._hidden]
        deltas, output_delta = [delta[:, rows] for delta in self._deltas], self._output_delta[..., rows]
        return _Deltas(self._layers, hidden, deltas, output_delta, self._objective, self._products, self._raw_dtype)

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
        self._pieces = list(zip(coefs, gradient, strict=True))  # (k, size) each

    def add(self, batch: Batch) -> None:
        """Add `decay * coefs` to the gradient, and fill the norms of the coefs."""
        for (coefs, gradient), norms in zip(self._pieces, batch.norms, strict=True):
            gradient.addcmul_(coefs, batch.decay)
            torch.linalg.vector_norm(coefs, 2, 1, out=norms)


class _DataGradient:
    """Computes the gradient of the data term, for a span of the parameters, from deltas and inputs of each layer."""

    def __init__(
        self,
        layout: Layout,
        span: slice,
        gradient: Tensor,  # of all parameters, to be filled
        below: Sequence[DenseRows | None],  # inputs of each layer; the first is None if they differ in each step
        deltas: Sequence[Tensor],  # of each layer
    ) -> None:
        coefs, intercepts = layout.layers(gradient)
        # A product with ones sums over the rows faster than a sum.
        ones = gradient.new_ones(layout.k, 1, deltas[-1].shape[-1])
        output, self._fill = len(coefs) - 1, []
        for block, rows in layout.rows_in(span):
            layer = block % len(coefs)  # all coefs come before the intercepts
            # The rows of the matrices are outputs in the output layer, and inputs in the other layers.
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
    """Return a function that fills some rows of the gradient of a hidden layer's coefs; all rows if `below` is None."""
    if below is None:
        return lambda inputs: inputs.coef_gradient(delta, out)
    read = below.columns(columns)
    return lambda _: read.coef_gradient(delta, out)


def _fill_outputs_first(below: DenseRows | None, delta: Tensor, out: Tensor) -> Callable[[Rows], None]:
    """Return a function that fills some rows of the gradient of the output layer's coefs."""
    if below is None:
        return lambda inputs: inputs.coef_gradient_outputs_first(delta, out)
    return lambda _: below.coef_gradient_outputs_first(delta, out)


def _fill_product(a: Tensor, b: Tensor, out: Tensor) -> Callable[[Rows], object]:
    """Return a function that computes a product that does not depend on the inputs."""
    return lambda _: torch.bmm(a, b, out=out)


class Backprop:
    """Value and gradient of k networks for batches of `n` rows.

    `parameters` and `gradient` are flat buffers; the first is read, the second is filled. If `products` have a lower
    precision, they use copies in this precision; losses, the delta of raw predictions and the penalty do not.
    """

    def __init__(
        self,
        buffers: Buffers,
        n: int,
        activations: Sequence[Activation],
        objective: Objective,
        products: Products,
        kind: type[Hidden] = Hidden,
    ) -> None:
        layout, parameters, gradient = buffers
        self._layout = layout
        self._parameters, self._working = parameters, parameters.to(products.dtype)
        self._gradient, self._working_gradient = gradient, gradient.to(products.dtype)
        layers = layout.layers(self._working)
        hidden = hidden_layers(layers.coefs, n, activations, products, kind)
        output_delta = self._working.new_empty(layout.k, layers.coefs[-1].shape[1], n)
        self._hidden_rows = [layer.rows for layer in hidden]
        self._all_deltas = [*(torch.empty_like(layer.z) for layer in hidden), output_delta]
        self._deltas = _Deltas(
            layers, hidden, self._all_deltas[:-1], output_delta, objective, products, parameters.dtype
        )
        self._data_gradient = self._data_gradient_of(layout.whole, None)
        self._penalty = Penalty(layout.coef_pieces(parameters), layout.coef_pieces(gradient))

    def value_and_gradient(self, batch: Batch) -> None:
        """Fill the gradient, and the row losses and norms of the batch."""
        copy_if_cast(self._parameters, self._working)
        self._deltas(batch)
        self._data_gradient(batch.inputs)
        copy_if_cast(self._working_gradient, self._gradient)
        self._penalty.add(batch)

    def shard(self, rows: slice, span: slice, inputs: DenseRows) -> BackpropShard:
        """Return a thread's part of one network, over the same buffers: some rows of each batch, some parameters.

        `inputs` are all rows of a batch, in memory that is the same in each step.
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
        """Return the function that fills a span of the gradient."""
        below = [inputs, *self._hidden_rows]
        return _DataGradient(self._layout, span, self._working_gradient, below, self._all_deltas)


class BackpropShard:
    """A thread's part of a `Backprop`: a span of cast parameters, deltas of some rows, a span of the gradient.

    Each of these three steps reads what all threads have written in the step before, so threads must wait in between.
    """

    def __init__(
        self,
        deltas: _Deltas,
        data_gradient: _DataGradient,
        penalty: Penalty,
        parameters: tuple[Tensor, Tensor],  # and their cast copy for products; the same tensor if there is no cast
        gradient: tuple[Tensor, Tensor],  # of products, and the tensor that it is cast to; possibly the same
    ) -> None:
        self._deltas, self._data_gradient, self._penalty = deltas, data_gradient, penalty
        self._parameters, self._gradient = parameters, gradient

    @property
    def casts(self) -> bool:
        """Whether products use another dtype than the parameters."""
        source, target = self._parameters
        return target is not source

    def cast_parameters(self, _: Batch) -> None:
        """Cast the span of the parameters."""
        copy_if_cast(*self._parameters)

    def fill_deltas(self, batch: Batch) -> None:
        """Fill the deltas and the losses of the rows of the batch, which has only the rows of this thread."""
        self._deltas(batch)

    def fill_gradient(self, batch: Batch) -> None:
        """Fill the span of the gradient, and the norm of the coefs in this span."""
        self._data_gradient(batch.inputs)
        copy_if_cast(*self._gradient)
        self._penalty.add(batch)
