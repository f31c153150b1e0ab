"""`train`: first-order training of k networks at once, tasks in, results out.

The tasks of one call share layer sizes, activation, objective, solver, batch size, precision, device, and the numbers
of training and validation rows. Everything else (data, weights, seeds, rates, penalties, stopping) may differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ._backprop import Backprop, Forward
from ._batches import Batch, Epochs, copy_if_cast, make_pool, rows_within
from ._device import has_fused_adam, threads_for
from ._network import Layout
from ._optimizers import optimizer_class
from ._products import Products, products_for
from ._schedules import SCHEDULES, take_up
from ._stopping import observe, on_plateau
from ._task import FitResult, FitTask, Progress, Status

_VALIDATION_BYTES = 16 * 2**20  # of activations while scoring


def train(tasks: Sequence[FitTask]) -> list[FitResult]:
    """Train all tasks side by side, each until its own end; a member that has ended no longer costs anything."""
    members = [Member(task) for task in tasks]
    with torch.inference_mode(), threads_for(len(tasks) * _work(tasks[0])):
        while running := [member for member in members if member.status is None]:
            _train_until_one_ends(running)
    return [member.result() for member in members]


def _train_until_one_ends(members: Sequence[Member]) -> None:
    """Run epochs of all members as one stack until at least one of them has ended."""
    stack = Stack(members)
    try:
        while all(member.status is None for member in members):
            stack.optimizer.set_rates([member.rate for member in members])
            for batch in stack.draw_epoch():
                stack.backprop(batch).value_and_gradient(batch)
                stack.optimizer.step()
            losses, scores = stack.epochs.mean_losses(), stack.validation_scores()
            for i, member in enumerate(members):
                if member.end_epoch(losses[i], scores[i]):
                    member.best_parameters = stack.layout.member(stack.parameters, i)
                if not np.isfinite(losses[i]) and not stack.is_finite(i):
                    member.status = Status.DIVERGED
    except KeyboardInterrupt:
        for member in members:
            member.status = member.status or Status.INTERRUPTED
    stack.hand_back()


@dataclass
class Member:
    """One task on its way to a result: the values that outlive a stack."""

    task: FitTask
    parameters: Tensor = field(init=False)
    best_parameters: Tensor = field(init=False)
    optimizer_state: dict[str, Any] = field(init=False)
    progress: Progress = field(init=False)
    order: np.ndarray = field(init=False)
    n_iter: int = 0
    status: Status | None = None

    def __post_init__(self) -> None:
        task = self.task
        # A copy: the task keeps its starting point.
        self.parameters = torch.tensor(task.parameters, dtype=task.precision.master, device=task.device)
        self.best_parameters = self.parameters
        self.optimizer_state, self.progress = task.optimizer_state, take_up(task.progress, task.settings)
        self.order = np.arange(len(task.train_rows))

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return self.task.settings.learning_rate_init * self.progress.rate_factor

    def next_order(self) -> np.ndarray:
        """Return the row order of the next epoch: scikit-learn's, which shuffles the last one further."""
        if self.task.settings.shuffle:
            self.order = self.order[self.task.rng.permutation(len(self.order))]
        return self.order

    def end_epoch(self, loss: float, score: float | None) -> bool:
        """Take note of an epoch, decide whether it was the last, and tell whether its score is the best so far."""
        settings, best_before = self.task.settings, self.progress.best_score
        self.n_iter += 1
        self.progress = observe(self.progress, settings, loss, score, len(self.order))
        self._say(f"Iteration {self.n_iter}, loss = {loss:.8f}")
        if score is not None:
            self._say(f"Validation score: {score:f}")
        factor = SCHEDULES[self.progress.schedule].after_epoch(self.progress, settings)
        if factor != self.progress.rate_factor:
            self.progress = replace(self.progress, rate_factor=factor)
        if on_plateau(self.progress, settings):
            self._leave_plateau()
        if self.task.one_epoch:
            self.status = Status.EPOCH_DONE
        elif self.status is None and self.n_iter == settings.max_iter:
            self.status = Status.MAX_ITER
        return self.progress.best_score > best_before

    def result(self) -> FitResult:
        """Return what came of the task; with early stopping, the parameters of the best score."""
        best = self.best_parameters if self.task.settings.early_stopping else self.parameters
        assert self.status is not None
        return FitResult(
            parameters=best.cpu().numpy().astype(self.task.precision.array, copy=False),
            status=self.status,
            message=self.status.message(self.task.settings),
            n_iter=self.n_iter,
            loss=self.progress.loss_curve[-1] if self.progress.loss_curve else np.nan,
            progress=self.progress,
            optimizer_state=self.optimizer_state,
        )

    def _leave_plateau(self) -> None:
        """Lower the rate and go on, or stop, as the schedule has it."""
        settings = self.task.settings
        status = Status.NO_BETTER_SCORE if settings.early_stopping else Status.CONVERGED
        factor = SCHEDULES[self.progress.schedule].on_plateau(self.progress, settings)
        if factor is not None:
            self.progress = replace(self.progress, rate_factor=factor, no_improvement=0)
            self._say(f"{status.message(settings)} Setting learning rate to {self.rate:f}")
            return
        too_small = "Learning rate too small. " if self.progress.schedule == "adaptive" else ""
        self._say(f"{status.message(settings)} {too_small}Stopping.")
        self.status = status

    def _say(self, line: str) -> None:
        """Print a line if the user wants to hear it."""
        if self.task.settings.verbose:
            print(line)


class Stack:
    """The tensors of k members in training."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        task = members[0].task
        self.layout = Layout(task.layer_sizes, len(members))
        self.parameters = self.layout.join([member.parameters for member in members])
        gradient = torch.zeros_like(self.parameters)
        settings, states = [m.task.settings for m in members], [m.optimizer_state for m in members]
        make_optimizer = optimizer_class(settings, states, has_fused_adam(task.device))
        self.optimizer = make_optimizer(self.layout, self.parameters, gradient, settings, states)
        products = products_for(task.precision.product, task.device, _work(task))
        data = _Data([member.task for member in members], products)
        self.epochs = Epochs(
            data.pool,
            data.rows(_train_rows),
            data.target(_train_rows),
            data.weight(_train_rows),
            task.settings.batch_size,
            self.parameters.new_tensor([[s.alpha] for s in settings]),
        )
        self._backprops = {
            n: Backprop(self.layout, self.parameters, gradient, n, task.activation, task.objective, products)
            for n in self.epochs.batch_sizes
        }
        self._validation = (
            _Validation(self.layout, self.parameters, data, task, products)
            if task.validation_rows is not None
            else None
        )

    def draw_epoch(self) -> Iterator[Batch]:
        """Yield the batches of the members' next epoch."""
        return self.epochs.draw(np.stack([member.next_order() for member in self._members]))

    def backprop(self, batch: Batch) -> Backprop:
        """Return the value-and-gradient of the batch's size."""
        return self._backprops[batch.losses.shape[1]]

    def validation_scores(self) -> list[float | None]:
        """Score each member on its validation rows; None without early stopping."""
        return [None] * len(self._members) if self._validation is None else self._validation.scores()

    def is_finite(self, i: int) -> bool:
        """Tell whether all parameters of member `i` are finite."""
        return bool(self.layout.member(self.parameters, i).isfinite().all())

    def hand_back(self) -> None:
        """Write the parameters and optimizer states back to the members."""
        for i, member in enumerate(self._members):
            member.parameters = self.layout.member(self.parameters, i)
            member.optimizer_state = self.optimizer.state(i)


class _Data:
    """The samples of k tasks: distinct inputs once in a pool, and each member's targets and weights."""

    def __init__(self, tasks: Sequence[FitTask], products: Products) -> None:
        self._tasks = tasks
        distinct = {id(task.X): task.X for task in tasks}
        starts = np.cumsum([0, *(X.shape[0] for X in distinct.values())])
        self._offsets = dict(zip(distinct, starts, strict=False))
        self.pool = make_pool(_concatenate(list(distinct.values())), tasks[0].device, products)

    def rows(self, rows_of: Callable[[FitTask], np.ndarray]) -> np.ndarray:
        """Return where in the pool each member's rows lie, `(k, n)`."""
        return np.stack([rows_of(task) + self._offsets[id(task.X)] for task in self._tasks])

    def target(self, rows_of: Callable[[FitTask], np.ndarray]) -> Tensor:
        """Return each member's targets, `(k, n, n_outputs)`."""
        return self._stack([task.target[rows_of(task)] for task in self._tasks])

    def weight(self, rows_of: Callable[[FitTask], np.ndarray]) -> Tensor | None:
        """Return each member's weights, `(k, n)`, or None if no member has any."""
        if all(task.sample_weight is None for task in self._tasks):
            return None
        return self._stack(
            [
                np.ones(len(rows_of(task)), task.parameters.dtype)
                if task.sample_weight is None
                else task.sample_weight[rows_of(task)]
                for task in self._tasks
            ]
        )

    def _stack(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Return one tensor on the device; values in the master number type, class indices as they are."""
        task, stacked = self._tasks[0], torch.from_numpy(np.stack(arrays))
        return stacked.to(task.device, task.precision.master if stacked.is_floating_point() else None)


def _concatenate(inputs: Sequence[Any]) -> Any:
    """Return the rows of all inputs, dense or sparse; one input is returned as it is."""
    if len(inputs) == 1:
        return inputs[0]
    return sp.vstack(inputs, format="csr") if sp.issparse(inputs[0]) else np.concatenate(inputs)


class _Validation:
    """Scores k members on their validation rows, a bounded number of rows at a time."""

    def __init__(self, layout: Layout, parameters: Tensor, data: _Data, task: FitTask, products: Products) -> None:
        self._objective = task.objective
        # Scores are summed in float64, which not every device has.
        self._target = data.target(_validation_rows).mT.cpu()
        weight = data.weight(_validation_rows)
        self._weight = None if weight is None else weight.cpu()
        rows = torch.from_numpy(data.rows(_validation_rows)).to(task.device)
        size = rows_within(_VALIDATION_BYTES, layout.k * sum(task.layer_sizes) * parameters.itemsize)
        chunks = rows.split(size, dim=1)
        self._index = [chunk.unsqueeze(0) for chunk in chunks]
        self._sizes = [chunk.shape[1] for chunk in chunks]
        self._raw = torch.empty(layout.k, layout.shapes[-1][1], rows.shape[1], dtype=parameters.dtype)
        sizes = set(self._sizes)
        self._parameters, self._working = parameters, parameters.to(products.dtype)
        coefs, intercepts = layout.coefs(self._working), layout.intercepts(self._working)
        self._forward = {n: Forward(coefs, intercepts, n, task.activation, products, parameters.dtype) for n in sizes}
        self._gather = {n: data.pool.gatherer(layout.k, n, 1) for n in sizes}

    def scores(self) -> list[float | None]:
        """Return each member's score, `(k,)`."""
        copy_if_cast(self._parameters, self._working)
        for index, raw in zip(self._index, self._raw.split(self._sizes, dim=-1), strict=True):
            (inputs,) = self._gather[raw.shape[-1]](index)
            raw.copy_(self._forward[raw.shape[-1]](inputs))
        return self._objective.score(self._raw, self._target, self._weight).tolist()


def _train_rows(task: FitTask) -> np.ndarray:
    return task.train_rows


def _validation_rows(task: FitTask) -> np.ndarray:
    assert task.validation_rows is not None
    return task.validation_rows


def _work(task: FitTask) -> int:
    """Return the multiply-adds of a member's largest product in one step."""
    return task.settings.batch_size * max(fan_in * fan_out for fan_in, fan_out in pairwise(task.layer_sizes))
