"""Losses and scores of the members on their validation rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sk_mlp._network.batch import copy_if_cast, rows_within
from sk_mlp._network.network import Buffers
from sk_mlp._objective import average

from .data import Data
from .task import FitTask, Table

_VALIDATION_BYTES = 16 * 2**20  # of activations while scoring


def _validation_table(task: FitTask, tasks: Sequence[FitTask]) -> Table:
    """Return the validation rows of a task; if it has none, zero rows of another task's table."""
    if task.validation is not None:
        return task.validation.table
    return next(other.validation.table for other in tasks if other.validation)._replace(rows=np.arange(0))


class Scoring:
    """Computes losses and scores of k members on their validation rows, for a limited number of rows at a time.

    Members with fewer rows than others are padded with rows of weight 0; members without rows have no score.
    """

    def __init__(self, buffers: Buffers, data: Data, tasks: Sequence[FitTask]) -> None:
        layout, parameters, _ = buffers
        task = tasks[0]
        self._objective = task.objective
        own = [_validation_table(task, tasks) for task in tasks]
        self._is_scored = [len(table.rows) > 0 for table in own]
        n = max(len(table.rows) for table in own)
        tables = [t._replace(rows=np.concatenate([t.rows, np.zeros(n - len(t.rows), np.int64)])) for t in own]
        self._target = data.target(tables).view(layout.k, n, -1).mT
        # On the CPU, because scores are summed in float64, which some devices lack.
        self._target_of_scores = self._target.cpu()
        self._weight = _padded_weight(data.weight(tables), [len(table.rows) for table in own], n)
        index = torch.from_numpy(np.stack(data.rows(tables))).to(task.device)
        values = task.network.values_per_row + max(task.network.input_values(table.X) for table in own)
        size = rows_within(_VALIDATION_BYTES, layout.k * values * parameters.itemsize)
        chunks = index.split(size, dim=1)
        self._index = [chunk.contiguous().unsqueeze(0) for chunk in chunks]
        self._sizes = [chunk.shape[1] for chunk in chunks]
        self._raw = parameters.new_empty(layout.k, task.network.n_outputs, n)
        self._losses, self._slope = self._raw.new_empty(layout.k, n), torch.empty_like(self._raw)
        self._parameters, self._working = parameters, parameters.to(data.products.dtype)
        views = layout.parameters(self._working)
        self._forward = {n: task.network.forward(views, n, data.products, task.precision) for n in set(self._sizes)}
        self._gather = {n: data.pool.gatherer(layout.k, n, 1) for n in set(self._sizes)}

    def losses_and_scores(self) -> list[tuple[float, float | None]]:
        """Return each member's mean loss (without the penalty) and score; NaN and None without validation rows."""
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
    """Return weights `(k, n)`, zero beyond each member's size; None if all rows have weight 1."""
    if weight is None and min(sizes) == n:
        return None
    counts = torch.arange(n) < torch.tensor(sizes).unsqueeze(1)
    return counts.double() if weight is None else weight.cpu().view(len(sizes), n) * counts
