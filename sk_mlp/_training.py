"""`train`: first-order training of k networks at once, tasks in, results out.

The tasks of one call agree in `stack_key`. Everything else (data, weights, seeds, rates, penalties, stopping) may
differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ._backprop import Backprop, Forward
from ._batches import Batch, Epochs, copy_if_cast, make_pool, n_batches, rows_within
from ._device import has_fused_adam, threads_for
from ._network import Layout
from ._optimizers import optimizer_class
from ._products import products_for
from ._schedules import SCHEDULES, take_up
from ._stopping import observe, on_plateau
from ._task import FitResult, FitTask, Progress, Status

_VALIDATION_BYTES = 16 * 2**20  # of activations while scoring
_WORTHWHILE = 0.75  # share of a stack that has to be in training; below, the others leave it


def train(tasks: Sequence[FitTask]) -> list[FitResult]:
    """Train all tasks side by side, each until its own end; members that have ended soon no longer cost anything."""
    members = [Member(task) for task in tasks]
    with torch.inference_mode(), threads_for(work(tasks[0]), len(tasks)):
        data = _Data(tasks)
        while running := [member for member in members if member.status is None]:
            _train_until_few_are_left(Stack(running, data))
    return [member.result() for member in members]


def _train_until_few_are_left(stack: Stack) -> None:
    """Run epochs until so many members have ended that a smaller stack pays."""
    living = stack.living()
    enough = max(1.0, _WORTHWHILE * len(living))
    try:
        while len(living) >= enough:
            stack.optimizer.set_rates([member.rate for member in stack.members])
            for batch in stack.draw_epoch():
                stack.backprop(batch).value_and_gradient(batch)
                stack.optimizer.step()
            losses, scores = stack.epochs.mean_losses(), stack.validation_scores()
            for i, member in living.items():
                if member.end_epoch(losses[i], scores[i]):
                    member.best_parameters = stack.layout.member(stack.parameters, i)
                if not np.isfinite(losses[i]) and not stack.is_finite(i):
                    member.status = Status.DIVERGED
                if member.status is not None:
                    stack.hand_back(i)
            living = stack.living()
    except KeyboardInterrupt:
        for member in stack.living().values():
            member.status = Status.INTERRUPTED
    for i in living:
        stack.hand_back(i)


def stack_key(task: FitTask) -> Hashable:
    """Return what tasks have to agree in to train as one stack."""
    settings, n_train = task.settings, len(task.train_rows)
    return (
        task.layer_sizes,
        task.activation,
        task.objective,
        settings.solver,
        settings.batch_size,
        n_batches(n_train, settings.batch_size),
        task.precision,
        task.device,
        sp.issparse(task.X),
    )


def work(task: FitTask) -> int:
    """Return the multiply-adds of a member's largest product in one step."""
    return task.settings.batch_size * max(fan_in * fan_out for fan_in, fan_out in pairwise(task.layer_sizes))


def member_bytes(task: FitTask) -> int:
    """Return how many bytes a member's training touches in a step: a batch's values, and what parameters come with."""
    n_features, *widths = task.layer_sizes
    batch = task.settings.batch_size * (n_features + 3 * sum(widths))
    return (batch + 6 * len(task.parameters)) * task.precision.master.itemsize


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
        if self.task.settings.shuffle and self.status is None:
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
            self.task.say(line)


class Stack:
    """The tensors of k members in training."""

    def __init__(self, members: Sequence[Member], data: _Data) -> None:
        self.members = members
        tasks = [member.task for member in members]
        task, products = tasks[0], data.products
        self.layout = Layout(task.layer_sizes, len(members))
        self.parameters = self.layout.join([member.parameters for member in members])
        gradient = torch.zeros_like(self.parameters)
        settings, states = [task.settings for task in tasks], [member.optimizer_state for member in members]
        make_optimizer = optimizer_class(settings, states, has_fused_adam(task.device))
        self.optimizer = make_optimizer(self.layout, self.parameters, gradient, settings, states)
        train_rows = [task.train_rows for task in tasks]
        self.epochs = Epochs(
            data.pool,
            data.rows(tasks, train_rows),
            data.target(tasks, train_rows),
            data.weight(tasks, train_rows),
            task.settings.batch_size,
            self.parameters.new_tensor([[s.alpha] for s in settings]),
            self.layout.n_coef_runs,
        )
        self._backprops = {
            n: Backprop(self.layout, self.parameters, gradient, n, task.activation, task.objective, products)
            for n in self.epochs.batch_sizes
        }
        stops_early = any(task.validation_rows is not None for task in tasks)
        self._validation = _Validation(self.layout, self.parameters, data, tasks) if stops_early else None

    def living(self) -> dict[int, Member]:
        """Return the members still in training, by their place in the stack."""
        return {i: member for i, member in enumerate(self.members) if member.status is None}

    def draw_epoch(self) -> Iterator[Batch]:
        """Yield the batches of the members' next epoch."""
        return self.epochs.draw([member.next_order() for member in self.members])

    def backprop(self, batch: Batch) -> Backprop:
        """Return the value-and-gradient of the batch's size."""
        return self._backprops[batch.losses.shape[1]]

    def validation_scores(self) -> list[float | None]:
        """Score each member on its validation rows; None without early stopping."""
        return [None] * len(self.members) if self._validation is None else self._validation.scores()

    def is_finite(self, i: int) -> bool:
        """Tell whether all parameters of member `i` are finite."""
        return bool(self.layout.member(self.parameters, i).isfinite().all())

    def hand_back(self, i: int) -> None:
        """Write the parameters and the optimizer state back to member `i`."""
        self.members[i].parameters = self.layout.member(self.parameters, i)
        self.members[i].optimizer_state = self.optimizer.state(i)


class _Data:
    """The samples of the tasks: distinct inputs once in a pool, and any members' targets and weights."""

    def __init__(self, tasks: Sequence[FitTask]) -> None:
        task = tasks[0]
        self._device, self._master = task.device, task.precision.master
        self.products = products_for(task.precision.product, task.device, work(task))
        distinct = {id(task.X): task.X for task in tasks}
        starts = np.cumsum([0, *(X.shape[0] for X in distinct.values())])
        self._offsets = dict(zip(distinct, starts, strict=False))
        self.pool = make_pool(_concatenate(list(distinct.values())), task.device, self.products)

    def rows(self, tasks: Sequence[FitTask], rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return where in the pool each task's `rows` lie, `(n_i,)` each."""
        return [own + self._offsets[id(task.X)] for task, own in zip(tasks, rows, strict=True)]

    def target(self, tasks: Sequence[FitTask], rows: Sequence[np.ndarray]) -> Tensor:
        """Return the targets of each task's `rows`, one after another, `(sum of n_i, n_outputs)`."""
        return self._join([task.target[own] for task, own in zip(tasks, rows, strict=True)])

    def weight(self, tasks: Sequence[FitTask], rows: Sequence[np.ndarray]) -> Tensor | None:
        """Return the weights of each task's `rows`, `(sum of n_i,)`, or None if no task has any."""
        if all(task.sample_weight is None for task in tasks):
            return None
        return self._join([_weight_of(task, own) for task, own in zip(tasks, rows, strict=True)])

    def _join(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Return one tensor on the device; values in the master number type, class indices as they are."""
        joined = torch.from_numpy(np.concatenate(arrays))
        return joined.to(self._device, self._master if joined.is_floating_point() else None)


def _weight_of(task: FitTask, rows: np.ndarray) -> np.ndarray:
    """Return the weights of a task's rows, one each if it has none."""
    if task.sample_weight is None:
        return np.ones(len(rows), task.parameters.dtype)
    return task.sample_weight[rows]


def _concatenate(inputs: Sequence[Any]) -> Any:
    """Return the rows of all inputs, dense or sparse; one input is returned as it is."""
    if len(inputs) == 1:
        return inputs[0]
    return sp.vstack(inputs, format="csr") if sp.issparse(inputs[0]) else np.concatenate(inputs)


class _Validation:
    """Scores k members on their validation rows, a bounded number of rows at a time.

    Members with fewer rows than others are padded with weight 0; those without any have no score.
    """

    def __init__(self, layout: Layout, parameters: Tensor, data: _Data, tasks: Sequence[FitTask]) -> None:
        task = tasks[0]
        self._objective = task.objective
        self._is_scored = [task.validation_rows is not None for task in tasks]
        own = [np.arange(0) if task.validation_rows is None else task.validation_rows for task in tasks]
        n = max(len(rows) for rows in own)
        rows = [np.concatenate([rows, np.zeros(n - len(rows), np.int64)]) for rows in own]
        # Scores are summed in float64, which not every device has.
        self._target = data.target(tasks, rows).view(layout.k, n, -1).mT.cpu()
        self._weight = _padded_weight(data.weight(tasks, rows), [len(rows) for rows in own], n)
        index = torch.from_numpy(np.stack(data.rows(tasks, rows))).to(task.device)
        size = rows_within(_VALIDATION_BYTES, layout.k * sum(task.layer_sizes) * parameters.itemsize)
        chunks = index.split(size, dim=1)
        self._index = [chunk.unsqueeze(0) for chunk in chunks]
        self._sizes = [chunk.shape[1] for chunk in chunks]
        self._raw = torch.empty(layout.k, layout.shapes[-1][1], n, dtype=parameters.dtype)
        self._parameters, self._working = parameters, parameters.to(data.products.dtype)
        coefs, intercepts = layout.coefs(self._working), layout.intercepts(self._working)
        self._forward = {
            n: Forward(coefs, intercepts, n, task.activation, data.products, parameters.dtype) for n in set(self._sizes)
        }
        self._gather = {n: data.pool.gatherer(layout.k, n, 1) for n in set(self._sizes)}

    def scores(self) -> list[float | None]:
        """Return each member's score, `(k,)`."""
        copy_if_cast(self._parameters, self._working)
        for index, raw in zip(self._index, self._raw.split(self._sizes, dim=-1), strict=True):
            (inputs,) = self._gather[raw.shape[-1]](index)
            raw.copy_(self._forward[raw.shape[-1]](inputs))
        scores = self._objective.score(self._raw, self._target, self._weight).tolist()
        return [score if is_scored else None for score, is_scored in zip(scores, self._is_scored, strict=True)]


def _padded_weight(weight: Tensor | None, sizes: Sequence[int], n: int) -> Tensor | None:
    """Return weights `(k, n)`, zero beyond each member's size; None where all rows weigh one."""
    if weight is None and min(sizes) == n:
        return None
    counts = torch.arange(n) < torch.tensor(sizes).unsqueeze(1)
    return counts.double() if weight is None else weight.cpu().view(len(sizes), n) * counts
