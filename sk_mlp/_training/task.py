"""A fit as a value: the task (`FitTask`), its result (`FitResult`), and how the training ended (`Status`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from sk_mlp._network.values import State

from .progress import Progress
from .settings import Settings
from .weights import Scaled

if TYPE_CHECKING:
    import torch

    from sk_mlp._compute.device import Precision
    from sk_mlp._network.network import Network
    from sk_mlp._objective import Objective


class Status(Enum):
    """How a training ended; the value is a template of its message, to be filled with the settings."""

    CONVERGED = "Training loss did not improve more than tol={tol:f} for {n_iter_no_change} consecutive epochs."
    NO_BETTER_SCORE = (
        "Validation score did not improve more than tol={tol:f} for {n_iter_no_change} consecutive epochs."
    )
    MAX_ITER = (
        "Stochastic Optimizer: Maximum iterations ({max_iter}) reached and the optimization hasn't converged yet."
    )
    SCHEDULE_DONE = "Training ended with the schedule of its learning rate."
    MAX_TIME = "Training ended with the epoch that passed max_time={max_time} seconds; it hasn't converged yet."
    INTERRUPTED = "Training interrupted by user."
    STOPPED = "Training ended because a callback asked for it."
    DIVERGED = (
        "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
        "preprocessed, or learning_rate_init={learning_rate_init} is too large."
    )
    LBFGS_DONE = "L-BFGS-B converged."
    LBFGS_STOPPED = "lbfgs failed to converge."
    EPOCH_DONE = "One epoch of partial_fit is done."

    def message(self, settings: Settings) -> str:
        """Return the message for a training with `settings`."""
        return self.value.format(**vars(settings))


class EpochListener(Protocol):
    """An object that is called at each epoch; `so_far` computes the current result of the training when called."""

    def begin_epoch(self, so_far: Callable[[], FitResult]) -> None:
        """Handle the beginning of an epoch."""

    def end_epoch(self, so_far: Callable[[], FitResult]) -> bool:
        """Handle the end of an epoch, and return True to end the training."""


class Table(NamedTuple):
    """Some `rows` of a table, to train on or to validate on; arrays as in `FitTask`.

    The user's weights are `sample_weight * 2**exponent`.
    """

    X: Any
    target: np.ndarray
    sample_weight: np.ndarray | None
    rows: np.ndarray
    exponent: int = 0

    def of_rows(self, rows: np.ndarray) -> Table:
        """Return other rows of the same table, with weights in their own unit: only the ratios of weights matter."""
        if self.sample_weight is None or not self.sample_weight[rows].any():
            return self._replace(rows=rows)
        scaled = Scaled.of(self.sample_weight[rows])
        # Weights of other rows may be infinite in this unit; they are not used.
        weight = np.ldexp(self.sample_weight, -scaled.exponent)
        return self._replace(rows=rows, sample_weight=weight, exponent=self.exponent + scaled.exponent)

    @property
    def users_weight(self) -> np.ndarray | None:
        """The user's weights of the rows, float64; None if all are 1."""
        if self.sample_weight is None:
            return None
        return np.ldexp(self.sample_weight[self.rows], self.exponent)


class Validation(NamedTuple):
    """Rows to validate on.

    `score` maps a state to a number; larger is better. If it is None, the objective's own score is used, or minus its
    loss if `by_loss`.
    """

    table: Table
    score: Callable[[State], float] | None = None
    by_loss: bool = False


@dataclass(frozen=True)
class FitTask:
    """One training to be done. Arrays are NumPy (or SciPy CSR for `X`), in the precision's array dtype.

    `parameters` is the starting point, `(n_parameters,)`, packed as in `network.layout(1)`. A `target` is
    `(n_samples, n_outputs)`, or `(n_samples, 1)` class indices; weights may be float64. Training changes a network that
    holds a module. `seed` is the seed of random parts of the network. If the last batch has fewer than `fewest_rows`
    rows, these join the batch before it. `emit` prints a line of verbose output; `clock` returns seconds. `rng` is None
    if there is only one batch, whose order does not matter.
    """

    table: Table
    validation: Validation | None
    network: Network
    objective: Objective
    settings: Settings
    precision: Precision
    device: torch.device
    rng: np.random.RandomState | None
    seed: int
    parameters: np.ndarray
    fewest_rows: int = 1
    one_epoch: bool = False
    progress: Progress = field(default_factory=Progress)
    optimizer_state: Mapping[str, Any] = field(default_factory=dict)
    listener: EpochListener | None = None
    emit: Callable[[str], object] = print
    clock: Callable[[], float] = perf_counter

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of a member's largest product in a training step."""
        return self.network.multiply_adds(self.settings.batch_size, self.table.X)


@dataclass(frozen=True)
class FitResult:
    """The result of a `FitTask`, or its current result during training; then `status` is None.

    The parameters of `state` are packed like those of the task. `optimizer_state` contains NumPy arrays. `is_finite`
    says whether all values of `state` are finite, except buffers that were not finite at the beginning.
    """

    state: State
    is_finite: bool
    status: Status | None
    message: str
    n_iter: int
    loss: float
    progress: Progress
    optimizer_state: Mapping[str, Any]
