"""The values of a network: packed, as training has them, and by layer, as fitted estimators keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class State(NamedTuple):
    """A network's values at some point of its training, NumPy: packed parameters, and what else a module keeps."""

    parameters: np.ndarray  # (n_parameters,), in the order of `Layout`
    buffers: Mapping[str, np.ndarray]

    @property
    def is_finite(self) -> bool:
        """Whether all parameters are."""
        return bool(np.isfinite(self.parameters).all())

    def as_dtype(self, dtype: np.dtype) -> State:
        """Return the same with floats in `dtype`; arrays that have it are not copied."""
        return State(
            self.parameters.astype(dtype, copy=False),
            {
                name: value.astype(dtype, copy=False) if value.dtype.kind == "f" else value
                for name, value in self.buffers.items()
            },
        )


def stay_finite(buffers: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]) -> bool:
    """Whether buffers are finite wherever they were at `first`: a mask may hold infinities by design."""
    return all(bool((np.isfinite(value) | ~np.isfinite(first[name])).all()) for name, value in buffers.items())


class Weights(NamedTuple):
    """A network's values as NumPy arrays of one dtype, as they are kept on a fitted estimator.

    `coefs` and `intercepts` belong to linear layers that were built here; `rest` is what else the network's
    `state_dict` holds, which for a user-defined module is all of it.
    """

    coefs: Sequence[np.ndarray]  # (fan_in, fan_out) each
    intercepts: Sequence[np.ndarray]  # (fan_out,) each
    rest: Mapping[str, np.ndarray]

    def copy(self) -> Weights:
        """Return the same values in other memory."""
        return Weights(
            [coef.copy() for coef in self.coefs],
            [intercept.copy() for intercept in self.intercepts],
            {name: value.copy() for name, value in self.rest.items()},
        )

    @property
    def size(self) -> int:
        """How many values there are."""
        return sum(array.size for array in (*self.coefs, *self.intercepts, *self.rest.values()))
