"""A fit as a value: what is to be done (`FitTask`), what came of it (`FitResult`), and how it ended (`Status`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from ._activations import Activation
    from ._device import Precision
    from ._objective import Objective


class Status(Enum):
    """How a training ended; the value is its message, filled in with the settings."""

    CONVERGED = "Training loss did not improve more than tol={tol:f} for {n_iter_no_change} consecutive epochs."
    NO_BETTER_SCORE = (
        "Validation score did not improve more than tol={tol:f} for {n_iter_no_change} consecutive epochs."
    )
    MAX_ITER = (
        "Stochastic Optimizer: Maximum iterations ({max_iter}) reached and the optimization hasn't converged yet."
    )
    INTERRUPTED = "Training interrupted by user."
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


@dataclass(frozen=True)
class Settings:
    """The estimator's parameters that training reads, under the names scikit-learn gives them."""

    solver: str
    alpha: float
    batch_size: int
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    tol: float
    verbose: bool | int
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int


@dataclass(frozen=True)
class Progress:
    """What a training has seen so far; a warm start or `partial_fit` goes on from here.

    `rate_factor` multiplies `learning_rate_init`, as `schedule` left it; `t` counts training rows seen.
    """

    loss_curve: tuple[float, ...] = ()
    validation_scores: tuple[float, ...] = ()
    best_loss: float = np.inf
    best_score: float = -np.inf
    no_improvement: int = 0
    t: int = 0
    schedule: str = "constant"
    rate_factor: float = 1.0

    def fresh_rate(self) -> Progress:
        """Return the same progress with the initial learning rate, as a new optimizer has it."""
        return replace(self, rate_factor=1.0)


@dataclass(frozen=True)
class FitTask:
    """One training to be done. Arrays are NumPy (or SciPy CSR for `X`), in the precision's array type.

    `parameters` `(n_parameters,)` is the starting point, packed as all coefs, then all intercepts. `target` is
    `(n_samples, n_outputs)`, or `(n_samples, 1)` class indices. `train_rows` and `validation_rows` index the samples.
    `say` takes each line of verbose output.
    """

    X: Any
    target: np.ndarray
    sample_weight: np.ndarray | None
    train_rows: np.ndarray
    validation_rows: np.ndarray | None
    layer_sizes: tuple[int, ...]
    activation: Activation
    objective: Objective
    settings: Settings
    precision: Precision
    device: torch.device
    rng: np.random.RandomState
    parameters: np.ndarray
    one_epoch: bool = False
    progress: Progress = Progress()
    optimizer_state: dict[str, Any] = field(default_factory=dict)
    say: Callable[[str], object] = print


@dataclass(frozen=True)
class FitResult:
    """What came of a `FitTask`. `parameters` are packed like the task's; `optimizer_state` holds NumPy arrays."""

    parameters: np.ndarray
    status: Status
    message: str
    n_iter: int
    loss: float
    progress: Progress
    optimizer_state: dict[str, Any]
