"""Devices, number types and threads: the one file that names a device type."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

# A product of fewer multiply-adds than this is not faster on two threads than on one; a batch of many products splits
# between them more easily.
_SERIAL_WORK, _SERIAL_BATCH_WORK, _MANY = 8_000_000, 1_000_000, 10
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
    """Tell whether PyTorch's one-kernel Adam runs on `device`."""
    return device.type in ("cpu", "cuda") and hasattr(torch, "_fused_adam_")


def has_faster_onednn(device: torch.device) -> bool:
    """Tell whether oneDNN multiplies float32 matrices on `device` faster than PyTorch's own choice, MKL, does.

    MKL takes AVX2 kernels on AMD processors. Zen 5 computes 512 bits at once and is left half idle by them; Zen 4,
    which takes AVX-512 instructions in two halves, is not.
    """
    return device.type == "cpu" and _is_amd_of_full_width() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@lru_cache
def _is_amd_of_full_width() -> bool:
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    known = torch.cpu.get_capabilities()
    # An instruction that came with Zen 5.
    return "AMD" in known.get("cpu_name", "") and known.get("avx512_vp2intersect", False)


@contextmanager
def threads_for(work: int, k: int = 1) -> Iterator[None]:
    """Use one intra-op thread for small products, `k` at a time of `work` multiply-adds; restore the setting after.

    Small products lose more to waking a second thread than they gain, the more so the more cores there are. Only
    products of the calling thread are affected.
    """
    before = torch.get_num_threads()
    if before == 1 or k * work >= (_SERIAL_WORK if k < _MANY else _SERIAL_BATCH_WORK):
        yield
        return
    set_openmp, set_mkl = _thread_setters()
    set_openmp(1)
    mkl_before = set_mkl(1)
    try:
        yield
    finally:
        set_mkl(mkl_before)
        set_openmp(before)


@lru_cache
def _thread_setters() -> tuple[Callable[[int], object], Callable[[int], int]]:
    """Return what sets OpenMP's and MKL's number of threads for the calling thread alone.

    `torch.set_num_threads` would change MKL's for all threads of the process, and for good that of a thread which comes
    to PyTorch while the number is lowered. It serves where the libraries inside PyTorch cannot be reached by name.
    """
    libraries = ctypes.CDLL(torch._C.__file__)
    set_openmp = getattr(libraries, "omp_set_num_threads", torch.set_num_threads)
    # Returns the number before, 0 for that of the process. Absent from builds of PyTorch without MKL.
    set_mkl = getattr(libraries, "MKL_Set_Num_Threads_Local", lambda _: 0)
    return set_openmp, set_mkl


def generators(device: torch.device) -> list[torch.Generator]:
    """Return PyTorch's own random generators that a module on `device` may draw from."""
    of_device = []
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        of_device = [torch.cuda.default_generators[index]]
    elif device.type == "mps":
        of_device = [torch.mps._get_default_mps_generator()]
    return [torch.default_generator, *of_device]


def stack_bytes(device: torch.device) -> int:
    """Return how many bytes the members of a stack should touch in a step: what a processor's caches hold."""
    return (16 if device.type == "cpu" else 1024) * 2**20


def line_search_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on a device that has nothing better."""
    return torch.float32 if device.type == "mps" else torch.float64
