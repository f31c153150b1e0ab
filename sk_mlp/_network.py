"""Parameters of k networks of one shape: their layout in a flat buffer, initialisation, and a live `nn.Sequential`.

One network's parameters are *packed* as a vector: all coefs layer by layer (each `(fan_in, fan_out)`, row-major), then
all intercepts. A stack of k is *flat* and layer-major: every layer is one contiguous `(k, fan_in, fan_out)` block,
because batched products write only contiguous results without a copy. For k = 1 packed and flat are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor, nn


class Layout:
    """Where each layer of `k` networks lies in a flat buffer."""

    def __init__(self, layer_sizes: Sequence[int], k: int) -> None:
        self.k = k
        self.shapes = list(pairwise(layer_sizes))
        coef_sizes = [fan_in * fan_out for fan_in, fan_out in self.shapes]
        self._sizes = coef_sizes + [fan_out for _, fan_out in self.shapes]
        self._spans = list(pairwise(accumulate(self._sizes, initial=0)))  # of one network's packed parameters
        self.n_parameters = sum(self._sizes)
        self._n_coefs = sum(coef_sizes)
        # The coefs as runs of (k, size), and all parameters as spans of one network's; one member's layers lie side by
        # side, as one.
        self._runs = coef_sizes if k > 1 else [self._n_coefs]
        self._pieces = self._spans if k > 1 else [(0, self.n_parameters)]

    @property
    def n_coef_runs(self) -> int:
        """How many pieces `coef_runs` takes."""
        return len(self._runs)

    def coefs(self, flat: Tensor) -> list[Tensor]:
        """Return views `(k, fan_in, fan_out)` of a flat buffer."""
        blocks = self._blocks(flat)[: len(self.shapes)]
        return [block.view(self.k, *shape) for block, shape in zip(blocks, self.shapes, strict=True)]

    def intercepts(self, flat: Tensor) -> list[Tensor]:
        """Return views `(k, 1, fan_out)` of a flat buffer."""
        return [block.view(self.k, 1, -1) for block in self._blocks(flat)[len(self.shapes) :]]

    def coef_runs(self, flat: Tensor) -> list[Tensor]:
        """Return views `(k, size)` that cover the coefs, in as few pieces as the layout allows."""
        coefs = flat[: self.k * self._n_coefs]
        return [run.view(self.k, -1) for run in coefs.split([self.k * size for size in self._runs])]

    def join(self, packed: Sequence[Tensor]) -> Tensor:
        """Return a new flat buffer holding k packed vectors."""
        return torch.cat([vector[start:stop] for start, stop in self._pieces for vector in packed])

    def member(self, flat: Tensor, i: int) -> Tensor:
        """Return a packed copy of member `i`."""
        blocks = [flat[self.k * start : self.k * stop] for start, stop in self._pieces]
        return torch.cat([block.view(self.k, -1)[i] for block in blocks])

    def spread(self, values: Sequence[float], like: Tensor) -> float | Tensor:
        """Return one value a member as an operand for a flat buffer: a number where all agree."""
        if all(value == values[0] for value in values):
            return values[0]
        column = like.new_tensor(values)
        return torch.cat([column.repeat_interleave(size) for size in self._sizes])

    def _blocks(self, flat: Tensor) -> list[Tensor]:
        """Slice a flat buffer into its layer blocks, coefs before intercepts."""
        return [flat[self.k * start : self.k * stop] for start, stop in self._spans]


def glorot_uniform(layer_sizes: Sequence[int], factor: float, rng: np.random.RandomState) -> np.ndarray:
    """Draw packed float64 parameters within `sqrt(factor / (fan_in + fan_out))`, coefs before intercepts in each layer.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    coefs, intercepts = [], []
    for fan_in, fan_out in pairwise(layer_sizes):
        bound = np.sqrt(factor / (fan_in + fan_out))
        coefs.append(rng.uniform(-bound, bound, fan_in * fan_out))
        intercepts.append(rng.uniform(-bound, bound, fan_out))
    return np.concatenate(coefs + intercepts)


def pack(coefs: Iterable[np.ndarray], intercepts: Iterable[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Return the packed vector of one network's arrays, as a copy."""
    arrays = [np.ravel(array) for array in (*coefs, *intercepts)]
    return np.concatenate(arrays, dtype=dtype, casting="unsafe")


def unpack(packed: np.ndarray, layer_sizes: Sequence[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return views of a packed vector: coefs `(fan_in, fan_out)` and intercepts `(fan_out,)`."""
    shapes = list(pairwise(layer_sizes))
    sizes = [fan_in * fan_out for fan_in, fan_out in shapes] + [fan_out for _, fan_out in shapes]
    blocks = np.split(packed, list(accumulate(sizes))[:-1])
    coefs = [block.reshape(shape) for block, shape in zip(blocks, shapes, strict=False)]
    return coefs, blocks[len(shapes) :]


def build_module(
    coefs: Sequence[Tensor], intercepts: Sequence[Tensor], activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """Return linear layers with activations between them, over the memory of the given tensors."""
    layers: list[nn.Module] = []
    for coef, intercept in zip(coefs, intercepts, strict=True):
        layers += [_linear(coef, intercept), activation()]
    return nn.Sequential(*layers[:-1])


def _linear(coef: Tensor, intercept: Tensor) -> nn.Linear:
    """Return an `nn.Linear` that shares the memory of `coef` `(fan_in, fan_out)` and `intercept` `(fan_out,)`."""
    fan_in, fan_out = coef.shape
    linear = nn.Linear(fan_in, fan_out, device="meta")
    linear.weight, linear.bias = nn.Parameter(coef.T), nn.Parameter(intercept)
    return linear
