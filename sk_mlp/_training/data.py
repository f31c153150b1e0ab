"""The samples of several tasks: inputs in one common pool, targets and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sk_mlp._compute.kernels import Products, products_for
from sk_mlp._network.dropout import Masks, hash_rows

from .pool import Pool, make_pool
from .task import FitTask, Table


class Samples(NamedTuple):
    """The training rows of the members of a stack. "Concatenated" means one member's rows after another's."""

    pool: Pool
    rows: Sequence[np.ndarray]  # indices into the pool for each member, (n_i,)
    target: Tensor  # concatenated, (sum of n_i, n_outputs)
    sample_weight: Tensor | None  # concatenated, (sum of n_i,)
    masks: Masks | None  # for the concatenated rows; None without dropout


class Data:
    """The samples of the tasks: each distinct input once in a pool, and targets and weights of given tables."""

    def __init__(self, task: FitTask, tables: Sequence[Table]) -> None:
        self._device, self._master = task.device, task.precision.master
        self.products = products_of(task, task.settings.batch_size)
        distinct = {id(table.X): table.X for table in tables}
        starts = np.cumsum([0, *(X.shape[0] for X in distinct.values())])
        self._offsets = dict(zip(distinct, starts, strict=False))
        self.pool = make_pool(_concatenate(list(distinct.values())), task.device, self.products)

    def for_validation(self, tasks: Sequence[FitTask]) -> Data:
        """Return the samples that the tasks validate on; `self` if these were held out from the training rows."""
        tables = [task.validation.table for task in tasks if task.validation is not None]
        return self if all(id(table.X) in self._offsets for table in tables) else Data(tasks[0], tables)

    def samples(self, tasks: Sequence[FitTask]) -> Samples:
        """Return the samples that the tasks train on."""
        tables = [task.table for task in tasks]
        masks = _masks_of(tasks, self.products.dtype)
        return Samples(self.pool, self.rows(tables), self.target(tables), self.weight(tables), masks)

    def rows(self, tables: Sequence[Table]) -> list[np.ndarray]:
        """Return the indices into the pool of the rows of each table, `(n_i,)` each."""
        return [table.rows + self._offsets[id(table.X)] for table in tables]

    def target(self, tables: Sequence[Table]) -> Tensor:
        """Return the targets of the rows of all tables, concatenated, `(sum of n_i, n_outputs)`."""
        return self._join([table.target[table.rows] for table in tables])

    def weight(self, tables: Sequence[Table]) -> Tensor | None:
        """Return the weights of the rows of all tables, concatenated, `(sum of n_i,)`; None if no table has weights."""
        if all(table.sample_weight is None for table in tables):
            return None
        return self._join([self._weight_of(table) for table in tables])

    def _weight_of(self, table: Table) -> np.ndarray:
        """Return the weights of a table's rows; all 1 if it has none."""
        if table.sample_weight is None:
            return np.ones(len(table.rows), np.float32)
        return table.sample_weight[table.rows]

    def _join(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Return one tensor on the device, values in the master dtype; class indices are not cast."""
        joined = torch.from_numpy(_concatenate(arrays))
        return joined.to(self._device, self._master if joined.is_floating_point() else None)


def _concatenate(inputs: Sequence[Any]) -> Any:
    """Return the rows of all inputs, dense or sparse; a single input is returned itself."""
    if len(inputs) == 1:
        return inputs[0]
    return sp.vstack(inputs, format="csr") if sp.issparse(inputs[0]) else np.concatenate(inputs)


def products_of(task: FitTask, n: int) -> Products:
    """Return the matrix products for inputs of `n` rows."""
    network = task.network
    return products_for(network.product_dtype(task.precision), task.device, network.multiply_adds(n, task.table.X))


def _masks_of(tasks: Sequence[FitTask], dtype: torch.dtype) -> Masks | None:
    """Return the dropout masks of a stack's training rows; None without dropout."""
    task = tasks[0]
    if not any(task.network.dropout):
        return None
    hashes: dict[int, np.ndarray] = {}
    for own in tasks:
        if id(own.table.X) not in hashes:
            hashes[id(own.table.X)] = hash_rows(own.table.X)
    rows = np.concatenate([hashes[id(own.table.X)][own.table.rows] for own in tasks])
    rates, seeds = np.array([own.network.dropout for own in tasks]), [own.seed for own in tasks]
    return Masks(task.network.widths, rates, seeds, rows, dtype, task.device)
