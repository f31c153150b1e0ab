"""Jobs in threads, and the stacks and predictions that run in them."""

import signal
import threading
import time
import warnings
from contextvars import ContextVar
from itertools import count

import numpy as np
import pytest
import torch
from fits import assert_same
from joblib import Parallel, delayed, parallel_config
from marking import slow_but
from problems import PROBLEMS, raw_prediction
from sklearn.model_selection import GridSearchCV
from user_code import AfterEachEpoch, alarms, torch_threads

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor, stacking
from sk_mlp._compute.threads import called_by_waiting_thread, in_threads, raise_if_stopped
from sk_mlp._estimator import prediction
from sk_mlp._estimator import prediction as _prediction

VARIABLE = ContextVar("VARIABLE", default=0)
X, LABELS = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y
pytestmark = pytest.mark.usefixtures("unconverged", "no_thread_is_left")
OPTIONS = {"hidden_layer_sizes": (6,), "batch_size": 40, "random_state": 0, "device": "cpu"}


class TestInThreads:
    """Jobs in threads, whatever they compute."""

    @pytest.mark.parametrize("n_threads", [1, 2, 5])
    def test_results_come_in_the_order_of_the_jobs(self, n_threads):
        last_is_over = threading.Event()

        def job(i):
            if i == 0 and n_threads > 1:
                last_is_over.wait()
            if i == 6:
                last_is_over.set()
            return i, threading.get_ident()

        results = in_threads([lambda i=i: job(i) for i in range(7)], n_threads)
        assert [i for i, _ in results] == list(range(7))
        threads = {thread for _, thread in results}
        assert len(threads) <= n_threads
        assert threading.get_ident() not in threads

    def test_no_jobs(self):
        assert in_threads([], 2) == []

    def test_users_code_runs_in_the_thread_that_waits(self):
        ask = called_by_waiting_thread(lambda x: (x, threading.get_ident()))
        assert in_threads([lambda i=i: ask(i) for i in range(20)], 3) == [(i, threading.get_ident()) for i in range(20)]
        assert ask(1) == (1, threading.get_ident())

    def test_its_errors_come_to_the_job(self):
        def fail():
            raise ZeroDivisionError("in the waiting thread")

        def job():
            with pytest.raises(ZeroDivisionError, match="in the waiting thread"):
                called_by_waiting_thread(fail)()
            return threading.get_ident()

        assert threading.get_ident() not in in_threads([job, job], 2)

    def test_a_failing_job_ends_the_others(self):
        started = threading.Event()

        def endless():
            started.set()
            while True:
                raise_if_stopped()

        def fail():
            started.wait()
            raise IndexError("of a job")

        with pytest.raises(IndexError, match="of a job"):
            in_threads([endless, fail, endless], 2)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_what_ends_the_waiting_thread_ends_all(self, kind):
        def leave():
            raise kind

        def endless():
            while True:
                raise_if_stopped()

        asking = called_by_waiting_thread(lambda: None)
        with pytest.raises(kind):
            in_threads([endless, called_by_waiting_thread(leave), lambda: [asking() for _ in iter(int, 1)]], 3)

    def test_a_second_interrupt_leaves_no_thread_either(self, monkeypatch):
        def interrupt():
            monkeypatch.setattr(threading.Thread, "join", interrupted_once)
            raise KeyboardInterrupt

        def interrupted_once(self, *args):
            monkeypatch.undo()
            raise KeyboardInterrupt

        def endless():
            while True:
                raise_if_stopped()

        with pytest.raises(KeyboardInterrupt):
            in_threads([endless, called_by_waiting_thread(interrupt)], 2)

    def test_each_job_sees_the_callers_context(self):
        VARIABLE.set(5)

        def job():
            seen = VARIABLE.get()
            VARIABLE.set(seen + 1)
            return seen

        assert in_threads([job], 1) == [5]
        assert VARIABLE.get() == 5

    @pytest.mark.parametrize("n_to_give", [0, 1])
    def test_a_system_without_more_threads(self, n_to_give, threads_to_give):
        threads_to_give(n_to_give)
        assert in_threads([lambda i=i: i for i in range(4)], 3) == [0, 1, 2, 3]


def interrupt_main_thread():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)


def _search(**options):
    estimator = MLPTorchClassifier(**{**OPTIONS, "max_iter": 12, **options})
    grid = {"alpha": [1e-4, 0.1], "learning_rate_init": [1e-3, 0.01, 0.03]}
    with parallel_config("sk_mlp"):
        return GridSearchCV(estimator, grid, cv=4, error_score="raise").fit(X, LABELS)


@pytest.mark.parametrize(
    "options",
    slow_but(
        [{}],
        [{}, {"activation": "tanh", "dropout": 0.2}, {"early_stopping": True, "n_iter_no_change": 2, "solver": "sgd"}],
    ),
    ids=str,
)
def test_results_are_the_same_to_the_bit_for_any_number_of_threads(options, monkeypatch):
    monkeypatch.setattr(stacking, "_MOST_IN_A_STACK", 5)

    def fits(n_threads):
        monkeypatch.setattr(stacking, "available_threads", lambda: n_threads)
        models = [
            MLPTorchClassifier(**{**OPTIONS, "max_iter": 40, "learning_rate_init": 0.001 * (i + 1), **options})
            for i in range(12)
        ]
        with parallel_config("sk_mlp"):
            return Parallel()(delayed(model.fit)(X, LABELS) for model in models)

    one, *others = [fits(n) for n in (1, 2, 4)]
    for many in others:
        for ours, expected in zip(many, one, strict=True):
            assert ours.loss_curve_ == expected.loss_curve_
            assert_same(ours, expected)


@pytest.mark.slow
@pytest.mark.parametrize("share", ["NumPy's generator", "one generator"])
def test_members_that_share_a_generator_repeat_themselves(share, monkeypatch):
    monkeypatch.setattr(stacking, "_MOST_IN_A_STACK", 4)

    def fits(n_threads):
        monkeypatch.setattr(stacking, "available_threads", lambda: n_threads)
        np.random.seed(0)  # noqa: NPY002
        shared = np.random.RandomState(0) if share == "one generator" else None
        models = [MLPTorchClassifier(**{**OPTIONS, "random_state": shared, "max_iter": 15}) for _ in range(16)]
        with parallel_config("sk_mlp"):
            fitted = Parallel()(delayed(model.fit)(X, LABELS) for model in models)
        return [model.loss_curve_ for model in fitted]

    one = fits(1)
    assert one == fits(3) == fits(3)
    assert len({tuple(curve) for curve in one}) == len(one)


def test_users_losses_stack_as_deep_as_they_fit(monkeypatch, stack_sizes):
    """They train in one thread, and gain nothing from more stacks."""

    def loss(raw, target):
        return ((raw - target) ** 2).sum(1)

    models = [MLPTorchRegressor(**OPTIONS, max_iter=3, loss=loss) for _ in range(24)]
    monkeypatch.setattr(stacking, "stack_bytes", lambda _: 2**18)
    with parallel_config("sk_mlp"):
        Parallel()(delayed(model.fit)(X, PROBLEMS["regression"].y) for model in models)
    assert stack_sizes == [24]


class TestStacksInThreads:
    """User-defined code runs in their own thread, and what ends a search ends its threads."""

    @pytest.fixture(autouse=True)
    def _threads(self, monkeypatch):
        self.used = set()

        def watched(jobs, n_threads):
            self.used.add(n_threads)
            return in_threads(jobs, n_threads)

        monkeypatch.setattr(stacking, "_MOST_IN_A_STACK", 4)
        monkeypatch.setattr(stacking, "available_threads", lambda: 2)
        monkeypatch.setattr(stacking, "in_threads", watched)

    @pytest.mark.slow
    def test_all_that_users_write_is_called_in_their_thread(self):
        seen = {}

        def note(name, value):
            seen.setdefault(name, set()).add(threading.get_ident())
            return value

        _search(
            early_stopping=True,
            learning_rate=lambda epoch: note("schedule", 0.01),
            scoring=lambda model, X, y: note("scorer", model.score(X, y)),
        )
        estimator = MLPTorchClassifier(**OPTIONS, max_iter=5)
        estimator.set_callbacks(AfterEachEpoch(lambda *_: note("callback", None)))
        with parallel_config("sk_mlp"):
            Parallel()(delayed(estimator.fit)(X, LABELS) for _ in range(6))
        assert seen == {name: {threading.get_ident()} for name in ("schedule", "scorer", "callback")}
        assert self.used == {2}

    @pytest.mark.parametrize(
        "options",
        [
            {"loss": lambda raw, target: ((raw - target) ** 2).sum(1)},
            {"module": lambda n, m: torch.nn.Linear(n, m)},
            {"solver": torch.optim.SGD},
        ],
        ids=["loss", "module", "solver"],
    )
    def test_what_is_called_in_each_step_trains_in_their_thread(self, options, monkeypatch):
        seen, train = set(), stacking.train
        monkeypatch.setattr(stacking, "train", lambda tasks: (seen.add(threading.get_ident()), train(tasks))[1])
        models = [MLPTorchRegressor(**OPTIONS, max_iter=3, **options) for _ in range(6)]
        with parallel_config("sk_mlp"):
            Parallel()(delayed(model.fit)(X, PROBLEMS["regression"].y) for model in models)
        assert seen == {threading.get_ident()}

    def test_threads_of_pytorch_stay_as_they_are(self):
        with torch_threads(2):
            _search()
            assert torch.get_num_threads() == 2
        assert self.used == {2}

    @pytest.mark.slow
    def test_ctrl_c_ends_them(self, monkeypatch):
        """A signal comes to the main thread, while others train."""
        train = stacking.train
        monkeypatch.setattr(stacking, "train", lambda tasks: (interrupt_main_thread(), train(tasks))[1])
        with alarms():
            start = time.perf_counter()
            with pytest.raises(KeyboardInterrupt):
                _search(max_iter=10**6, n_iter_no_change=10**6, batch_size=2, tol=0.0)
            assert time.perf_counter() - start < 30
        assert self.used == {2}
        monkeypatch.setattr(stacking, "train", train)
        _search()

    def test_a_failing_schedule_ends_its_member_alone(self):
        def schedule(epoch):
            raise ZeroDivisionError("in a schedule")

        def fit(**options):
            try:
                return MLPTorchClassifier(**OPTIONS, max_iter=5, **options).fit(X, LABELS).n_iter_
            except ZeroDivisionError as error:
                return str(error)

        with parallel_config("sk_mlp"):
            found = Parallel()(delayed(fit)(**({"learning_rate": schedule} if i == 3 else {})) for i in range(8))
        assert found == [5, 5, 5, "in a schedule", 5, 5, 5, 5]

    @pytest.mark.slow
    def test_warnings_come_as_without_threads(self, monkeypatch):
        def warned():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                _search()
            return [(warning.category, warning.filename, warning.lineno) for warning in caught]

        in_two = warned()
        monkeypatch.setattr(stacking, "available_threads", lambda: 1)
        assert in_two == warned()
        assert len(in_two) == 25


class TestPredictionsInThreads:
    """Chunks of rows are predicted side by side."""

    @pytest.fixture(autouse=True)
    def _small_chunks(self, monkeypatch):
        monkeypatch.setattr(prediction, "chunk_bytes", lambda _: 10_000)

    @pytest.mark.parametrize("name", PROBLEMS)
    def test_the_same_to_the_bit_for_any_number_of_threads(self, name, monkeypatch):
        problem = PROBLEMS[name]
        estimator = problem.ours(**OPTIONS, **problem.options, activation="tanh", max_iter=5).fit(X, problem.y)
        found = []
        for n in (1, 2, 4):
            monkeypatch.setattr(prediction, "available_threads", lambda n=n: n)
            found.append((estimator.predict(X), raw_prediction(estimator, X)))
        for labels, values in found[1:]:
            np.testing.assert_array_equal(labels, found[0][0])
            np.testing.assert_array_equal(values, found[0][1])

    def test_as_many_as_may_compute(self, monkeypatch):
        monkeypatch.setattr("sk_mlp._compute.intra_op.available_cores", lambda: 5)
        used = []
        monkeypatch.setattr(prediction, "in_threads", lambda jobs, n: used.append(n) or in_threads(jobs, n))
        estimator = MLPTorchClassifier(**OPTIONS, max_iter=5).fit(X, LABELS)
        with torch_threads(3):
            estimator.predict(X)
        with torch_threads(8):
            estimator.predict(X)
            assert torch.get_num_threads() == 8
        assert used == [3, 5]

    def test_a_value_too_large_is_an_error_as_without_threads(self, monkeypatch):
        monkeypatch.setattr(prediction, "available_threads", lambda: 2)
        estimator = MLPTorchClassifier(**OPTIONS, max_iter=5).fit(X, LABELS)
        rows = X.copy()
        rows[-1, 0] = 1e300
        with pytest.raises(ValueError, match="X must be finite in float32, got a value too large"):
            estimator.predict(rows)

    def test_ctrl_c_ends_them(self, monkeypatch):
        monkeypatch.setattr(prediction, "available_threads", lambda: 2)
        estimator = MLPTorchClassifier(**OPTIONS, max_iter=5).fit(X, LABELS)
        chunks, cast_rows = count(1), _prediction.cast_rows

        def interrupting(*args):
            if next(chunks) == 5:
                interrupt_main_thread()
            return cast_rows(*args)

        monkeypatch.setattr(prediction, "cast_rows", interrupting)
        with alarms(), pytest.raises(KeyboardInterrupt):
            estimator.predict(np.tile(X, (5000, 1)))
        assert estimator.predict(X).shape == (160,)
