"""Predictions of rows, for a limited number of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_mlp._compute.device import Precision, chunk_bytes, has_free_threads
from sk_mlp._compute.intra_op import available_threads, threads, threads_that_pay
from sk_mlp._compute.kernels import Products, products_for
from sk_mlp._compute.threads import in_threads, raise_if_stopped
from sk_mlp._network.batch import rows_of, rows_within
from sk_mlp._network.network import Network, Predictor
from sk_mlp._network.values import Weights

from .inputs import cast_rows

_OUTPUT_BYTES = 64  # per row and output: raw predictions in two dtypes, and float64 temporaries of the inverse link

Forwards = Callable[[int], Predictor]  # from a number of rows to the predictor of that many rows


def predict_rows(
    X: Any,
    network: Network,
    weights: Weights,
    precision: Precision,
    device: torch.device,
    finish: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """Return `finish(raw)` for all rows of X, `(n_samples, n_values)`.

    `finish` maps the raw predictions of a chunk, `(1, n_outputs, n)`, to `(1, n_values, n)`. They are float64, so that
    a probability near one loses no digits. Rows come first in the result.
    """
    values = 2 * network.input_values(X) + network.values_per_row  # the input is cast
    row_bytes = values * precision.master.itemsize + network.n_outputs * _OUTPUT_BYTES
    size = min(X.shape[0], rows_within(chunk_bytes(device), row_bytes))
    multiply_adds = network.multiply_adds(size, X)
    products = products_for(network.product_dtype(precision), device, multiply_adds)
    chunks = _Chunks(X, size, precision, products, device, finish)
    n_parallel = len(chunks) if network.is_pure else 1
    n_threads = min(n_parallel, available_threads()) if n_parallel > 1 and has_free_threads(device) else 1
    with torch.inference_mode(), threads(threads_that_pay(multiply_adds, n_parallel)):
        parameters = network.tensors(weights, device, precision)
        new_forwards = lambda: _Latest(lambda n: network.forward(parameters, n, products, precision))  # noqa: E731
        return chunks.predict(new_forwards, n_threads)


class _Chunks:
    """The rows of X in chunks of `size` rows, each of which is predicted and given to `finish`."""

    def __init__(
        self,
        X: Any,
        size: int,
        precision: Precision,
        products: Products,
        device: torch.device,
        finish: Callable[[Tensor], Tensor],
    ) -> None:
        self._X, self._size, self._array_dtype = X, size, precision.array
        self._products, self._device, self._finish = products, device, finish

    def __len__(self) -> int:
        return -(-self._X.shape[0] // self._size)

    def predict(self, new_forwards: Callable[[], Forwards], n_threads: int) -> np.ndarray:
        """Return `finish(raw)` for all rows; `n_threads` threads predict chunks, each with its own predictors."""
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
        """Do the same as `_fill` in a separate thread, without PyTorch's own threads."""
        with torch.inference_mode(), threads(1):
            self._fill(result, starts, forwards)

    def _fill(self, result: np.ndarray, starts: Iterator[int], forwards: Forwards) -> None:
        """Fill the chunks that begin at `starts`; several threads may take values from the same `starts`."""
        for start in starts:
            raise_if_stopped()
            result[start : start + self._size] = self._predict_chunk(start, forwards)

    def _predict_chunk(self, start: int, forwards: Forwards) -> np.ndarray:
        """Return `finish(raw)` for the chunk at `start`, in a buffer that the next call may overwrite."""
        chunk = cast_rows(self._X, start, start + self._size, self._array_dtype)
        raw = forwards(chunk.shape[0])(rows_of(chunk, self._device, self._products))
        part: np.ndarray = self._finish(raw.cpu().double()).numpy()[0].T
        return part


class _Latest:
    """A function of a number of rows that keeps its last value, and releases it before it makes the next one."""

    def __init__(self, make: Callable[[int], Predictor]) -> None:
        self._make, self._n = make, -1
        self._value: Predictor | None = None

    def __call__(self, n: int) -> Predictor:
        if self._value is None or n != self._n:
            self._value = None  # frees the buffers before others are made
            self._value, self._n = self._make(n), n
        return self._value
