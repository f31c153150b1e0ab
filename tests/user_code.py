"""What users write for a fit and around it: callbacks, modules, losses and `with` blocks."""

import contextlib
import signal

import torch
from torch import nn


class Callback:
    """A callback of scikit-learn's that does nothing."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass


class AfterEachEpoch(Callback):
    """Calls a function with the estimator as it is at the end of each epoch."""

    def __init__(self, function):
        self.function = function

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            self.function(fitted_estimator)


class Raising(Callback):
    """Raises an error at one of the moments of a fit."""

    def __init__(self, hook, task, error):
        self.moment, self.error = (hook, task), error

    def _called(self, hook, context):
        if (hook, context.task_name) == self.moment:
            raise self.error

    def on_fit_task_begin(self, estimator, context):
        self._called("begin", context)

    def on_fit_task_end(self, estimator, context):
        self._called("end", context)


class InPlace(nn.Module):
    """A module that works on its input and counts its calls in a buffer."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.linear = nn.Linear(n_features, n_outputs)

    def forward(self, x):
        self.calls += 1
        return self.linear(x.mul_(2))


def cubic(raw, target):
    return ((raw - target).abs() ** 1.5).sum(1)


def normed_net(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, n_outputs))


@contextlib.contextmanager
def default_float64():
    """Let PyTorch make float64 where nothing else is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def torch_threads(n):
    """Let PyTorch compute in `n` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def alarms(handler=signal.default_int_handler):
    """Let SIGALRM interrupt as Ctrl-C does, or call another handler; no timer is left behind."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
