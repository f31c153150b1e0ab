"""The values recorded in each epoch, and the columns that store them for all epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import c_float
from math import inf
from threading import Lock
from typing import Any, NamedTuple

import numpy as np


class Epoch(NamedTuple):
    """The values of one epoch (or iteration of L-BFGS); NaN, or None for the score, if there is no value.

    `loss` is the mean over the epoch, with the penalty; `validation_loss` is without the penalty. `gradient_norm` is
    that of the last step, before clipping.
    """

    loss: float
    validation_loss: float = np.nan
    validation_score: float | None = None
    learning_rate: float = np.nan
    gradient_norm: float = np.nan
    seconds: float = np.nan

    def lines(self, verbose: bool | int, number: int, seconds: float, *, is_last: bool = False) -> list[str]:
        """Return the lines to print for the epoch with this number, `seconds` after the beginning.

        For `verbose=True` these are scikit-learn's lines. A number n prints one line every n epochs. Once the last
        epoch is known (`is_last`), its line is printed if it was not printed before.
        """
        score = self.validation_score
        if isinstance(verbose, bool | np.bool_):
            loss = f"Iteration {number}, loss = {self.loss:.8f}"
            if not verbose or is_last:
                return []
            return [loss] if score is None else [loss, f"Validation score: {score:f}"]
        if verbose == 0 or (number % verbose == 0) == is_last:
            return []
        scored = "" if score is None else f", validation score {score:.6f}"
        rate = "" if np.isnan(self.learning_rate) else f", learning rate {self.learning_rate:.3g}"
        return [f"Iteration {number}: loss {self.loss:.6f}{scored}{rate}, {seconds:.2f} s"]


_IS_SCORED = "is_scored"  # whether an epoch had rows to validate on; its score may be NaN nevertheless
_COLUMNS = {**dict.fromkeys(Epoch._fields, np.dtype(float)), _IS_SCORED: np.dtype(bool)}
_ROUNDED = {"gradient_norm", "seconds"}  # rounded to float32, in which pickles store them
_SMALLEST = float(np.finfo(np.float32).tiny)
_USED = "used"  # number of rows of the memory that any history uses
_FIRST_SIZE = 16
_lock = Lock()  # protects the numbers `_USED`


class History:
    """A column for each field of `Epoch`, with one value for each epoch.

    A history does not change. A history that extends it shares its memory, so that adding an epoch takes the same time
    after ten epochs or a million. Only a second extension of the same history makes a copy.
    """

    def __init__(self, n: int = 0, memory: Mapping[str, np.ndarray] | None = None) -> None:
        self._n = n
        self._memory = _memory_for(0) if memory is None else memory

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> History:
        """Return the history from the dictionary of `plain` or `compact`."""
        n, columns = plain["n"], plain["columns"]
        if _USED in columns:
            return cls(n, columns)
        memory = _memory_for(n)
        for name in _COLUMNS:
            memory[name][:] = columns[name]
        memory[_USED][()] = n
        return cls(n, memory)

    def plain(self) -> dict[str, Any]:
        """Return the history as a dictionary of arrays, over the same memory."""
        return {"n": self._n, "columns": self._memory}

    def compact(self) -> dict[str, Any]:
        """Return a dictionary for pickles: columns without unused rows; one value for a column of equal values."""
        return {"n": self._n, "columns": {name: _shortened(self._column(name)) for name in _COLUMNS}}

    def __len__(self) -> int:
        return self._n

    @property
    def loss(self) -> np.ndarray:
        """The loss of each epoch, `(n_epochs,)`; do not write to it."""
        return self._column("loss")

    def extended(self, epochs: Sequence[Epoch]) -> History:
        """Return the history with more epochs at its end."""
        if not epochs:
            return self
        n = self._n + len(epochs)
        memory = self._with_room_for(n)
        for name, values in zip(Epoch._fields, zip(*epochs, strict=True), strict=True):
            kept = list(map(_rounded, values)) if name in _ROUNDED else values
            memory[name][self._n : n] = kept  # None becomes NaN
        memory[_IS_SCORED][self._n : n] = [epoch.validation_score is not None for epoch in epochs]
        return History(n, memory)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return a float array `(n_epochs,)` for each field."""
        return {name: self._column(name).astype(float) for name in Epoch._fields}

    def last(self, name: str, n: int) -> np.ndarray:
        """Return the values of a field in the last `n` epochs."""
        return self._column(name)[self._n - n :]

    def where_scored(self, name: str) -> list[float]:
        """Return a field's values in the epochs that had rows to validate on."""
        return self._column(name)[self._column(_IS_SCORED)].tolist()

    def _column(self, name: str) -> np.ndarray:
        return self._memory[name][: self._n]

    def _with_room_for(self, n: int) -> Mapping[str, np.ndarray]:
        """Return memory with this history and room for `n` epochs: its own, unless another history has extended it."""
        with _lock:
            if self._memory[_USED] == self._n and n <= len(self._memory["loss"]):
                self._memory[_USED][()] = n
                return self._memory
        memory = _memory_for(max(_FIRST_SIZE, 2 * self._n, n))
        memory[_USED][()] = n
        for name in _COLUMNS:
            memory[name][: self._n] = self._column(name)
        return memory


def _memory_for(size: int) -> dict[str, np.ndarray]:
    """Return columns with room for `size` epochs, and an array `()` with the number of epochs in use."""
    return {**{name: np.empty(size, dtype) for name, dtype in _COLUMNS.items()}, _USED: np.array(0)}


def _rounded(value: float) -> float:
    """Return a value rounded to float32; the value itself if it is outside the range of float32."""
    short: float = c_float(value).value
    return short if _SMALLEST <= abs(short) < inf else value


def _shortened(column: np.ndarray) -> Any:
    """Return the common value if all values of a column are equal, else a copy, in float32 if this changes no value."""
    is_float = column.dtype.kind == "f"
    if len(column) and np.array_equal(column[1:], column[:-1], equal_nan=is_float):
        return column[0].item()
    with np.errstate(over="ignore", under="ignore"):
        short = column.astype(np.float32) if is_float else column.copy()
    return short if np.array_equal(short, column, equal_nan=is_float) else column.copy()
