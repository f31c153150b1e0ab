"""How many threads PyTorch's operations take: set for the calling thread alone, and restored."""

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
    """Return how many threads pay: one for stacks of `k` and for small products, of `multiply_adds`.

    Small products lose more to waking a second thread than they gain, the more so the more cores there are; and where
    another process has the second core for a while, each of them waits for it. Large ones have as many threads as the
    process may use.
    """
    return 1 if k > 1 or multiply_adds < _SERIAL_MULTIPLY_ADDS else available_threads()


def threads(n: int) -> AbstractContextManager[None]:
    """Return a context with `n` intra-op threads for what the calling thread computes."""
    return _NOTHING if n == torch.get_num_threads() else openmp_and_mkl_threads(n, n)


def available_threads() -> int:
    """Return how many threads may compute: as many as PyTorch is told, and as this process may use processors."""
    n = torch.get_num_threads()
    return n if n == 1 else min(n, available_cores())


@contextmanager
def openmp_and_mkl_threads(n_openmp: int, n_mkl: int) -> Iterator[None]:
    """Set OpenMP's and MKL's number of threads for the calling thread; an MKL number of 0 is that of the process.

    Restored after, whenever an interrupt comes.
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
    """Return a context with as many threads as before `threads`."""
    n, _ = _of_thread.limits
    return _NOTHING if n is None or n == torch.get_num_threads() else openmp_and_mkl_threads(n, 0)


class _OfThread(threading.local):
    """What holds in one thread: OpenMP's number before `threads`, and MKL's within."""

    limits: tuple[int | None, int] = (None, 0)


_of_thread = _OfThread()
_NOTHING: AbstractContextManager[None] = nullcontext()


class _Forks:
    """Whether this process has computed, and so may have started threads of OpenMP's."""

    def __init__(self) -> None:
        self.has_computed = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        """Compute on one thread in a forked child: OpenMP would wait for ever for threads that did not follow."""
        if self.has_computed:
            torch.set_num_threads(1)


_forks = _Forks()


def note_computation() -> None:
    """Take note that this process computes."""
    _forks.has_computed = True
