"""The number of threads of PyTorch's operations, set only for the calling thread, and restored."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from .machine import available_cores
from .torch_private import thread_setters

_SERIAL_MULTIPLY_ADDS = 8_000_000  # multiply-adds; a smaller product is not faster on two threads than on one


def threads_that_pay(multiply_adds: int, k: int = 1) -> int:
    """Return how many threads save time: one for a stack (`k` > 1) and for small products, else all available threads.

    For a small product, waking a second thread takes longer than the second thread saves, especially with many cores.
    If another process uses the second core, each product also waits for it.
    """
    return 1 if k > 1 or multiply_adds < _SERIAL_MULTIPLY_ADDS else available_threads()


def threads(n: int) -> AbstractContextManager[None]:
    """Return a context in which PyTorch's operations in the calling thread use `n` threads."""
    return _NOTHING if n == torch.get_num_threads() else openmp_and_mkl_threads(n, n)


def available_threads() -> int:
    """Return the minimum of PyTorch's number of threads and the number of processors that this process may use."""
    n = torch.get_num_threads()
    return n if n == 1 else min(n, available_cores())


@contextmanager
def openmp_and_mkl_threads(n_openmp: int, n_mkl: int) -> Iterator[None]:
    """Set the numbers of threads of OpenMP and MKL for the calling thread; 0 for MKL means the number of the process.

    Both are restored at the end, also after an interrupt.
    """
    set_openmp, set_mkl = thread_setters()
    n_before, before = torch.get_num_threads(), _of_thread.limits
    try:
        set_openmp(n_openmp)
        set_mkl(n_mkl)
        _of_thread.limits = n_before, n_mkl
        yield
    finally:
        try:
            set_openmp(n_before)
        finally:
            _of_thread.limits = before
            set_mkl(before[1])


def callers_threads() -> AbstractContextManager[None]:
    """Return a context with the number of threads from before `threads`."""
    n, _ = _of_thread.limits
    return _NOTHING if n is None or n == torch.get_num_threads() else openmp_and_mkl_threads(n, 0)


class _OfThread(threading.local):
    """The state of one thread: OpenMP's number of threads before `threads`, and MKL's number within."""

    limits: tuple[int | None, int] = (None, 0)


_of_thread = _OfThread()
_NOTHING: AbstractContextManager[None] = nullcontext()


class _Forks:
    """Remembers whether this process has computed, and may therefore have started threads of OpenMP."""

    def __init__(self) -> None:
        self.has_computed = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        """Compute on one thread in a forked child, where OpenMP would wait for ever for threads of the parent."""
        if self.has_computed:
            torch.set_num_threads(1)


_forks = _Forks()


def note_computation() -> None:
    """Remember that this process has computed."""
    _forks.has_computed = True
