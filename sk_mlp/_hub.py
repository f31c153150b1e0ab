"""Calls that take turns in one thread: each runs until it parks a request, then all requests are carried out at once.

Calls run as greenlets of the thread that waits for them. A call that waits for calls of its own gives way as well, so
nested ones gather their requests together. When every call is parked, waiting or done, the parked requests are carried
out in one go, and each call goes on with its own outcome.
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
    """A function to be called, and what came of it.

    `owner` is who may cancel it; deeper calls come first; `on_end` is told when it has ended; `submitter` is the worker
    that asked for it, if it is a nested one.
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
        self.seconds_away = 0.0  # between start and end, while others had their turn
        self._value: Any = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Call the function and keep its value or error; what is no `Exception` passes through."""
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
    """A call under way."""

    def __init__(self, call: Call, hub: Hub) -> None:
        super().__init__(parent=hub.root)
        self.call, self.hub, self.ambient, self.gr_context = call, hub, call.ambient, call.context
        self.is_cancelled = False
        self.started, self.busy = perf_counter(), 0.0

    def run(self, _: None) -> None:
        self.call.run()

    def park(self, request: Any) -> Any:
        """Return the outcome of `request`, once it has been carried out together with others'; called in the worker."""
        return self.hub.park(self, request)


class Hub:
    """Lets the calls of one thread take turns.

    `carry_out` takes all parked requests and returns for each an outcome, an exception to be raised where it was
    parked, or a value, and the seconds it took. No call is started while `most` requests are parked, or requests that
    together `weigh` more than `budget`.
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
        """Put a call in line; it starts when something is waited for."""
        heapq.heappush(self._pending, (-call.depth, next(self._number), call))

    def wait_for(self, call: Call) -> None:
        """Return when the call has ended; in the meantime others have their turn."""
        worker = getcurrent()
        if isinstance(worker, Worker) and not call.is_done:
            self._waiting[call] = worker
            self._give_way(worker)
        while not call.is_done:
            self._take_a_turn()

    def park(self, worker: Worker, request: Any) -> Any:
        """Return the outcome of a worker's request; called in the worker."""
        self._parked[worker] = request
        self._weight += self._weigh(request)
        return self._give_way(worker)

    def cancel(self, owner: object) -> None:
        """Drop the owner's calls in line, and end those under way where they are: `finally` clauses run."""
        self._pending = [entry for entry in self._pending if entry[2].owner is not owner]
        heapq.heapify(self._pending)
        for worker in [worker for worker in self._workers if worker.call.owner is owner]:
            self._cancel(worker)

    def _give_way(self, worker: Worker) -> Any:
        """Let others have their turn; return what the worker is resumed with."""
        if worker.is_cancelled:
            raise GreenletExit
        return self.root.switch()

    def _take_a_turn(self) -> None:
        """Resume a call, or start one, or carry out what is parked; finishing comes first, as it frees memory."""
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
        """Let a worker run with an outcome until it gives way or ends."""
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
        """Forget a worker, and let who waited for its call go on."""
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
        """End a worker where it stands."""
        if self._parked.pop(worker, None) is not None:
            self._weight = sum(map(self._weigh, self._parked.values()))
        self._ready = deque(entry for entry in self._ready if entry[0] is not worker)
        worker.is_cancelled = True
        worker.parent = getcurrent()  # where it comes back to when it has ended
        self._enter(worker, GreenletExit)


def current_worker() -> Worker | None:
    """Return the worker that is running, if any is."""
    worker = getcurrent()
    return worker if isinstance(worker, Worker) else None
