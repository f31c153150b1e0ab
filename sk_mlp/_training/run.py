"""Who trains a task, and which tasks train together."""

from __future__ import annotations

from collections.abc import Hashable

import scipy.sparse as sp

from .engine import input_values
from .epochs import n_batches
from .task import FitTask


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
