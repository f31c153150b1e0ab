"""The mini-batches of one epoch, drawn from a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from operator import is_not
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sk_mlp._network.batch import Batch, DenseRows, Rows, rows_within

from .data import Samples
from .pool import DensePool, Pool

_MASK_BYTES = 2**20  # of dropout masks that are made at once

_LEAST_LONG = 2**31  # smaller indices fit int32, which takes half the memory and time


class _Part(NamedTuple):
    """The steps of an epoch that have the same number of rows."""

    steps: int
    n: int  # rows of each member in a step
    mask: Tensor | None  # (k, n): 1, or 0 where a member has fewer rows; None if all members have n
    counts: Tensor  # rows that each member has in a step, (k, 1)
    shares: Tensor  # rows in a step divided by all rows of the member, (k, 1)
    shards: Sequence[slice]  # of the rows of a step, one for each thread
    gather: Sequence[Callable[[Tensor], Iterator[Rows]]]  # of each shard
    inputs: DenseRows | None  # all rows of a step, if several shards gather them

    def masked(self, values: Tensor) -> Tensor:
        """Return `values` `(steps or 1, k, n or 1)`, set to zero for rows that a member lacks."""
        return values if self.mask is None else values * self.mask

    def each_step(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return the values of each step, from `values` `(steps, ...)`, or `(1, ...)` if all steps have the same."""
        return values.unbind() * (self.steps // values.shape[0])

    def of_shard(self, values: Tensor, shard: int) -> Tensor:
        """Return a shard of `values` `(..., n or 1)`; a last axis of 1 is the same for all shards, unless n is 1."""
        return values if len(self.shards) == 1 or values.shape[-1] != self.n else values[..., self.shards[shard]]


class _Weighting(NamedTuple):
    """The weights of rows in the gradient of each step, and in the mean loss of the epoch."""

    scales: Sequence[Sequence[Tensor]]  # for each shard, `Batch.scale` of each step
    decays: Sequence[Tensor]  # `Batch.decay` of each step
    loss_shares: Sequence[Tensor]  # factors of the row losses in the mean; for each part, (steps or 1, k, n or 1)
    norm_shares: Tensor  # factors of the squared norms of each step in the mean, (n_steps, k)


class _Ordered(NamedTuple):
    """Rows in the order of an epoch."""

    orders: Sequence[np.ndarray]  # of each member's rows, (n_i,)
    samples: np.ndarray  # of all members, step by step, (n,)
    rows: Sequence[Sequence[Tensor]]  # indices into the pool; for each shard and part, (steps, k, n)

    def is_in(self, orders: Sequence[np.ndarray]) -> bool:
        """Whether `orders` are the same objects as those of this epoch."""
        return not any(map(is_not, orders, self.orders))


class Batches:
    """Draws the mini-batches of k members, epoch after epoch, and adds up their losses.

    Everything that a step needs, except its inputs, is in a few large tensors. Views of them are made once; an epoch in
    another order fills the tensors again. Rows are stored step by step: all members' rows of the first step, then those
    of the second, up to a last step that may be smaller. All members have the same number of steps; a member with fewer
    rows than another is padded in the last step with rows of weight 0.
    """

    def __init__(
        self,
        samples: Samples,
        batch_sizes: tuple[int, int],  # rows in a batch, and the minimum number of rows in the last batch
        alpha: Tensor,  # (k, 1)
        n_norms: int,  # norms of coefs that a step computes for each member; the same number for each shard
        n_shards: int,  # of the rows of a step; several only if k = 1
    ) -> None:
        pool, rows, target, sample_weight, masks = samples
        self._k, sizes = len(rows), [len(own) for own in rows]
        every_row = np.concatenate(rows)
        is_small = max(len(every_row), every_row.max(initial=0)) < _LEAST_LONG
        self._starts = np.cumsum([0, *sizes[:-1]], dtype=np.int32 if is_small else np.int64)
        self._rows = torch.from_numpy(every_row.astype(self._starts.dtype)).to(target.device)
        self._target, self._weight, self._alpha = target, sample_weight, alpha
        self._masks = [] if masks is None else [masks, *(masks.copy() for _ in range(1, n_shards))]
        self._size = max(sizes)
        self._ordered: _Ordered | None = None
        self._parts = _parts_of(pool, sizes, batch_sizes, alpha, n_shards)
        self._shards = range(n_shards)
        self._sizes = [part.n for part in self._parts for _ in range(part.steps)]
        n_samples = self._k * self._size
        # Targets and indices into the pool, of the rows in the order of an epoch.
        self._ordered_target = target.new_empty(n_samples, target.shape[1])
        self._ordered_rows = self._rows.new_empty(n_samples)
        self._targets = self._each_step_of_shards([part.mT for part in self._split(self._ordered_target)])
        self._losses = self._split(alpha.new_empty(n_samples))
        self._norms = alpha.new_zeros(n_norms, sum(part.steps for part in self._parts), self._k)
        norms = [
            list(zip(*(of_steps.unbind() for of_steps in parts), strict=True)) for parts in self._norms_of_shards()
        ]
        self._to_fill = list(zip(self._each_step_of_shards(self._losses), norms, strict=True))
        self._weighting = self._weigh_equally()

    @property
    def n_steps(self) -> dict[int, int]:
        """Number of batches of each size in an epoch; there are one or two sizes."""
        return {part.n: part.steps for part in self._parts}

    @property
    def inputs(self) -> dict[int, DenseRows]:
        """All rows of a batch of each size, if several shards gather them."""
        return {part.n: part.inputs for part in self._parts if part.inputs is not None}

    def shards_of(self, n: int) -> Sequence[slice]:
        """Return the shards of the rows of a batch of `n`."""
        return next(part.shards for part in self._parts if part.n == n)

    def draw(self, orders: Sequence[np.ndarray], epochs: Sequence[int]) -> list[Iterator[tuple[int, Batch]]]:
        """Return, for each shard, the batches of one epoch, each with the number of rows of the whole batch.

        Each of `orders` `(n_i,)` permutes the rows of a member. If they are the same objects as in the previous epoch,
        the rows are not laid out again.
        """
        if self._ordered is None or not self._ordered.is_in(orders):
            self._ordered = self._lay_out(orders)
        return [self._batches(shard, self._ordered, epochs) for shard in self._shards]

    def _batches(self, shard: int, ordered: _Ordered, epochs: Sequence[int]) -> Iterator[tuple[int, Batch]]:
        """Return the batches of a shard in an epoch with this order."""
        each_part = zip(self._parts, ordered.rows[shard], strict=True)
        inputs = (step for part, index in each_part for step in part.gather[shard](index))
        masks = self._draw_masks(shard, ordered.samples, epochs) if self._masks else repeat(())
        weighting = self._weighting
        batches = map(
            Batch, inputs, self._targets[shard], weighting.scales[shard], weighting.decays, *self._to_fill[shard], masks
        )
        return zip(self._sizes, batches, strict=True)

    def _lay_out(self, orders: Sequence[np.ndarray]) -> _Ordered:
        """Put the rows, and their weights, in the order of an epoch."""
        # Each member's samples in order; a member with fewer samples is padded by repeating its first one.
        by_member = np.repeat(self._starts[:, None], self._size, axis=1)
        for own, order, start in zip(by_member, orders, self._starts, strict=True):
            np.add(order, start, out=own[: len(order)])
        samples = self._by_step(by_member)
        index = torch.from_numpy(samples).to(self._rows.device)
        if self._weight is not None:
            self._weighting = self._weigh(self._weight.index_select(0, index))
        torch.index_select(self._target, 0, index, out=self._ordered_target)
        torch.index_select(self._rows, 0, index, out=self._ordered_rows)
        # New tensors for new rows, although in the same memory: gatherers recognize rows by the tensor object.
        rows = self._split(self._ordered_rows)
        each_shard = [
            [part.of_shard(own, i) for part, own in zip(self._parts, rows, strict=True)] for i in self._shards
        ]
        return _Ordered(orders, samples, each_shard)

    def _draw_masks(self, shard: int, samples: np.ndarray, epochs: Sequence[int]) -> Iterator[Sequence[Tensor]]:
        """Yield the dropout masks of a shard in each step, for samples that are given step by step."""
        masks, stop = self._masks[shard], 0
        for part in self._parts:
            start, stop = stop, stop + part.steps * self._k * part.n
            window = rows_within(_MASK_BYTES, self._k * part.n * masks.row_bytes)
            by_step = samples[start:stop].reshape(part.steps, self._k, part.n)
            yield from masks.draw(by_step[..., part.shards[shard]], epochs, window)

    def mean_losses(self) -> list[float]:
        """Return each member's mean loss over the last epoch, penalty included.

        The loss of a batch is its weighted mean plus `decay / 2` times the squared norm. In the mean over batches, each
        batch has its number of rows as weight.
        """
        total = (self._weighting.norm_shares * self._norms.square()).sum((0, 1))
        for losses, share in zip(self._losses, self._weighting.loss_shares, strict=True):
            total += (losses * share).sum((0, 2))
        return total.tolist()

    def _weigh_equally(self) -> _Weighting:
        """Return the weighting for rows of weight 1."""
        inverses = [part.counts.reciprocal().unsqueeze(0) for part in self._parts]
        return self._weighting_of([part.masked(x) for x, part in zip(inverses, self._parts, strict=True)], inverses)

    def _weigh(self, weight: Tensor) -> _Weighting:
        """Return the weighting for rows of `weight`, given step by step; batches with a weight sum of 0 get zeros."""
        weights = [part.masked(x) for x, part in zip(self._split(weight), self._parts, strict=True)]
        sums = [w.sum(-1, keepdim=True) for w in weights]
        inverses = [torch.where(s > 0, s.reciprocal(), 0.0) for s in sums]
        return self._weighting_of([w * inverse for w, inverse in zip(weights, inverses, strict=True)], inverses)

    def _weighting_of(self, scales: Sequence[Tensor], inverses: Sequence[Tensor]) -> _Weighting:
        """Return the weighting for each part's scales and inverse weight sums, `(steps or 1, k, n or 1)`."""
        decays = [inverse * self._alpha for inverse in inverses]
        norm_shares = [0.5 * decay * part.shares for decay, part in zip(decays, self._parts, strict=True)]
        return _Weighting(
            scales=self._each_step_of_shards([scale.unsqueeze(2) for scale in scales]),
            decays=self._each_step(decays),
            loss_shares=[scale * part.shares for scale, part in zip(scales, self._parts, strict=True)],
            norm_shares=torch.cat(
                [share.expand(part.steps, -1, 1) for share, part in zip(norm_shares, self._parts, strict=True)]
            )[..., 0],
        )

    def _split(self, by_step: Tensor) -> list[Tensor]:
        """Return views `(steps, k, n, ...)`, one for each part, of a tensor whose first axis is stored step by step."""
        parts = by_step.split_with_sizes([part.steps * self._k * part.n for part in self._parts])
        return [
            x.view(part.steps, self._k, part.n, *by_step.shape[1:]) for x, part in zip(parts, self._parts, strict=True)
        ]

    def _each_step(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the values of each step, from the `values` of each part."""
        return [step for part, own in zip(self._parts, values, strict=True) for step in part.each_step(own)]

    def _each_step_of_shards(self, values: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return, for each shard, the values of each step, from the parts' `values` `(steps or 1, ..., n or 1)`."""
        return [
            self._each_step([part.of_shard(own, i) for part, own in zip(self._parts, values, strict=True)])
            for i in self._shards
        ]

    def _norms_of_shards(self) -> Iterator[Tensor]:
        """Yield the norms that each shard computes, `(n_norms / n_shards, n_steps, k)`."""
        return iter(self._norms.split(len(self._norms) // len(self._shards)))

    def _by_step(self, sample: np.ndarray) -> np.ndarray:
        """Return the values of `(k, n)` in the order of the steps, `(k * n,)`."""
        size = self._parts[0].n
        n_even = self._parts[0].steps * size
        even = sample[:, :n_even].reshape(self._k, -1, size).swapaxes(0, 1)
        return np.concatenate([even.ravel(), sample[:, n_even:].ravel()])


def _parts_of(
    pool: Pool, sizes: Sequence[int], batch_sizes: tuple[int, int], like: Tensor, n_shards: int
) -> list[_Part]:
    """Return the parts of an epoch of members with `sizes` rows, in the same number of steps for all members.

    If fewer than `fewest` rows remain for the last batch, they join the batch before it.
    """
    batch_size, fewest = batch_sizes
    k, n_steps = len(sizes), n_batches(max(sizes), batch_size)
    if n_steps > 1 and max(sizes) - (n_steps - 1) * batch_size < fewest:
        n_steps -= 1
    last = [size - (n_steps - 1) * batch_size for size in sizes]
    parts = [] if n_steps == 1 else [(n_steps - 1, batch_size, [batch_size] * k)]
    if last == [batch_size] * k:
        parts = [(n_steps, batch_size, last)]
    else:
        parts.append((1, max(last), last))
    made = []
    for steps, n, counts in parts:
        count_of = like.new_tensor([[count] for count in counts])
        share_of = like.new_tensor([[count / size] for count, size in zip(counts, sizes, strict=True)])
        mask = None if min(counts) == n else (torch.arange(n, device=like.device) < count_of).to(like)
        shards = [slice(n * i // n_shards, n * (i + 1) // n_shards) for i in range(n_shards)]
        inputs, gather = _gatherers(pool, k, n, steps, shards)
        made.append(_Part(steps, n, mask, count_of, share_of, shards, gather, inputs))
    return made


def _gatherers(
    pool: Pool, k: int, n: int, n_steps: int, shards: Sequence[slice]
) -> tuple[DenseRows | None, Sequence[Callable[[Tensor], Iterator[Rows]]]]:
    """Return all rows of a step, or None for a single shard, and a gatherer for each shard of them."""
    if len(shards) == 1:
        return None, [pool.gatherer(k, n, n_steps)]
    assert isinstance(pool, DensePool)
    return pool.shard_gatherers(n, shards)


def n_batches(n_samples: int, batch_size: int) -> int:
    """Return the number of batches of `n_samples` rows; the last batch may be smaller."""
    return -(-n_samples // batch_size)
