"""The tensors of k networks in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sk_mlp._compute.device import has_fused_adam
from sk_mlp._compute.intra_op import threads
from sk_mlp._compute.kernels import Products
from sk_mlp._compute.threads import Crew, raise_if_stopped
from sk_mlp._network.backprop import Backprop
from sk_mlp._network.batch import Batch
from sk_mlp._network.network import Buffers
from sk_mlp._network.values import State, stay_finite

from .data import Data
from .epochs import Batches
from .history import Epoch
from .member import Member, Values
from .optimizers import GradientNorms, optimizer_class
from .step import SharedStep, WholeStep, computing, is_recordable
from .validation import Scoring

# Steps are recorded if at least this many remain; recording takes as long as replaying saves in about fifty steps.
_WORTH_RECORDING = 100

# Minimum number of remaining steps of the other size. A step that is called from Python between replayed steps takes
# three times as long as usual.
_WORTH_RECORDING_TOO = 10


class Stack:
    """The tensors of k members in training."""

    def __init__(self, members: Sequence[Member], data: Data, crew: Crew, n_threads: int) -> None:
        self.members, self._crew, self._n_threads = members, crew, n_threads
        tasks = [member.task for member in members]
        task = tasks[0]
        self.clock = task.clock
        self.layout = task.network.layout(len(members))
        packed = [torch.from_numpy(member.current.parameters).to(task.device) for member in members]
        self.parameters = self.layout.join(packed)
        self._buffers = Buffers(self.layout, self.parameters, torch.zeros_like(self.parameters))
        settings, states = [task.settings for task in tasks], [member.optimizer_state for member in members]
        make_optimizer = optimizer_class(settings, states, has_fused_adam(task.device))
        self.optimizer = make_optimizer(self._buffers, settings, states)
        # If threads share a step: the span of the network's parameters that each thread updates.
        self._spans = self.layout.spans(crew.n_threads) if crew.n_threads > 1 else []
        self.norms = GradientNorms(self._pieces_of_gradient(), [s.max_grad_norm for s in settings])
        self.batches = Batches(
            data.samples(tasks),
            (task.settings.batch_size, task.fewest_rows),
            self.parameters.new_tensor([[s.alpha] for s in settings]),
            n_norms=len(self._spans) or self.layout.n_coef_pieces,
            n_shards=max(1, len(self._spans)),
        )
        shared = {n: self._steps_of_threads(n, data.products) for n in self.batches.n_steps}
        # For each thread, the steps by number of rows.
        self._steps = [dict(zip(shared, steps, strict=True)) for steps in zip(*shared.values(), strict=True)]
        validates = any(task.validation is not None for task in tasks)
        self._validation = Scoring(self._buffers, data.for_validation(tasks), tasks) if validates else None

    def _pieces_of_gradient(self) -> list[Tensor]:
        """Return views `(k, size)` that cover the gradient; if threads share the steps, one view for each thread."""
        gradient = self._buffers.gradient
        return [gradient[span].unsqueeze(0) for span in self._spans] or self.layout.pieces(gradient)

    def _steps_of_threads(self, n: int, products: Products) -> Sequence[Callable[[Batch], None]]:
        """Return, for each thread, its part of the steps for batches of `n` rows."""
        tasks = [member.task for member in self.members]
        task = tasks[0]
        backprop = task.network.value_and_gradient(self._buffers, n, task.objective, products, task.precision)
        n_epochs = 1 if task.one_epoch else max(m.task.settings.max_iter - m.n_iter for m in self.members)
        n_steps = self.batches.n_steps
        records = (
            is_recordable(task)
            and n_epochs * sum(n_steps.values()) >= _WORTH_RECORDING
            and n_epochs * n_steps[n] >= _WORTH_RECORDING_TOO
        )
        if not self._spans:
            return [WholeStep(backprop, self.norms, self.optimizer, records=records)]
        assert isinstance(backprop, Backprop)
        inputs, meet = self.batches.inputs[n], self._crew.meet
        steps = []
        for i, (rows, span) in enumerate(zip(self.batches.shards_of(n), self._spans, strict=True)):
            shard, mover = backprop.shard(rows, span, inputs), self.optimizer.shard(span)
            steps.append(SharedStep(i, shard, self.norms, self.optimizer, mover, meet, records=records))
        return steps

    def running(self) -> dict[int, Member]:
        """Return the members still in training, by their place in the stack."""
        return {i: member for i, member in enumerate(self.members) if member.is_running}

    def begin_epoch(self) -> None:
        """Set the members' rates, and call their listeners."""
        for i, member in enumerate(self.members):
            member.begin_epoch(partial(self.values, i))
        self.optimizer.set_rates([member.rate for member in self.members])

    def run_epoch(self) -> None:
        """Take the steps of the members' next epoch."""
        n_before = [member.n_epochs for member in self.members]
        shards = self.batches.draw([member.next_order() for member in self.members], n_before)
        if self._spans:
            self._crew.carry_out([partial(self._take_steps_on_one_thread, *shard) for shard in enumerate(shards)])
        else:
            self._take_steps(0, *shards)

    def _take_steps_on_one_thread(self, thread: int, batches: Iterator[tuple[int, Batch]]) -> None:
        """Do the same as `_take_steps`, without PyTorch's own threads."""
        with computing(self.members[0].task), threads(1):
            self._take_steps(thread, batches)

    def _take_steps(self, thread: int, batches: Iterator[tuple[int, Batch]]) -> None:
        """Take a thread's part of the steps for these batches."""
        steps = self._steps[thread]
        for n, batch in batches:
            raise_if_stopped()
            steps[n](batch)

    def records_of_epoch(self, start: float) -> list[Epoch]:
        """Return the values of each member's epoch that began at `start`; seconds are its share of the stack's time."""
        validations = self._validations()
        losses, norms = self.batches.mean_losses(), self.norms.last()
        seconds = (self.clock() - start) / max(1, len(self.running()))
        return [
            Epoch(loss, *validation, member.rate, norm, seconds)
            for loss, validation, member, norm in zip(losses, validations, self.members, norms, strict=True)
        ]

    def _validations(self) -> list[tuple[float, float | None]]:
        """Return each member's loss and score on its validation rows; NaN and None without validation rows."""
        if self._validation is None:
            return [(np.nan, None)] * len(self.members)
        with threads(self._n_threads):
            return self._validation.losses_and_scores()

    def has_diverged(self, i: int, loss: float, is_best: bool) -> bool:
        """Whether member `i` has parameters or buffers that are no longer finite.

        Parameters are checked if the loss is not finite or the score is the best. Otherwise the loss of the next epoch
        will show it.
        """
        network, first = self.members[i].task.network, self.members[i].first.buffers
        if first and not network.is_finite() and not stay_finite(network.buffers(), first):
            return True
        if np.isfinite(loss) and not is_best:
            return False
        return not bool(self.layout.member(self.parameters, i).isfinite().all())

    def state(self, i: int) -> State:
        """Return a copy of member `i`'s parameters and buffers."""
        parameters = self.layout.member(self.parameters, i).cpu().numpy()
        return State(parameters, self.members[i].task.network.buffers())

    def values(self, i: int) -> Values:
        """Return the current values of member `i`."""
        return Values(self.state(i), self.optimizer.labelled_state(i))

    def write_back(self, i: int) -> None:
        """Write the parameters and the optimizer state back to member `i`."""
        self.members[i].current, self.members[i].optimizer_state = self.values(i)
