"""The modes of PyTorch and NumPy in which code runs.

The code of this package runs in `own_modes`, so that its results do not depend on the modes that a caller has set.
User-defined code (scorers, callbacks, schedules, losses) runs in the caller's modes, by `called_in`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np
import torch

from .device import autocasts
from .intra_op import note_computation, openmp_and_mkl_threads
from .threads import called_by_waiting_thread
from .torch_private import any_autocast, n_function_modes

P = ParamSpec("P")
T = TypeVar("T")


class Modes(NamedTuple):
    """PyTorch's modes and number of threads, and NumPy's handling of floating-point errors, in one thread."""

    inference: bool
    grad: bool
    autocast: Mapping[str, torch.dtype]  # by device type, where autocast is active
    n_threads: int
    errors: Mapping[str, Any]

    @classmethod
    def now(cls) -> Modes:
        """Return the current modes."""
        return cls(
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            autocasts() if any_autocast() else {},
            torch.get_num_threads(),
            np.geterr(),
        )

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Set these modes; restore the previous ones at the end."""
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
                stack.enter_context(openmp_and_mkl_threads(self.n_threads, 0))
            if self.errors != now.errors:
                stack.enter_context(np.errstate(**self.errors))
            yield


class Surroundings(Protocol):
    """The environment in which the caller's code must run."""

    def installed(self) -> AbstractContextManager[None]:
        """Return a context in which this environment is set."""


_NOTHING: AbstractContextManager[None] = nullcontext()


def called_in(surroundings: Surroundings, function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, changed to run in these surroundings, and in the waiting thread if there is one."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with surroundings.installed():
            return function(*args, **kwargs)

    return called_by_waiting_thread(call)


@contextmanager
def own_modes() -> Iterator[None]:
    """Set PyTorch's default modes, without a default device, and ignore floating-point errors of NumPy.

    The number of threads does not change; `threads` sets it.
    """
    if _are_ours.get():
        yield
        return
    grad, errors = torch.is_grad_enabled(), np.geterr()
    try:
        _are_ours.set(True)
        note_computation()
        with np.errstate(all="ignore"):
            if _are_set():
                now = Modes.now()
                device = torch.device("cpu") if n_function_modes() else _NOTHING
                with now._replace(inference=False, grad=True, autocast={}).installed(), device:
                    yield
            else:
                yield
    except BaseException:
        # An interrupt may come while a context manager, here or inside, restores its settings.
        torch.set_grad_enabled(grad)
        np.seterr(**errors)
        raise
    finally:
        _are_ours.set(False)


# Whether the current modes are known to be those of `own_modes`; each greenlet has its own context.
_are_ours: ContextVar[bool] = ContextVar("_are_ours", default=False)


def _are_set() -> bool:
    """Whether the caller has set modes that change the results of our code, such as `torch.set_default_device`."""
    return (
        torch.is_inference_mode_enabled() or not torch.is_grad_enabled() or any_autocast() > 0 or n_function_modes() > 0
    )
