"""Sample weights as numbers near 1 times a power of two: without a penalty, only their ratios matter."""

from __future__ import annotations

from math import frexp, inf, ldexp, sqrt
from typing import NamedTuple, Self

import numpy as np


class Scaled(NamedTuple):
    """Weights `values * 2**exponent`, `(n,)` float64, the largest of `values` in [0.5, 1) unless all are 0.

    Every dtype can therefore represent `values`, for weights of any scale. Because the unit is a power of two, no digit
    changes.
    """

    values: np.ndarray
    exponent: int

    @classmethod
    def of(cls, weights: np.ndarray) -> Self:
        """Return the scaled form of finite weights `(n,)` of any scale."""
        _, exponent = frexp(weights.max())
        return cls(np.ldexp(weights, -exponent), exponent)

    def times(self, factors: np.ndarray) -> Self:
        """Return the products with finite factors `(n,)`; a product becomes 0 only if it is relatively very small."""
        other = self.of(factors)
        product = self.of(self.values * other.values)
        return type(self)(product.values, product.exponent + self.exponent + other.exponent)


def penalty_for(alpha: float, exponent: int, dtype: np.dtype) -> float:
    """Return `alpha` in the unit of weights that are multiples of `2**exponent`.

    Raises ValueError if it is so large that its square, which Adam stores, is too large for `dtype`.
    """
    try:
        scaled = ldexp(alpha, -exponent)
    except OverflowError:
        scaled = inf
    most = sqrt(np.finfo(dtype).max)
    if scaled > most:
        raise ValueError(
            f"alpha must be at most {most:.1e} times the largest sample_weight (times class_weight) in {dtype}, got "
            f"alpha={alpha!r} for weights of at most 2**{exponent}"
        )
    return scaled
