"""Steps that several threads share give the fits of one thread, and end when they have to."""

import os
import signal
import threading
import time
import warnings
from itertools import count

import numpy as np
import pytest
from marking import slow_but
from user_code import alarms

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._compute import intra_op
from sk_mlp._compute.threads import Crew, Stopped, raise_if_stopped
from sk_mlp._training import optimizers, pool
from sk_mlp._training import stack as stack_module
from sk_mlp._training import step as step_module

pytestmark = pytest.mark.usefixtures("unconverged", "no_thread_is_left")
RNG = np.random.RandomState(0)
X = RNG.normal(size=(331, 23))
CLASSES, VALUES, WEIGHT = RNG.randint(4, size=331), RNG.normal(size=(331, 3)), RNG.uniform(size=331)
# Epochs of seven steps, the last of which has 31 rows; enough of both sizes to be recorded.
OPTIONS = {"hidden_layer_sizes": (17, 9), "batch_size": 50, "max_iter": 16, "random_state": 0, "device": "cpu"}

# Estimator, target, options of the estimator, options of fit.
CASES = {
    "adam": (MLPTorchClassifier, CLASSES, {}, {}),
    "adamw": (MLPTorchClassifier, CLASSES, {"solver": "adamw", "weight_decay": 0.1}, {}),
    "sgd": (MLPTorchClassifier, CLASSES, {"solver": "sgd", "learning_rate_init": 0.05}, {}),
    "adam of tensors": (MLPTorchClassifier, CLASSES, {}, {}),  # see `_fit`
    "float32": (MLPTorchClassifier, CLASSES, {"dtype": "float32"}, {}),
    "bfloat16": (MLPTorchClassifier, CLASSES, {"dtype": "bfloat16"}, {}),
    "clipped": (MLPTorchClassifier, CLASSES, {"max_grad_norm": 0.4}, {}),
    "clipped adamw": (MLPTorchClassifier, CLASSES, {"max_grad_norm": 0.4, "solver": "adamw"}, {}),
    "dropout": (MLPTorchClassifier, CLASSES, {"dropout": 0.3}, {}),
    "activations that keep inputs": (MLPTorchClassifier, CLASSES, {"activation": ["gelu", "silu"]}, {}),
    "dropout of such": (MLPTorchClassifier, CLASSES, {"activation": "gelu", "dropout": [0.3, 0.1]}, {}),
    "no hidden layer": (MLPTorchClassifier, CLASSES, {"hidden_layer_sizes": ()}, {}),
    "one narrow layer": (MLPTorchClassifier, CLASSES, {"hidden_layer_sizes": (1,)}, {}),
    "more threads than rows of matrices": (MLPTorchClassifier, CLASSES > 1, {"hidden_layer_sizes": (1, 1)}, {}),
    "weights of zero": (MLPTorchClassifier, CLASSES, {"shuffle": False}, {"sample_weight": np.arange(331) >= 120}),
    "dropout with a last batch of one row": (MLPTorchClassifier, CLASSES, {"dropout": 0.2, "batch_size": 33}, {}),
    "binary": (MLPTorchClassifier, CLASSES > 1, {}, {}),
    "multilabel": (MLPTorchClassifier, VALUES > 0, {"label_smoothing": 0.1}, {}),
    "weights": (MLPTorchClassifier, CLASSES, {}, {"sample_weight": WEIGHT}),
    "outputs": (MLPTorchRegressor, VALUES, {}, {"sample_weight": WEIGHT}),
    "gaussian": (MLPTorchRegressor, VALUES[:, 0], {"loss": "gaussian_nll"}, {}),
    "poisson": (MLPTorchRegressor, abs(VALUES[:, 0]), {"loss": "poisson"}, {}),
    "early stopping": (MLPTorchClassifier, CLASSES, {"early_stopping": True}, {}),
    "validation": (MLPTorchClassifier, CLASSES, {}, {"X_val": X[:60], "y_val": CLASSES[:60]}),
    "one batch": (MLPTorchClassifier, CLASSES, {"batch_size": 331}, {}),
    "a last batch of one row": (MLPTorchClassifier, CLASSES, {"batch_size": 33}, {}),
    "rows in order": (MLPTorchClassifier, CLASSES, {"shuffle": False}, {}),
    "schedule": (MLPTorchClassifier, CLASSES, {"learning_rate": "cosine", "warmup_epochs": 3}, {}),
}


CROWDED = {"more threads than rows of matrices"}


@pytest.fixture
def share(monkeypatch):
    """Return what has the steps of all fits shared by so many threads."""
    monkeypatch.setattr(intra_op, "_SERIAL_MULTIPLY_ADDS", 0)
    monkeypatch.setattr(step_module, "_SHARD_ROWS", 1)
    return lambda n: monkeypatch.setattr(intra_op, "available_threads", lambda: n)


def _fit(name, monkeypatch, **more):
    cls, y, options, of_fit = CASES[name]
    if name == "adam of tensors":
        monkeypatch.setattr(stack_module, "has_fused_adam", lambda _: False)
    return cls(**{"dtype": "float64", **OPTIONS, **options, **more}).fit(X, y, **of_fit)


def _parameters(estimator):
    return np.concatenate([np.ravel(array) for array in (*estimator.coefs_, *estimator.intercepts_)])


@pytest.mark.parametrize("name", slow_but(["clipped"], CASES))
def test_shared_steps_are_those_of_one_thread(name, share, monkeypatch):
    """Up to the order in which a product adds up, which depends on its number of rows."""
    tolerance = {"float64": 1e-12, "float32": 2e-5, "bfloat16": 1e-3}[CASES[name][2].get("dtype", "float64")]
    share(1)
    expected = _fit(name, monkeypatch)
    for n in (2, 3, 40 if name in CROWDED else 5):
        share(n)
        found = _fit(name, monkeypatch)
        np.testing.assert_allclose(_parameters(found), _parameters(expected), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(found.history_["loss"], expected.history_["loss"], rtol=tolerance)
        np.testing.assert_allclose(found.history_["gradient_norm"], expected.history_["gradient_norm"], rtol=tolerance)
        assert found.n_iter_ == expected.n_iter_


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "clipped adamw", "dropout", "bfloat16", "gaussian"])
def test_they_repeat_themselves_replayed_or_not(name, share, monkeypatch):
    share(3)
    replayed = [_parameters(_fit(name, monkeypatch)) for _ in range(2)]
    monkeypatch.setattr(step_module, "record", lambda function, _: function())
    called = _parameters(_fit(name, monkeypatch))
    np.testing.assert_array_equal(replayed[0], called)
    np.testing.assert_array_equal(replayed[1], called)


def test_training_goes_on_in_shares(share, monkeypatch):
    """One epoch a call, and with the optimizer's state of an earlier fit."""
    found = {}
    for n in (1, 3):
        share(n)
        in_epochs = MLPTorchClassifier(**OPTIONS, dtype="float64")
        for _ in range(4):
            in_epochs.partial_fit(X, CLASSES, classes=range(4))
        warm = _fit("adam", monkeypatch, warm_start=True, max_iter=3).fit(X, CLASSES)
        found[n] = np.concatenate([_parameters(in_epochs), _parameters(warm)])
    np.testing.assert_allclose(found[3], found[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_to_give", [0, 1, 2])
def test_a_system_without_so_many_threads(n_to_give, share, threads_to_give, monkeypatch):
    share(1)
    expected = _parameters(_fit("adam", monkeypatch))
    share(4)
    started = threads_to_give(n_to_give)
    np.testing.assert_allclose(_parameters(_fit("adam", monkeypatch)), expected, rtol=1e-12, atol=1e-12)
    assert len(started) == n_to_give


@pytest.fixture
def interrupt(monkeypatch):
    """Return what interrupts a fit at a thread's check for an end, counted over all threads, `n_times` in a row."""

    def interrupt(n_checks, n_times=1):
        def interrupting():
            if next(checks) == n_checks:
                for _ in range(n_times):
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
                    time.sleep(0.01)
                patience = time.monotonic() + 60
                while time.monotonic() < patience:
                    raise_if_stopped()
                raise TimeoutError("the interrupt did not come")
            raise_if_stopped()

        checks = count(1)
        monkeypatch.setattr(stack_module, "raise_if_stopped", interrupting)

    # Not SIGINT, which other libraries of the suite handle, too.
    with alarms():
        yield interrupt


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows sends no signal to a thread")
@pytest.mark.parametrize("name", ["adam", "sgd", "clipped", "bfloat16"])
@pytest.mark.parametrize("n_checks", [1, 30, 31, 100])
def test_an_interrupt_leaves_whole_steps(name, n_checks, share, interrupt, monkeypatch):
    """Whenever it comes the network is that of some step, for all of its parameters, and so is the optimizer."""
    share(3)
    after_each_step = []
    take_steps = stack_module.Stack._take_steps

    def watched(stack, thread, batches):
        for batch in batches:
            if thread == 0:
                after_each_step.append(stack.parameters.numpy().copy())
            take_steps(stack, thread, [batch])

    with monkeypatch.context() as patch:
        patch.setattr(stack_module.Stack, "_take_steps", watched)
        _fit(name, monkeypatch)
    interrupt(n_checks)  # of three a step
    with pytest.warns(UserWarning, match="interrupted"):
        found = _fit(name, monkeypatch)
    distances = [np.abs(np.sort(_parameters(found)) - np.sort(step)).max() for step in after_each_step]
    assert min(distances) == 0
    assert np.argmin(distances) == found._optimizer_state["steps"] == (n_checks - 1) // 3


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows sends no signal to a thread")
def test_more_interrupts_leave_no_thread_either(share, interrupt):
    """While a thread is in its step. The fixture looks for threads that are left."""
    share(3)
    interrupt(50, n_times=6)
    with pytest.warns(UserWarning, match="interrupted"):
        MLPTorchClassifier(**OPTIONS).fit(X, CLASSES)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_child_does_not_wait_for_threads(share):
    """Of a fit forked in the middle, which goes on in the parent alone."""
    share(3)
    told, tell = os.pipe()

    def fork(*_):
        if not children:
            children.append(os.fork())
        return 1.0

    children: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        try:
            MLPTorchClassifier(**OPTIONS, early_stopping=True, scoring=fork).fit(X, CLASSES)
        except RuntimeError as error:
            os.write(tell, str(error).encode())
        finally:
            if children == [0]:
                os._exit(0)
    os.waitpid(children[0], 0)
    assert "process that began it" in os.read(told, 1000).decode()


def test_a_failing_thread_ends_the_fit(share, monkeypatch):
    share(3)
    move, calls = optimizers.FusedAdam.move, []

    def failing(optimizer):
        calls.append(1)
        if len(calls) == 50:
            raise ZeroDivisionError("in a thread")
        move(optimizer)

    monkeypatch.setattr(optimizers.FusedAdam, "move", failing)
    monkeypatch.setattr(step_module, "record", lambda function, _: function())
    with pytest.raises(ZeroDivisionError, match="in a thread"):
        _fit("adam", monkeypatch)


def test_an_error_while_batches_are_drawn_ends_the_fit(share, monkeypatch):
    share(3)
    draw = pool.ShardGatherer.__call__

    def failing(gatherer, index):
        for i, rows in enumerate(draw(gatherer, index)):
            if i == 4 and rows.values.shape[1] == 17:  # of the last of three threads
                raise ZeroDivisionError("in a thread")
            yield rows

    monkeypatch.setattr(pool.ShardGatherer, "__call__", failing)
    with pytest.raises(ZeroDivisionError, match="in a thread"):
        _fit("adam", monkeypatch)


def test_users_code_runs_in_the_callers_thread(share, monkeypatch):
    share(3)
    seen = set()
    estimator = MLPTorchClassifier(
        **OPTIONS, early_stopping=True, scoring=lambda *_: seen.add(threading.get_ident()) or 1.0
    )
    estimator.fit(X, CLASSES)
    assert seen == {threading.get_ident()}


class TestMeetings:
    """Where the jobs of a crew wait for one another."""

    def test_nobody_goes_on_before_all_have_come(self):
        log: list[tuple[int, int]] = []

        def job(i):
            for turn in range(50):
                log.append((turn, i))
                crew.meet(lambda: None)

        with Crew(3) as crew:
            for _ in range(2):
                log.clear()
                crew.carry_out([lambda i=i: job(i) for i in range(3)])
                assert [turn for turn, _ in log] == sorted(turn for turn, _ in log)

    def test_nobody_waits_for_one_that_does_not_come(self):
        stopped, is_there = [], threading.Event()

        def fail():
            is_there.wait()
            raise IndexError("not coming")

        def wait():
            is_there.set()
            try:
                crew.meet(lambda: None)
            except Stopped:
                stopped.append(1)
                raise

        with Crew(2) as crew, pytest.raises(IndexError, match="not coming"):
            crew.carry_out([wait, fail])
        assert stopped == [1]
