"""`minimise`: full-batch training of one network by SciPy's L-BFGS-B, from a task to a result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import scipy.optimize
import scipy.sparse as sp
import torch
from torch import Tensor

from sk_mlp._compute.device import line_search_dtype
from sk_mlp._compute.intra_op import threads, threads_that_pay
from sk_mlp._network.batch import Batch, Rows, rows_within
from sk_mlp._network.network import Buffers
from sk_mlp._network.values import State, stay_finite

from .data import products_of
from .history import Epoch
from .pool import Pool, make_pool
from .step import computing
from .task import EpochListener, FitResult, FitTask, Status

# Between evaluations, SciPy's own BLAS threads keep processors busy while they wait, and slow down our threads: with
# two threads of each, a fit took 704 ms; with one thread, 223 ms (digits, 64-100-10, 40 iterations, 2 cores). The work
# must be this many times larger before a second thread saves time.
_BUSY_BLAS = 8
_CHUNK_BYTES = 32 * 2**20  # of activations and deltas while evaluating


def minimise(task: FitTask) -> FitResult:
    """Minimize the penalized loss over all training rows.

    Values and gradients are computed in float64 for every precision of the task, because a line search compares losses
    whose difference is below the resolution of float32.
    """
    dtype = line_search_dtype(task.device)
    task = replace(task, precision=task.precision._replace(master=dtype, product=dtype))
    size = _rows_of_a_chunk(task)
    multiply_adds = task.network.multiply_adds(size, task.table.X)
    with computing(task), threads(threads_that_pay(multiply_adds // _BUSY_BLAS)):
        return _Search(task, size).minimise()


def _rows_of_a_chunk(task: FitTask) -> int:
    """Return how many rows to evaluate at once; sparse rows need no memory in addition to the task's own."""
    network = task.network
    inputs = 0 if network.is_pure and sp.issparse(task.table.X) else network.input_values(task.table.X)
    # Values and their deltas.
    row_bytes = 2 * (inputs + network.values_per_row) * task.precision.master.itemsize
    n_rows, size = len(task.table.target), max(2, rows_within(_CHUNK_BYTES, row_bytes))
    while size < n_rows and n_rows % size == 1:
        size += 1  # avoids a chunk of one row, which PyTorch's batch normalization rejects
    return min(n_rows, size)


class _Search:
    """A minimization by L-BFGS-B that evaluates `size` rows at once and keeps the last accepted point."""

    def __init__(self, task: FitTask, size: int) -> None:
        self._task, self._size = task, size
        network = task.network
        network.move_to(task.device, task.precision)
        dtype, layout = task.precision.master, network.layout(1)
        self._x = np.array(task.parameters, dtype=np.float64)
        self._parameters = torch.from_numpy(self._x).to(task.device, dtype, copy=True)
        self._gradient = torch.zeros_like(self._parameters)
        buffers = Buffers(layout, self._parameters, self._gradient)
        self._total_gradient = torch.zeros_like(self._parameters)
        self._started = self._last = task.clock()
        self._rows = len(task.table.target)
        self._starts = range(0, self._rows, self._size)
        products = products_of(task, self._size)
        self._inputs = self._chunks_of(make_pool(task.table.X, task.device, products))
        self._target = torch.from_numpy(task.table.target).to(task.device)
        if self._target.is_floating_point():
            self._target = self._target.to(dtype)
        self._scale, self._decay = self._weigh(dtype)
        self._backprops = {
            n: network.value_and_gradient(buffers, n, task.objective, products, task.precision)
            for n in {min(self._size, self._rows - start) for start in self._starts}
        }
        self._records: list[Epoch] = []
        self._status: Status | None = None  # set if a callback or the time limit ended the search
        self._error: StopIteration | None = None
        self._n_begun = 0
        self._first = network.buffers()

    def minimise(self) -> FitResult:
        """Run SciPy's solver and return the result."""
        settings, found = self._task.settings, None
        with contextlib.suppress(KeyboardInterrupt):
            found = scipy.optimize.minimize(
                self._value_and_gradient,
                self._x,
                method="L-BFGS-B",
                jac=True,
                callback=self._accept,
                options={"maxfun": settings.max_fun, "maxiter": settings.max_iter, "gtol": settings.tol},
            )
        if self._error is not None:
            raise self._error
        if found is None:
            status, message = Status.INTERRUPTED, Status.INTERRUPTED.message(settings)
            n_iter, loss = len(self._records), self._records[-1].loss if self._records else np.nan
        else:
            self._x, loss = found.x, float(found.fun)
            n_iter = min(found.nit, settings.max_iter)
            status = Status.LBFGS_DONE if found.status == 0 else Status.LBFGS_STOPPED
            message = status.message(settings) if found.status == 0 else _explain(found, n_iter, settings.max_iter)
        if self._status is not None:
            status, message = self._status, self._status.message(settings)
        self._print(is_last=True)
        return self._result(status, message, n_iter, loss)

    def _so_far(self) -> FitResult:
        """Return the current result of a running search."""
        return self._result(None, "", len(self._records), self._records[-1].loss if self._records else np.nan)

    def _result(self, status: Status | None, message: str, n_iter: int, loss: float) -> FitResult:
        """Return the result of the task, with the last accepted point and the history of all iterations."""
        history = self._task.progress.history.extended(self._records)
        best_loss = float(history.loss.min()) if len(history) else loss
        progress = self._task.progress._replace(history=history, best_loss=best_loss, no_improvement=0)
        state = State(self._x.copy(), self._task.network.buffers()).as_dtype(self._task.precision.array)
        is_finite = state.is_finite and stay_finite(state.buffers, self._first)
        return FitResult(state, is_finite, status, message, n_iter, loss, progress, {})

    def _print(self, *, is_last: bool = False) -> None:
        """Print the last iteration, as `verbose` demands."""
        if self._records and self._task.settings.verbose:
            verbose, seconds = self._task.settings.verbose, self._last - self._started
            for line in self._records[-1].lines(verbose, len(self._records), seconds, is_last=is_last):
                self._task.emit(line)

    def _accept(self, intermediate_result: scipy.optimize.OptimizeResult) -> None:
        """Record an iteration, and end the search if the time limit has passed or a callback stops it."""
        settings, listener = self._task.settings, self._task.listener
        self._x = intermediate_result.x.copy()
        loss, norm = float(intermediate_result.fun), float(self._total_gradient.norm())
        now = self._task.clock()
        self._records.append(Epoch(loss, gradient_norm=norm, seconds=now - self._last))
        self._last = now
        self._print()
        if listener is not None and self._told_of_end(listener):
            self._status = Status.STOPPED
        elif settings.max_time is not None and now - self._started > settings.max_time:
            self._status = Status.MAX_TIME
        if self._status is not None or self._error is not None:
            raise StopIteration

    def _told_of_end(self, listener: EpochListener) -> bool:
        """Whether the listener ends the search; its own StopIteration must not look like SciPy's signal to stop."""
        try:
            return listener.end_epoch(self._so_far)
        except StopIteration as error:
            self._error = error
            return False

    def _value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the penalized mean loss and its gradient, both float64, summed over chunks of rows."""
        if self._task.listener is not None and self._n_begun == len(self._records):
            self._task.listener.begin_epoch(self._so_far)  # the first evaluation of an iteration
            self._n_begun += 1
        self._parameters.copy_(torch.from_numpy(x))
        self._total_gradient.zero_()
        value = 0.0
        for start in self._starts:
            batch = self._batch(start)
            self._backprops[batch.losses.shape[1]].value_and_gradient(batch)
            self._total_gradient.add_(self._gradient)
            value += float((batch.losses * batch.scale[0]).sum() + 0.5 * batch.decay * batch.norms[0].square())
        # A copy, because SciPy still uses the last gradient when it asks for the next one.
        return value, self._total_gradient.to("cpu", torch.float64, copy=True).numpy()

    def _batch(self, start: int) -> Batch:
        """Return a chunk of rows as a batch; only the first chunk has the penalty."""
        stop = min(start + self._size, self._rows)
        return Batch(
            self._inputs(start),
            self._target[start:stop].T.unsqueeze(0),
            self._scale[..., start:stop],
            self._decay if start == 0 else torch.zeros_like(self._decay),
            self._parameters.new_empty(1, stop - start),
            [self._parameters.new_zeros(1)],
        )

    def _chunks_of(self, pool: Pool) -> Callable[[int], Rows]:
        """Return a function from `start` to a chunk of rows; chunks are cached if this takes little memory."""
        chunk = lambda start: pool.slice(start, min(start + self._size, self._rows))  # noqa: E731
        return cache(chunk) if sp.issparse(self._task.table.X) or len(self._starts) == 1 else chunk

    def _weigh(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the factor of each row's loss `(1, 1, n)` and the factor of the penalty `(1, 1)`."""
        task, weight = self._task, self._task.table.sample_weight
        weight = np.ones(self._rows) if weight is None else weight.astype(np.float64)
        total = weight.sum()
        scale = torch.from_numpy(weight / total).to(task.device, dtype).view(1, 1, -1)
        return scale, scale.new_full((1, 1), task.settings.alpha / total)


def _explain(found: scipy.optimize.OptimizeResult, n_iter: int, max_iter: int) -> str:
    """Return the text of the warning, whose main parts have the same words as in scikit-learn."""
    lines = [f"lbfgs failed to converge after {n_iter} iteration(s) (status={found.status}):", str(found.message)]
    if n_iter == max_iter:
        lines.append(f"Increase the number of iterations to improve the convergence (max_iter={max_iter}).")
    return "\n".join([*lines, "Scaling the data, with StandardScaler for example, often helps too."])
