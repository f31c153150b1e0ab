"""Options and fixtures that all tests share."""

import os

# Before NumPy and PyTorch come in: test processes that share few cores run best on one thread each.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import threading
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from clocks import Clock
from sklearn.exceptions import ConvergenceWarning

from sk_mlp import stacking
from sk_mlp._estimator import fitting
from sk_mlp._training import run
from sk_mlp._training.task import FitTask

collect_ignore = ["scripts"]  # which are run in processes of their own

# Relative agreement to ask of two routes to one result.
TOLERANCE = {"float64": 1e-9, "float32": 2e-4}


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where the estimators under test compute")
    parser.addoption("--dtype", default="float64", choices=list(TOLERANCE), help="dtype for relations of fits")


def pytest_terminal_summary(terminalreporter):
    """Say how many fits were compared with scikit-learn's, and how far apart the worst were."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    properties = [item for report in reports if report.when == "call" for item in report.user_properties]
    for dtype in TOLERANCE:
        worst = [value for name, value in properties if name == f"parity {dtype}"]
        if worst:
            terminalreporter.write_line(
                f"parity with scikit-learn in {dtype}: {len(worst)} comparisons, "
                f"largest relative difference {max(worst):.1e}"
            )


@pytest.fixture(scope="session")
def device(request):
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def dtype(request):
    return request.config.getoption("--dtype")


@pytest.fixture(scope="session")
def where(device, dtype):
    """Keyword arguments for the estimators of tests that hold in any dtype."""
    return {"device": device, "dtype": dtype}


@pytest.fixture(scope="session")
def rtol(dtype):
    return TOLERANCE[dtype]


@pytest.fixture(autouse=True)
def _threads_restored():
    """No fit may leave another thread count behind."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture
def unconverged():
    """Let fits stop at max_iter without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.fixture
def no_thread_is_left():
    """No other threads of Python's than before: those of a cluster of an earlier test may end in the meantime."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def stack_sizes(monkeypatch):
    """Sizes of the stacks that are trained."""
    sizes, train = [], stacking.train
    for module in (stacking, run):
        monkeypatch.setattr(module, "train", lambda tasks: sizes.append(len(tasks)) or train(tasks))
    return sizes


@pytest.fixture
def clock(monkeypatch):
    """A clock that all fits go by."""
    clock = Clock()
    monkeypatch.setattr(fitting, "FitTask", partial(FitTask, clock=clock))
    return clock


@pytest.fixture
def rng():
    return np.random.RandomState(0)


@pytest.fixture
def threads_to_give(monkeypatch):
    """Return what leaves the system so many more threads; it returns the list of those that have started since."""
    start = threading.Thread.start

    def leave(n):
        started = []

        def limited(thread):
            if len(started) == n:
                raise RuntimeError("can't start new thread")
            started.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)
        return started

    return leave
