"""The estimator's parameters that training reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Settings:
    """The estimator's parameters that training reads, under the same names."""

    solver: str | type[torch.optim.Optimizer]
    solver_kwargs: Mapping[str, Any] | None
    alpha: float
    weight_decay: float
    batch_size: int
    learning_rate: str | Callable[[int], float]
    learning_rate_init: float
    power_t: float
    warmup_epochs: int
    max_grad_norm: float | None
    max_iter: int
    max_time: float | None
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
