"""Rows to predictions, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._activations import Activation
from ._backprop import Forward
from ._batches import as_tensor, make_pool, rows_within
from ._device import Precision, threads_for
from ._products import products_for
from ._validation import cast_rows

CHUNK_BYTES = 32 * 2**20  # of everything a chunk of rows needs on its way
_OUTPUT_BYTES = 64  # a row and output: raw predictions in two number types, and float64 temporaries of the inverse link


def predict_rows(
    X: Any,
    coefs: Sequence[np.ndarray],
    intercepts: Sequence[np.ndarray],
    activation: Activation,
    precision: Precision,
    device: torch.device,
    finish: Callable[[Tensor], Tensor],
) -> np.ndarray:
    """Return `finish(raw)` for all rows of X, `(n_samples, ...)`.

    `finish` takes raw predictions `(1, n_outputs, n)` of a chunk, float64 so that no digits of a probability near one
    are lost, and returns rows first.
    """
    weights = [as_tensor(coef).to(device, precision.product).unsqueeze(0) for coef in coefs]
    biases = [as_tensor(intercept).to(device, precision.product).view(1, 1, -1) for intercept in intercepts]
    n_samples = X.shape[0]
    size = min(n_samples, rows_within(CHUNK_BYTES, _row_bytes(coefs, activation, precision)))
    work = size * max(coef.size for coef in coefs)
    products = products_for(precision.product, device, work)
    forward, result, forward_rows = None, None, 0
    with torch.inference_mode(), threads_for(work):
        for start in range(0, n_samples, size):
            chunk = cast_rows(X, start, start + size, precision.array)
            n = chunk.shape[0]
            if forward is None or n != forward_rows:
                forward = None  # frees the buffers before others are made
                forward, forward_rows = Forward(weights, biases, n, activation, products, precision.master), n
            raw = forward(make_pool(chunk, device, products).slice(0, n))
            part = finish(raw.cpu().double()).numpy()
            if result is None:
                result = np.empty((n_samples, *part.shape[1:]), part.dtype)
            result[start : start + n] = part
    assert result is not None
    return result


def _row_bytes(coefs: Sequence[np.ndarray], activation: Activation, precision: Precision) -> int:
    """Return what a row needs: its cast input, hidden values, and outputs."""
    n_features, n_outputs = coefs[0].shape[0], coefs[-1].shape[1]
    hidden = sum(coef.shape[1] for coef in coefs[:-1]) * (2 if activation.keeps_input else 1)
    return (2 * n_features + hidden) * precision.master.itemsize + n_outputs * _OUTPUT_BYTES
