"""`run` carries out a task: alone, or together with the fits of other calls where one gathers them.

A plain fit comes as far as here and trains. Where calls run side by side, as under the joblib backend of `stacking.py`,
whoever runs them announces itself in `gathering`, and a task waits for others that train as one stack with it.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import ContextVar
from typing import Any, Protocol

import scipy.sparse as sp

from sk_mlp._compute.modes import Modes, Surroundings
from sk_mlp._compute.randomness import has_turn

from .epochs import n_batches
from .lbfgs import minimise
from .loop import train
from .task import FitResult, FitTask


class Gathering(Protocol):
    """One of several calls side by side, whose fits wait for each other and train as stacks."""

    def is_here(self) -> bool:
        """Whether the code that asks is the call itself, and not a thread that it has begun."""

    def run(self, task: FitTask) -> FitResult:
        """Carry out a task together with others, and return what came of it."""

    def surroundings(self) -> Surroundings:
        """Return what code of the call's is to run in, while other calls have their turn."""

    def held(self, X: Any, given: Any) -> Any:
        """Return X, as a fit that waits may hold it: the arrays it was made of, `given`, may change in the meantime."""

    def held_as_given(self, values: Any) -> Any:
        """Return what a caller has given, as `held` does, in the form in which it was given."""


gathering: ContextVar[Gathering | None] = ContextVar("gathering", default=None)


def _gathering_here() -> Gathering | None:
    """Return who gathers the fits of the running call, if anybody does."""
    found = gathering.get()
    return found if found is not None and found.is_here() else None


def run(task: FitTask) -> FitResult:
    """Carry out a task and return what came of it; raise what its training has failed with."""
    gatherer = _gathering_here()
    return run_alone(task) if gatherer is None or has_turn() else gatherer.run(task)


def run_alone(task: FitTask) -> FitResult:
    """Carry out a task by itself."""
    if task.settings.solver == "lbfgs":
        return minimise(task)
    (outcome,) = train([task])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def is_gathered() -> bool:
    """Whether others have their turn in the course of a fit: what they have drawn cannot be taken back."""
    return _gathering_here() is not None


def surroundings() -> Surroundings:
    """Return what code of the caller's is to run in, which a training may run among others' calls."""
    gatherer = _gathering_here()
    return Modes.now() if gatherer is None else gatherer.surroundings()


def held(X: Any, given: Any) -> Any:
    """Return X as a fit may hold it until it trains; `given` is what the caller has passed for it."""
    gatherer = _gathering_here()
    return X if gatherer is None else gatherer.held(X, given)


def held_as_given(values: Any) -> Any:
    """Return what a caller has passed, as a fit may hold it until it trains."""
    gatherer = _gathering_here()
    return values if gatherer is None else gatherer.held_as_given(values)


def stack_key(task: FitTask) -> Hashable:
    """Return what tasks have to agree in to train as one stack; modules and PyTorch's optimizers train alone."""
    settings = task.settings
    if not isinstance(settings.solver, str):
        return id(task)
    return (
        task.network.key,
        task.objective,
        settings.solver,
        settings.batch_size,
        n_batches(len(task.table.rows), settings.batch_size),
        task.precision,
        task.device,
        sp.issparse(task.table.X),
        task.validation is not None and sp.issparse(task.validation.table.X),
    )


def member_bytes(task: FitTask) -> int:
    """Return how many bytes a member's training touches in a step: a batch's values, and what parameters come with."""
    network = task.network
    values = network.input_values(task.table.X) + 3 * (sum(network.widths) + network.n_outputs)
    batch = task.settings.batch_size * values
    return (batch + 6 * len(task.parameters)) * task.precision.master.itemsize
