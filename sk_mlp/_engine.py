"""From tasks to what computes them: the closed form where there is one, autograd for modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._autograd import Autograd, ModuleForward, buffers_of, module_layout, seeded, values_a_row
from ._backprop import Backprop, DroppedHidden, Forward, Hidden
from ._device import Precision
from ._dropout import Masks, hash_rows
from ._network import Layout
from ._products import Products, products_for
from ._task import FitTask, State


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


def work(task: FitTask, n: int) -> int:
    """Return the multiply-adds of a member's largest product for a batch of `n` rows."""
    if task.module is not None:
        return n * len(task.parameters)
    return n * max(fan_in * fan_out for fan_in, fan_out in pairwise(task.layer_sizes))


def row_values(task: FitTask) -> int:
    """Return about how many values a row's prediction takes."""
    return task.layer_sizes[0] + (sum(task.layer_sizes[1:]) if task.module is None else values_a_row(task.module))


def layout_of(task: FitTask, k: int) -> Layout:
    """Return the layout of k networks like the task's."""
    return Layout.of_layers(task.layer_sizes, k) if task.module is None else module_layout(task.module)


def products_of(task: FitTask, n: int) -> Products:
    """Return the products that take inputs of `n` rows; modules get them in full precision and cast for themselves."""
    precision = task.precision
    dtype = precision.product if task.module is None else precision.master
    return products_for(dtype, task.device, work(task, n))


def backprop_of(
    task: FitTask, layout: Layout, parameters: Tensor, gradient: Tensor, n: int, products: Products
) -> Backprop | Autograd:
    """Return value and gradient of networks like the task's, for batches of `n` rows."""
    if task.module is None:
        hidden = DroppedHidden if any(task.dropout) else Hidden
        return Backprop(layout, parameters, gradient, n, task.activations, task.objective, products, hidden)
    n_outputs, product = task.layer_sizes[-1], task.precision.product
    return Autograd(task.module, layout, parameters, gradient, n_outputs, n, task.objective, product)


def forward_of(
    task: FitTask, layout: Layout, parameters: Tensor, n: int, products: Products
) -> Forward | ModuleForward:
    """Return what predicts `n` rows with `parameters`, which are of the products' number type."""
    if task.module is not None:
        return ModuleForward(task.module, parameters, task.precision.product)
    return Forward(*layout.layers(parameters), n, task.activations, products, task.precision.master)


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
    """Set PyTorch up for the task: closed forms need no record of operations, modules need a seed of their own."""
    if task.module is not None:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            seeded(task.seed + len(task.progress.history.loss), task.device),
        ):
            yield
    else:
        # PyTorch's own optimizers keep state that is to be used outside, too.
        with torch.inference_mode() if isinstance(task.settings.solver, str) else torch.no_grad():
            yield
