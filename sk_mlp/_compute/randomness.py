"""PyTorch's random generators, which belong to the whole process, as one training has them in turns."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .device import generators
from .modes import own_modes


class _OfThread(threading.local):
    """What holds in one thread: whether it has PyTorch's generators."""

    has_turn = False


_of_thread = _OfThread()


class _Forks:
    """The lock of those who have the generators. A forked child takes a new one: none is let go of there."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: setattr(self, "lock", threading.RLock()))


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
        with _forks.lock, _in_turn():
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
