"""The inputs of a network: dense or sparse rows, and mini-batches with targets and weights.

A batch of inputs is `DenseRows` or `SparseRows`. Both compute the product with a layer's coefs and the gradient of
these coefs, with the same interface.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import scipy.sparse as sp
import torch
from torch import Tensor

from sk_mlp._compute.device import as_tensor, over_memory_of
from sk_mlp._compute.kernels import Products


class DenseRows:
    """Inputs `(k, n, fan_in)` of a layer."""

    def __init__(self, values: Tensor, products: Products, transposed: Tensor | None = None) -> None:
        self.values, self._products = values, products
        self._transposed = values.mT if transposed is None else transposed
        self.tensors = self.values, self._transposed

    def dense(self) -> Tensor:
        """Return the inputs `(k, n, fan_in)`."""
        return self.values

    def columns(self, columns: slice) -> DenseRows:
        """Return some of the columns."""
        return DenseRows(self.values[..., columns], self._products)

    def affine(self, coef: Tensor, intercept: Tensor, out: Tensor) -> None:
        """Fill `out` `(k, n, fan_out)` with `values @ coef + intercept`."""
        self._products.baddbmm(intercept, self.values, coef, out=out)

    def affine_outputs_first(self, coef: Tensor, intercept: Tensor, out: Tensor) -> None:
        """Fill `out` `(k, fan_out, n)` with `coef @ values.T + intercept`, for a coef `(k, fan_out, fan_in)`."""
        self._products.baddbmm(intercept, coef, self._transposed, out=out)

    def coef_gradient(self, delta: Tensor, out: Tensor) -> None:
        """Fill `out` `(k, fan_in, fan_out)` with `values.T @ delta`."""
        self._products.bmm(self._transposed, delta, out=out)

    def coef_gradient_outputs_first(self, delta: Tensor, out: Tensor) -> None:
        """Fill `out` `(k, fan_out, fan_in)` with `delta @ values`, for a delta `(k, fan_out, n)`."""
        self._products.bmm(delta, self.values, out=out)


class SparseRows:
    """Inputs of a layer as k CSR matrices `(n, fan_in)`, multiplied one after another.

    PyTorch has no sparse products in bfloat16, so these run in float32.
    """

    def __init__(self, matrices: Sequence[sp.csr_array], device: torch.device, dtype: torch.dtype) -> None:
        self._matrices, self._device = matrices, device
        self._dtype = torch.promote_types(dtype, torch.float32)

    def dense(self) -> Tensor:
        """Return the inputs as a dense tensor `(k, n, fan_in)`, for networks without sparse products."""
        return torch.stack([matrix.to_dense() for matrix in self._csr])

    def affine(self, coef: Tensor, intercept: Tensor, out: Tensor) -> None:
        """Fill `out` `(k, n, fan_out)` with `values @ coef + intercept`."""
        coef, intercept, result = coef.to(self._dtype), intercept.to(self._dtype), out.to(self._dtype)
        for i, matrix in enumerate(self._csr):
            torch.addmm(intercept[i], matrix, coef[i], out=result[i])
        copy_if_cast(result, out)

    def affine_outputs_first(self, coef: Tensor, intercept: Tensor, out: Tensor) -> None:
        """Fill `out` `(k, fan_out, n)` with `coef @ values.T + intercept`, for a coef `(k, fan_out, fan_in)`."""
        rows_first = torch.empty_like(out.mT, memory_format=torch.contiguous_format)
        self.affine(coef.mT, intercept.mT, rows_first)
        out.copy_(rows_first.mT)

    def coef_gradient(self, delta: Tensor, out: Tensor) -> None:
        """Fill `out` `(k, fan_in, fan_out)` with `values.T @ delta`."""
        delta, result = delta.to(self._dtype), out.to(self._dtype)
        for i, matrix in enumerate(self._transposed_csr):
            torch.mm(matrix, delta[i].contiguous(), out=result[i])
        copy_if_cast(result, out)

    def coef_gradient_outputs_first(self, delta: Tensor, out: Tensor) -> None:
        """Fill `out` `(k, fan_out, fan_in)` with `delta @ values`, for a delta `(k, fan_out, n)`."""
        rows_first = torch.empty_like(out.mT, memory_format=torch.contiguous_format)
        self.coef_gradient(delta.mT, rows_first)
        out.copy_(rows_first.mT)

    @cached_property
    def _csr(self) -> list[Tensor]:
        return [self._to_torch(matrix) for matrix in self._matrices]

    @cached_property
    def _transposed_csr(self) -> list[Tensor]:
        """Transposed by SciPy, because PyTorch's product with a transposed CSR matrix takes three times as long."""
        return [self._to_torch(matrix.T.tocsr()) for matrix in self._matrices]

    def _to_torch(self, matrix: sp.csr_array) -> Tensor:
        """Return `matrix` as a PyTorch CSR tensor on the device."""
        return torch.sparse_csr_tensor(
            over_memory_of(matrix.indptr),
            over_memory_of(matrix.indices),
            over_memory_of(matrix.data),
            size=matrix.shape,
            check_invariants=False,  # products do not check the indices; `_estimator/inputs.py` has checked them
        ).to(device=self._device, dtype=self._dtype)


def _hear_of_beta_state() -> None:
    """Make PyTorch warn here that its "Sparse CSR tensor support is in beta state", and ignore this warning.

    PyTorch warns once per process. Ignoring the warning later, when a matrix is made, would change the warning filters
    of other threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1, device="cpu").to_sparse_csr()


_hear_of_beta_state()

Rows = DenseRows | SparseRows


def values_in_a_row(X: Any) -> int:
    """Return the average number of values in a row of X: all features, or the stored values and their columns."""
    return -(-2 * X.nnz // max(1, X.shape[0])) if sp.issparse(X) else X.shape[1]


def rows_of(X: Any, device: torch.device, products: Products) -> Rows:
    """Return all rows of a NumPy array or a SciPy CSR matrix as a batch of one member."""
    if sp.issparse(X):
        return SparseRows([X], device, products.dtype)
    return DenseRows(as_tensor(X[None], device, products.dtype), products)


def copy_if_cast(source: Tensor, target: Tensor) -> None:
    """Copy to `target`, unless both are the same buffer because no cast is needed."""
    if target is not source:
        target.copy_(source)


def part_of(source: Tensor, target: Tensor, index: Any) -> tuple[Tensor, Tensor]:
    """Return the same part of two tensors; one view if both are the same buffer."""
    part = source[index]
    return part, part if target is source else target[index]


def rows_within(n_bytes: int, row_bytes: int) -> int:
    """Return how many rows of `row_bytes` fit in `n_bytes`, at least one."""
    return max(1, n_bytes // row_bytes)


class Batch(NamedTuple):
    """The data of one training step for k members with `n` rows each."""

    inputs: Rows
    target: Tensor  # (k, n_outputs, n), or class indices (k, 1, n)
    scale: Tensor  # factor of a row in the gradient: its weight / weight sum of the batch; broadcasts to (k, 1, n)
    decay: Tensor  # factor of the coefs in the gradient: alpha / weight sum of the batch, (k, 1)
    losses: Tensor  # (k, n), to be filled
    norms: Sequence[Tensor]  # of each piece of the coefs (`Layout.coef_pieces`), (k,), to be filled
    masks: Sequence[Tensor] = ()  # of dropout, (k, n, units) for each hidden layer

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors of the batch; inputs must be dense."""
        assert isinstance(self.inputs, DenseRows)
        return *self.inputs.tensors, self.target, self.scale, self.decay, self.losses, *self.norms, *self.masks
