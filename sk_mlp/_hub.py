"""Calls that run alternately in one thread, so that their requests are carried out together.

A call runs until it makes a request. It is then parked: it waits, and another call runs. When every call is parked,
waiting or done, all parked requests are carried out together, and each call continues with the outcome of its own
request. Calls run as greenlets of the thread that waits for them. A call may wait for nested calls; their requests are
then carried out together with the others.
"""

from __future__ import annotations

import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from time import perf_counter
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from ._ambient import Ambient


class Call:
    """A function to be called, and its value or error.

    `owner` may cancel the call. Calls of greater `depth` start first. `on_end` is called when the call has ended.
    `submitter` is the worker that submitted the call, if the call is nested.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        on_end: Callable[[Call], object],
        owner: object,
        depth: int,
        submitter: Worker | None,
    ) -> None:
        self.function, self.on_end, self.owner, self.depth, self.submitter = function, on_end, owner, depth, submitter
        self.ambient, self.context = Ambient.now(), contextvars.copy_context()
        self.is_done = False
        self.seconds_away = 0.0  # time between start and end in which other calls ran
        self._value: Any = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Call the function and keep its value or error; an error that is no `Exception` is not caught."""
        try:
            self._value = self.function()
        except Exception as error:
            self._error = error
        self.is_done = True

    def result(self) -> Any:
        """Return the function's value, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._value


class Worker(greenlet):
    """A running call."""

    def __init__(self, call: Call, hub: Hub) -> None:
        super().__init__(parent=hub.root)
        self.call, self.hub, self.ambient, self.gr_context = call, hub, call.ambient, call.context
        self.is_cancelled = False
        self.started, self.busy = perf_counter(), 0.0

    def run(self, _: None) -> None:
        self.call.run()

    def park(self, request: Any) -> Any:
        """Return the outcome of `request` when it has been carried out together with others; called in the worker."""
        return self.hub.park(self, request)


class Hub:
    """Runs the calls of one thread alternately.

    `carry_out` takes all parked requests. For each it returns an outcome and the seconds that it took; the outcome is a
    value, or an exception that is then raised in the call. No call is started while `most` requests are parked, or
    while the parked requests together `weigh` more than `budget`.
    """

    def __init__(
        self,
        carry_out: Callable[[Sequence[Any]], Sequence[tuple[Any, float]]],
        weigh: Callable[[Any], int],
        most: int,
        budget: int,
    ) -> None:
        self.root = getcurrent()
        self._carry_out, self._weigh, self._most, self._budget = carry_out, weigh, most, budget
        self._pending: list[tuple[int, int, Call]] = []  # a heap: deepest first, then in order
        self._number = count()
        self._workers: dict[Worker, None] = {}  # alive, in the order of their start
        self._parked: dict[Worker, Any] = {}
        self._weight = 0
        self._waiting: dict[Call, Worker] = {}
        self._ready: deque[tuple[Worker, Any]] = deque()

    def submit(self, call: Call) -> None:
        """Add a call to the queue; it starts when a call is waited for."""
        heapq.heappush(self._pending, (-call.depth, next(self._number), call))

    def wait_for(self, call: Call) -> None:
        """Return when the call has ended; other calls run in the meantime."""
        worker = getcurrent()
        if isinstance(worker, Worker) and not call.is_done:
            self._waiting[call] = worker
            self._give_way(worker)
        while not call.is_done:
            self._take_a_turn()

    def park(self, worker: Worker, request: Any) -> Any:
        """Return the outcome of a worker's request, when it has been carried out; called in the worker."""
        self._parked[worker] = request
        self._weight += self._weigh(request)
        return self._give_way(worker)

    def cancel(self, owner: object) -> None:
        """Drop the owner's queued calls, and end its running ones where they are; their `finally` clauses run."""
        self._pending = [entry for entry in self._pending if entry[2].owner is not owner]
        heapq.heapify(self._pending)
        for worker in [worker for worker in self._workers if worker.call.owner is owner]:
            self._cancel(worker)

    def _give_way(self, worker: Worker) -> Any:
        """Let other calls run; return the outcome with which the worker is resumed."""
        if worker.is_cancelled:
            raise GreenletExit
        return self.root.switch()

    def _take_a_turn(self) -> None:
        """Resume a call, or start one, or carry out the parked requests; resuming comes first, as it frees memory."""
        if self._ready:
            self._enter(*self._ready.popleft())
        elif self._pending and len(self._parked) < self._most and self._weight < self._budget:
            _, _, call = heapq.heappop(self._pending)
            worker = Worker(call, self)
            self._workers[worker] = None
            self._enter(worker, None)
        elif self._parked:
            outcomes = self._carry_out(list(self._parked.values()))
            for worker, (outcome, seconds) in zip(self._parked, outcomes, strict=True):
                worker.busy += seconds
                self._ready.append((worker, outcome))
            self._parked, self._weight = {}, 0
        else:
            raise RuntimeError("no call can go on: one waits for a call that was cancelled")

    def _enter(self, worker: Worker, outcome: Any) -> None:
        """Run a worker with an outcome until it is parked, waits or ends."""
        start = perf_counter()
        try:
            with worker.ambient.installed():
                try:
                    if isinstance(outcome, BaseException):
                        worker.throw(type(outcome), outcome, outcome.__traceback__)
                    elif isinstance(outcome, type):
                        worker.throw(outcome)
                    else:
                        worker.switch(outcome)
                finally:
                    worker.ambient = Ambient.now()
        finally:
            worker.busy += perf_counter() - start
            if worker.dead:
                self._end(worker)

    def _end(self, worker: Worker) -> None:
        """Forget a worker, and let the worker that waits for its call continue."""
        del self._workers[worker]
        call = worker.call
        call.seconds_away = perf_counter() - worker.started - worker.busy
        if call.submitter is not None:
            call.submitter.busy += worker.busy
        waiting = self._waiting.pop(call, None)
        if call.is_done:
            if waiting is not None:
                self._ready.append((waiting, None))
            call.on_end(call)

    def _cancel(self, worker: Worker) -> None:
        """End a worker where it is."""
        if self._parked.pop(worker, None) is not None:
            self._weight = sum(map(self._weigh, self._parked.values()))
        self._ready = deque(entry for entry in self._ready if entry[0] is not worker)
        worker.is_cancelled = True
        worker.parent = getcurrent()  # which runs again when the worker has ended
        self._enter(worker, GreenletExit)


def current_worker() -> Worker | None:
    """Return the worker that is running; None if none is."""
    worker = getcurrent()
    return worker if isinstance(worker, Worker) else None
