"""The layout of the parameters of k networks with the same shape in a flat buffer.

The parameters of one network are *packed* as a vector: all coefs layer by layer (each `(fan_in, fan_out)`, row-major),
then all intercepts. The coefs of the output layer are stored transposed, `(n_outputs, fan_in)`, because in raw
predictions outputs come before rows, and products with few columns are slow (100 x 200 x 10 takes 99 us, its transpose
9). The parameters of a stack of k networks are *flat*: every layer is one contiguous `(k, ...)` block, because batched
products write only contiguous results without a copy. For k = 1, packed and flat are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Layers(NamedTuple):
    """The coefs and the intercepts of k networks, layer by layer.

    Coefs are `(k, fan_in, fan_out)` and intercepts `(k, 1, fan_out)`. In the output layer they are
    `(k, n_outputs, fan_in)` and `(k, n_outputs, 1)`.
    """

    coefs: Sequence[Tensor]
    intercepts: Sequence[Tensor]


class Layout:
    """The position of each parameter of `k` networks in a flat buffer: coefs, which are penalized, before intercepts.

    `coefs` and `intercepts` map names to shapes.
    """

    def __init__(self, coefs: Mapping[str, Sequence[int]], intercepts: Mapping[str, Sequence[int]], k: int) -> None:
        self.k = k
        self.shapes = {name: tuple(shape) for name, shape in {**coefs, **intercepts}.items()}
        self._shapes = list(self.shapes.values())
        self._n_blocks = len(coefs)
        self._sizes = [prod(shape) for shape in self._shapes]
        self._spans = list(pairwise(accumulate(self._sizes, initial=0)))  # of one network's packed parameters
        self.n_parameters = sum(self._sizes)
        coef_sizes = self._sizes[: self._n_blocks]
        self._n_coefs = sum(coef_sizes)
        # Sizes of the pieces that cover the coefs, and spans of the pieces that cover all parameters. For one member,
        # all layers are contiguous, so one piece covers them.
        self._coef_pieces = coef_sizes if k > 1 else [self._n_coefs]
        self._piece_spans = self._spans if k > 1 else [(0, self.n_parameters)]

    @classmethod
    @lru_cache(maxsize=64)  # a layout does not change; making one takes a hundredth of the time of a small fit
    def of_layers(cls, layer_sizes: tuple[int, ...], k: int) -> Layout:
        """Return the layout of k networks of linear layers.

        Coefs are `(fan_in, fan_out)` and intercepts `(1, fan_out)`; those of the output layer are transposed.
        """
        *below, fan_in, n_outputs = layer_sizes
        hidden = [*below, fan_in]
        coefs = [*pairwise(hidden), (n_outputs, fan_in)]
        intercepts = [*((1, units) for units in hidden[1:]), (n_outputs, 1)]
        return cls(_named("coefs_", coefs), _named("intercepts_", intercepts), k)

    @property
    def n_coef_pieces(self) -> int:
        """Number of pieces that `coef_pieces` returns."""
        return len(self._coef_pieces)

    def layers(self, flat: Tensor) -> Layers:
        """Return views of the coefs and the intercepts."""
        parameters = self.parameters(flat)
        return Layers(parameters[: self._n_blocks], parameters[self._n_blocks :])

    def parameters(self, flat: Tensor) -> list[Tensor]:
        """Return views `(k, *shape)` of a flat buffer, coefs before intercepts."""
        blocks = flat.split_with_sizes([self.k * size for size in self._sizes])
        return [block.view(self.k, *shape) for block, shape in zip(blocks, self._shapes, strict=True)]

    def arrays(self, packed: np.ndarray) -> list[np.ndarray]:
        """Return views `shape` of one network's packed parameters, coefs before intercepts."""
        return [packed[a:b].reshape(shape) for (a, b), shape in zip(self._spans, self._shapes, strict=True)]

    def coef_pieces(self, flat: Tensor) -> list[Tensor]:
        """Return views `(k, size)` that cover the coefs, in as few pieces as the layout allows."""
        pieces = flat[: self.k * self._n_coefs].split_with_sizes([self.k * size for size in self._coef_pieces])
        return [piece.view(self.k, -1) for piece in pieces]

    def pieces(self, flat: Tensor) -> list[Tensor]:
        """Return views `(k, size)` that cover all parameters, in as few pieces as the layout allows."""
        return [flat[self.k * start : self.k * stop].view(self.k, -1) for start, stop in self._piece_spans]

    def spans(self, n: int) -> list[slice]:
        """Return `n` spans of about equal size that cover one network's parameters, each of whole rows of matrices."""
        cuts = [self._row_start(self.n_parameters * i // n) for i in range(n)]
        return [slice(start, stop) for start, stop in pairwise([*cuts, self.n_parameters])]

    def _row_start(self, position: int) -> int:
        """Return the start, in a network's packed parameters, of the matrix row that contains this position."""
        block = next(i for i, (_, stop) in enumerate(self._spans) if position < stop)
        start, row = self._spans[block][0], prod(self._shapes[block][1:])
        return start + (position - start) // row * row

    def rows_in(self, span: slice) -> list[tuple[int, slice]]:
        """Return, for each parameter in a span of one network's parameters, its index and its rows in the span."""
        rows = []
        for i, ((start, stop), shape) in enumerate(zip(self._spans, self._shapes, strict=True)):
            first, last = max(start, span.start), min(stop, span.stop)
            if first < last:
                row = prod(shape[1:])
                rows.append((i, slice((first - start) // row, (last - start) // row)))
        return rows

    def coefs_in(self, span: slice) -> slice:
        """Return the part of a span that contains coefs."""
        return slice(min(span.start, self._n_coefs), min(span.stop, self._n_coefs))

    @property
    def whole(self) -> slice:
        """The span of all parameters of one network."""
        return slice(0, self.n_parameters)

    def join(self, packed: Sequence[Tensor]) -> Tensor:
        """Return a new flat buffer with the values of k packed vectors."""
        if self.k == 1:
            return packed[0].clone()
        return torch.cat([vector[start:stop] for start, stop in self._piece_spans for vector in packed])

    def member(self, flat: Tensor, i: int) -> Tensor:
        """Return a packed copy of member `i`."""
        if self.k == 1:
            return flat.clone()
        return torch.cat([piece[i] for piece in self.pieces(flat)])

    def spread(self, values: Sequence[float], like: Tensor) -> float | Tensor:
        """Return one value per member as an operand for a flat buffer; a number if all values are equal."""
        if all(value == values[0] for value in values):
            return values[0]
        return like.new_tensor(values).index_select(0, self.owners(like.device))

    def owners(self, device: torch.device) -> Tensor:
        """Return, for each element of a flat buffer, the index of the member that it belongs to."""
        members = torch.arange(self.k, device=device)
        return torch.cat([members.repeat_interleave(size) for size in self._sizes])


def _named(name: str, shapes: Iterable[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return shapes by names such as "name[0]"."""
    return {f"{name}[{i}]": shape for i, shape in enumerate(shapes)}


def sizes_of(
    coefs: Sequence[np.ndarray], intercepts: Sequence[np.ndarray], n_features: int, n_outputs: int
) -> tuple[int, ...]:
    """Return the layer sizes of coefs and intercepts that lead from features to outputs.

    Raises ValueError if their shapes do not fit together.
    """
    shapes = [_shape(coef) for coef in coefs or ()]
    lengths = [_shape(intercept) for intercept in intercepts or ()]
    sizes = (n_features, *(shape[-1] if shape else 0 for shape in shapes))
    if shapes != list(pairwise(sizes)) or sizes[-1] != n_outputs:
        raise ValueError(
            f"coefs_ must be matrices that lead from {n_features} features to {n_outputs} outputs, each with as many "
            f"rows as the one before has columns, got shapes {shapes}"
        )
    if lengths != [(size,) for size in sizes[1:]]:
        raise ValueError(f"intercepts_ must have lengths {list(sizes[1:])}, as coefs_ have columns, got {lengths}")
    return sizes


def _shape(array: Any) -> tuple[int, ...]:
    """Return the shape of an array, or of a list of lists."""
    return array.shape if type(array) is np.ndarray else np.shape(array)
