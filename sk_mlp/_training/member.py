"""One task while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch

from sk_mlp._network.values import State, stay_finite

from .history import Epoch
from .progress import Progress, observe, on_plateau
from .schedules import rate, schedule_of, take_up, with_next_rate
from .task import FitResult, FitTask, Status


class Values(NamedTuple):
    """The state of a network and of its optimizer, at some point of the training."""

    state: State
    optimizer_state: Mapping[str, Any]


@dataclass
class Member:
    """One task while it is trained, with the values that remain when its stack is replaced by a smaller one."""

    task: FitTask
    first: State = field(init=False)
    current: State = field(init=False)
    best: State = field(init=False)
    optimizer_state: Mapping[str, Any] = field(init=False)
    progress: Progress = field(init=False)
    order: np.ndarray = field(init=False)
    records: list[Epoch] = field(default_factory=list)
    status: Status | None = None
    error: Exception | None = None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        task = self.task
        # A copy, because the task keeps its starting point. (`torch.tensor` would take ten times as long.)
        parameters = torch.from_numpy(task.parameters.copy()).to(task.precision.master).numpy()
        self.first = self.current = self.best = State(parameters, task.network.buffers())
        self.optimizer_state, self.progress = task.optimizer_state, take_up(task.progress, task.settings)
        self.order = np.arange(len(task.table.rows))
        self.started = task.clock()

    @property
    def is_running(self) -> bool:
        """Whether the training continues."""
        return self.status is None and self.error is None

    @property
    def n_iter(self) -> int:
        """Number of completed epochs."""
        return len(self.records)

    @property
    def n_epochs(self) -> int:
        """Number of completed epochs, including those of earlier trainings."""
        return len(self.progress.history) + self.n_iter

    @property
    def rate(self) -> float:
        """The current learning rate."""
        return rate(self.progress, self.task.settings)

    def begin_epoch(self, values: Callable[[], Values]) -> None:
        """Set the rate of the next epoch and call the listener; an error of user-defined code ends only this member."""
        if not self.is_running:
            return
        try:
            self.progress = with_next_rate(self.progress, self.task.settings)
            if self.task.listener is not None:
                self.task.listener.begin_epoch(lambda: self._result(*values()))
        except Exception as error:
            self.error = error

    def next_order(self) -> np.ndarray:
        """Return the row order of the next epoch. As in scikit-learn, it is a shuffle of the previous order.

        A single batch of all rows does not depend on the order, except by rounding. The permutation is then drawn, so
        that `rng` advances as in scikit-learn, but it is not used.
        """
        if self.task.settings.shuffle and self.is_running and self.task.rng is not None:
            permutation = self.task.rng.permutation(len(self.order))
            if len(self.order) > self.task.settings.batch_size:
                self.order = self.order[permutation]
        return self.order

    def end_epoch(self, epoch: Epoch, values: Callable[[], Values]) -> bool:
        """Record an epoch, decide whether it was the last, and return True if its score is the best so far."""
        best_before, listener = self.progress.best_score, self.task.listener
        try:
            self._take_note(self._scored(epoch, lambda: values().state.as_dtype(self.task.precision.array)))
            self._continue_or_stop()
            if listener is not None and listener.end_epoch(lambda: self._result(*values())) and self.status is None:
                self.status = Status.STOPPED
            self.end(self.status)
        except Exception as error:
            self.error = error
        return self.progress.best_score > best_before

    def outcome(self) -> FitResult | Exception:
        """Return the result of the task, or its error; with early stopping, the parameters with the best score.

        A single epoch of `partial_fit` keeps its last parameters, because later calls may continue from them.
        """
        if self.error is not None:
            return self.error
        keeps_best = self.task.settings.early_stopping and self.task.validation is not None and not self.task.one_epoch
        has_none = self.status is Status.DIVERGED and self.best is self.first
        return self._result(self.best if keeps_best and not has_none else self.current, self.optimizer_state)

    def end(self, status: Status | None) -> None:
        """Set the status, and if training has ended, print the last epoch if it was not printed yet."""
        self.status = status
        if status is not None and not self.task.one_epoch and self.records:
            self._print(is_last=True)

    def _result(self, kept: State, optimizer_state: Mapping[str, Any]) -> FitResult:
        """Return the result of the task, so far or at the end."""
        state = kept.as_dtype(self.task.precision.array)
        return FitResult(
            state=state,
            is_finite=state.is_finite and stay_finite(state.buffers, self.first.buffers),
            status=self.status,
            message="" if self.status is None else self.status.message(self.task.settings),
            n_iter=self.n_iter,
            loss=self.records[-1].loss if self.records else np.nan,
            progress=self.progress._replace(history=self.progress.history.extended(self.records)),
            optimizer_state=optimizer_state,
        )

    def _take_note(self, epoch: Epoch) -> None:
        """Record the values of an epoch, and print them as `verbose` demands."""
        self.records.append(epoch)
        self.progress = observe(self.progress, self.task.settings, epoch, len(self.order))
        self._print()

    def _print(self, *, is_last: bool = False) -> None:
        """Print the last epoch, as `verbose` demands.

        Calls of `partial_fit` count as the epochs of one training; but in scikit-learn's lines each call has number 1.
        """
        verbose = self.task.settings.verbose
        if verbose:
            number = self.n_epochs if self.task.one_epoch and not isinstance(verbose, bool | np.bool_) else self.n_iter
            seconds = self.task.clock() - self.started
            for line in self.records[-1].lines(verbose, number, seconds, is_last=is_last):
                self.task.emit(line)

    def _scored(self, epoch: Epoch, state: Callable[[], State]) -> Epoch:
        """Return the epoch with the score that early stopping monitors, if this is not the objective's own score."""
        validation = self.task.validation
        if validation is None or (validation.score is None and not validation.by_loss):
            return epoch
        if validation.score is None:
            return epoch._replace(validation_score=-epoch.validation_loss)
        score = validation.score(state())
        if not isinstance(score, Real) or not np.isfinite(score):
            raise ValueError(f"scoring must give a finite number, got {score!r} after epoch {self.n_iter + 1}")
        return epoch._replace(validation_score=float(score))

    def _continue_or_stop(self) -> None:
        """Decide whether training ends, and why."""
        settings = self.task.settings
        if on_plateau(self.progress, settings):
            self._leave_plateau()
        if self.task.one_epoch:
            self.status = Status.EPOCH_DONE
        elif self.status is None and self.n_iter == settings.max_iter:
            self.status = Status.SCHEDULE_DONE if schedule_of(self.progress).has_end else Status.MAX_ITER
        elif self.status is None and settings.max_time is not None:
            self.status = Status.MAX_TIME if self.task.clock() - self.started > settings.max_time else None

    def _leave_plateau(self) -> None:
        """Lower the rate and continue, or stop, as the schedule says."""
        settings = self.task.settings
        status = Status.NO_BETTER_SCORE if settings.early_stopping else Status.CONVERGED
        schedule = schedule_of(self.progress)
        factor = schedule.on_plateau(self.progress, settings)
        if factor is not None:
            self.progress = self.progress._replace(rate_factor=factor, no_improvement=0)
            self._emit(f"{status.message(settings)} Setting learning rate to {self.rate:f}")
            return
        too_small = "Learning rate too small. " if schedule.lowers else ""
        self._emit(f"{status.message(settings)} {too_small}Stopping.")
        self.status = status

    def _emit(self, line: str) -> None:
        """Print a line if `verbose` is set."""
        if self.task.settings.verbose:
            self.task.emit(line)
