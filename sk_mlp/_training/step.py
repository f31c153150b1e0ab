"""A training step, by one thread or shared by several threads, called from Python or replayed.

PyTorch's own threads wait for the slowest of them after each operation, about twenty times in a step of a large
network. This takes long if another process uses a processor. Threads that share a step wait for each other only twice.
First each thread computes the losses and deltas of some rows of the batch. Then each thread computes the gradient of
some of the parameters, from all rows, and updates these parameters.
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

_SHARD_ROWS = 32  # minimum number of rows of a batch for each thread

Phase = Callable[[Batch], None]


@contextmanager
def computing(task: FitTask) -> Iterator[None]:
    """Set PyTorch's modes for training a task; not inference mode for PyTorch's optimizers: their state is kept."""
    with own_modes(), task.network.context() if isinstance(task.settings.solver, str) else torch.no_grad():
        yield


def runs_user_code(task: FitTask) -> bool:
    """Whether each training step calls user-defined code, or a module that may have to stay in one thread."""
    return not (task.network.is_pure and isinstance(task.settings.solver, str) and task.objective.is_recordable)


def is_recordable(task: FitTask) -> bool:
    """Whether each training step of networks like the task's is the same sequence of operations on tensors."""
    return not runs_user_code(task) and not sp.issparse(task.table.X) and can_replay(task.device)


def n_shards(task: FitTask, n_threads: int) -> int:
    """Return how many threads share the steps of a network like the task's; 0 if PyTorch's own threads compute them.

    Each thread needs enough rows, because it reads all coefs whether it has few rows or many. If more than half of the
    `n_threads` would have no rows, PyTorch's own threads are used, which can use all processors.
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
        """Update the parameters once."""
        self._optimizer.prepare()
        self._move(batch)

    def _move_once(self, batch: Batch) -> None:
        self._backprop.value_and_gradient(batch)
        self._norms.clip()
        self._optimizer.move()


class SharedStep:
    """A thread's part of a training step for batches of one size.

    `meet(then)` returns when all threads have called it and one of them has called `then`.
    """

    def __init__(
        self,
        i: int,  # index of the thread
        backprop: BackpropShard,
        norms: GradientNorms,  # with a piece for each thread
        optimizer: Optimizer,  # of all parameters
        mover: Optimizer,  # of the parameters of this thread
        meet: Callable[[Callable[[], None]], None],
        *,
        records: bool,
    ) -> None:
        self._i, self._backprop, self._norms, self._mover, self._meet = i, backprop, norms, mover, meet
        phases = [_Recorded(phase) if records else phase for phase in self._phases()]
        # A step is counted at the meeting before the last: from then on all threads will update their parameters.
        then = [_nothing] * (len(phases) - 2) + [optimizer.prepare, _nothing]
        self._phases_and_then = list(zip(phases, then, strict=True))

    def __call__(self, batch: Batch) -> None:
        """Update the parameters of this thread once."""
        for phase, then in self._phases_and_then:
            phase(batch)
            self._meet(then)

    def _phases(self) -> list[Phase]:
        """Return the phases between meetings; only the last phase updates parameters."""
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
    """Do nothing, at a meeting that only separates two phases."""


class _Recorded:
    """A phase that is called from Python the first time, recorded the second time, and replayed after that.

    The first call makes tensors that remain, such as constants. A phase that cannot be recorded is always called.
    """

    def __init__(self, phase: Phase) -> None:
        self._phase, self._n_calls = phase, 0
        self._replay: Replay | None = None

    def __call__(self, batch: Batch) -> None:
        """Carry out the phase."""
        self._n_calls += 1
        if self._replay is not None:
            self._replay(batch.tensors())
        elif self._n_calls == 2:
            self._replay = record(partial(self._phase, batch), batch.tensors())
        else:
            self._phase(batch)
