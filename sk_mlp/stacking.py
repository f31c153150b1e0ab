"""The joblib backend "sk_mlp", under which the fits of a search train as stacks.

Each call of a `joblib.Parallel` runs until a fit is about to train, and waits there. When all calls wait, trainings
with the same `stack_key` run as one stack; then each call continues. Calls that fit no estimator of this package run
one after another.
"""

from __future__ import annotations

import copy
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, ClassVar
from weakref import ref

import joblib
import numpy as np
import scipy.sparse as sp
from joblib.parallel import ParallelBackendBase

from sk_mlp._compute.device import has_free_threads, stack_bytes
from sk_mlp._compute.intra_op import available_threads, threads
from sk_mlp._compute.machine import free_memory
from sk_mlp._compute.modes import Surroundings
from sk_mlp._compute.threads import in_threads
from sk_mlp._training.loop import train
from sk_mlp._training.run import gathering, member_bytes, run_alone, stack_key
from sk_mlp._training.step import runs_user_code
from sk_mlp._training.task import FitResult, FitTask, Status

from ._ambient import Ambient
from ._hub import Call, Hub, Worker, current_worker

_MOST_MEMBERS = 1024  # maximum number of waiting fits
_MOST_IN_A_STACK = 32  # maximum number of members in the stack of one thread; more would not be faster
_FEW_STACKS = 4  # a group that would fit one stack is split into up to this many, one for each thread
_BUDGET = 2**30  # bytes that waiting fits may hold,
_FREE_SHARE = 1 / 8  # or this fraction of the free memory, if that is less
# The input of a waiting fit is in memory three times: as its caller sliced it and as a Pipeline transformed it, both in
# float64, and in our dtype. In units of a float32 input this makes five.
_COPIES_OF_INPUT = 5


class _Gathering:
    """The call of one worker; its fits wait for the fits of other workers."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def is_here(self) -> bool:
        """Whether the running code belongs to the worker, and not to a thread that the worker has started."""
        return current_worker() is self._worker

    def run(self, task: FitTask) -> FitResult:
        """Carry out a task together with other tasks, and return its result."""
        lines: list[str] = []
        quiet = replace(task, emit=lines.append)
        try:
            result = run_alone(quiet) if task.settings.solver == "lbfgs" else self._worker.park(quiet)
        finally:
            # All lines at once: mixed lines of a hundred members would be unreadable.
            for line in lines:
                task.emit(line)
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return result

    def surroundings(self) -> Surroundings:
        """Return the environment that the code of the call may have set."""
        return Ambient.now()

    def held(self, X: Any, given: Any) -> Any:
        """Return X in memory that cannot change while the fit waits for others; see `_held`."""
        return _held(X, given)

    def held_as_given(self, values: Any) -> Any:
        """Return the caller's values, in their original form, in memory that cannot change while the fit waits."""
        return _held_as_given(values)


def _gathered(function: Callable[[], Any]) -> Any:
    """Call a function in a worker and gather its fits."""
    worker = current_worker()
    assert worker is not None
    gathering.set(_Gathering(worker))  # in the worker's own context
    return function()


def _held(X: Any, given: Any) -> Any:
    """Return X in memory that cannot change while the fit waits: the caller may change the `given` arrays.

    If another waiting fit holds an equal input, return that one: many candidates use the same fold. Otherwise return a
    copy, or X itself if it shares no memory with `given`.
    """
    parts = _parts(X)
    key = (X.shape, *((part.dtype, zlib.crc32(part.data)) for part in parts))
    reference = _inputs.get(key)
    known = None if reference is None else reference()
    if known is None or not all(map(np.array_equal, parts, _parts(known))):
        known = X.copy() if _may_share_memory(X, given) else X
        for gone in [key for key, reference in list(_inputs.items()) if reference() is None]:
            _inputs.pop(gone, None)  # another thread may have removed it
        _inputs[key] = ref(known)
    return known


def _held_as_given(values: Any) -> Any:
    """Return the caller's values, in their original form, in memory that cannot change; see `_held`."""
    if values is None:
        return values
    if type(values) is np.ndarray and values.dtype.kind in "biuf":
        return _held(np.ascontiguousarray(values), values)
    return copy.deepcopy(values)


def _parts(X: Any) -> list[np.ndarray]:
    """Return the arrays that hold X, dense or CSR."""
    return [X.data, X.indices, X.indptr] if sp.issparse(X) else [X]


def _may_share_memory(X: Any, given: Any) -> bool:
    """Whether a change of `given` may change X."""
    if isinstance(given, np.ndarray):
        return np.may_share_memory(X, given)
    if sp.issparse(given) and given.format == "csr":
        return any(map(np.may_share_memory, _parts(X), _parts(given)))
    return not isinstance(given, list)


# Inputs of waiting fits, by shape and checksum. An entry becomes free when the last fit has released the input. This is
# no WeakValueDictionary, because Python ignores an interrupt that comes while the callbacks of such a dictionary run.
_inputs: dict[Hashable, ref[Any]] = {}


class _Session:
    """One running `Parallel`, and the worker that started it, if it was started within a call."""

    def __init__(self, hub: Hub, worker: Worker | None) -> None:
        self.hub, self.worker = hub, worker

    def cancel(self) -> None:
        """Cancel all its calls."""
        self.hub.cancel(self)


class _OfThread(threading.local):
    """The state of a backend in one thread.

    A scorer, a callback or a generator of tasks may start a `Parallel` while another one is running. They end in the
    reverse order of their start.
    """

    def __init__(self) -> None:
        self.n_jobs = _MOST_MEMBERS
        self.sessions: list[_Session] = []


class StackingBackend(ParallelBackendBase):
    """Run the calls of `joblib.Parallel` in the caller's thread, and their trainings as stacks.

    `joblib.parallel_config("sk_mlp")` activates it, for scikit-learn's searches and meta-estimators and for
    `joblib.Parallel` itself. `n_jobs` is the maximum number of trainings that wait for each other; with -1, the
    default, the memory sets the maximum.
    """

    # False: joblib then asks for results in the caller's thread, where stacks train.
    supports_retrieve_callback: ClassVar[bool] = False
    supports_sharedmem: ClassVar[bool] = True
    uses_threads: ClassVar[bool] = True
    default_n_jobs: ClassVar[int] = -1

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._own = _OfThread()  # one configuration may serve several threads

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many trainings may wait for each other; joblib calls this before it starts a `Parallel`."""
        if n_jobs == 0:
            raise ValueError("n_jobs must not be 0 for the backend 'sk_mlp', got 0")
        self._own.n_jobs = n_jobs if n_jobs is not None and n_jobs > 0 else _MOST_MEMBERS
        return self._own.n_jobs

    def configure(self, n_jobs: int | None = -1, parallel: Any = None, **_: Any) -> int:
        """Prepare for one `Parallel`; return how many trainings may wait for each other."""
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def start_call(self) -> None:
        """Begin a `Parallel`: use the hub of the calls that run in this thread, or make the first one."""
        worker = current_worker()
        budget = int(min(_BUDGET, _FREE_SHARE * free_memory()))
        hub = worker.hub if worker else Hub(_train_stacks, _weigh, self._own.n_jobs, budget)
        self._own.sessions.append(_Session(hub, worker))

    def stop_call(self) -> None:
        """Forget the `Parallel` that was started last."""
        self._own.sessions.pop()

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None) -> Call:
        """Add a call to the queue."""
        session = self._own.sessions[-1]
        call = Call(partial(_gathered, func), callback or (lambda _: None), session, self.nesting_level, session.worker)
        session.hub.submit(call)
        return call

    def retrieve_result(self, out: Call, timeout: float | None = None) -> Any:
        """Return the result of a call when it has ended; other calls run in the meantime."""
        self._own.sessions[-1].hub.wait_for(out)
        return _without(out.seconds_away, out.result())

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel all calls of the `Parallel` that was started last."""
        if self._own.sessions:
            self._own.sessions[-1].cancel()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        """Return the backend of nested calls: the same one, one level deeper."""
        return StackingBackend(nesting_level=self.nesting_level + 1), None


def register() -> None:
    """Register the backend with joblib."""
    joblib.register_parallel_backend("sk_mlp", StackingBackend)


def _train_stacks(tasks: Sequence[FitTask]) -> list[tuple[FitResult | Exception, float]]:
    """Train tasks as stacks, in threads; return for each its result, or the error of its stack, and its seconds."""
    tasks = _with_own_generators(tasks)
    stacks = _stacks(tasks)
    apart = [members for members in stacks if _trains_in_a_thread(tasks[members[0]])]
    outcomes: dict[int, tuple[FitResult | Exception, float]] = {}
    n_threads = min(len(apart), available_threads())
    if n_threads > 1:
        jobs = [partial(_train_on_one_thread, [tasks[i] for i in members]) for members in apart]
        for members, found in zip(apart, in_threads(jobs, n_threads), strict=True):
            outcomes |= zip(members, found, strict=True)
    for members in stacks:
        if members[0] not in outcomes:
            outcomes |= zip(members, _train_stack([tasks[i] for i in members]), strict=True)
    return [outcomes[i] for i in range(len(tasks))]


def _with_own_generators(tasks: Sequence[FitTask]) -> list[FitTask]:
    """Return the tasks; those that share a generator get one generator each, which the shared one seeds in task order.

    Threads would draw from a shared generator in an order that changes from run to run.
    """
    uses = Counter(id(task.rng) for task in tasks if task.rng is not None)
    return [
        task if task.rng is None or uses[id(task.rng)] == 1
        else replace(task, rng=np.random.RandomState(task.rng.randint(2**31)))
        for task in tasks
    ]  # fmt: skip


def _trains_in_a_thread(task: FitTask) -> bool:
    """Whether the task may train in a separate thread."""
    return has_free_threads(task.device) and not runs_user_code(task)


def _train_on_one_thread(tasks: Sequence[FitTask]) -> list[tuple[FitResult | Exception, float]]:
    """Do the same as `_train_stack`, without PyTorch's own threads."""
    with threads(1):
        return _train_stack(tasks)


def _train_stack(tasks: Sequence[FitTask]) -> list[tuple[FitResult | Exception, float]]:
    """Train tasks as one stack; return for each its result, or the error of the stack, and its share of the seconds.

    Raises KeyboardInterrupt if the training was interrupted.
    """
    start = perf_counter()
    try:
        found = train(tasks)
    except Exception as error:
        return [(error, (perf_counter() - start) / len(tasks))] * len(tasks)
    if any(isinstance(one, FitResult) and one.status is Status.INTERRUPTED for one in found):
        raise KeyboardInterrupt
    epochs = [one.n_iter if isinstance(one, FitResult) else 0 for one in found]
    seconds_an_epoch = (perf_counter() - start) / max(1, sum(epochs))
    return [(one, n * seconds_an_epoch) for one, n in zip(found, epochs, strict=True)]


def _stacks(tasks: Sequence[FitTask]) -> list[list[int]]:
    """Return stacks, as lists of indices, of tasks that can train together and fit the cache of a processor.

    The number of stacks depends only on the tasks, so that results are the same for any number of processors.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, task in enumerate(tasks):
        groups.setdefault(stack_key(task), []).append(i)
    stacks = []
    for group in groups.values():
        parts = np.array_split(group, _n_stacks(tasks[group[0]], len(group)))
        stacks += [part.tolist() for part in parts]
    return stacks


def _n_stacks(task: FitTask, n: int) -> int:
    """Return the number of stacks for `n` tasks like this one."""
    most_bytes = stack_bytes(task.device)
    most = max(1, most_bytes // member_bytes(task))
    if not _trains_in_a_thread(task):
        return -(-n // most)
    n_stacks = -(-n // min(_MOST_IN_A_STACK, most))
    # More stacks if each is still large enough for a thread, and an even number: many machines have two or four
    # processors.
    worth_a_thread = n * member_bytes(task) // (most_bytes // _FEW_STACKS)
    n_stacks = max(n_stacks, min(n, _FEW_STACKS, worth_a_thread))
    return n_stacks + n_stacks % 2 if 1 < n_stacks < n else n_stacks


def _weigh(task: FitTask) -> int:
    """Return about how many bytes a waiting fit holds and its training needs."""
    tables = [task.table] if task.validation is None else [task.table, task.validation.table]
    inputs = {id(table.X): table.X for table in tables}.values()
    n_bytes = sum(X.data.nbytes + X.indices.nbytes if sp.issparse(X) else X.nbytes for X in inputs)
    return _COPIES_OF_INPUT * n_bytes + member_bytes(task)


def _without(seconds: float, result: Any) -> Any:
    """Subtract the seconds in which a call did not run from the `fit_time` of scikit-learn's cross-validation."""
    for report in result if isinstance(result, list) else []:
        if isinstance(report, dict) and isinstance(report.get("fit_time"), float):
            report["fit_time"] = max(0.0, report["fit_time"] - seconds)
    return result
