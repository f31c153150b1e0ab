"""From tasks to what computes them: the closed form where there is one, autograd for modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sk_mlp._compute.device import Precision, can_replay, has_free_threads
from sk_mlp._compute.kernels import Products, products_for
from sk_mlp._compute.modes import own_modes
from sk_mlp._compute.randomness import Randomness
from sk_mlp._network.autograd import Autograd, ModuleForward, Turns, buffers_of, module_layout, values_a_row
from sk_mlp._network.batch import values_in_a_row
from sk_mlp._network.closed_form import Backprop, DroppedHidden, Forward, Hidden, forward_for
from sk_mlp._network.dropout import Masks, hash_rows
from sk_mlp._network.layout import Layout
from sk_mlp._network.state import State

from .task import FitTask

_SHARD_ROWS = 32  # at least, of a batch
_PASSES = 10  # of a step over the coefs: their gradient, penalty and norm, and Adam's five arrays


class Snapshot(NamedTuple):
    """A network's packed parameters and buffers."""

    parameters: Tensor
    buffers: dict[str, Tensor]

    def state(self, precision: Precision) -> State:
        """Return the same in NumPy."""
        array = precision.array
        return State(
            self.parameters.cpu().numpy().astype(array, copy=False),
            {
                name: value.cpu().numpy().astype(array if value.is_floating_point() else None, copy=False)
                for name, value in self.buffers.items()
            },
        )


def stay_finite(buffers: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> bool:
    """Whether buffers are finite wherever they were at `first`: a mask may hold infinities by design."""
    return all(bool((value.isfinite() | ~first[name].isfinite()).all()) for name, value in buffers.items())


def work(task: FitTask, n: int) -> int:
    """Return the multiply-adds of a member's largest product for a batch of `n` rows.

    Sparse rows multiply what they store. What takes long then is the coefs, each of which has a gradient all the same.
    """
    if task.module is not None:
        return n * len(task.parameters)
    products = [n * fan_in * fan_out for fan_in, fan_out in pairwise(task.layer_sizes)]
    if sp.issparse(task.table.X):
        n_coefs = products[0] // n
        products[0] = max(n * values_in_a_row(task.table.X) * task.layer_sizes[1], _PASSES * n_coefs)
    return max(products)


def input_values(task: FitTask, X: Any) -> int:
    """Return how many values the task's network reads in a row of X; modules know no sparse rows."""
    return values_in_a_row(X) if task.module is None else task.layer_sizes[0]


def row_values(task: FitTask) -> int:
    """Return about how many values a row's prediction takes, besides its input."""
    return sum(task.layer_sizes[1:]) if task.module is None else values_a_row(task.module)


def turns_of(task: FitTask) -> Turns:
    """Return what a network like the task's is to be called in: turns with PyTorch's generators, if it draws."""
    if not task.draws:
        return nullcontext
    return Randomness(task.seed + len(task.progress.history), task.device).turn


def layout_of(task: FitTask, k: int) -> Layout:
    """Return the layout of k networks like the task's."""
    return Layout.of_layers(task.layer_sizes, k) if task.module is None else module_layout(task.module)


def products_of(task: FitTask, n: int) -> Products:
    """Return the products that take inputs of `n` rows; modules get them in full precision and cast for themselves."""
    precision = task.precision
    dtype = precision.product if task.module is None else precision.master
    return products_for(dtype, task.device, work(task, n))


def backprop_of(
    task: FitTask, layout: Layout, parameters: Tensor, gradient: Tensor, n: int, products: Products, turns: Turns
) -> Backprop | Autograd:
    """Return value and gradient of networks like the task's, for batches of `n` rows."""
    if task.module is None:
        hidden = DroppedHidden if any(task.dropout) else Hidden
        return Backprop(layout, parameters, gradient, n, task.activations, task.objective, products, hidden)
    n_outputs, product = task.layer_sizes[-1], task.precision.product
    return Autograd(task.module, layout, parameters, gradient, n_outputs, n, task.objective, product, turns)


def forward_of(
    task: FitTask, layout: Layout, parameters: Tensor, n: int, products: Products, turns: Turns
) -> Forward | ModuleForward:
    """Return what predicts `n` rows with `parameters`, which are of the products' number type."""
    if task.module is not None:
        return ModuleForward(task.module, parameters, task.precision.product, turns)
    return forward_for(*layout.layers(parameters), n, task.activations, products, task.precision.master)


def calls_others(task: FitTask) -> bool:
    """Whether each training step calls what users have written, or a module that may belong to one thread."""
    return task.module is not None or not isinstance(task.settings.solver, str) or not task.objective.is_recordable


def is_recordable(task: FitTask) -> bool:
    """Whether a training step of networks like the task's is the same operations on tensors each time."""
    return not calls_others(task) and not sp.issparse(task.table.X) and can_replay(task.device)


def n_shards(task: FitTask, n_threads: int) -> int:
    """Return how many of the threads that pay share the steps of a network like the task's; 0 where PyTorch's compute.

    A share of few rows would read the coefs as often as one of many; and where more than half of the threads would be
    left without any, PyTorch's are as many as there are processors.
    """
    n = min(n_threads, task.settings.batch_size // _SHARD_ROWS)
    can_share = is_recordable(task) and has_free_threads(task.device)
    return n if can_share and n > 1 and 2 * n >= n_threads else 0


def masks_of(tasks: Sequence[FitTask], products: Products) -> Masks | None:
    """Return the dropout masks of a stack's training rows; None without dropout."""
    task = tasks[0]
    if not any(task.dropout):
        return None
    hashes: dict[int, np.ndarray] = {}
    for own in tasks:
        if id(own.table.X) not in hashes:
            hashes[id(own.table.X)] = hash_rows(own.table.X)
    rows = np.concatenate([hashes[id(own.table.X)][own.table.rows] for own in tasks])
    rates, seeds = np.array([own.dropout for own in tasks]), [own.seed for own in tasks]
    return Masks(task.layer_sizes[1:-1], rates, seeds, rows, products.dtype, task.device)


def buffers(task: FitTask) -> dict[str, Tensor]:
    """Return copies of what the task's network holds besides its parameters."""
    return {} if task.module is None else buffers_of(task.module)


@contextmanager
def computing(task: FitTask) -> Iterator[None]:
    """Set PyTorch up for the task: closed forms need no record of operations, others ask for one where they need it."""
    is_closed = task.module is None and isinstance(task.settings.solver, str)
    # PyTorch's own optimizers keep state that is to be used outside, too.
    with own_modes(), torch.inference_mode() if is_closed else torch.no_grad():
        yield
