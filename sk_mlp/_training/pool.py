"""Samples in a pool, and the batches gathered from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import ref

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sk_mlp._compute.device import as_tensor
from sk_mlp._compute.kernels import Products
from sk_mlp._network.batch import DenseRows, SparseRows, copy_if_cast, part_of, rows_within

_WINDOW_BYTES = 2**20  # of inputs that are gathered at once


class DensePool:
    """Samples as a tensor `(1, n_pool, n_features)`."""

    def __init__(self, X: np.ndarray, device: torch.device, products: Products) -> None:
        self._X, self._products = as_tensor(X[None], device), products

    def slice(self, start: int, stop: int) -> DenseRows:
        """Return adjacent rows as a batch of one member; a view if the dtype is already right."""
        return DenseRows(self._X[:, start:stop].to(self._products.dtype), self._products)

    def gatherer(self, k: int, n: int, n_steps: int) -> DenseGatherer:
        """Return a gatherer of up to `n_steps` steps of `n` rows for each of `k` members."""
        return DenseGatherer(self._X[0], self._products, k, n, n_steps)

    def shard_gatherers(self, n: int, shards: Sequence[Any]) -> tuple[DenseRows, list[ShardGatherer]]:
        """Return the `n` rows of a step of one member, and for each shard of them a gatherer."""
        buffer = self._X.new_empty(1, n, self._X.shape[2])
        cast = buffer.to(self._products.dtype)
        parts = [part_of(buffer, cast, (slice(None), rows)) for rows in shards]
        gatherers = [ShardGatherer(self._X[0], self._products, *part) for part in parts]
        return DenseRows(cast, self._products), gatherers


class DenseGatherer:
    """Copies rows of a pool into its own buffer, as many steps at once as fit a processor's cache."""

    def __init__(self, X: Tensor, products: Products, k: int, n: int, n_steps: int) -> None:
        self._X, self._step_size = X, k * n
        window = min(n_steps, rows_within(_WINDOW_BYTES, k * n * X.shape[1] * X.itemsize))
        self._buffer = X.new_empty(window * k * n, X.shape[1])
        self._cast = self._buffer.to(products.dtype)
        by_step = self._cast.view(window, k, n, -1)
        each = zip(by_step.unbind(), by_step.mT.unbind(), strict=True)
        self._steps = [DenseRows(values, products, transposed) for values, transposed in each]
        # A weak reference to the index whose rows are all in the buffer; weak, because it may be a view of a large one.
        self._held: Callable[[], Tensor | None] = _no_index

    def __call__(self, index: Tensor) -> Iterator[DenseRows]:
        """Yield the rows of each step, for an index `(steps, k, n)`; a later step may overwrite them."""
        if self._held() is index:
            yield from self._steps
            return
        self._held = _no_index
        flat, size = index.view(-1), self._buffer.shape[0]
        for start in range(0, flat.shape[0], size):
            rows = flat[start : start + size]
            torch.index_select(self._X, 0, rows, out=self._buffer[: rows.shape[0]])
            copy_if_cast(self._buffer, self._cast)
            yield from self._steps[: rows.shape[0] // self._step_size]
        if flat.shape[0] == size:
            self._held = ref(index)


def _no_index() -> None:
    """Return None, as a reference to no index."""


class ShardGatherer:
    """Copies the rows of one shard, in each step of one member, from a pool to their place in the step's buffer."""

    def __init__(self, X: Tensor, products: Products, buffer: Tensor, cast: Tensor) -> None:
        self._X, self._buffer, self._cast = X, buffer, cast  # (n_pool, n_features), and twice (1, n, n_features)
        self._rows = DenseRows(cast, products)

    def __call__(self, index: Tensor) -> Iterator[DenseRows]:
        """Yield the rows of each step, for an index `(steps, 1, n)`; a later step overwrites them."""
        for step in index:
            torch.index_select(self._X, 0, step[0], out=self._buffer[0])
            copy_if_cast(self._buffer, self._cast)
            yield self._rows


class SparsePool:
    """Samples as one CSR matrix of SciPy; each batch is converted to PyTorch when it is needed."""

    def __init__(self, X: sp.csr_array, device: torch.device, products: Products) -> None:
        self._X, self._device, self._dtype = X, device, products.dtype

    def slice(self, start: int, stop: int) -> SparseRows:
        """Return adjacent rows as a batch of one member."""
        return SparseRows([self._X[start:stop]], self._device, self._dtype)

    def gatherer(self, _k: int, _n: int, _n_steps: int) -> SparseGatherer:
        """Return a gatherer that selects the rows of each step."""
        return SparseGatherer(self._X, self._device, self._dtype)


class SparseGatherer:
    """Selects rows of a CSR pool."""

    def __init__(self, X: sp.csr_array, device: torch.device, dtype: torch.dtype) -> None:
        self._X, self._device, self._dtype = X, device, dtype

    def __call__(self, index: Tensor) -> Iterator[SparseRows]:
        """Yield the rows of each step, for an index `(steps, k, n)`."""
        for step in index.cpu().numpy():
            yield SparseRows([self._X[rows] for rows in step], self._device, self._dtype)


Pool = DensePool | SparsePool


def make_pool(X: Any, device: torch.device, products: Products) -> Pool:
    """Return the pool for a NumPy array or a SciPy CSR matrix."""
    return (SparsePool if sp.issparse(X) else DensePool)(X, device, products)
