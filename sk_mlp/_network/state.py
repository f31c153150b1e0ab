"""The values of a network at some point of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class State(NamedTuple):
    """A network's values at some point of its training, NumPy: packed parameters, and what else a module keeps."""

    parameters: np.ndarray
    buffers: Mapping[str, np.ndarray]

    @property
    def is_finite(self) -> bool:
        """Whether all parameters are."""
        return bool(np.isfinite(self.parameters).all())
