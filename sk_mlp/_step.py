"""A training step: what it consists of, by one thread or by several that share it, called from Python or replayed.

PyTorch's own threads meet at each operation, some twenty times a step of a large network, and wait for the slowest of
them each time; where another process takes a processor for a while, that is long. Threads that share a step meet two
times. First each takes some rows of the batch to their losses and deltas. Then each fills the gradient of some of the
parameters, from all rows, and moves these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ._autograd import Autograd
from ._backprop import Backprop, BackpropShard
from ._batches import Batch
from ._optimizers import GradientNorms, Optimizer
from ._replay import Replay, record

Phase = Callable[[Batch], None]


def nothing() -> None:
    """Do nothing: there is nothing to prepare, or nobody to meet."""


class TrainingStep:
    """A training step, or a thread's share of one, for batches of one size."""

    def __init__(
        self,
        phases: Sequence[Phase],
        *,
        records: bool,  # whether to record them
        prepare: Callable[[], None],  # called before each step
        meet: Callable[[], None] = nothing,  # called after each phase, which all threads end before one goes on
    ) -> None:
        self._phases = [_Recorded(phase) if records else phase for phase in phases]
        self._prepare, self._meet = prepare, meet

    def __call__(self, batch: Batch) -> None:
        """Move the parameters once."""
        self._prepare()
        for phase in self._phases:
            phase(batch)
            self._meet()


def whole_step(backprop: Backprop | Autograd, norms: GradientNorms, optimizer: Optimizer) -> list[Phase]:
    """Return the one phase of a step that one thread carries out."""

    def move(batch: Batch) -> None:
        backprop.value_and_gradient(batch)
        norms.clip()
        optimizer.move()

    return [move]


def shard_of_step(i: int, backprop: BackpropShard, norms: GradientNorms, optimizer: Optimizer) -> list[Phase]:
    """Return the phases of thread `i`, where `norms` has a run a thread and `optimizer` moves the thread's span."""

    def fill_gradient(batch: Batch) -> None:
        backprop.fill_gradient(batch)
        norms.measure([i])

    def limit_and_move(_: Batch) -> None:
        norms.limit([i])
        optimizer.move()

    def fill_gradient_and_move(batch: Batch) -> None:
        backprop.fill_gradient(batch)
        optimizer.move()

    cast = [backprop.cast_parameters] if backprop.casts else []
    rest = [fill_gradient, limit_and_move] if norms.has_limits else [fill_gradient_and_move]
    return [*cast, backprop.fill_deltas, *rest]


class _Recorded:
    """A phase called from Python the first time, recorded the second, and replayed from then on.

    The first time makes what is kept for good, constants for example.
    """

    def __init__(self, phase: Phase) -> None:
        self._phase, self._n_calls = phase, 0
        self._replay: Replay | None = None

    def __call__(self, batch: Batch) -> None:
        """Do what the phase does."""
        self._n_calls += 1
        if self._replay is not None:
            self._replay(batch.tensors())
        elif self._n_calls == 2:  # at no other time, if it cannot be recorded
            self._replay = record(partial(self._phase, batch), batch.tensors())
        else:
            self._phase(batch)
