"""Rows on their way into a network: a pool of samples, and the mini-batches that one epoch draws from it.

A batch of inputs is `DenseRows` or `SparseRows`; both multiply with a layer's coefs and give the gradient of those
coefs. The rest of the engine does not know which of the two it has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import repeat
from operator import is_not
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sk_mlp._compute.device import as_tensor, over_memory_of
from sk_mlp._compute.kernels import Products

from .dropout import Masks

_WINDOW_BYTES = 2**20  # of inputs gathered at once,
_MASK_BYTES = 2**20  # and of dropout masks made at once
_LEAST_LONG = 2**31  # indices below take half the memory, and its time


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
        """Return some of the inputs of each row."""
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

    PyTorch has no sparse products in bfloat16; those run in float32.
    """

    def __init__(self, matrices: Sequence[sp.csr_array], device: torch.device, dtype: torch.dtype) -> None:
        self._matrices, self._device = matrices, device
        self._dtype = torch.promote_types(dtype, torch.float32)

    def dense(self) -> Tensor:
        """Return the inputs `(k, n, fan_in)` with their zeros, for networks that know no sparse products."""
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
        """SciPy turns CSR around: PyTorch's own product with a transposed CSR matrix takes three times as long."""
        return [self._to_torch(matrix.T.tocsr()) for matrix in self._matrices]

    def _to_torch(self, matrix: sp.csr_array) -> Tensor:
        """Return `matrix` as a PyTorch CSR tensor on the device."""
        return torch.sparse_csr_tensor(
            over_memory_of(matrix.indptr),
            over_memory_of(matrix.indices),
            over_memory_of(matrix.data),
            size=matrix.shape,
            check_invariants=False,  # products read wherever the indices say; `_validation` has looked at them
        ).to(device=self._device, dtype=self._dtype)


def _hear_of_beta_state() -> None:
    """Let PyTorch say here, once a process, that its "Sparse CSR tensor support is in beta state".

    Filtered at each matrix it would change the filters of other threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1, device="cpu").to_sparse_csr()


_hear_of_beta_state()

Rows = DenseRows | SparseRows


def values_in_a_row(X: Any) -> int:
    """Return how many values a row of X takes on average: all features, or those that are stored and their columns."""
    return -(-2 * X.nnz // max(1, X.shape[0])) if sp.issparse(X) else X.shape[1]


def rows_of(X: Any, device: torch.device, products: Products) -> Rows:
    """Return all rows of a NumPy array or a SciPy CSR matrix as a batch of one member."""
    if sp.issparse(X):
        return SparseRows([X], device, products.dtype)
    return DenseRows(as_tensor(X[None], device, products.dtype), products)


class DensePool:
    """Samples as a tensor `(1, n_pool, n_features)`."""

    def __init__(self, X: np.ndarray, device: torch.device, products: Products) -> None:
        self._X, self._products = as_tensor(X[None], device), products

    def slice(self, start: int, stop: int) -> DenseRows:
        """Return adjacent rows as a batch of one member; a view where the number type is already right."""
        return DenseRows(self._X[:, start:stop].to(self._products.dtype), self._products)

    def gatherer(self, k: int, n: int, n_steps: int) -> DenseGatherer:
        """Return what gathers up to `n_steps` steps of `n` rows for each of `k` members."""
        return DenseGatherer(self._X[0], self._products, k, n, n_steps)

    def shard_gatherers(self, n: int, shards: Sequence[Any]) -> tuple[DenseRows, list[ShardGatherer]]:
        """Return what gathers a shard each of the `n` rows of a step of one member, and all these rows."""
        buffer = self._X.new_empty(1, n, self._X.shape[2])
        cast = buffer.to(self._products.dtype)
        parts = [part_of(buffer, cast, (slice(None), rows)) for rows in shards]
        gatherers = [ShardGatherer(self._X[0], self._products, *part) for part in parts]
        return DenseRows(cast, self._products), gatherers


class DenseGatherer:
    """Copies rows of a pool into a buffer of its own, as many steps at once as fit a processor's cache."""

    def __init__(self, X: Tensor, products: Products, k: int, n: int, n_steps: int) -> None:
        self._X, self._step_size = X, k * n
        window = min(n_steps, rows_within(_WINDOW_BYTES, k * n * X.shape[1] * X.itemsize))
        self._buffer = X.new_empty(window * k * n, X.shape[1])
        self._cast = self._buffer.to(products.dtype)
        by_step = self._cast.view(window, k, n, -1)
        each = zip(by_step.unbind(), by_step.mT.unbind(), strict=True)
        self._steps = [DenseRows(values, products, transposed) for values, transposed in each]
        # Refers to the index whose rows the buffer holds all; weakly, because it may be a view of a large one.
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
    """Refer to no index."""


class ShardGatherer:
    """Copies some rows of each step of one member from a pool to their place among the step's rows."""

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
    """Samples as one CSR matrix, which stays in SciPy's hands until a batch is needed."""

    def __init__(self, X: sp.csr_array, device: torch.device, products: Products) -> None:
        self._X, self._device, self._dtype = X, device, products.dtype

    def slice(self, start: int, stop: int) -> SparseRows:
        """Return adjacent rows as a batch of one member."""
        return SparseRows([self._X[start:stop]], self._device, self._dtype)

    def gatherer(self, _k: int, _n: int, _n_steps: int) -> SparseGatherer:
        """Return what picks rows step by step."""
        return SparseGatherer(self._X, self._device, self._dtype)


class SparseGatherer:
    """Picks rows of a CSR pool."""

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


def copy_if_cast(source: Tensor, target: Tensor) -> None:
    """Copy into `target`, unless the two are one buffer because no cast was needed."""
    if target is not source:
        target.copy_(source)


def part_of(source: Tensor, target: Tensor, index: Any) -> tuple[Tensor, Tensor]:
    """Return a part of two tensors, one view where the two are one buffer."""
    part = source[index]
    return part, part if target is source else target[index]


def rows_within(n_bytes: int, row_bytes: int) -> int:
    """Return how many rows of `row_bytes` fit, at least one."""
    return max(1, n_bytes // row_bytes)


class Batch(NamedTuple):
    """One training step's data for k members of `n` rows each."""

    inputs: Rows
    target: Tensor  # (k, n_outputs, n), or class indices (k, 1, n)
    scale: Tensor  # of a row in the gradient: sample_weight / sum over the batch; broadcasts to (k, 1, n)
    decay: Tensor  # of the coefs in the gradient: alpha / sum over the batch, (k, 1)
    losses: Tensor  # (k, n), to be filled
    norms: Sequence[Tensor]  # of each run of coefs (`Layout.coef_runs`), (k,), to be filled
    masks: Sequence[Tensor] = ()  # of dropout, (k, n, units) for each hidden layer

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all of them; inputs must be dense."""
        assert isinstance(self.inputs, DenseRows)
        return *self.inputs.tensors, self.target, self.scale, self.decay, self.losses, *self.norms, *self.masks


class _Run(NamedTuple):
    """Steps of one size."""

    steps: int
    n: int  # rows a member
    mask: Tensor | None  # (k, n) ones, and zeros where a member has fewer rows; None where all have n
    counts: Tensor  # rows that each member has in a step, (k, 1)
    shares: Tensor  # of a member's rows that a step has, (k, 1)
    shards: Sequence[slice]  # of the rows of a step
    gather: Sequence[Callable[[Tensor], Iterator[Rows]]]  # of each shard
    inputs: DenseRows | None  # all rows of a step, where these are gathered by shards

    def masked(self, values: Tensor) -> Tensor:
        """Return `values` `(steps or 1, k, n or 1)`, zero for rows that a member lacks."""
        return values if self.mask is None else values * self.mask

    def each_step(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return what each step has of `values` `(steps, ...)`, or of `(1, ...)` where all steps have the same."""
        return values.unbind() * (self.steps // values.shape[0])

    def of_shard(self, values: Tensor, shard: int) -> Tensor:
        """Return a shard of `values` `(..., n or 1)`; where one row is all there is, shards without it get none."""
        return values if len(self.shards) == 1 or values.shape[-1] != self.n else values[..., self.shards[shard]]


class _Weighting(NamedTuple):
    """What the rows of an epoch weigh: in each step's gradient, and in the epoch's mean loss."""

    scales: Sequence[Sequence[Tensor]]  # each shard's, a step's `Batch.scale`
    decays: Sequence[Tensor]  # a step's `Batch.decay`
    loss_shares: Sequence[Tensor]  # of a row's loss in the mean: a run's (steps or 1, k, n or 1)
    norm_shares: Tensor  # of a step's squared norms in it, (n_steps, k)


class _Ordered(NamedTuple):
    """Rows in the order of an epoch."""

    orders: Sequence[np.ndarray]  # of each member's rows, (n_i,)
    samples: np.ndarray  # of all members, step by step, (n,)
    rows: Sequence[Sequence[Tensor]]  # of each shard in the pool, (steps, k, n) of each run

    def is_in(self, orders: Sequence[np.ndarray]) -> bool:
        """Tell whether these are the very same orders."""
        return not any(map(is_not, orders, self.orders))


class Epochs:
    """Draws the mini-batches of k members, epoch after epoch, and adds up their losses.

    Everything a step needs besides its inputs lies in a few large tensors, which an epoch in another order fills anew;
    views of them are made once. Rows lie step by step: all members' rows of the first step, then those of the second,
    up to a last step that may be smaller. Members take equally many steps; who has fewer rows than another is padded in
    the last step, with weight 0.
    """

    def __init__(
        self,
        pool: Pool,
        rows: Sequence[np.ndarray],  # of each member in the pool, (n_i,)
        target: Tensor,  # of all members, one after another, (sum of n_i, n_outputs)
        sample_weight: Tensor | None,  # (sum of n_i,)
        batch_size: int,
        fewest: int,  # rows that the last batch may have
        alpha: Tensor,  # (k, 1)
        masks: Masks | None,  # over all members' rows, one after another; None without dropout
        n_norms: int,  # of coefs that a step fills, for each member; equally many a shard
        n_shards: int,  # of the rows of a step; several of one member alone
    ) -> None:
        self._k, sizes = len(rows), [len(own) for own in rows]
        every_row = np.concatenate(rows)
        is_small = max(len(every_row), every_row.max(initial=0)) < _LEAST_LONG
        self._starts = np.cumsum([0, *sizes[:-1]], dtype=np.int32 if is_small else np.int64)
        self._rows = torch.from_numpy(every_row.astype(self._starts.dtype)).to(target.device)
        self._target, self._weight, self._alpha = target, sample_weight, alpha
        self._masks = [] if masks is None else [masks, *(masks.copy() for _ in range(1, n_shards))]
        self._size = max(sizes)
        self._ordered: _Ordered | None = None
        self._runs = _runs_of(pool, sizes, batch_size, fewest, alpha, n_shards)
        self._shards = range(n_shards)
        self._sizes = [run.n for run in self._runs for _ in range(run.steps)]
        n_samples = self._k * self._size
        # Of the rows in the order of an epoch: targets, and where in the pool they lie.
        self._ordered_target = target.new_empty(n_samples, target.shape[1])
        self._ordered_rows = self._rows.new_empty(n_samples)
        self._targets = self._each_step_of_shards([run.mT for run in self._split(self._ordered_target)])
        self._losses = self._split(alpha.new_empty(n_samples))
        self._norms = alpha.new_zeros(n_norms, sum(run.steps for run in self._runs), self._k)
        norms = [list(zip(*(of_steps.unbind() for of_steps in runs), strict=True)) for runs in self._norms_of_shards()]
        self._to_fill = list(zip(self._each_step_of_shards(self._losses), norms, strict=True))
        self._weighting = self._weigh_equally()

    @property
    def n_steps(self) -> dict[int, int]:
        """How many batches of each size an epoch has; there are one or two sizes."""
        return {run.n: run.steps for run in self._runs}

    @property
    def inputs(self) -> dict[int, DenseRows]:
        """All rows of a batch of each size, where these are gathered by shards."""
        return {run.n: run.inputs for run in self._runs if run.inputs is not None}

    def shards_of(self, n: int) -> Sequence[slice]:
        """Return the shards of the rows of a batch of `n`."""
        return next(run.shards for run in self._runs if run.n == n)

    def draw(self, orders: Sequence[np.ndarray], epochs: Sequence[int]) -> list[Iterator[tuple[int, Batch]]]:
        """Return each shard's batches of one epoch, with the number of rows of the whole batch.

        Each of `orders` `(n_i,)` permutes a member's rows in its own epoch. An epoch in the very same
        orders as the one before is not laid out again.
        """
        if self._ordered is None or not self._ordered.is_in(orders):
            self._ordered = self._lay_out(orders)
        return [self._batches(shard, self._ordered, epochs) for shard in self._shards]

    def _batches(self, shard: int, ordered: _Ordered, epochs: Sequence[int]) -> Iterator[tuple[int, Batch]]:
        """Return a shard's batches of an epoch in this order."""
        each_run = zip(self._runs, ordered.rows[shard], strict=True)
        inputs = (step for run, index in each_run for step in run.gather[shard](index))
        masks = self._draw_masks(shard, ordered.samples, epochs) if self._masks else repeat(())
        weighting = self._weighting
        batches = map(
            Batch, inputs, self._targets[shard], weighting.scales[shard], weighting.decays, *self._to_fill[shard], masks
        )
        return zip(self._sizes, batches, strict=True)

    def _lay_out(self, orders: Sequence[np.ndarray]) -> _Ordered:
        """Put the rows, and their weights, in the order of an epoch."""
        # Each member's samples in order, and its first again and again where others have more.
        by_member = np.repeat(self._starts[:, None], self._size, axis=1)
        for own, order, start in zip(by_member, orders, self._starts, strict=True):
            np.add(order, start, out=own[: len(order)])
        samples = self._by_step(by_member)
        index = torch.from_numpy(samples).to(self._rows.device)
        if self._weight is not None:
            self._weighting = self._weigh(self._weight.index_select(0, index))
        torch.index_select(self._target, 0, index, out=self._ordered_target)
        torch.index_select(self._rows, 0, index, out=self._ordered_rows)
        # Other tensors for other rows, though in the same memory: by that gatherers tell what they hold.
        rows = self._split(self._ordered_rows)
        each_shard = [[run.of_shard(own, i) for run, own in zip(self._runs, rows, strict=True)] for i in self._shards]
        return _Ordered(orders, samples, each_shard)

    def _draw_masks(self, shard: int, samples: np.ndarray, epochs: Sequence[int]) -> Iterator[Sequence[Tensor]]:
        """Yield a shard's dropout masks of each step, for samples step by step."""
        masks, stop = self._masks[shard], 0
        for run in self._runs:
            start, stop = stop, stop + run.steps * self._k * run.n
            window = rows_within(_MASK_BYTES, self._k * run.n * masks.row_bytes)
            by_step = samples[start:stop].reshape(run.steps, self._k, run.n)
            yield from masks.draw(by_step[..., run.shards[shard]], epochs, window)

    def mean_losses(self) -> list[float]:
        """Return each member's loss over the epoch just drawn, penalty included.

        A batch's loss is its weighted mean plus `decay / 2` times the squared norm; batches count by their rows.
        """
        total = (self._weighting.norm_shares * self._norms.square()).sum((0, 1))
        for losses, share in zip(self._losses, self._weighting.loss_shares, strict=True):
            total += (losses * share).sum((0, 2))
        return total.tolist()

    def _weigh_equally(self) -> _Weighting:
        """Return what rows of weight one weigh."""
        inverses = [run.counts.reciprocal().unsqueeze(0) for run in self._runs]
        return self._weighting_of([run.masked(x) for x, run in zip(inverses, self._runs, strict=True)], inverses)

    def _weigh(self, weight: Tensor) -> _Weighting:
        """Return what rows of `weight`, step by step, weigh; in a batch without weight they count nothing."""
        weights = [run.masked(x) for x, run in zip(self._split(weight), self._runs, strict=True)]
        sums = [w.sum(-1, keepdim=True) for w in weights]
        inverses = [torch.where(s > 0, s.reciprocal(), 0.0) for s in sums]
        return self._weighting_of([w * inverse for w, inverse in zip(weights, inverses, strict=True)], inverses)

    def _weighting_of(self, scales: Sequence[Tensor], inverses: Sequence[Tensor]) -> _Weighting:
        """Return the weighting for each run's scales and inverse weight sums, `(steps or 1, k, n or 1)`."""
        decays = [inverse * self._alpha for inverse in inverses]
        norm_shares = [0.5 * decay * run.shares for decay, run in zip(decays, self._runs, strict=True)]
        return _Weighting(
            scales=self._each_step_of_shards([scale.unsqueeze(2) for scale in scales]),
            decays=self._each_step(decays),
            loss_shares=[scale * run.shares for scale, run in zip(scales, self._runs, strict=True)],
            norm_shares=torch.cat(
                [share.expand(run.steps, -1, 1) for share, run in zip(norm_shares, self._runs, strict=True)]
            )[..., 0],
        )

    def _split(self, by_step: Tensor) -> list[Tensor]:
        """View a tensor whose first axis lies step by step as `(steps, k, n, ...)`, one view a run."""
        runs = by_step.split_with_sizes([run.steps * self._k * run.n for run in self._runs])
        return [x.view(run.steps, self._k, run.n, *by_step.shape[1:]) for x, run in zip(runs, self._runs, strict=True)]

    def _each_step(self, values: Sequence[Tensor]) -> list[Tensor]:
        """List what each step has of each run's `values`."""
        return [step for run, own in zip(self._runs, values, strict=True) for step in run.each_step(own)]

    def _each_step_of_shards(self, values: Sequence[Tensor]) -> list[list[Tensor]]:
        """List what each shard has in each step of each run's `values` `(steps or 1, ..., n or 1)`."""
        return [
            self._each_step([run.of_shard(own, i) for run, own in zip(self._runs, values, strict=True)])
            for i in self._shards
        ]

    def _norms_of_shards(self) -> Iterator[Tensor]:
        """Yield what each shard fills of the norms, `(n_norms / n_shards, n_steps, k)`."""
        return iter(self._norms.split(len(self._norms) // len(self._shards)))

    def _by_step(self, sample: np.ndarray) -> np.ndarray:
        """Lay `(k, n)` out step by step, `(k * n,)`."""
        size = self._runs[0].n
        n_even = self._runs[0].steps * size
        even = sample[:, :n_even].reshape(self._k, -1, size).swapaxes(0, 1)
        return np.concatenate([even.ravel(), sample[:, n_even:].ravel()])


def _runs_of(pool: Pool, sizes: Sequence[int], batch_size: int, fewest: int, like: Tensor, n_shards: int) -> list[_Run]:
    """Return the runs of an epoch of members with `sizes` rows, all in equally many steps.

    Fewer rows than `fewest` do not make a batch, but join the one before.
    """
    k, n_steps = len(sizes), n_batches(max(sizes), batch_size)
    if n_steps > 1 and max(sizes) - (n_steps - 1) * batch_size < fewest:
        n_steps -= 1
    last = [size - (n_steps - 1) * batch_size for size in sizes]
    runs = [] if n_steps == 1 else [(n_steps - 1, batch_size, [batch_size] * k)]
    if last == [batch_size] * k:
        runs = [(n_steps, batch_size, last)]
    else:
        runs.append((1, max(last), last))
    made = []
    for steps, n, counts in runs:
        count_of = like.new_tensor([[count] for count in counts])
        share_of = like.new_tensor([[count / size] for count, size in zip(counts, sizes, strict=True)])
        mask = None if min(counts) == n else (torch.arange(n, device=like.device) < count_of).to(like)
        shards = [slice(n * i // n_shards, n * (i + 1) // n_shards) for i in range(n_shards)]
        inputs, gather = _gatherers(pool, k, n, steps, shards)
        made.append(_Run(steps, n, mask, count_of, share_of, shards, gather, inputs))
    return made


def _gatherers(
    pool: Pool, k: int, n: int, n_steps: int, shards: Sequence[slice]
) -> tuple[DenseRows | None, Sequence[Callable[[Tensor], Iterator[Rows]]]]:
    """Return what gathers each shard of a step's rows, and all these rows where there are several shards."""
    if len(shards) == 1:
        return None, [pool.gatherer(k, n, n_steps)]
    assert isinstance(pool, DensePool)
    return pool.shard_gatherers(n, shards)


def n_batches(n_samples: int, batch_size: int) -> int:
    """Return how many batches `n_samples` rows make, the last of which may be smaller."""
    return -(-n_samples // batch_size)
