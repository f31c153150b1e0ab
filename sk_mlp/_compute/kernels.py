"""Batched matrix products, written to given buffers, and the choice of the library that computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .device import has_faster_onednn
from .torch_private import onednn_mm

# From this number of multiply-adds on, oneDNN saves more than the 10 us that calling it takes.
_ONEDNN_MULTIPLY_ADDS = 2_000_000


class Products(NamedTuple):
    """Matrix products in one dtype; `bmm` and `baddbmm` are called like `torch.bmm` and `torch.baddbmm`."""

    dtype: torch.dtype
    bmm: Callable[..., object]
    baddbmm: Callable[..., object]


def products_for(dtype: torch.dtype, device: torch.device, multiply_adds: int) -> Products:
    """Return the fastest products for tensors of `dtype`; `multiply_adds` is that of a member's largest product."""
    if dtype == torch.float32 and multiply_adds >= _ONEDNN_MULTIPLY_ADDS and has_faster_onednn(device):
        return Products(dtype, onednn_bmm, onednn_baddbmm)
    return Products(dtype, torch.bmm, torch.baddbmm)


def onednn_bmm(a: Tensor, b: Tensor, *, out: Tensor) -> None:
    """Fill `out` with `a @ b`, like `torch.bmm`."""
    for a_i, b_i, out_i in zip(a, b, out, strict=True):
        out_i.copy_(onednn_mm(a_i, b_i))


def onednn_baddbmm(c: Tensor, a: Tensor, b: Tensor, *, out: Tensor) -> None:
    """Fill `out` with `c + a @ b`, like `torch.baddbmm`."""
    for c_i, a_i, b_i, out_i in zip(c, a, b, out, strict=True):
        torch.add(onednn_mm(a_i, b_i), c_i, out=out_i)
