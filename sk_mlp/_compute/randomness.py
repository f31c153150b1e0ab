"""PyTorch's random generators, which all threads of the process share, used by one training at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .device import generators
from .forks import ProcessLock
from .modes import own_modes


class _OfThread(threading.local):
    """The state of one thread: whether it uses PyTorch's generators now."""

    has_turn = False


_of_thread = _OfThread()


_process = ProcessLock()  # its lock is held by the thread that uses the generators


class Randomness:
    """The states of PyTorch's random generators for one training, beginning with `seed`.

    All threads of the process share the generators. Only one training uses them at a time, in a `turn`. After each turn
    they have the state from before it.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device
        self._states: list[Tensor] | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Use the generators, in the state in which the last turn of this training left them."""
        with _process.lock, _in_turn():
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
    """Remember that this thread uses the generators."""
    before = _of_thread.has_turn
    try:
        _of_thread.has_turn = True
        yield
    finally:
        _of_thread.has_turn = before


def has_turn() -> bool:
    """Whether this thread uses PyTorch's generators, in user-defined code of a fit; it must not wait for other fits."""
    return _of_thread.has_turn


@contextmanager
def building(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Set the modes for user-defined code that makes a module: with gradients, in float32, seeded only by `seed`.

    `device` is a device whose generator is used, in addition to the CPU's. The default dtype belongs to all threads.
    This package changes it only here, and only while it holds the lock of the generators.
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
