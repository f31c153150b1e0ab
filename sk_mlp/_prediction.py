"""Rows to predictions, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._activations import Activation
from ._autograd import ModuleForward, values_a_row
from ._backprop import Forward
from ._batches import Rows, rows_of, rows_within, values_in_a_row
from ._device import Precision, as_tensor
from ._modes import threads_for
from ._products import Products, products_for
from ._validation import cast_rows

CHUNK_BYTES = 32 * 2**20  # of everything a chunk of rows needs on its way
_OUTPUT_BYTES = 64  # a row and output: raw predictions in two number types, and float64 temporaries of the inverse link


def predict_rows(
    X: Any,
    coefs: Sequence[np.ndarray],
    intercepts: Sequence[np.ndarray],
    activations: Sequence[Activation],
    precision: Precision,
    device: torch.device,
    finish: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """Return `finish(raw)` for all rows of X, `(n_samples, n_values)`, from the layers of a network.

    `finish` maps raw predictions `(1, n_outputs, n)` of a chunk, float64 so that no digits of a probability near one
    are lost, to `(1, n_values, n)`; rows come first in the result.
    """
    inputs = values_in_a_row(X)
    size = min(X.shape[0], rows_within(CHUNK_BYTES, _row_bytes(inputs, coefs, activations, precision)))
    work = size * max(fan_in * fan_out for fan_in, fan_out in _read_sizes(inputs, coefs))
    products = products_for(precision.product, device, work)
    with torch.inference_mode(), threads_for(work):
        weights = [as_tensor(array, device, precision.product) for array in _stack_of_one(coefs)]
        biases = [as_tensor(array, device, precision.product) for array in _stack_of_one([i[None] for i in intercepts])]
        forwards = _Latest(lambda n: Forward(weights, biases, n, activations, products, precision.master))
        return _by_chunks(X, size, precision, device, products, forwards, finish)


def predict_rows_by_module(
    X: Any, module: nn.Module, precision: Precision, device: torch.device, finish: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """Return `finish(raw)` for all rows of X, as `predict_rows` does, from any module."""
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    row_bytes = (2 * X.shape[1] + values_a_row(module)) * precision.master.itemsize
    size = min(X.shape[0], rows_within(CHUNK_BYTES, row_bytes))
    products = products_for(precision.master, device, 0)
    with torch.inference_mode(), threads_for(size * n_parameters):
        module = module.to(device, precision.master).eval()
        forward = ModuleForward(module, torch.empty(0, dtype=precision.master, device=device), precision.product)
        return _by_chunks(X, size, precision, device, products, lambda _: forward, finish)


def _by_chunks(
    X: Any,
    size: int,
    precision: Precision,
    device: torch.device,
    products: Products,
    forward_for: Callable[[int], Callable[[Rows], Tensor]],
    finish: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """Return `finish(raw)` for all rows, `size` at a time; `forward_for(n)` predicts `n` rows."""
    result: np.ndarray | None = None
    for start in range(0, X.shape[0], size):
        chunk = cast_rows(X, start, start + size, precision.array)
        n = chunk.shape[0]
        raw = forward_for(n)(rows_of(chunk, device, products))
        part = finish(raw.cpu().double()).numpy()[0].T
        if n == X.shape[0]:
            return np.array(part, order="C")  # a copy: `finish` may return the buffer that `raw` is
        if result is None:
            result = np.empty((X.shape[0], part.shape[1]), part.dtype)
        result[start : start + n] = part
    assert result is not None
    return result


class _Latest:
    """A function of a number of rows that keeps its last value, and lets go of it before it makes another."""

    def __init__(self, make: Callable[[int], Forward]) -> None:
        self._make, self._n = make, -1
        self._value: Forward | None = None

    def __call__(self, n: int) -> Forward:
        if self._value is None or n != self._n:
            self._value = None  # frees the buffers before others are made
            self._value, self._n = self._make(n), n
        return self._value


def _stack_of_one(layers: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the layers' matrices as a `Layout` has them: a first axis for the stack, the output layer transposed."""
    *hidden, output = layers
    return [*(matrix[None] for matrix in hidden), output.T[None]]


def _read_sizes(inputs: int, coefs: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Return what each layer reads and gives out for a row of `inputs` values."""
    return pairwise([inputs, *(coef.shape[1] for coef in coefs)])


def _row_bytes(
    inputs: int, coefs: Sequence[np.ndarray], activations: Sequence[Activation], precision: Precision
) -> int:
    """Return what a row needs: its cast input, hidden values, and outputs."""
    n_outputs = coefs[-1].shape[1]
    values = 2 * inputs
    for coef, activation in zip(coefs, activations, strict=False):  # all but the last
        values += coef.shape[1] * (2 if activation.keeps_input else 1)
    return values * precision.master.itemsize + n_outputs * _OUTPUT_BYTES
