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

_PATIENCE = 0.5  # seconds between looks at whether anybody is still there; no wait is as long in the usual course

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
        self._error: BaseException | None = None
        self._inbox: SimpleQueue[_Request | None] = SimpleQueue()  # None from a thread that ends
        self.is_stopped = False

    def run(self, n_threads: int) -> list[T]:
        """Return the jobs' results, in their order."""
        threads = [threading.Thread(target=copy_context().run, args=(self._work,)) for _ in range(n_threads)]
        started: list[threading.Thread] = []
        try:
            for thread in threads:
                started.append(thread)
                thread.start()
        except RuntimeError:  # the system has no more threads to give
            started.pop()
        except BaseException as error:
            self._stop(error)
        self._serve(started)
        if self._error is not None:
            raise self._error
        self._results.update({i: job() for i, job in self._to_do})  # where no thread could be started
        return [self._results[i] for i in range(len(self._results))]

    def ask(self, function: Callable[[], Any]) -> Any:
        """Return what the waiting thread gets from calling the function; called in a thread of the crew."""
        raise_if_stopped()
        request = _Request(function)
        self._inbox.put(request)
        return request.result(self)

    def _serve(self, threads: Sequence[threading.Thread]) -> None:
        """Carry out requests until all threads have ended; an interrupt stops them, and they are still waited for."""
        n_working = len(threads)
        while n_working or any(thread.is_alive() for thread in threads):
            try:
                if n_working:
                    request = self._inbox.get(timeout=_PATIENCE)
                    n_working -= request is None
                    if request is not None and not self.is_stopped:
                        request.carry_out()
                else:
                    for thread in threads:
                        thread.join()
            except Empty:
                n_working = sum(thread.is_alive() for thread in threads)  # an interrupt may have lost a message
            except BaseException as error:
                self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """Let the threads end soon, for the error's sake; the first one counts."""
        self._error = self._error or error
        self.is_stopped = True

    def _work(self) -> None:
        """Carry out jobs until there are none left."""
        before, _of_thread.crew = _of_thread.crew, self
        try:
            while not self.is_stopped and (taken := self._take()) is not None:
                i, job = taken
                self._results[i] = job()
        except Stopped:
            pass
        except BaseException as error:
            self._stop(error)
        finally:
            _of_thread.crew = before
            self._inbox.put(None)

    def _take(self) -> tuple[int, Callable[[], T]] | None:
        """Take the next job, and its number; None when there is none left."""
        try:
            return self._to_do.popleft()
        except IndexError:
            return None
