"""The mini-batches that one epoch draws from a pool."""

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

_MASK_BYTES = 2**20  # and of dropout masks made at once

_LEAST_LONG = 2**31  # indices below take half the memory, and its time


class _Part(NamedTuple):
    """A part of an epoch: its steps of one size."""

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
    loss_shares: Sequence[Tensor]  # of a row's loss in the mean: a part's (steps or 1, k, n or 1)
    norm_shares: Tensor  # of a step's squared norms in it, (n_steps, k)


class _Ordered(NamedTuple):
    """Rows in the order of an epoch."""

    orders: Sequence[np.ndarray]  # of each member's rows, (n_i,)
    samples: np.ndarray  # of all members, step by step, (n,)
    rows: Sequence[Sequence[Tensor]]  # of each shard in the pool, (steps, k, n) of each part

    def is_in(self, orders: Sequence[np.ndarray]) -> bool:
        """Tell whether these are the very same orders."""
        return not any(map(is_not, orders, self.orders))


class Batches:
    """Draws the mini-batches of k members, epoch after epoch, and adds up their losses.

    Everything a step needs besides its inputs lies in a few large tensors, which an epoch in another order fills anew;
    views of them are made once. Rows lie step by step: all members' rows of the first step, then those of the second,
    up to a last step that may be smaller. Members take equally many steps; who has fewer rows than another is padded in
    the last step, with weight 0.
    """

    def __init__(
        self,
        samples: Samples,
        batch_sizes: tuple[int, int],  # rows of a batch, and the fewest that the last one may have
        alpha: Tensor,  # (k, 1)
        n_norms: int,  # of coefs that a step fills, for each member; equally many a shard
        n_shards: int,  # of the rows of a step; several of one member alone
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
        # Of the rows in the order of an epoch: targets, and where in the pool they lie.
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
        """How many batches of each size an epoch has; there are one or two sizes."""
        return {part.n: part.steps for part in self._parts}

    @property
    def inputs(self) -> dict[int, DenseRows]:
        """All rows of a batch of each size, where these are gathered by shards."""
        return {part.n: part.inputs for part in self._parts if part.inputs is not None}

    def shards_of(self, n: int) -> Sequence[slice]:
        """Return the shards of the rows of a batch of `n`."""
        return next(part.shards for part in self._parts if part.n == n)

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
        each_shard = [
            [part.of_shard(own, i) for part, own in zip(self._parts, rows, strict=True)] for i in self._shards
        ]
        return _Ordered(orders, samples, each_shard)

    def _draw_masks(self, shard: int, samples: np.ndarray, epochs: Sequence[int]) -> Iterator[Sequence[Tensor]]:
        """Yield a shard's dropout masks of each step, for samples step by step."""
        masks, stop = self._masks[shard], 0
        for part in self._parts:
            start, stop = stop, stop + part.steps * self._k * part.n
            window = rows_within(_MASK_BYTES, self._k * part.n * masks.row_bytes)
            by_step = samples[start:stop].reshape(part.steps, self._k, part.n)
            yield from masks.draw(by_step[..., part.shards[shard]], epochs, window)

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
        inverses = [part.counts.reciprocal().unsqueeze(0) for part in self._parts]
        return self._weighting_of([part.masked(x) for x, part in zip(inverses, self._parts, strict=True)], inverses)

    def _weigh(self, weight: Tensor) -> _Weighting:
        """Return what rows of `weight`, step by step, weigh; in a batch without weight they count nothing."""
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
        """View a tensor whose first axis lies step by step as `(steps, k, n, ...)`, one view a part."""
        parts = by_step.split_with_sizes([part.steps * self._k * part.n for part in self._parts])
        return [
            x.view(part.steps, self._k, part.n, *by_step.shape[1:]) for x, part in zip(parts, self._parts, strict=True)
        ]

    def _each_step(self, values: Sequence[Tensor]) -> list[Tensor]:
        """List what each step has of each part's `values`."""
        return [step for part, own in zip(self._parts, values, strict=True) for step in part.each_step(own)]

    def _each_step_of_shards(self, values: Sequence[Tensor]) -> list[list[Tensor]]:
        """List what each shard has in each step of each part's `values` `(steps or 1, ..., n or 1)`."""
        return [
            self._each_step([part.of_shard(own, i) for part, own in zip(self._parts, values, strict=True)])
            for i in self._shards
        ]

    def _norms_of_shards(self) -> Iterator[Tensor]:
        """Yield what each shard fills of the norms, `(n_norms / n_shards, n_steps, k)`."""
        return iter(self._norms.split(len(self._norms) // len(self._shards)))

    def _by_step(self, sample: np.ndarray) -> np.ndarray:
        """Lay `(k, n)` out step by step, `(k * n,)`."""
        size = self._parts[0].n
        n_even = self._parts[0].steps * size
        even = sample[:, :n_even].reshape(self._k, -1, size).swapaxes(0, 1)
        return np.concatenate([even.ravel(), sample[:, n_even:].ravel()])


def _parts_of(
    pool: Pool, sizes: Sequence[int], batch_sizes: tuple[int, int], like: Tensor, n_shards: int
) -> list[_Part]:
    """Return the parts of an epoch of members with `sizes` rows, all in equally many steps.

    Fewer rows than `fewest` do not make a batch, but join the one before.
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
    """Return what gathers each shard of a step's rows, and all these rows where there are several shards."""
    if len(shards) == 1:
        return None, [pool.gatherer(k, n, n_steps)]
    assert isinstance(pool, DensePool)
    return pool.shard_gatherers(n, shards)


def n_batches(n_samples: int, batch_size: int) -> int:
    """Return how many batches `n_samples` rows make, the last of which may be smaller."""
    return -(-n_samples // batch_size)
