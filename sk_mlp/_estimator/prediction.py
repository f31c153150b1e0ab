"""Rows to predictions, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sk_mlp._compute.device import Precision, as_tensor, chunk_bytes, has_free_threads
from sk_mlp._compute.intra_op import available_threads, threads, threads_that_pay
from sk_mlp._compute.kernels import Products, products_for
from sk_mlp._compute.threads import in_threads, raise_if_stopped
from sk_mlp._network.activations import Activation
from sk_mlp._network.autograd import ModuleForward, values_a_row
from sk_mlp._network.batch import Rows, rows_of, rows_within, values_in_a_row
from sk_mlp._network.closed_form import Forward, forward_for

from .inputs import cast_rows

_OUTPUT_BYTES = 64  # a row and output: raw predictions in two number types, and float64 temporaries of the inverse link

Forwards = Callable[[int], Callable[[Rows], Tensor]]  # from a number of rows to what predicts so many


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
    size = min(X.shape[0], rows_within(chunk_bytes(device), _row_bytes(inputs, coefs, activations, precision)))
    work = size * max(fan_in * fan_out for fan_in, fan_out in _read_sizes(inputs, coefs))
    products = products_for(precision.product, device, work)
    chunks = _Chunks(X, size, precision, device, products, finish)
    n_threads = available_threads() if len(chunks) > 1 and has_free_threads(device) else 1
    with torch.inference_mode(), threads(threads_that_pay(work, len(chunks))):
        weights = [as_tensor(array, device, precision.product) for array in _stack_of_one(coefs)]
        biases = [as_tensor(array, device, precision.product) for array in _stack_of_one([i[None] for i in intercepts])]
        new_forwards = lambda: _Latest(  # noqa: E731
            lambda n: forward_for(weights, biases, n, activations, products, precision.master)
        )
        return chunks.predict(new_forwards, min(n_threads, len(chunks)))


def predict_rows_by_module(
    X: Any, module: nn.Module, precision: Precision, device: torch.device, finish: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """Return `finish(raw)` for all rows of X, as `predict_rows` does, from any module."""
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    row_bytes = (2 * X.shape[1] + values_a_row(module)) * precision.master.itemsize
    size = min(X.shape[0], rows_within(chunk_bytes(device), row_bytes))
    products = products_for(precision.master, device, 0)
    with torch.inference_mode(), threads(threads_that_pay(size * n_parameters)):
        module = module.to(device, precision.master).eval()
        forward = ModuleForward(module, torch.empty(0, dtype=precision.master, device=device), precision.product)
        return _Chunks(X, size, precision, device, products, finish).predict(lambda: lambda _: forward, 1)


class _Chunks:
    """Rows of X, `size` at a time, on their way to `finish(raw)`."""

    def __init__(
        self,
        X: Any,
        size: int,
        precision: Precision,
        device: torch.device,
        products: Products,
        finish: Callable[[Tensor], Tensor],
    ) -> None:
        self._X, self._size, self._precision = X, size, precision
        self._device, self._products, self._finish = device, products, finish

    def __len__(self) -> int:
        return -(-self._X.shape[0] // self._size)

    def predict(self, new_forwards: Callable[[], Forwards], n_threads: int) -> np.ndarray:
        """Return `finish(raw)` for all rows, several chunks in as many threads, each with forwards of its own."""
        forwards = new_forwards()
        first = self._predict_chunk(0, forwards)
        if len(self) == 1:
            return np.array(first, order="C")  # a copy: `finish` may return the buffer that `raw` is
        result = np.empty((self._X.shape[0], first.shape[1]), first.dtype)
        result[: self._size] = first
        starts = iter(range(self._size, self._X.shape[0], self._size))
        if n_threads == 1:
            self._fill(result, starts, forwards)
        else:
            in_threads([lambda: self._fill_on_one_thread(result, starts, new_forwards())] * n_threads, n_threads)
        return result

    def _fill_on_one_thread(self, result: np.ndarray, starts: Iterator[int], forwards: Forwards) -> None:
        """Do as `_fill` does, in a thread of its own, without threads of PyTorch's."""
        with torch.inference_mode(), threads(1):
            self._fill(result, starts, forwards)

    def _fill(self, result: np.ndarray, starts: Iterator[int], forwards: Forwards) -> None:
        """Fill in the chunks that begin at `starts`, which other threads may share."""
        for start in starts:
            raise_if_stopped()
            result[start : start + self._size] = self._predict_chunk(start, forwards)

    def _predict_chunk(self, start: int, forwards: Forwards) -> np.ndarray:
        """Return `finish(raw)` for the rows from `start` on, in a buffer that the next call may overwrite."""
        chunk = cast_rows(self._X, start, start + self._size, self._precision.array)
        raw = forwards(chunk.shape[0])(rows_of(chunk, self._device, self._products))
        part: np.ndarray = self._finish(raw.cpu().double()).numpy()[0].T
        return part


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
