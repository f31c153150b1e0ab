"""The joblib backend "sk_mlp": fits that run side by side train as stacks.

Each call of a `joblib.Parallel` runs until a fit reaches its training, and waits there; when all have come so far,
trainings that agree in their `stack_key` run as one stack, and every call goes on by itself. Calls that fit nothing of
ours just run one after another.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import joblib
import numpy as np
import scipy.sparse as sp
from joblib.parallel import ParallelBackendBase

from ._device import stack_bytes
from ._hub import Call, Hub, current_worker
from ._lbfgs import minimise
from ._task import FitResult, FitTask, Status
from ._training import member_bytes, stack_key, train

_MOST_MEMBERS = 1024
_BUDGET = 2**30  # bytes that waiting fits may hold,
_FREE_SHARE = 1 / 8  # or this share of the memory at hand, if that is less
_USUAL_MEMORY = 2**33  # where the system does not tell
# A waiting fit's input lies in memory as its caller sliced it, as a Pipeline transformed it, both float64, and as ours.
_COPIES_OF_INPUT = 5


def run(task: FitTask) -> FitResult:
    """Carry out one task, together with others where calls run side by side, and return what came of it."""
    worker = current_worker()
    if worker is None:
        return _run_alone(task)
    lines: list[str] = []
    quiet = replace(task, say=lines.append)
    try:
        result = _run_alone(quiet) if task.settings.solver == "lbfgs" else worker.park(quiet)
    finally:
        # All at once: lines of a hundred members by turns would tell nothing.
        for line in lines:
            task.say(line)
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return result


def _run_alone(task: FitTask) -> FitResult:
    if task.settings.solver == "lbfgs":
        return minimise(task)
    (outcome,) = train([task])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def shared(X: Any) -> Any:
    """Return X, or an equal input that a neighbour in waiting already holds: many candidates see the same fold."""
    if current_worker() is None:
        return X
    parts = [X.data, X.indices, X.indptr] if sp.issparse(X) else [X]
    key = (X.shape, *((part.dtype, zlib.crc32(part)) for part in parts))
    known = _inputs.setdefault(key, X)
    others = [known.data, known.indices, known.indptr] if sp.issparse(known) else [known]
    return known if all(map(np.array_equal, parts, others)) else X


# Inputs of fits in waiting, by shape and checksum; each goes when the last fit has let go of it.
_inputs: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()


class StackingBackend(ParallelBackendBase):
    """Run the calls of `joblib.Parallel` in the caller's thread, and their trainings as stacks.

    `joblib.parallel_config("sk_mlp")` puts it in force, for scikit-learn's searches and meta-estimators and for
    `joblib.Parallel` itself. `n_jobs` bounds how many trainings wait for each other; -1, the default, leaves the bound
    to memory.
    """

    supports_retrieve_callback: ClassVar[bool] = False  # joblib then asks in the caller's thread, where stacks train
    supports_sharedmem: ClassVar[bool] = True
    uses_threads: ClassVar[bool] = True
    default_n_jobs: ClassVar[int] = -1

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._current = threading.local()  # one configuration may serve several threads

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many trainings may wait for each other."""
        if n_jobs == 0:
            raise ValueError("n_jobs must not be 0 for the backend 'sk_mlp', got 0")
        return n_jobs if n_jobs is not None and n_jobs > 0 else _MOST_MEMBERS

    def configure(self, n_jobs: int | None = -1, parallel: Any = None, **_: Any) -> int:
        """Prepare for one `Parallel`; return how many trainings may wait for each other."""
        self.parallel = parallel
        self._current.n_jobs = self.effective_n_jobs(n_jobs)
        return self._current.n_jobs

    def start_call(self) -> None:
        """Join the calls that are taking turns in this thread, or be the first."""
        worker = self._current.worker = current_worker()
        budget = int(min(_BUDGET, _FREE_SHARE * _free_memory()))
        self._current.hub = worker.hub if worker else Hub(_train_stacks, _weigh, self._current.n_jobs, budget)

    def stop_call(self) -> None:
        """Let go of what the calls have left."""
        del self._current.hub, self._current.worker

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None) -> Call:
        """Put a call in line."""
        call = Call(func, callback or (lambda _: None), self, self.nesting_level, self._current.worker)
        self._current.hub.submit(call)
        return call

    def retrieve_result(self, out: Call, timeout: float | None = None) -> Any:
        """Return a call's result when it is there; others have their turn until then."""
        self._current.hub.wait_for(out)
        return _without(out.seconds_away, out.result())

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel all calls of this `Parallel`."""
        self._current.hub.cancel(self)

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """Return what serves calls within calls: the same, one level deeper."""
        return StackingBackend(nesting_level=self.nesting_level + 1), None


def register() -> None:
    """Tell joblib about the backend."""
    joblib.register_parallel_backend("sk_mlp", StackingBackend)


def _train_stacks(tasks: Sequence[FitTask]) -> list[tuple[FitResult | Exception, float]]:
    """Train tasks as stacks; return each one's result, or what its stack failed with, and its share of the seconds."""
    outcomes: dict[int, tuple[FitResult | Exception, float]] = {}
    for members in _stacks(tasks):
        start = perf_counter()
        try:
            found = train([tasks[i] for i in members])
        except Exception as error:
            outcomes |= dict.fromkeys(members, (error, (perf_counter() - start) / len(members)))
            continue
        if any(isinstance(one, FitResult) and one.status is Status.INTERRUPTED for one in found):
            raise KeyboardInterrupt
        epochs = [one.n_iter if isinstance(one, FitResult) else 0 for one in found]
        seconds_an_epoch = (perf_counter() - start) / max(1, sum(epochs))
        outcomes |= {i: (one, n * seconds_an_epoch) for i, one, n in zip(members, found, epochs, strict=True)}
    return [outcomes[i] for i in range(len(tasks))]


def _stacks(tasks: Sequence[FitTask]) -> list[list[int]]:
    """Group tasks, by index, that can train together, into stacks that fit the processor's cache."""
    groups: dict[Hashable, list[int]] = {}
    for i, task in enumerate(tasks):
        groups.setdefault(stack_key(task), []).append(i)
    stacks = []
    for group in groups.values():
        task = tasks[group[0]]
        most = max(1, stack_bytes(task.device) // member_bytes(task))
        n_stacks = -(-len(group) // most)
        stacks += [part.tolist() for part in np.array_split(group, n_stacks)]
    return stacks


def _weigh(task: FitTask) -> int:
    """Return roughly how many bytes a fit in waiting holds, and needs when it trains."""
    tables = [task.table] if task.validation is None else [task.table, task.validation.table]
    inputs = {id(table.X): table.X for table in tables}.values()
    n_bytes = sum(X.data.nbytes + X.indices.nbytes if sp.issparse(X) else X.nbytes for X in inputs)
    return _COPIES_OF_INPUT * n_bytes + member_bytes(task)


def _without(seconds: float, result: Any) -> Any:
    """Take the time that a call was away out of the `fit_time` that scikit-learn's cross-validation reports."""
    for report in result if isinstance(result, list) else []:
        if isinstance(report, dict) and isinstance(report.get("fit_time"), float):
            report["fit_time"] = max(0.0, report["fit_time"] - seconds)
    return result


def _free_memory() -> int:
    """Return the bytes of memory at hand."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    return available[0] if available else _USUAL_MEMORY
