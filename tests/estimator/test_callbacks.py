"""What scikit-learn's callbacks are told of a fit: alone, in pipelines and searches, and after errors."""

import pickle

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from marking import slow_but
from problems import PROBLEMS
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._training.stack import Stack

pytestmark = pytest.mark.usefixtures("unconverged")
FAST = {"hidden_layer_sizes": (5,), "max_iter": 6, "batch_size": 40, "random_state": 0, "learning_rate_init": 0.01}
X, LABELS, VALUES = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y, PROBLEMS["regression"].y
NETWORKS = {"adam": {}, "lbfgs": {"solver": "lbfgs"}, "module": {"normalization": "batch"}}


class Recorder:
    """Notes what it is told; asks for nothing."""

    def __init__(self, stop_at=None, fail_at=None):
        self.stop_at, self.fail_at, self.events = stop_at, fail_at, []

    def setup(self, estimator, context):
        self.events.append(("setup", None))

    def teardown(self, estimator, context):
        self.events.append(("teardown", None))

    def on_fit_task_begin(self, estimator, context):
        self.events.append((f"begin {context.task_name}", context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.events.append((f"end {context.task_name}", context.task_id))
        if context.task_name == "epoch" and context.task_id == self.fail_at:
            raise ZeroDivisionError("a callback's own")
        return context.task_name == "epoch" and context.task_id == self.stop_at


class Snapshots(Recorder):
    """Asks for everything, and predicts with it."""

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            self.events.append(("before", fitted_estimator.predict(X)))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.events.append((context.task_name, fitted_estimator.predict(X), fitted_estimator.score(X, y), metadata))


def classifier(where, **options):
    return MLPTorchClassifier(**{**FAST, **options}, **where)


@pytest.mark.parametrize("network", NETWORKS)
class TestOneFit:
    def test_tasks_are_epochs(self, network, where):
        recorder = Recorder()
        fitted = classifier(where, **NETWORKS[network]).set_callbacks(recorder).fit(X, LABELS)
        epochs = [event for i in range(fitted.n_iter_) for event in (("begin epoch", i), ("end epoch", i))]
        assert recorder.events == [("setup", None), ("begin fit", 0), *epochs, ("end fit", 0), ("teardown", None)]

    def test_they_change_nothing(self, network, where):
        watched = classifier(where, **NETWORKS[network]).set_callbacks(Snapshots()).fit(X, LABELS)
        alone = classifier(where, **NETWORKS[network]).fit(X, LABELS)
        np.testing.assert_array_equal(watched.predict_proba(X), alone.predict_proba(X))
        assert watched.loss_curve_ == alone.loss_curve_

    def test_states_are_those_of_shorter_fits(self, network, where):
        recorder, weight = Snapshots(), np.linspace(0.5, 2, 160)
        classifier(where, **NETWORKS[network]).set_callbacks(recorder).fit(X, LABELS, weight)
        ends = [event for event in recorder.events if event[0] == "epoch"]
        begins = [event for event in recorder.events if event[0] == "before"]
        for n in (1, 3, 6):
            shorter = classifier(where, **{**NETWORKS[network], "max_iter": n}).fit(X, LABELS, weight)
            np.testing.assert_array_equal(ends[n - 1][1], shorter.predict(X))
            assert ends[n - 1][2] == shorter.score(X, LABELS)
            assert ends[n - 1][3]["sample_weight"] is weight
            if n < 6:
                np.testing.assert_array_equal(begins[n][1], shorter.predict(X))

    def test_one_may_ask_to_stop(self, network, where):
        stopped = classifier(where, **NETWORKS[network]).set_callbacks(Recorder(stop_at=2), Recorder()).fit(X, LABELS)
        assert stopped.n_iter_ == 3
        shorter = classifier(where, **{**NETWORKS[network], "max_iter": 3}).fit(X, LABELS)
        np.testing.assert_array_equal(stopped.predict_proba(X), shorter.predict_proba(X))

    def test_errors_surface_and_tear_down(self, network, where):
        recorder = Recorder(fail_at=1)
        estimator = classifier(where, **NETWORKS[network]).set_callbacks(recorder)
        before = dict(vars(estimator))
        with pytest.raises(ZeroDivisionError, match="a callback's own") as caught:
            estimator.fit(X, LABELS)
        assert "on_fit_task_end" in [entry.name for entry in caught.traceback]
        assert recorder.events[-1] == ("teardown", None)
        assert vars(estimator) == before


def test_bad_data_tears_down(where):
    recorder = Recorder()
    estimator = classifier(where).set_callbacks(recorder)
    with pytest.raises(ValueError, match="NaN"):
        estimator.fit(np.full_like(X, np.nan), LABELS)
    assert recorder.events[-1] == ("teardown", None)
    assert not hasattr(estimator, "_callback_fit_ctx")


def test_values_are_worked_out_only_if_asked_for(where, monkeypatch):
    made, state = [], Stack.state
    monkeypatch.setattr(Stack, "state", lambda self, i: made.append(i) or state(self, i))
    classifier(where).set_callbacks(Recorder()).fit(X, LABELS)
    assert len(made) == 1  # at the end, for the fitted attributes
    classifier(where).set_callbacks(Snapshots()).fit(X, LABELS)
    assert len(made) == 1 + 2 * 6 + 1


def test_scoring_monitor(where):
    monitor = ScoringMonitor(scoring="neg_log_loss")
    fitted = classifier(where, alpha=0.0).set_callbacks(monitor).fit(X, LABELS)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert [row["task_id"] for row in rows] == list(range(fitted.n_iter_))
    scores = [row["neg_log_loss"] for row in rows]
    assert np.all(np.diff(scores) > 0)
    assert len(monitor.get_logs().data_as_pandas) == fitted.n_iter_ + 1


def test_scoring_monitor_of_a_regressor(where):
    monitor = ScoringMonitor(scoring="r2")
    fitted = MLPTorchRegressor(**FAST, **where).set_callbacks(monitor).fit(X, VALUES)
    last = [row["r2"] for row in monitor.get_logs().data if row["task_name"] == "epoch"][-1]
    assert last == pytest.approx(fitted.score(X, VALUES))


def test_progress_bar(where, capsys):
    fitted = classifier(where).set_callbacks(ProgressBar()).fit(X, LABELS)
    assert "MLPTorchClassifier - fit" in capsys.readouterr().out
    assert fitted.n_iter_ == 6


@pytest.mark.parametrize("backend", slow_but(["sequential", "sk_mlp"], ["sequential", "loky", "sk_mlp"]))
def test_in_a_search_through_a_pipeline(backend, where):
    """Each candidate and fold logs its epochs, in one process, in several, and in a stack."""
    monitor = ScoringMonitor(scoring="accuracy")
    pipeline = make_pipeline(StandardScaler(), classifier(where).set_callbacks(monitor))
    search = GridSearchCV(pipeline, {"mlptorchclassifier__alpha": [1e-4, 1.0]}, cv=3, refit=False)
    with parallel_config(backend, n_jobs=2 if backend == "loky" else None):
        search.fit(X, LABELS)
    data = [row for log in monitor.get_logs(select="all") for row in log.data if row["task_name"] == "epoch"]
    assert len(data) == 2 * 3 * 6
    assert len({row["parent_task_id_path"] for row in data}) == 6


def test_progress_of_a_search_as_a_stack(where, capsys):
    search = GridSearchCV(classifier(where), {"alpha": [1e-4, 1.0]}, cv=2).set_callbacks(
        ProgressBar(max_propagation_depth=2)
    )
    with parallel_config("sk_mlp"):
        search.fit(X, LABELS)
    printed = capsys.readouterr().out
    assert "GridSearchCV" in printed
    assert "MLPTorchClassifier - fit" in printed


def test_members_of_a_stack_stop_and_fail_alone(where):
    callbacks = [Recorder(), Recorder(stop_at=1), Recorder(fail_at=2), Recorder()]
    estimators = [classifier(where, random_state=i).set_callbacks(c) for i, c in enumerate(callbacks)]

    def fit(estimator):
        try:
            return estimator.fit(X, LABELS)
        except ZeroDivisionError as error:
            return error

    with parallel_config("sk_mlp"):
        fits = Parallel()(delayed(fit)(estimator) for estimator in estimators)
    assert [getattr(found, "n_iter_", None) for found in fits] == [6, 2, None, 6]
    assert isinstance(fits[2], ZeroDivisionError)
    assert all(c.events[-1] == ("teardown", None) for c in callbacks)
    alone = clone(estimators[3]).set_callbacks().fit(X, LABELS)
    np.testing.assert_allclose(fits[3].coefs_[0], alone.coefs_[0], rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": lambda epoch: 1 / (2 - epoch)},
        {"early_stopping": True, "scoring": lambda fitted, X, y: 1 / (fitted.alpha - 7)},
    ],
)
def test_what_a_users_function_raises_stays_with_its_member(options, where):
    """A schedule or a scorer that raises ends its own fit, with its own traceback."""
    bad = classifier(where, **options, alpha=7.0)

    def fit(estimator):
        try:
            return estimator.fit(X, LABELS)
        except ZeroDivisionError as error:
            return error.__traceback__

    with parallel_config("sk_mlp"):
        found = Parallel()(delayed(fit)(estimator) for estimator in (classifier(where), bad, classifier(where)))
    assert [getattr(fitted, "n_iter_", None) for fitted in found] == [6, None, 6]
    names = []
    traceback = found[1]
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names[-1] == "<lambda>"


def test_a_fit_without_callbacks_makes_no_context(where, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("no callback, no context")

    monkeypatch.setattr(MLPTorchClassifier, "_init_callback_context", fail)
    classifier(where).fit(X, LABELS)


def test_partial_fit_calls_no_callback(where):
    recorder = Recorder()
    classifier(where).set_callbacks(recorder).partial_fit(X, LABELS, classes=[0, 10, 20])
    assert recorder.events == []


class Keeping(Recorder):
    """Keeps what it is handed."""

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            self.events.append(fitted_estimator)

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            self.events.append(fitted_estimator)


@pytest.mark.parametrize("network", NETWORKS)
class TestWhatIsHandedOut:
    """`fitted_estimator`, at the beginning and at the end of each epoch."""

    @pytest.fixture
    def handed(self, network, where):
        keeping = Keeping()
        options = {**NETWORKS[network], "tol": 0.0, "max_iter": 4}
        self.fitted = classifier(where, **options).set_callbacks(keeping).fit(X, LABELS)
        return keeping.events[1:9]  # after "setup"; L-BFGS begins a fifth iteration to find that it is none

    def test_is_complete(self, handed):
        names = {name for name in vars(self.fitted) if name.endswith("_")}
        for i, estimator in enumerate(handed):
            assert names <= vars(estimator).keys()
            n = (i + 1) // 2
            assert (estimator.n_iter_, len(estimator.loss_curve_), len(estimator.history_["loss"])) == (n, n, n)
            assert estimator.loss_curve_ == self.fitted.loss_curve_[:n]
        assert handed[-1].loss_ == self.fitted.loss_curve_[3]

    def test_goes_on(self, handed):
        for estimator in handed[1:]:
            before = estimator.loss_curve_
            again = estimator.set_params(warm_start=True, max_iter=2).fit(X, LABELS)
            assert again.loss_curve_[: len(before)] == before
            assert len(again.loss_curve_) == len(before) + again.n_iter_
        assert self.fitted.n_iter_ == len(self.fitted.loss_curve_) == 4

    def test_goes_on_epoch_by_epoch(self, handed, network):
        if network == "lbfgs":
            assert not hasattr(handed[0], "partial_fit")
            return
        assert handed[5]._optimizer_state["steps"] == 3 * 4  # batches of 40 rows, in three epochs
        assert len(handed[3].partial_fit(X, LABELS).partial_fit(X, LABELS).loss_curve_) == 4

    def test_tells_no_callback(self, handed, network):
        n_before = len(self.fitted._skl_callbacks[0].events)
        for estimator in handed:
            assert b"Keeping" not in pickle.dumps(estimator)
            if network != "lbfgs":
                estimator.partial_fit(X, LABELS)
            estimator.fit(X, LABELS)
        assert len(self.fitted._skl_callbacks[0].events) == n_before
        assert b"Keeping" in pickle.dumps(self.fitted)


def test_an_epoch_that_diverges_ends_a_fit_with_the_best_weights(where):
    keeping = Keeping()
    clf = classifier(where, solver="sgd", learning_rate=lambda epoch: 1 if epoch < 2 else 1e200, early_stopping=True)
    with pytest.warns(ConvergenceWarning, match="non-finite"):
        clf.set_callbacks(keeping).fit(X, LABELS)
    assert np.isfinite(clf.predict_proba(X)).all()
    assert keeping.events[-2].n_iter_ == clf.n_iter_  # the last is "teardown"
