"""What surrounds a computation: PyTorch's and NumPy's modes, threads, and random generators.

Code of ours runs in `own_modes`, so that its numbers do not depend on what a caller has set. What a caller has written
(scorers, callbacks, schedules, losses) runs in the caller's modes again, with `called_in`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from .device import autocasts, generators, thread_setters
from .machine import available_cores
from .threads import called_by_waiting_thread

_SERIAL_WORK = 8_000_000  # multiply-adds; a smaller product is not faster on two threads than on one

P = ParamSpec("P")
T = TypeVar("T")


class Modes(NamedTuple):
    """PyTorch's modes and number of threads, and NumPy's handling of floating-point errors, in one thread."""

    inference: bool
    grad: bool
    autocast: Mapping[str, torch.dtype]  # by type of device, where it is on
    n_threads: int
    errors: Mapping[str, Any]

    @classmethod
    def now(cls) -> Modes:
        """Return the modes in force."""
        return cls(
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            autocasts() if _any_autocast() else {},
            torch.get_num_threads(),
            np.geterr(),
        )

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put them in force, and those from before again at the end."""
        now = Modes.now()
        with ExitStack() as stack:
            stack.callback(_are_ours.set, _are_ours.get())
            _are_ours.set(False)
            if self.inference != now.inference:
                stack.enter_context(torch.inference_mode(self.inference))
            if self.grad != torch.is_grad_enabled():
                stack.enter_context(torch.set_grad_enabled(self.grad))
            for device_type in now.autocast.keys() - self.autocast.keys():
                stack.enter_context(torch.autocast(device_type, enabled=False))
            for device_type, dtype in self.autocast.items():
                if now.autocast.get(device_type) != dtype:
                    stack.enter_context(torch.autocast(device_type, dtype))
            if self.n_threads != now.n_threads:
                stack.enter_context(_threads(self.n_threads, 0))
            if self.errors != now.errors:
                stack.enter_context(np.errstate(**self.errors))
            yield


class Surroundings(Protocol):
    """What a caller's own code expects to run in."""

    def installed(self) -> AbstractContextManager[None]:
        """Put it in force for a while."""


def called_in(surroundings: Surroundings, function: Callable[P, T]) -> Callable[P, T]:
    """Return the function as it is in these surroundings, and in the thread that waits where stacks have their own."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with surroundings.installed():
            return function(*args, **kwargs)

    return called_by_waiting_thread(call)


@contextmanager
def own_modes() -> Iterator[None]:
    """Compute as PyTorch does by default, on the devices that are named, and without floating-point errors of NumPy's.

    Threads stay as they are; `threads` sets them.
    """
    if _are_ours.get():
        yield
        return
    grad, errors = torch.is_grad_enabled(), np.geterr()
    try:
        _are_ours.set(True)
        _forks.has_computed = True
        with np.errstate(all="ignore"):
            if _are_set():
                now = Modes.now()
                device = torch.device("cpu") if _n_function_modes() else _NOTHING
                with now._replace(inference=False, grad=True, autocast={}).installed(), device:
                    yield
            else:
                yield
    except BaseException:
        # An interrupt may come while a context manager, here or within, puts things back.
        torch.set_grad_enabled(grad)
        np.seterr(**errors)
        raise
    finally:
        _are_ours.set(False)


# Whether the modes in force are known to be `own_modes`; each greenlet has a context of its own.
_are_ours: ContextVar[bool] = ContextVar("_are_ours", default=False)


def _always() -> int:
    return 1


# Private looks at whether any of these is in force, in a tenth of the time that a public one takes; where one is gone,
# it is taken for granted, and what follows looks closer.
_n_function_modes: Callable[[], int] = getattr(torch._C, "_len_torch_function_stack", _always)
_any_autocast: Callable[[], int] = getattr(torch._C, "_is_any_autocast_enabled", _always)


def _are_set() -> bool:
    """Whether the caller has set modes that change what our code computes; `torch.set_default_device` is one."""
    return (
        torch.is_inference_mode_enabled()
        or not torch.is_grad_enabled()
        or _any_autocast() > 0
        or _n_function_modes() > 0
    )


def threads_that_pay(multiply_adds: int, k: int = 1) -> int:
    """Return how many threads pay: one for stacks of `k` and for small products, of `multiply_adds`.

    Small products lose more to waking a second thread than they gain, the more so the more cores there are; and where
    another process has the second core for a while, each of them waits for it. Large ones have as many threads as the
    process may use.
    """
    return 1 if k > 1 or multiply_adds < _SERIAL_WORK else available_threads()


def threads(n: int) -> AbstractContextManager[None]:
    """Return a context with `n` intra-op threads for what the calling thread computes."""
    return _NOTHING if n == torch.get_num_threads() else _threads(n, n)


def available_threads() -> int:
    """Return how many threads may compute: as many as PyTorch is told, and as this process may use processors."""
    n = torch.get_num_threads()
    return n if n == 1 else min(n, available_cores())


@contextmanager
def _threads(n_openmp: int, n_mkl: int) -> Iterator[None]:
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
    return _NOTHING if n is None or n == torch.get_num_threads() else _threads(n, 0)


class _OfThread(threading.local):
    """What holds in one thread; `limits` are OpenMP's number before `threads`, and MKL's within."""

    limits: tuple[int | None, int] = (None, 0)
    has_turn = False  # with PyTorch's generators


_of_thread = _OfThread()
_NOTHING: AbstractContextManager[None] = nullcontext()


class _Forks:
    """What a forked child has to know of its parent: whether it has computed, and so may have started threads."""

    def __init__(self) -> None:
        self.has_computed = False
        self.generators_lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        """Compute on one thread: OpenMP would wait for ever for the others. Take a new lock: none is let go of here."""
        self.generators_lock = threading.RLock()
        if self.has_computed:
            torch.set_num_threads(1)


_forks = _Forks()


class Randomness:
    """PyTorch's own random generators as one training has them, from `seed` on.

    They belong to the whole process. A training has them in turns, one at a time in all threads; between its turns
    they are as they were.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device
        self._states: list[Tensor] | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the generators, as the last turn left them."""
        with _forks.generators_lock, _in_turn():
            ours = generators(self._device)
            before = [generator.get_state() for generator in ours]
            try:
                for i, generator in enumerate(ours):
                    if self._states is None:
                        generator.manual_seed(self._seed)
                    else:
                        generator.set_state(self._states[i])
                yield
                self._states = [generator.get_state() for generator in ours]
            finally:
                for generator, state in zip(ours, before, strict=True):
                    generator.set_state(state)


@contextmanager
def _in_turn() -> Iterator[None]:
    """Remember that this thread has the generators."""
    before = _of_thread.has_turn
    try:
        _of_thread.has_turn = True
        yield
    finally:
        _of_thread.has_turn = before


def has_turn() -> bool:
    """Whether this thread has PyTorch's generators, in a user's code that a fit calls; it must not wait for others."""
    return _of_thread.has_turn


@contextmanager
def building(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Call what users wrote to make a module: with a graph, in float32, and random numbers that depend on `seed` alone.

    `device` is where it draws from, besides the CPU. The default dtype is that of all threads; it is another one, if at
    all, only here, and under the lock of the generators.
    """
    with own_modes(), Randomness(seed, device or torch.device("cpu")).turn():
        before = torch.get_default_dtype()
        if before == torch.float32:
            yield
            return
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(before)
