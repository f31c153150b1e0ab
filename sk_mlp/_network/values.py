"""The values of a network: packed, for training, and by layer, for fitted estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class State(NamedTuple):
    """The values of a network at some point of its training, in NumPy: packed parameters, and buffers of a module."""

    parameters: np.ndarray  # (n_parameters,), in the order of `Layout`
    buffers: Mapping[str, np.ndarray]

    @property
    def is_finite(self) -> bool:
        """Whether all parameters are finite."""
        return bool(np.isfinite(self.parameters).all())

    def as_dtype(self, dtype: np.dtype) -> State:
        """Return the same values with floats in `dtype`; arrays that have this dtype are not copied."""
        return State(
            self.parameters.astype(dtype, copy=False),
            {
                name: value.astype(dtype, copy=False) if value.dtype.kind == "f" else value
                for name, value in self.buffers.items()
            },
        )


def stay_finite(buffers: Mapping[str, np.ndarray], first: Mapping[str, np.ndarray]) -> bool:
    """Whether buffers are finite wherever they were finite in `first`; a mask may contain infinities by design."""
    return all(bool((np.isfinite(value) | ~np.isfinite(first[name])).all()) for name, value in buffers.items())


class Weights(NamedTuple):
    """The values of a network as NumPy arrays of one dtype, in the form that a fitted estimator stores.

    `coefs` and `intercepts` belong to our linear layers. `rest` contains the other entries of the network's
    `state_dict`, which are all entries for a user-defined module.
    """

    coefs: Sequence[np.ndarray]  # (fan_in, fan_out) each
    intercepts: Sequence[np.ndarray]  # (fan_out,) each
    rest: Mapping[str, np.ndarray]

    def copy(self) -> Weights:
        """Return a copy of all values."""
        return Weights(
            [coef.copy() for coef in self.coefs],
            [intercept.copy() for intercept in self.intercepts],
            {name: value.copy() for name, value in self.rest.items()},
        )

    @property
    def size(self) -> int:
        """Total number of values."""
        return sum(array.size for array in (*self.coefs, *self.intercepts, *self.rest.values()))
