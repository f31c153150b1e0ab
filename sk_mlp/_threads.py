"""Jobs side by side in threads, and what they have the thread call that waits for them: what users have written.

Users' code may read what belongs to its thread, print, draw a figure or interrupt; it is called where it would be
called without threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

_PATIENCE = 0.1  # seconds between looks at whether anybody is still there

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(BaseException):
    """Raised in a thread whose job nobody waits for any longer."""


def in_threads(jobs: Sequence[Callable[[], T]], n_threads: int) -> list[T]:
    """Return what the jobs return, carried out by up to `n_threads` threads, which take the next one when done.

    Each thread has a copy of the caller's context variables. What a job raises ends the others and is raised here, as
    is an interrupt; when this returns no thread is left.
    """
    return _Crew(jobs).run(n_threads)


def called_by_waiting_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function as it is when called by the thread that waits for this one, if one does."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        crew = _of_thread.crew
        return function(*args, **kwargs) if crew is None else crew.ask(lambda: function(*args, **kwargs))

    return call


def raise_if_stopped() -> None:
    """Raise `Stopped` in a thread whose job nobody waits for."""
    crew = _of_thread.crew
    if crew is not None and crew.is_stopped:
        raise Stopped


class _OfThread(threading.local):
    """What holds in one thread: the crew it belongs to."""

    crew: _Crew[Any] | None = None


_of_thread = _OfThread()


class _Request:
    """A function that the waiting thread is to call, and what came of it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function, self._is_done = function, threading.Event()
        self._value: Any = None
        self._error: Exception | None = None

    def carry_out(self) -> None:
        """Call the function and keep its value or error; what is no `Exception` passes through."""
        try:
            self._value = self._function()
        except Exception as error:
            self._error = error
        self._is_done.set()

    def result(self, crew: _Crew[Any]) -> Any:
        """Return the function's value, or raise its error, once it has been called."""
        while not self._is_done.wait(_PATIENCE):
            if crew.is_stopped:
                raise Stopped
        if self._error is not None:
            raise self._error
        return self._value


class _Crew(Generic[T]):
    """Threads that carry out jobs."""

    def __init__(self, jobs: Sequence[Callable[[], T]]) -> None:
        self._to_do = deque(enumerate(jobs))
        self._results: dict[int, T] = {}
        self._error: BaseException | None = None  # the first one of a job
        self._inbox: SimpleQueue[_Request | None] = SimpleQueue()  # None from a thread that ends
        self.is_stopped = False

    def run(self, n_threads: int) -> list[T]:
        """Return the jobs' results, in their order."""
        threads = [
            threading.Thread(target=copy_context().run, args=(self._work,), name=f"sk_mlp-{i}")
            for i in range(n_threads)
        ]
        try:
            if n_started := _start(threads):
                self._serve(n_started)
            else:
                self._carry_out_jobs()
        finally:
            self.is_stopped = True  # whatever has come: threads end after the step they are in
            _wait_for(threads)
        if self._error is not None:
            raise self._error
        return [self._results[i] for i in range(len(self._results))]

    def ask(self, function: Callable[[], Any]) -> Any:
        """Return what the waiting thread gets from calling the function; called in a thread of the crew."""
        raise_if_stopped()
        request = _Request(function)
        self._inbox.put(request)
        return request.result(self)

    def _serve(self, n_threads: int) -> None:
        """Carry out requests until all threads have ended, or one of them has failed."""
        n_ended = 0
        while n_ended < n_threads and self._error is None:
            try:
                request = self._inbox.get(timeout=_PATIENCE)
            except Empty:
                continue
            if request is None:
                n_ended += 1
            else:
                request.carry_out()

    def _work(self) -> None:
        """Carry out jobs, in a thread of the crew."""
        _of_thread.crew = self
        try:
            self._carry_out_jobs()
        except Stopped:
            pass
        except BaseException as error:
            self._error = error if self._error is None else self._error
            self.is_stopped = True
        finally:
            self._inbox.put(None)

    def _carry_out_jobs(self) -> None:
        """Carry out jobs until there are none left."""
        while not self.is_stopped:
            try:
                i, job = self._to_do.popleft()
            except IndexError:
                return
            self._results[i] = job()


def _start(threads: Sequence[threading.Thread]) -> int:
    """Start threads, as many as the system has to give; return how many these are."""
    for i, thread in enumerate(threads):
        try:
            thread.start()
        except RuntimeError:
            return i
    return len(threads)


def _wait_for(threads: Sequence[threading.Thread]) -> None:
    """Return when all threads have ended, those that have begun; another interrupt does not keep it from that."""
    try:
        for thread in threads:
            if thread.is_alive():
                thread.join()
    except BaseException:
        _wait_for(threads)
        raise
