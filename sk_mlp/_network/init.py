"""Initial parameters, drawn layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import numpy as np

from .values import Weights


class Initialisation(NamedTuple):
    """The distribution of a layer's initial parameters: uniform, or normal if `is_normal`; intercepts may be zero.

    `scale(fan_in, fan_out, factor)` is the bound of the uniform or the standard deviation of the normal distribution.
    """

    scale: Callable[[int, int, float], float]
    is_normal: bool = False
    draws_intercepts: bool = True

    def layer(self, fan_in: int, fan_out: int, factor: float, rng: np.random.RandomState) -> list[np.ndarray]:
        """Return drawn coefs `(fan_in, fan_out)` and intercepts `(fan_out,)`, float64."""
        scale = self.scale(fan_in, fan_out, factor)
        low, high = (0.0, scale) if self.is_normal else (-scale, scale)
        draw = rng.normal if self.is_normal else rng.uniform
        coef = draw(low, high, (fan_in, fan_out))
        return [coef, draw(low, high, fan_out) if self.draws_intercepts else np.zeros(fan_out)]


# Glorot and Bengio, AISTATS 2010, with scikit-learn's factor for the activation; He et al., ICCV 2015; LeCun et al.,
# "Efficient BackProp", 1998; and `torch.nn.Linear`.
INITIALISATIONS = {
    "glorot_uniform": Initialisation(lambda fan_in, fan_out, factor: sqrt(factor / (fan_in + fan_out))),
    "he_normal": Initialisation(lambda fan_in, *_: sqrt(2 / fan_in), is_normal=True, draws_intercepts=False),
    "he_uniform": Initialisation(lambda fan_in, *_: sqrt(6 / fan_in), draws_intercepts=False),
    "lecun_normal": Initialisation(lambda fan_in, *_: sqrt(1 / fan_in), is_normal=True, draws_intercepts=False),
    "torch": Initialisation(lambda fan_in, *_: sqrt(1 / fan_in)),
}


def draw_weights(
    layer_sizes: Sequence[int],
    init: str,
    factors: Sequence[float],  # of each layer, for Glorot's bound
    rng: np.random.RandomState,
    dtype: np.dtype,
) -> Weights:
    """Return coefs and intercepts, drawn layer by layer, in each layer coefs before intercepts."""
    layers = [
        INITIALISATIONS[init].layer(*shape, factor, rng)
        for shape, factor in zip(pairwise(layer_sizes), factors, strict=True)
    ]
    coefs, intercepts = zip(*layers, strict=True)
    return Weights([c.astype(dtype) for c in coefs], [i.astype(dtype) for i in intercepts], {})
