"""Devices and dtypes; no other file names a device type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import torch_private

# Device types for which `torch.autocast` may be active.
_AUTOCAST_TYPES = ("cpu", "cuda", "mps", "xpu")
# Up to these sizes, a user does not notice that float64 is slower.
_SMALL_ROWS, _SMALL_PARAMETERS = 128, 2**16


class Precision(NamedTuple):
    """The dtypes of a computation."""

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
    """Return the dtypes to compute with, for `n_rows` rows in total.

    With few rows, float32 is computed in float64 and rounded at the end. For them this takes no more time, and makes
    float32 results exact to the last digit: a weight of 2 is equivalent to repeating the row, and a prediction does not
    depend on the other rows.
    """
    small = n_rows <= _SMALL_ROWS and n_parameters <= _SMALL_PARAMETERS
    return _PROMOTED if small and dtype == "float32" and device.type != "mps" else PRECISIONS[dtype]


class _Writable:
    """A view of an array's memory, also read-only memory, from which NumPy makes a writable array."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # keeps the memory alive
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def forwards(array: np.ndarray) -> np.ndarray:
    """Return the array, or a copy if it has a negative stride, like `X[::-1][:1]`: PyTorch rejects these.

    NumPy calls an axis of one element contiguous for every stride.
    """
    return array if min(array.strides, default=0) >= 0 else array.copy()


def over_memory_of(array: np.ndarray) -> Tensor:
    """Return a tensor over the memory of `array`, only for reading; without PyTorch's warning for read-only memory."""
    array = forwards(array)
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


def as_tensor(array: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor over the memory of `array`, or over a copy if necessary, only for reading.

    NumPy casts a small array in half the time of PyTorch, and arrays that are cast to float64 here are small.
    """
    if dtype == torch.float64:
        array = array.astype(np.float64, copy=False)
    tensor = over_memory_of(array)
    # `to` takes as long as a small product even if there is nothing to do.
    return tensor if tensor.dtype == dtype and device.type == "cpu" else tensor.to(device, dtype)


def _best_device(dtype: str) -> str:
    """Return the name of the fastest available device that supports `dtype`."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available() and dtype != "float64":
        return "mps"
    return "cpu"


@lru_cache  # caches only devices that are present, no errors
def resolve_device(device: str, dtype: str) -> torch.device:
    """Return the torch device of the name `device`.

    Raises ValueError for a name that PyTorch does not know, a device that this machine lacks, and float64 if the device
    does not support it.
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
    """Raise ValueError unless tensors can be made on `resolved`."""
    try:
        torch.zeros(1, device=resolved).tolist()
    except (RuntimeError, AssertionError, ImportError):  # the type depends on the backend
        n_cuda = torch.cuda.device_count()
        raise ValueError(
            f"device must be present on this machine, got {device!r}; PyTorch sees {n_cuda} CUDA device(s) and "
            f"{'an' if torch.backends.mps.is_available() else 'no'} MPS device here"
        ) from None


def has_fused_adam(device: torch.device) -> bool:
    """Whether PyTorch's one-kernel Adam runs on `device`."""
    return device.type in ("cpu", "cuda") and torch_private.has_fused_adam()


def has_faster_onednn(device: torch.device) -> bool:
    """Whether oneDNN multiplies float32 matrices on `device` faster than MKL, which PyTorch uses by default.

    MKL uses AVX2 kernels, with 256 bits, on AMD processors. Zen 5 computes 512 bits at once, so these kernels use half
    of it. Zen 4 computes AVX-512 instructions in two halves, so these kernels use all of it.
    """
    return device.type == "cpu" and _is_amd_of_full_width() and torch_private.has_onednn_product()


@lru_cache
def _is_amd_of_full_width() -> bool:
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    known = torch.cpu.get_capabilities()
    # An instruction that exists since Zen 5.
    return "AMD" in known.get("cpu_name", "") and known.get("avx512_vp2intersect", False)


def can_replay(device: torch.device) -> bool:
    """Whether recorded operations are replayed on `device`; other devices have not been measured."""
    return device.type == "cpu"


def autocasts() -> Mapping[str, torch.dtype]:
    """Return the device types for which `torch.autocast` is active, with the dtype that it casts to."""
    return {name: torch.get_autocast_dtype(name) for name in _AUTOCAST_TYPES if torch.is_autocast_enabled(name)}


def generators(device: torch.device) -> list[torch.Generator]:
    """Return PyTorch's default random generators, from which a module on `device` may draw."""
    of_device = []
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        of_device = [torch_private.cuda_generator(index)]
    elif device.type == "mps":
        of_device = [torch_private.mps_generator()]
    return [torch.default_generator, *of_device]


def has_free_threads(device: torch.device) -> bool:
    """Whether our own threads that compute on `device` use one processor each."""
    return device.type == "cpu"


def stack_bytes(device: torch.device) -> int:
    """Return how many bytes the members of a stack should use in a step: the size of one processor's caches."""
    return (4 if device.type == "cpu" else 1024) * 2**20


def chunk_bytes(device: torch.device) -> int:
    """Return how many bytes the prediction of a chunk of rows may use."""
    return (8 if device.type == "cpu" else 32) * 2**20


def line_search_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on a device without float64."""
    return torch.float32 if device.type == "mps" else torch.float64
