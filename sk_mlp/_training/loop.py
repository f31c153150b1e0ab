"""`train`: first-order training of k networks at once, tasks in, results out.

The tasks of one call agree in `stack_key`. Everything else (data, weights, seeds, rates, penalties, stopping) may
differ.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sk_mlp._compute.device import has_fused_adam
from sk_mlp._compute.modes import threads, threads_that_pay
from sk_mlp._compute.threads import Crew, raise_if_stopped
from sk_mlp._network.autograd import Autograd, Turns
from sk_mlp._network.batch import Batch, Epochs, copy_if_cast, make_pool, n_batches, rows_within
from sk_mlp._network.closed_form import Backprop
from sk_mlp._network.layout import Layout
from sk_mlp._network.state import State
from sk_mlp._objective import average

from .engine import (
    Snapshot,
    backprop_of,
    buffers,
    computing,
    forward_of,
    input_values,
    is_recordable,
    layout_of,
    masks_of,
    n_shards,
    products_of,
    row_values,
    stay_finite,
    turns_of,
    work,
)
from .history import Epoch
from .optimizers import GradientNorms, optimizer_class
from .schedules import rate, schedule_of, take_up, with_next_rate
from .step import SharedStep, WholeStep
from .stopping import observe, on_plateau
from .task import FitResult, FitTask, Progress, Status, Table

_VALIDATION_BYTES = 16 * 2**20  # of activations while scoring
_WORTHWHILE = 0.75  # share of a stack that has to be in training; below, the others leave it
# Steps to come from which on one is recorded, which takes as long as replaying saves in about fifty.
_WORTH_RECORDING = 100
# Steps of the other size. One that is called from Python among others that are not takes three times as long as usual.
_WORTH_RECORDING_TOO = 10


def train(tasks: Sequence[FitTask]) -> list[FitResult | Exception]:
    """Train all tasks side by side, each until its own end; members that have ended soon no longer cost anything.

    What the code of a task's user raises for it (a callback, a scorer, a schedule) ends that task alone. A loss of a
    user's serves the whole stack, and what it raises ends it.
    """
    members = [Member(task) for task in tasks]
    task = tasks[0]
    n = threads_that_pay(work(task, task.settings.batch_size), len(tasks))
    n_sharing = n_shards(task, n)
    # PyTorch's threads keep processors busy for a while after they have computed, which those that share steps need.
    with computing(task), threads(1 if n_sharing else n), Crew(n_sharing) as crew:
        data = _Data(task, [task.table for task in tasks])
        while running := [member for member in members if member.is_running]:
            _train_until_few_are_left(Stack(running, data, crew, n))
    return [member.outcome() for member in members]


def _train_until_few_are_left(stack: Stack) -> None:
    """Run epochs until so many members have ended that a smaller stack pays."""
    living = stack.living()
    enough = max(1.0, _WORTHWHILE * len(living))
    try:
        while len(living) >= enough:
            start = stack.clock()
            stack.begin_epoch()
            stack.run_epoch()
            epochs = stack.epochs_seen(start)
            for i, member in living.items():
                is_best = member.is_running and member.end_epoch(epochs[i], partial(stack.values, i))
                if stack.has_diverged(i, epochs[i].loss, is_best):
                    member.status = Status.DIVERGED
                elif is_best:
                    member.best = stack.snapshot(i)
                if not member.is_running:
                    stack.hand_back(i)
            living = stack.living()
    except KeyboardInterrupt:
        interrupted = stack.living()
        if not interrupted:
            raise
        for member in interrupted.values():
            member.end(Status.INTERRUPTED)
    for i in living:
        stack.hand_back(i)


def stack_key(task: FitTask) -> Hashable:
    """Return what tasks have to agree in to train as one stack; modules and PyTorch's optimizers train alone."""
    settings = task.settings
    if task.module is not None or not isinstance(settings.solver, str):
        return id(task)
    return (
        task.layer_sizes,
        task.activations,
        any(task.dropout),
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
    batch = task.settings.batch_size * (input_values(task, task.table.X) + 3 * sum(task.layer_sizes[1:]))
    return (batch + 6 * len(task.parameters)) * task.precision.master.itemsize


class Values(NamedTuple):
    """A network and its optimizer's state, at some point of its training."""

    snapshot: Snapshot
    optimizer_state: Mapping[str, Any]


@dataclass
class Member:
    """One task on its way to a result: the values that outlive a stack."""

    task: FitTask
    turns: Turns = field(init=False)
    first: Snapshot = field(init=False)
    current: Snapshot = field(init=False)
    best: Snapshot = field(init=False)
    optimizer_state: Mapping[str, Any] = field(init=False)
    progress: Progress = field(init=False)
    order: np.ndarray = field(init=False)
    epochs: list[Epoch] = field(default_factory=list)
    status: Status | None = None
    error: Exception | None = None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        task = self.task
        # A copy: the task keeps its starting point. (`torch.tensor` takes ten times as long to make one.)
        parameters = torch.from_numpy(task.parameters.copy()).to(task.device, task.precision.master)
        self.first = self.current = self.best = Snapshot(parameters, buffers(task))
        self.turns = turns_of(task)
        self.optimizer_state, self.progress = task.optimizer_state, take_up(task.progress, task.settings)
        self.order = np.arange(len(task.table.rows))
        self.started = task.clock()

    @property
    def is_running(self) -> bool:
        """Whether there are epochs to come."""
        return self.status is None and self.error is None

    @property
    def n_iter(self) -> int:
        """How many epochs are over."""
        return len(self.epochs)

    @property
    def n_epochs(self) -> int:
        """How many epochs are over, those of earlier trainings included."""
        return len(self.progress.history) + self.n_iter

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return rate(self.progress, self.task.settings)

    def begin_epoch(self, values: Callable[[], Values]) -> None:
        """Set the rate of the next epoch, and tell who watches; what users' code raises is this member's error."""
        if not self.is_running:
            return
        try:
            self.progress = with_next_rate(self.progress, self.task.settings)
            if self.task.watch is not None:
                self.task.watch.begin_epoch(lambda: self._result(*values()))
        except Exception as error:
            self.error = error

    def next_order(self) -> np.ndarray:
        """Return the row order of the next epoch: scikit-learn's, which shuffles the last one further.

        One batch of all rows is the same in any order, but for rounding: what is drawn for it only moves `rng` on.
        """
        if self.task.settings.shuffle and self.is_running and self.task.rng is not None:
            permutation = self.task.rng.permutation(len(self.order))
            if len(self.order) > self.task.settings.batch_size:
                self.order = self.order[permutation]
        return self.order

    def end_epoch(self, epoch: Epoch, values: Callable[[], Values]) -> bool:
        """Take note of an epoch, decide whether it was the last, and tell whether its score is the best so far."""
        best_before, watch = self.progress.best_score, self.task.watch
        try:
            self._take_note(self._scored(epoch, lambda: values().snapshot.state(self.task.precision)))
            self._continue_or_stop()
            if watch is not None and watch.end_epoch(lambda: self._result(*values())) and self.status is None:
                self.status = Status.STOPPED
            self.end(self.status)
        except Exception as error:
            self.error = error
        return self.progress.best_score > best_before

    def outcome(self) -> FitResult | Exception:
        """Return what came of the task; with early stopping, the parameters of the best score.

        A single epoch is a step on a way whose end is not known here, and keeps what it came to.
        """
        if self.error is not None:
            return self.error
        keeps_best = self.task.settings.early_stopping and self.task.validation is not None and not self.task.one_epoch
        has_none = self.status is Status.DIVERGED and self.best is self.first
        return self._result(self.best if keeps_best and not has_none else self.current, self.optimizer_state)

    def end(self, status: Status | None) -> None:
        """Set how training has ended, if it has, and print the last epoch if that is still to be done."""
        self.status = status
        if status is not None and not self.task.one_epoch and self.epochs:
            self._print(is_last=True)

    def _result(self, kept: Snapshot, optimizer_state: Mapping[str, Any]) -> FitResult:
        """Return what has come of the task, so far or in the end."""
        state = kept.state(self.task.precision)
        return FitResult(
            state=state,
            is_finite=state.is_finite and stay_finite(kept.buffers, self.first.buffers),
            status=self.status,
            message="" if self.status is None else self.status.message(self.task.settings),
            n_iter=self.n_iter,
            loss=self.epochs[-1].loss if self.epochs else np.nan,
            progress=self.progress._replace(history=self.progress.history.extended(self.epochs)),
            optimizer_state=optimizer_state,
        )

    def _take_note(self, epoch: Epoch) -> None:
        """Keep what is known of an epoch, and print it if the user wants to hear it."""
        self.epochs.append(epoch)
        self.progress = observe(self.progress, self.task.settings, epoch, len(self.order))
        self._print()

    def _print(self, *, is_last: bool = False) -> None:
        """Print the epoch just over, as far as the user wants to hear of it.

        Calls of `partial_fit` are the epochs of one training, but for scikit-learn's lines, which count each by itself.
        """
        verbose = self.task.settings.verbose
        if verbose:
            number = self.n_epochs if self.task.one_epoch and not isinstance(verbose, bool | np.bool_) else self.n_iter
            seconds = self.task.clock() - self.started
            for line in self.epochs[-1].lines(verbose, number, seconds, is_last=is_last):
                self.task.say(line)

    def _scored(self, epoch: Epoch, state: Callable[[], State]) -> Epoch:
        """Return the epoch with the score that stopping goes by, where that is not the objective's own."""
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
        """Lower the rate and go on, or stop, as the schedule has it."""
        settings = self.task.settings
        status = Status.NO_BETTER_SCORE if settings.early_stopping else Status.CONVERGED
        schedule = schedule_of(self.progress)
        factor = schedule.on_plateau(self.progress, settings)
        if factor is not None:
            self.progress = self.progress._replace(rate_factor=factor, no_improvement=0)
            self._say(f"{status.message(settings)} Setting learning rate to {self.rate:f}")
            return
        too_small = "Learning rate too small. " if schedule.lowers else ""
        self._say(f"{status.message(settings)} {too_small}Stopping.")
        self.status = status

    def _say(self, line: str) -> None:
        """Print a line if the user wants to hear it."""
        if self.task.settings.verbose:
            self.task.say(line)


class Stack:
    """The tensors of k members in training."""

    def __init__(self, members: Sequence[Member], data: _Data, crew: Crew, n_threads: int) -> None:
        self.members, self._crew, self._n_threads = members, crew, n_threads
        tasks = [member.task for member in members]
        task, products = tasks[0], data.products
        self.clock = task.clock
        self.layout = layout_of(task, len(members))
        self.parameters = self.layout.join([member.current.parameters for member in members])
        gradient = torch.zeros_like(self.parameters)
        settings, states = [task.settings for task in tasks], [member.optimizer_state for member in members]
        make_optimizer = optimizer_class(settings, states, has_fused_adam(task.device))
        self.optimizer = make_optimizer(self.layout, self.parameters, gradient, settings, states)
        # What each of the threads that share a step moves, a span of the one network's parameters; else nothing.
        self._spans = self.layout.spans(crew.n_threads) if crew.n_threads > 1 else []
        runs = [gradient[span].unsqueeze(0) for span in self._spans] or self.layout.runs(gradient)
        self.norms = GradientNorms(runs, [s.max_grad_norm for s in settings])
        tables = [task.table for task in tasks]
        self.epochs = Epochs(
            data.pool,
            data.rows(tables),
            data.target(tables),
            data.weight(tables),
            task.settings.batch_size,
            task.fewest_rows,
            self.parameters.new_tensor([[s.alpha] for s in settings]),
            masks_of(tasks, products),
            n_norms=len(self._spans) or self.layout.n_coef_runs,
            n_shards=max(1, len(self._spans)),
        )
        turns = members[0].turns  # of the one member there is, where the network draws
        shared = {
            n: self._steps_of_threads(n, backprop_of(task, self.layout, self.parameters, gradient, n, products, turns))
            for n in self.epochs.n_steps
        }
        # Each thread's, by number of rows.
        self._steps = [dict(zip(shared, steps, strict=True)) for steps in zip(*shared.values(), strict=True)]
        validates = any(task.validation is not None for task in tasks)
        self._validation = (
            _Scoring(self.layout, self.parameters, data.for_validation(tasks), tasks, turns) if validates else None
        )

    def _steps_of_threads(self, n: int, backprop: Backprop | Autograd) -> Sequence[Callable[[Batch], None]]:
        """Return each thread's share of the steps for batches of `n` rows."""
        tasks = [member.task for member in self.members]
        n_epochs = 1 if tasks[0].one_epoch else max(m.task.settings.max_iter - m.n_iter for m in self.members)
        n_steps = self.epochs.n_steps
        records = (
            is_recordable(tasks[0])
            and n_epochs * sum(n_steps.values()) >= _WORTH_RECORDING
            and n_epochs * n_steps[n] >= _WORTH_RECORDING_TOO
        )
        if not self._spans:
            return [WholeStep(backprop, self.norms, self.optimizer, records=records)]
        assert isinstance(backprop, Backprop)
        inputs, meet = self.epochs.inputs[n], self._crew.meet
        steps = []
        for i, (rows, span) in enumerate(zip(self.epochs.shards_of(n), self._spans, strict=True)):
            shard, mover = backprop.shard(rows, span, inputs), self.optimizer.shard(span)
            steps.append(SharedStep(i, shard, self.norms, self.optimizer, mover, meet, records=records))
        return steps

    def living(self) -> dict[int, Member]:
        """Return the members still in training, by their place in the stack."""
        return {i: member for i, member in enumerate(self.members) if member.is_running}

    def begin_epoch(self) -> None:
        """Set the members' rates, and tell who watches them."""
        for i, member in enumerate(self.members):
            member.begin_epoch(partial(self.values, i))
        self.optimizer.set_rates([member.rate for member in self.members])

    def run_epoch(self) -> None:
        """Take the steps of the members' next epoch."""
        n_before = [member.n_epochs for member in self.members]
        shards = self.epochs.draw([member.next_order() for member in self.members], n_before)
        if self._spans:
            self._crew.carry_out([partial(self._take_steps_on_one_thread, *shard) for shard in enumerate(shards)])
        else:
            self._take_steps(0, *shards)

    def _take_steps_on_one_thread(self, thread: int, batches: Iterator[tuple[int, Batch]]) -> None:
        """Do as `_take_steps` does, without threads of PyTorch's."""
        with computing(self.members[0].task), threads(1):
            self._take_steps(thread, batches)

    def _take_steps(self, thread: int, batches: Iterator[tuple[int, Batch]]) -> None:
        """Take a thread's share of the steps for these batches."""
        steps = self._steps[thread]
        for n, batch in batches:
            raise_if_stopped()
            steps[n](batch)

    def epochs_seen(self, start: float) -> list[Epoch]:
        """Return what is known of each member's epoch that began at `start`; seconds are its share of the stack's."""
        validations = self._validations()
        losses, norms = self.epochs.mean_losses(), self.norms.last()
        seconds = (self.clock() - start) / max(1, len(self.living()))
        return [
            Epoch(loss, *validation, member.rate, norm, seconds)
            for loss, validation, member, norm in zip(losses, validations, self.members, norms, strict=True)
        ]

    def _validations(self) -> list[tuple[float, float | None]]:
        """Return each member's loss and score on its validation rows; NaN and None without any."""
        if self._validation is None:
            return [(np.nan, None)] * len(self.members)
        with threads(self._n_threads):
            return self._validation.losses_and_scores()

    def has_diverged(self, i: int, loss: float, is_best: bool) -> bool:
        """Tell whether values of member `i` are no longer finite: parameters, or buffers.

        The loss of the next epoch tells of the parameters; those that score best are not to wait for it.
        """
        first = self.members[i].first.buffers
        if first and not stay_finite(buffers(self.members[i].task), first):
            return True
        if np.isfinite(loss) and not is_best:
            return False
        return not bool(self.layout.member(self.parameters, i).isfinite().all())

    def snapshot(self, i: int) -> Snapshot:
        """Return a copy of member `i`'s parameters and buffers."""
        return Snapshot(self.layout.member(self.parameters, i), buffers(self.members[i].task))

    def values(self, i: int) -> Values:
        """Return what training has made of member `i`."""
        return Values(self.snapshot(i), self.optimizer.labelled_state(i))

    def hand_back(self, i: int) -> None:
        """Write the parameters and the optimizer state back to member `i`."""
        self.members[i].current, self.members[i].optimizer_state = self.values(i)


def _validation_table(task: FitTask, tasks: Sequence[FitTask]) -> Table:
    """Return a task's validation rows; if it has none, none of another task's."""
    if task.validation is not None:
        return task.validation.table
    return next(other.validation.table for other in tasks if other.validation)._replace(rows=np.arange(0))


class _Data:
    """The samples of the tasks: distinct inputs once in a pool, and any members' targets and weights."""

    def __init__(self, task: FitTask, tables: Sequence[Table]) -> None:
        self._device, self._master = task.device, task.precision.master
        self.products = products_of(task, task.settings.batch_size)
        distinct = {id(table.X): table.X for table in tables}
        starts = np.cumsum([0, *(X.shape[0] for X in distinct.values())])
        self._offsets = dict(zip(distinct, starts, strict=False))
        self.pool = make_pool(_concatenate(list(distinct.values())), task.device, self.products)

    def for_validation(self, tasks: Sequence[FitTask]) -> _Data:
        """Return the samples that the tasks validate on: these, if they were held out of them."""
        tables = [task.validation.table for task in tasks if task.validation is not None]
        return self if all(id(table.X) in self._offsets for table in tables) else _Data(tasks[0], tables)

    def rows(self, tables: Sequence[Table]) -> list[np.ndarray]:
        """Return where in the pool the rows of each table lie, `(n_i,)` each."""
        return [table.rows + self._offsets[id(table.X)] for table in tables]

    def target(self, tables: Sequence[Table]) -> Tensor:
        """Return the targets of the rows of all tables, one after another, `(sum of n_i, n_outputs)`."""
        return self._join([table.target[table.rows] for table in tables])

    def weight(self, tables: Sequence[Table]) -> Tensor | None:
        """Return the weights of the rows, `(sum of n_i,)`, or None if no table has any."""
        if all(table.sample_weight is None for table in tables):
            return None
        return self._join([self._weight_of(table) for table in tables])

    def _weight_of(self, table: Table) -> np.ndarray:
        """Return the weights of a table's rows, one each if it has none."""
        if table.sample_weight is None:
            return np.ones(len(table.rows), np.float32)
        return table.sample_weight[table.rows]

    def _join(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Return one tensor on the device; values in the master number type, class indices as they are."""
        joined = torch.from_numpy(_concatenate(arrays))
        return joined.to(self._device, self._master if joined.is_floating_point() else None)


def _concatenate(inputs: Sequence[Any]) -> Any:
    """Return the rows of all inputs, dense or sparse; one input is returned as it is."""
    if len(inputs) == 1:
        return inputs[0]
    return sp.vstack(inputs, format="csr") if sp.issparse(inputs[0]) else np.concatenate(inputs)


class _Scoring:
    """Scores k members on their validation rows, a bounded number of rows at a time.

    Members with fewer rows than others are padded with weight 0; those without any have no score.
    """

    def __init__(self, layout: Layout, parameters: Tensor, data: _Data, tasks: Sequence[FitTask], turns: Turns) -> None:
        task = tasks[0]
        self._objective = task.objective
        own = [_validation_table(task, tasks) for task in tasks]
        self._is_scored = [len(table.rows) > 0 for table in own]
        n = max(len(table.rows) for table in own)
        tables = [t._replace(rows=np.concatenate([t.rows, np.zeros(n - len(t.rows), np.int64)])) for t in own]
        self._target = data.target(tables).view(layout.k, n, -1).mT
        # Scores are summed in float64, which not every device has.
        self._target_of_scores = self._target.cpu()
        self._weight = _padded_weight(data.weight(tables), [len(table.rows) for table in own], n)
        index = torch.from_numpy(np.stack(data.rows(tables))).to(task.device)
        values = row_values(task) + max(input_values(task, table.X) for table in own)
        size = rows_within(_VALIDATION_BYTES, layout.k * values * parameters.itemsize)
        chunks = index.split(size, dim=1)
        self._index = [chunk.contiguous().unsqueeze(0) for chunk in chunks]
        self._sizes = [chunk.shape[1] for chunk in chunks]
        self._raw = parameters.new_empty(layout.k, task.layer_sizes[-1], n)
        self._losses, self._slope = self._raw.new_empty(layout.k, n), torch.empty_like(self._raw)
        self._parameters, self._working = parameters, parameters.to(data.products.dtype)
        self._forward = {n: forward_of(task, layout, self._working, n, data.products, turns) for n in set(self._sizes)}
        self._gather = {n: data.pool.gatherer(layout.k, n, 1) for n in set(self._sizes)}

    def losses_and_scores(self) -> list[tuple[float, float | None]]:
        """Return each member's mean loss, without the penalty, and score; NaN and None without validation rows."""
        copy_if_cast(self._parameters, self._working)
        for index, raw in zip(self._index, self._raw.split(self._sizes, dim=-1), strict=True):
            (inputs,) = self._gather[raw.shape[-1]](index)
            raw.copy_(self._forward[raw.shape[-1]](inputs))
        scores = self._objective.score(self._raw.cpu(), self._target_of_scores, self._weight).tolist()
        # Last, because it overwrites the raw predictions.
        self._objective.loss_and_gradient(self._raw, self._target, self._losses, self._slope)
        losses = average(self._losses.cpu(), self._weight).tolist()
        return [
            (loss, score) if is_scored else (np.nan, None)
            for loss, score, is_scored in zip(losses, scores, self._is_scored, strict=True)
        ]


def _padded_weight(weight: Tensor | None, sizes: Sequence[int], n: int) -> Tensor | None:
    """Return weights `(k, n)`, zero beyond each member's size; None where all rows weigh one."""
    if weight is None and min(sizes) == n:
        return None
    counts = torch.arange(n) < torch.tensor(sizes).unsqueeze(1)
    return counts.double() if weight is None else weight.cpu().view(len(sizes), n) * counts
