"""`run` carries out a task: alone, or together with the fits of other calls.

A plain fit calls `run` and trains alone. The joblib backend of `stacking.py` runs several calls together. It sets
`gathering` in each of them; a task then waits for other tasks with which it trains as one stack.
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
    """One of several calls whose fits wait for each other and train as stacks."""

    def is_here(self) -> bool:
        """Whether the running code belongs to the call itself, and not to a thread that the call has started."""

    def run(self, task: FitTask) -> FitResult:
        """Carry out a task together with others, and return its result."""

    def surroundings(self) -> Surroundings:
        """Return the environment in which code of the call must run, while other calls run alternately with it."""

    def held(self, X: Any, given: Any) -> Any:
        """Return X in memory that cannot change while the fit waits: the caller may change the `given` arrays."""

    def held_as_given(self, values: Any) -> Any:
        """Return the caller's values, in their original form, in memory that cannot change while the fit waits."""


gathering: ContextVar[Gathering | None] = ContextVar("gathering", default=None)


def _gathering_here() -> Gathering | None:
    """Return the gathering of the running call; None if its fits train alone."""
    found = gathering.get()
    return found if found is not None and found.is_here() else None


def run(task: FitTask) -> FitResult:
    """Carry out a task and return its result; raise the error if its training has failed."""
    gatherer = _gathering_here()
    return run_alone(task) if gatherer is None or has_turn() else gatherer.run(task)


def run_alone(task: FitTask) -> FitResult:
    """Carry out a task alone."""
    if task.settings.solver == "lbfgs":
        return minimise(task)
    (outcome,) = train([task])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def is_gathered() -> bool:
    """Whether other calls run during a fit; the random numbers that they draw cannot be undone."""
    return _gathering_here() is not None


def surroundings() -> Surroundings:
    """Return the environment in which the caller's code must run, also if it is called during other calls."""
    gatherer = _gathering_here()
    return Modes.now() if gatherer is None else gatherer.surroundings()


def held(X: Any, given: Any) -> Any:
    """Return X in memory that cannot change until the fit trains; `given` is what the caller has passed as X."""
    gatherer = _gathering_here()
    return X if gatherer is None else gatherer.held(X, given)


def held_as_given(values: Any) -> Any:
    """Return the caller's values, in their original form, in memory that cannot change until the fit trains."""
    gatherer = _gathering_here()
    return values if gatherer is None else gatherer.held_as_given(values)


def stack_key(task: FitTask) -> Hashable:
    """Return a key: tasks with the same key train as one stack. Modules and PyTorch's optimizers train alone."""
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
    """Return the bytes that a training step of a member uses: values of a batch, parameters, optimizer state."""
    network = task.network
    values = network.input_values(task.table.X) + 3 * (sum(network.widths) + network.n_outputs)
    batch = task.settings.batch_size * values
    return (batch + 6 * len(task.parameters)) * task.precision.master.itemsize
