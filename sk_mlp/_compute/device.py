"""Devices and number types: the one file that names a device type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import torch_private

# Types of device that `torch.autocast` may be in force for.
_AUTOCAST_TYPES = ("cpu", "cuda", "mps", "xpu")
# Up to here float64 takes no time that a user would notice.
_SMALL_ROWS, _SMALL_PARAMETERS = 128, 2**16


class Precision(NamedTuple):
    """The number types of a computation."""

    array: np.dtype  # validated inputs and fitted arrays
    master: torch.dtype  # parameters in training, optimizer state, losses, reductions
    product: torch.dtype  # matrix products and stored activations


PRECISIONS = {
    "float32": Precision(np.dtype(np.float32), torch.float32, torch.float32),
    "float64": Precision(np.dtype(np.float64), torch.float64, torch.float64),
    "bfloat16": Precision(np.dtype(np.float32), torch.float32, torch.bfloat16),
}
_PROMOTED = Precision(np.dtype(np.float32), torch.float64, torch.float64)


def precision_for(dtype: str, device: torch.device, n_rows: int, n_parameters: int) -> Precision:
    """Return the number types to compute with, on `n_rows` in all.

    Few rows of float32 are computed in float64 and rounded at the end. It costs nothing there, and makes float32
    results exact to their last digit: a weight of 2 equals the row twice, and a prediction does not depend on its
    neighbours.
    """
    small = n_rows <= _SMALL_ROWS and n_parameters <= _SMALL_PARAMETERS
    return _PROMOTED if small and dtype == "float32" and device.type != "mps" else PRECISIONS[dtype]


class _Writable:
    """What NumPy makes a writable view from of an array's memory, read-only memory included."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # keeps the memory alive
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def forwards(array: np.ndarray) -> np.ndarray:
    """Return the array, or a copy if it has a negative stride, as `X[::-1][:1]` has: PyTorch takes none.

    To NumPy an axis of one element is contiguous, whatever its stride.
    """
    return array if min(array.strides, default=0) >= 0 else array.copy()


def over_memory_of(array: np.ndarray) -> Tensor:
    """Return a tensor on the memory of `array`, for reading alone: PyTorch warns of read-only memory."""
    array = forwards(array)
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


def as_tensor(array: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor over the memory of `array`, if need be copied, for reading alone.

    A small array takes NumPy half as long to cast as PyTorch, and what becomes float64 here is small.
    """
    if dtype == torch.float64:
        array = array.astype(np.float64, copy=False)
    tensor = over_memory_of(array)
    # Asking PyTorch for what is there already takes as long as a small product.
    return tensor if tensor.dtype == dtype and device.type == "cpu" else tensor.to(device, dtype)


def _best_device(dtype: str) -> str:
    """Name the fastest device at hand that can hold `dtype`."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available() and dtype != "float64":
        return "mps"
    return "cpu"


@lru_cache  # of devices that are present; errors are not kept
def resolve_device(device: str, dtype: str) -> torch.device:
    """Return the torch device that `device` means.

    Raises ValueError for a name PyTorch does not know, a device this machine lacks and float64 where the device has
    none.
    """
    if device == "auto":
        return torch.device(_best_device(dtype))
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device must be 'auto' or a name PyTorch knows ('cpu', 'cuda', 'cuda:1', 'mps', ...), got {device!r}"
        ) from None
    if resolved.type == "mps" and dtype == "float64":
        raise ValueError("dtype must be 'float32' or 'bfloat16' on device 'mps', which has no float64, got 'float64'")
    _require_present(resolved, device)
    return resolved


def _require_present(resolved: torch.device, device: str) -> None:
    """Raise ValueError unless tensors can live on `resolved`."""
    try:
        torch.zeros(1, device=resolved).tolist()
    except (RuntimeError, AssertionError, ImportError):  # which of them depends on the backend
        n_cuda = torch.cuda.device_count()
        raise ValueError(
            f"device must be present on this machine, got {device!r}; PyTorch sees {n_cuda} CUDA device(s) and "
            f"{'an' if torch.backends.mps.is_available() else 'no'} MPS device here"
        ) from None


def has_fused_adam(device: torch.device) -> bool:
    """Whether PyTorch's one-kernel Adam runs on `device`."""
    return device.type in ("cpu", "cuda") and torch_private.has_fused_adam()


def has_faster_onednn(device: torch.device) -> bool:
    """Whether oneDNN multiplies float32 matrices on `device` faster than PyTorch's own choice, MKL, does.

    MKL takes AVX2 kernels on AMD processors. Zen 5 computes 512 bits at once and is left half idle by them; Zen 4,
    which takes AVX-512 instructions in two halves, is not.
    """
    return device.type == "cpu" and _is_amd_of_full_width() and torch_private.has_onednn_product()


@lru_cache
def _is_amd_of_full_width() -> bool:
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    known = torch.cpu.get_capabilities()
    # An instruction that came with Zen 5.
    return "AMD" in known.get("cpu_name", "") and known.get("avx512_vp2intersect", False)


def can_replay(device: torch.device) -> bool:
    """Whether recorded operations are replayed on `device`; nobody has measured it on others."""
    return device.type == "cpu"


def autocasts() -> Mapping[str, torch.dtype]:
    """Return the types of device that `torch.autocast` is in force for, and the dtype it casts to there."""
    return {name: torch.get_autocast_dtype(name) for name in _AUTOCAST_TYPES if torch.is_autocast_enabled(name)}


def generators(device: torch.device) -> list[torch.Generator]:
    """Return PyTorch's own random generators that a module on `device` may draw from."""
    index = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index or 0
    return [torch.default_generator, *torch_private.default_generators(device.type, index)]


def has_free_threads(device: torch.device) -> bool:
    """Whether threads of ours that compute on `device` have a processor each."""
    return device.type == "cpu"


def stack_bytes(device: torch.device) -> int:
    """Return how many bytes the members of a stack should touch in a step: what one processor's caches hold."""
    return (4 if device.type == "cpu" else 1024) * 2**20


def chunk_bytes(device: torch.device) -> int:
    """Return how many bytes a chunk of rows may take on its way to predictions."""
    return (8 if device.type == "cpu" else 32) * 2**20


def line_search_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on a device that has nothing better."""
    return torch.float32 if device.type == "mps" else torch.float64
