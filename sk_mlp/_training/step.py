"""A training step, by one thread or by several that share it, called from Python or replayed.

PyTorch's own threads meet at each operation, some twenty times a step of a large network, and wait for the slowest of
them each time; where another process takes a processor for a while, that is long. Threads that share a step meet two
times. First each takes some rows of the batch to their losses and deltas. Then each fills the gradient of some of the
parameters, from all rows, and moves these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import scipy.sparse as sp
import torch

from sk_mlp._compute.device import can_replay, has_free_threads
from sk_mlp._compute.modes import own_modes
from sk_mlp._compute.replay import Replay, record
from sk_mlp._network.backprop import BackpropShard
from sk_mlp._network.batch import Batch
from sk_mlp._network.network import ValueAndGradient

from .optimizers import GradientNorms, Optimizer
from .task import FitTask

_SHARD_ROWS = 32  # at least, of a batch

Phase = Callable[[Batch], None]


@contextmanager
def computing(task: FitTask) -> Iterator[None]:
    """Set PyTorch's modes for training a task; its own optimizers keep state that is to be used outside, too."""
    with own_modes(), task.network.context() if isinstance(task.settings.solver, str) else torch.no_grad():
        yield


def runs_user_code(task: FitTask) -> bool:
    """Whether each training step calls what users have written, or a module that may belong to one thread."""
    return not (task.network.stacks and isinstance(task.settings.solver, str) and task.objective.is_recordable)


def is_recordable(task: FitTask) -> bool:
    """Whether a training step of networks like the task's is the same operations on tensors each time."""
    return not runs_user_code(task) and not sp.issparse(task.table.X) and can_replay(task.device)


def n_shards(task: FitTask, n_threads: int) -> int:
    """Return how many of the threads that pay share the steps of a network like the task's; 0 where PyTorch's compute.

    A share of few rows would read the coefs as often as one of many; and where more than half of the threads would be
    left without any, PyTorch's are as many as there are processors.
    """
    n = min(n_threads, task.settings.batch_size // _SHARD_ROWS)
    can_share = is_recordable(task) and has_free_threads(task.device)
    return n if can_share and n > 1 and 2 * n >= n_threads else 0


class WholeStep:
    """A training step for batches of one size, by one thread."""

    def __init__(
        self, backprop: ValueAndGradient, norms: GradientNorms, optimizer: Optimizer, *, records: bool
    ) -> None:
        self._backprop, self._norms, self._optimizer = backprop, norms, optimizer
        self._move = _Recorded(self._move_once) if records else self._move_once

    def __call__(self, batch: Batch) -> None:
        """Move the parameters once."""
        self._optimizer.prepare()
        self._move(batch)

    def _move_once(self, batch: Batch) -> None:
        self._backprop.value_and_gradient(batch)
        self._norms.clip()
        self._optimizer.move()


class SharedStep:
    """A thread's share of a training step for batches of one size.

    `meet(then)` returns when all threads have come there and one of them has called `then`.
    """

    def __init__(
        self,
        i: int,  # of the thread
        backprop: BackpropShard,
        norms: GradientNorms,  # with a piece for each thread
        optimizer: Optimizer,  # of all parameters
        mover: Optimizer,  # of the thread's
        meet: Callable[[Callable[[], None]], None],
        *,
        records: bool,
    ) -> None:
        self._i, self._backprop, self._norms, self._mover, self._meet = i, backprop, norms, mover, meet
        phases = [_Recorded(phase) if records else phase for phase in self._phases()]
        # A step is counted when all threads are sure to move, at the meeting before the last.
        then = [_nothing] * (len(phases) - 2) + [optimizer.prepare, _nothing]
        self._phases_and_then = list(zip(phases, then, strict=True))

    def __call__(self, batch: Batch) -> None:
        """Move the thread's parameters once."""
        for phase, then in self._phases_and_then:
            phase(batch)
            self._meet(then)

    def _phases(self) -> list[Phase]:
        """Return what is done between meetings; only the last moves parameters."""
        cast = [self._backprop.cast_parameters] if self._backprop.casts else []
        if self._norms.has_limits:
            return [*cast, self._backprop.fill_deltas, self._fill_gradient, self._limit_and_move]
        return [*cast, self._backprop.fill_deltas, self._fill_gradient_and_move]

    def _fill_gradient(self, batch: Batch) -> None:
        self._backprop.fill_gradient(batch)
        self._norms.measure([self._i])

    def _limit_and_move(self, _: Batch) -> None:
        self._norms.limit([self._i])
        self._mover.move()

    def _fill_gradient_and_move(self, batch: Batch) -> None:
        self._backprop.fill_gradient(batch)
        self._mover.move()


def _nothing() -> None:
    """Do nothing: a meeting that only keeps phases apart."""


class _Recorded:
    """A phase called from Python the first time, recorded the second, and replayed from then on.

    The first time makes what is kept for good, constants for example. What cannot be recorded goes on being called.
    """

    def __init__(self, phase: Phase) -> None:
        self._phase, self._n_calls = phase, 0
        self._replay: Replay | None = None

    def __call__(self, batch: Batch) -> None:
        """Do what the phase does."""
        self._n_calls += 1
        if self._replay is not None:
            self._replay(batch.tensors())
        elif self._n_calls == 2:
            self._replay = record(partial(self._phase, batch), batch.tensors())
        else:
            self._phase(batch)
