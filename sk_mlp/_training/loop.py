"""`train`: first-order training of k networks at once, from tasks to results.

The tasks of one call have the same `stack_key`. Everything else (data, weights, seeds, rates, penalties, stopping) may
differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sk_mlp._compute.intra_op import threads, threads_that_pay
from sk_mlp._compute.threads import Crew

from .data import Data
from .member import Member
from .stack import Stack
from .step import computing, n_shards
from .task import FitResult, FitTask, Status

_WORTHWHILE = 0.75  # if a smaller fraction of a stack is still in training, these members form a new stack


def train(tasks: Sequence[FitTask]) -> list[FitResult | Exception]:
    """Train all tasks together, each until its own end; members that have ended soon take no more time.

    An error of a user-defined callback, scorer or schedule ends only its own task. A user-defined loss serves the whole
    stack, and its error ends the whole stack.
    """
    members = [Member(task) for task in tasks]
    task = tasks[0]
    n = threads_that_pay(task.multiply_adds, len(tasks))
    n_sharing = n_shards(task, n)
    # One thread for PyTorch if our threads share the steps: PyTorch's threads keep processors busy after a computation.
    with computing(task), threads(1 if n_sharing else n), Crew(n_sharing) as crew:
        data = Data(task, [task.table for task in tasks])
        while remaining := [member for member in members if member.is_running]:
            _train_until_few_are_left(Stack(remaining, data, crew, n))
    return [member.outcome() for member in members]


def _train_until_few_are_left(stack: Stack) -> None:
    """Run epochs until so many members have ended that a smaller stack is faster."""
    running = stack.running()
    enough = max(1.0, _WORTHWHILE * len(running))
    try:
        while len(running) >= enough:
            start = stack.clock()
            stack.begin_epoch()
            stack.run_epoch()
            records = stack.records_of_epoch(start)
            for i, member in running.items():
                is_best = member.is_running and member.end_epoch(records[i], partial(stack.values, i))
                if stack.has_diverged(i, records[i].loss, is_best):
                    member.status = Status.DIVERGED
                elif is_best:
                    member.best = stack.state(i)
                if not member.is_running:
                    stack.write_back(i)
            running = stack.running()
    except KeyboardInterrupt:
        interrupted = stack.running()
        if not interrupted:
            raise
        for member in interrupted.values():
            member.end(Status.INTERRUPTED)
    for i in running:
        stack.write_back(i)
