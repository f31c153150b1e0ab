"""Dropout masks as functions of the rows: no state, no order of draws.

The mask of a row is a hash of the seed, the epoch and the values of the row. Therefore a row that appears twice gets
the same mask twice, equivalent to a row of weight 2. The position of a row in its batch and the other members of a
stack have no effect. Nothing is drawn from the generator that shuffles. Dropout is inverted (Srivastava et al.,
"Dropout", 2014): kept values are divided by the fraction that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

# Constants of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
_GAMMA, _MIX_1, _MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_LEVELS = 2**16  # rates are multiples of 1 / _LEVELS, because each value has 16 random bits
_PER_WORD = 4  # values from one random word of 64 bits
_HASHED_BYTES = 2**22  # of rows that are hashed at once


def _mix(words: np.ndarray, scratch: np.ndarray | None = None) -> np.ndarray:
    """Scramble 64-bit words in place, and return them; `scratch` has the same shape."""
    scratch = np.empty_like(words) if scratch is None else scratch
    for shift, factor in ((_SHIFT_1, _MIX_1), (_SHIFT_2, _MIX_2)):
        np.right_shift(words, shift, out=scratch)
        np.bitwise_xor(words, scratch, out=words)
        np.multiply(words, factor, out=words)
    np.right_shift(words, _SHIFT_3, out=scratch)
    return np.bitwise_xor(words, scratch, out=words)


def hash_rows(X: Any) -> np.ndarray:
    """Return a 64-bit hash of each row's values `(n,)`, the same for dense and sparse rows; X is float32 or float64."""
    factors = _mix(np.arange(1, X.shape[1] + 1, dtype=np.uint64) * _GAMMA) | np.uint64(1)
    if sp.issparse(X):
        return _mix(sp.csr_array((_bits(X.data), X.indices, X.indptr), shape=X.shape) @ factors)
    size = max(1, _HASHED_BYTES // (8 * X.shape[1]))
    chunks = [X[start : start + size] for start in range(0, len(X), size)]
    return _mix(np.concatenate([np.einsum("ij,j->i", _bits(chunk), factors) for chunk in chunks]))


def _bits(values: np.ndarray) -> np.ndarray:
    """Return 64-bit words that differ for different floats, 0 for 0.

    Round numbers end in zero bits, and a product with an odd factor keeps these zeros. Upper bits are therefore mixed
    into the lower ones.
    """
    values = values + values.dtype.type(0)  # turns -0 into 0
    bits = values.view(f"u{values.dtype.itemsize}").astype(np.uint64)
    return bits ^ (bits >> np.uint64(32)) ^ (bits >> np.uint64(47))


class Masks:
    """Makes the masks of k networks whose hidden layers have `widths` units."""

    def __init__(
        self,
        widths: Sequence[int],
        rates: np.ndarray,  # (k, n_hidden)
        seeds: Sequence[int],  # (k,)
        hashes: np.ndarray,  # of the rows, (n,)
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._k, self._n_units, self._hashes = len(seeds), sum(widths), hashes
        self._spans = list(pairwise(accumulate(widths, initial=0)))
        # How many of _LEVELS random values drop a unit, (k, 1, n_units).
        dropped = np.rint(np.repeat(rates, widths, axis=1) * _LEVELS).clip(max=_LEVELS - 1)[:, None]
        # 16 random bits, read as a signed number, are at least this with the probability that a value is kept.
        self._least_kept = torch.from_numpy((dropped - _LEVELS // 2).astype(np.int16)).to(device)
        self._scale = torch.from_numpy(_LEVELS / (_LEVELS - dropped)).to(device, dtype)
        self._words = np.arange(1, -(-self._n_units // _PER_WORD) + 1, dtype=np.uint64) * _GAMMA
        self._seeds = np.array(seeds, dtype=np.uint64)
        self._buffers = lru_cache(maxsize=4)(self._new_buffers)

    @property
    def row_bytes(self) -> int:
        """Number of bytes of the masks of a row."""
        return self._n_units * self._scale.element_size()

    def copy(self) -> Masks:
        """Return an object that makes the same masks in separate buffers."""
        twin = copy(self)
        twin._buffers = lru_cache(maxsize=4)(twin._new_buffers)
        return twin

    def draw(self, rows: np.ndarray, epochs: Sequence[int], window: int) -> Iterator[list[Tensor]]:
        """Yield for each step the masks of each layer, `(k, n, units)`, computed for `window` steps at once.

        `rows` `(n_steps, k, n)` are indices into the hashes; `epochs` `(k,)` are the epoch numbers of the members.
        """
        keys = _mix(self._seeds + np.array(epochs, dtype=np.uint64) * _GAMMA)[:, None]
        for start in range(0, len(rows), window):
            keyed = self._hashes[rows[start : start + window]] ^ keys
            for masks in self._masks(_mix(keyed)):
                yield [masks[..., a:b] for a, b in self._spans]

    def _masks(self, keyed: np.ndarray) -> Tensor:
        """Return masks `(steps, k, n, n_units)` for hashes `(steps, k, n)`, in a buffer that later calls overwrite."""
        words, scratch, masks = self._buffers(keyed.shape)
        _mix(np.add(keyed[..., None], self._words, out=words), scratch)
        bits = torch.from_numpy(words.view(np.int16)[..., : self._n_units]).to(masks.device)
        return torch.ge(bits, self._least_kept, out=masks).mul_(self._scale)

    def _new_buffers(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Return arrays for the masks of hashes of `shape`; new ones for each window would take a third more time."""
        words = np.empty((*shape, len(self._words)), np.uint64)
        return words, np.empty_like(words), self._scale.new_empty(*shape, self._n_units)
