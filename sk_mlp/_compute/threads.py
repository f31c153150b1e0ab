"""Jobs in parallel threads, which can ask the thread that waits for them to call user-defined code.

User-defined code may read values that belong to its thread, print, draw a figure or interrupt. It is therefore called
in the same thread as without parallel threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

_PATIENCE = 0.1  # seconds between checks whether the other threads still exist

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(BaseException):
    """Raised in a thread whose job is no longer needed."""


def in_threads(jobs: Sequence[Callable[[], T]], n_threads: int) -> list[T]:
    """Return the results of the jobs, carried out by up to `n_threads` threads; a free thread takes the next job.

    Each thread has a copy of the caller's context variables. An error of a job, or an interrupt, ends the other jobs
    and is raised here. When this function returns, all its threads have ended.
    """
    with Crew(n_threads) as crew:
        return crew.carry_out(jobs)


def called_by_waiting_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function, changed so that the thread that waits for the calling thread, if any, carries it out."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        crew = _of_thread.crew
        return function(*args, **kwargs) if crew is None else crew.ask(lambda: function(*args, **kwargs))

    return call


def raise_if_stopped() -> None:
    """Raise `Stopped` in a thread whose job is no longer needed."""
    crew = _of_thread.crew
    if crew is not None and crew.is_stopped:
        raise Stopped


class _OfThread(threading.local):
    """The state of one thread: the crew it belongs to."""

    crew: Crew | None = None


_of_thread = _OfThread()


class _Request:
    """A function for the waiting thread to call, and its value or error."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function, self._is_done = function, threading.Event()
        self._value: Any = None
        self._error: Exception | None = None

    def carry_out(self) -> None:
        """Call the function and keep its value or error; an error that is no `Exception` is not caught."""
        try:
            self._value = self._function()
        except Exception as error:
            self._error = error
        self._is_done.set()

    def result(self, crew: Crew) -> Any:
        """Wait until the function has been called; return its value, or raise its error."""
        while not self._is_done.wait(_PATIENCE):
            if crew.is_stopped:
                raise Stopped
        if self._error is not None:
            raise self._error
        return self._value


class Crew:
    """Threads that carry out jobs for a waiting thread, from the beginning of a `with` block to its end."""

    def __init__(self, n_threads: int) -> None:
        self._threads = [_Thread(self._carry_out_jobs, f"sk_mlp-{i}") for i in range(n_threads)]
        self._caller, self._process = threading.current_thread(), os.getpid()
        self._to_do: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None tells a thread to end
        self._error: BaseException | None = None  # the first error of a job
        self._inbox: SimpleQueue[_Request | None] = SimpleQueue()  # None says that a job has ended
        self.is_stopped = False
        self.n_threads = 0  # number of started threads; less than requested if the system cannot start more
        self._set_meeting(n_threads)

    def __enter__(self) -> Crew:
        try:
            self.n_threads = _start(self._threads)
            if self.n_threads < len(self._threads):
                self._set_meeting(self.n_threads)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def carry_out(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Return the results of the jobs, in order; without threads, the calling thread carries them out."""
        results: dict[int, T] = {}

        def carry_out(i: int, job: Callable[[], T]) -> None:
            results[i] = job()

        if not self.n_threads:
            return [job() for job in jobs]
        if os.getpid() != self._process:
            raise RuntimeError("a fit must end in the process that began it, got its child: threads do not follow")
        try:
            for i, job in enumerate(jobs):
                self._to_do.put(partial(carry_out, i, job))
            self._serve(len(jobs))
        except BaseException:
            self._end()
            raise
        if self._error is not None:
            self._end()
            raise self._error
        return [results[i] for i in range(len(jobs))]

    def meet(self, then: Callable[[], None]) -> None:
        """Wait until all threads, each in its own job, have called this method, and one of them has called `then`.

        All jobs must call it equally often, with the same `then`. Raises `Stopped` if a thread will not call it any
        more.
        """
        self._then = then
        try:
            self._meeting.wait()
        except threading.BrokenBarrierError:
            raise Stopped from None

    def _set_meeting(self, n_threads: int) -> None:
        """Set the number of threads that wait for each other in `meet`."""
        self._meeting = threading.Barrier(max(1, n_threads), action=lambda: self._then())

    def ask(self, function: Callable[[], Any]) -> Any:
        """Return the function's value, computed by the waiting thread; called in a thread of the crew."""
        raise_if_stopped()
        request = _Request(function)
        self._inbox.put(request)
        return request.result(self)

    def _serve(self, n_jobs: int) -> None:
        """Carry out requests until all jobs have ended or one of them has failed."""
        n_ended = 0
        while n_ended < n_jobs and self._error is None:
            try:
                request = self._inbox.get(timeout=_PATIENCE)
            except Empty:
                continue
            if request is None:
                n_ended += 1
            else:
                request.carry_out()

    def _carry_out_jobs(self) -> None:
        """Carry out jobs, in a thread of the crew, until the crew is stopped."""
        _of_thread.crew = self
        try:
            while not self.is_stopped and self._caller.is_alive():
                try:
                    job = self._to_do.get(timeout=_PATIENCE)
                except Empty:
                    continue
                if job is not None:
                    self._carry_out(job)
        finally:
            self._meeting.abort()  # no other thread should wait for this one

    def _carry_out(self, job: Callable[[], None]) -> None:
        """Carry out a job, and inform the waiting thread that it has ended."""
        try:
            job()
        except Stopped:
            pass
        except BaseException as error:
            self._error = error if self._error is None else self._error
            self.is_stopped = True
        finally:
            self._inbox.put(None)

    def _end(self) -> None:
        """End all threads after their current step, and wait for them, also if another interrupt comes."""
        try:
            self.is_stopped = True
            for _ in self._threads:
                self._to_do.put(None)
            for thread in self._threads:
                thread.wait_for_end()
        except BaseException:
            self._end()
            raise


class _Thread(threading.Thread):
    """A thread that can be waited for again after an interrupt, unlike with `join` before Python 3.13."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(name=name)
        self._work, self._context = work, copy_context()
        self._has_ended = threading.Event()

    def run(self) -> None:
        try:
            self._context.run(self._work)
        finally:
            self._has_ended.set()

    def wait_for_end(self) -> None:
        """Return when the thread has ended; at once if it has not started, or belongs to the parent process."""
        while self.is_alive():
            if self._has_ended.wait(_PATIENCE):
                self.join()


def _start(threads: Sequence[threading.Thread]) -> int:
    """Start as many of the threads as the system allows; return their number."""
    for i, thread in enumerate(threads):
        try:
            thread.start()
        except RuntimeError:
            return i
    return len(threads)
