"""The joblib backend "sk_mlp": results as without it, for everyone who calls joblib, whatever fails."""

import asyncio
import contextlib
import gc
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from joblib import Parallel, delayed, parallel_config
from problems import PROBLEMS
from scipy.sparse import csr_array
from scipy.stats import loguniform
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFECV, SelectKBest, f_classif
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_info, threadpool_limits
from user_code import AfterEachEpoch, default_float64

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor, _hub, stacking
from sk_mlp._estimator.fitting import task_of
from sk_mlp._estimator.reading import FitMode, Sample
from sk_mlp._training import run as dispatch

OPTIONS = {"hidden_layer_sizes": (6,), "max_iter": 8, "batch_size": 40, "random_state": 0, "learning_rate_init": 0.01}
X, WEIGHT = PROBLEMS["multiclass"].X, np.random.RandomState(5).uniform(0, 2, 160)
LABELS, VALUES, MANY = (PROBLEMS[name].y for name in ("multiclass", "regression", "regression_many"))
INDICATOR, WORDS = PROBLEMS["multilabel"].y, PROBLEMS["binary"].y
with parallel_config("sk_mlp"):
    pass  # joblib keeps from now on that none is in force
RATES = {"alpha": [1e-4, 0.1], "learning_rate_init": [1e-3, 0.01, 0.03]}


@pytest.fixture(autouse=True)
def _quiet(unconverged):
    """Fits of few epochs do not converge."""


@pytest.fixture(autouse=True)
def _in_threads(monkeypatch):
    """Stacks are small, and train three at a time, wherever tests run."""
    monkeypatch.setattr(stacking, "_MOST_IN_A_STACK", 3)
    monkeypatch.setattr(stacking, "available_threads", lambda: 3)


@pytest.fixture
def one_thread(monkeypatch, _in_threads):
    """Stacks are as deep as usual, and train one after another."""
    monkeypatch.setattr(stacking, "_MOST_IN_A_STACK", 32)
    monkeypatch.setattr(stacking, "available_threads", lambda: 1)


def classifier(**options):
    return MLPTorchClassifier(**{**OPTIONS, "dtype": "float64", "device": "cpu", **options})


def regressor(**options):
    return MLPTorchRegressor(**{**OPTIONS, "dtype": "float64", "device": "cpu", **options})


class _RoundRobin:
    """Folds of unequal sizes, without a state."""

    def __init__(self, n_splits=3):
        self.n_splits = n_splits

    def split(self, X, y=None, groups=None):
        folds = np.arange(X.shape[0]) % (2 * self.n_splits) % self.n_splits
        for i in range(self.n_splits):
            yield np.flatnonzero(folds != i), np.flatnonzero(folds == i)

    def get_n_splits(self, X=None, y=None, groups=None):
        return self.n_splits


CV = _RoundRobin()


def search_results(search):
    scores = {key: value for key, value in search.cv_results_.items() if "time" not in key and "param" not in key}
    return [*scores.values(), search.best_index_]


def coefs(*estimators):
    return [coef for estimator in estimators for coef in estimator.coefs_]


def grid(estimator, parameters, y=LABELS, X=X, **options):
    return search_results(GridSearchCV(estimator, parameters, cv=CV, **options).fit(X, y))


def scaled(estimator):
    return make_pipeline(StandardScaler(), estimator)


def prefixed(parameters, prefix):
    return {f"{prefix}__{name}": values for name, values in parameters.items()}


def cross_validated(estimator, y, **options):
    found = cross_validate(estimator, X, y, cv=CV, return_estimator=True, **options)
    return [found["test_score"], *coefs(*found["estimator"])]


def mixed_grid():
    return [{"model": [classifier(), SVC()]}, {"model": [classifier()], "model__alpha": [0.1, 1.0]}]


def columns(estimator):
    parts = [("a", StandardScaler(), [0, 1, 2]), ("b", MinMaxScaler(), [3, 4, 5, 6, 7])]
    return make_pipeline(ColumnTransformer(parts), estimator)


def union(estimator):
    return make_pipeline(FeatureUnion([("a", StandardScaler()), ("b", SelectKBest(f_classif, k=3))]), estimator)


def weighted_grid():
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = scaled(classifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True))
        scaler = estimator.steps[0][1].set_fit_request(sample_weight=False)
        assert scaler is estimator.steps[0][1]
        search = GridSearchCV(estimator, prefixed(RATES, "mlptorchclassifier"), cv=CV)
        return search_results(search.fit(X, LABELS, sample_weight=WEIGHT))


# What calls joblib, and the size of the largest stack that has to come of it.
CALLERS = {
    "GridSearchCV": (lambda: grid(classifier(), RATES), 18),
    "GridSearchCV, regressor": (lambda: grid(regressor(), RATES, VALUES), 18),
    "GridSearchCV, multilabel": (lambda: grid(classifier(), RATES, INDICATOR), 18),
    "GridSearchCV, sgd": (lambda: grid(classifier(solver="sgd"), {"momentum": [0.5, 0.9], "power_t": [0.3, 0.5]}), 12),
    "GridSearchCV, lbfgs": (lambda: grid(classifier(solver="lbfgs"), {"alpha": [1e-4, 0.1]}), 0),
    "GridSearchCV, sparse": (lambda: grid(classifier(), RATES, X=csr_array(X * (X > 0))), 18),
    "GridSearchCV, early stopping": (
        lambda: grid(classifier(n_iter_no_change=2), {**RATES, "early_stopping": [True, False]}),
        18,
    ),
    "GridSearchCV, shapes": (lambda: grid(classifier(), {**RATES, "hidden_layer_sizes": [(6,), (4, 3), 5]}), 18),
    "GridSearchCV, pipeline": (lambda: grid(scaled(classifier()), prefixed(RATES, "mlptorchclassifier")), 18),
    "GridSearchCV, mixed": (lambda: grid(Pipeline([("s", StandardScaler()), ("model", SVC())]), mixed_grid()), 9),
    "GridSearchCV, weights": (weighted_grid, 18),
    "GridSearchCV, two at a time": (lambda: grid(classifier(), RATES, n_jobs=2), 2),
    "RandomizedSearchCV": (
        lambda: search_results(
            RandomizedSearchCV(
                classifier(),
                {"learning_rate_init": loguniform(1e-3, 0.1), "alpha": loguniform(1e-5, 1), "beta_1": [0.8, 0.9]},
                n_iter=6,
                cv=CV,
                random_state=0,
            ).fit(X, LABELS)
        ),
        18,
    ),
    "HalvingGridSearchCV": (
        lambda: search_results(
            HalvingGridSearchCV(classifier(), RATES, cv=3, random_state=0, min_resources=80).fit(X, LABELS)
        ),
        18,
    ),
    "cross_validate": (lambda: cross_validated(classifier(), LABELS), 3),
    "cross_validate, regressor": (lambda: cross_validated(regressor(), MANY), 3),
    "cross_val_score": (lambda: [cross_val_score(classifier(), X, WORDS, cv=5)], 5),
    "cross_val_predict": (lambda: [cross_val_predict(classifier(), X, LABELS, cv=5, method="predict_proba")], 5),
    "learning_curve": (lambda: [*learning_curve(classifier(), X, LABELS, cv=CV, train_sizes=[40, 70, 100])], 3),
    "learning_curve, partial_fit": (
        lambda: [*learning_curve(classifier(batch_size=5), X, LABELS, cv=CV, exploit_incremental_learning=True)],
        3,
    ),
    "validation_curve": (
        lambda: [*validation_curve(classifier(), X, LABELS, param_name="alpha", param_range=[0.1, 1, 2], cv=CV)],
        9,
    ),
    "permutation_test_score": (
        lambda: [*permutation_test_score(classifier(), X, LABELS, cv=CV, n_permutations=5, random_state=0)],
        5,
    ),
    "BaggingClassifier": (
        lambda: [BaggingClassifier(classifier(), n_estimators=5, random_state=0).fit(X, LABELS).predict_proba(X)],
        5,
    ),
    "BaggingRegressor": (
        lambda: [BaggingRegressor(regressor(), n_estimators=5, random_state=0).fit(X, VALUES).predict(X)],
        5,
    ),
    "VotingClassifier": (
        lambda: coefs(
            *VotingClassifier([("a", classifier()), ("b", classifier(alpha=1)), ("c", LogisticRegression())])
            .fit(X, LABELS)
            .estimators_[:2]
        ),
        2,
    ),
    "VotingRegressor": (
        lambda: coefs(*VotingRegressor([("a", regressor()), ("b", regressor(alpha=1))]).fit(X, VALUES).estimators_),
        2,
    ),
    "StackingClassifier": (
        lambda: [
            StackingClassifier([("a", classifier()), ("b", classifier(alpha=1))], cv=CV).fit(X, LABELS).predict_proba(X)
        ],
        6,
    ),
    "StackingRegressor": (
        lambda: [StackingRegressor([("a", regressor()), ("b", Ridge())], cv=CV).fit(X, VALUES).predict(X)],
        3,
    ),
    "OneVsRestClassifier": (lambda: coefs(*OneVsRestClassifier(classifier()).fit(X, LABELS).estimators_), 3),
    "OneVsOneClassifier": (lambda: coefs(*OneVsOneClassifier(classifier()).fit(X, LABELS).estimators_), 2),
    "MultiOutputClassifier": (lambda: coefs(*MultiOutputClassifier(classifier()).fit(X, INDICATOR).estimators_), 3),
    "MultiOutputRegressor": (lambda: coefs(*MultiOutputRegressor(regressor()).fit(X, MANY).estimators_), 3),
    "CalibratedClassifierCV": (
        lambda: [CalibratedClassifierCV(classifier(), cv=3).fit(X, LABELS).predict_proba(X)],
        3,
    ),
    "RFECV": (
        lambda: [
            RFECV(
                classifier(),
                step=4,
                cv=CV,
                importance_getter=lambda estimator: np.abs(estimator.coefs_[0]).sum(1),
            )
            .fit(X, LABELS)
            .cv_results_["mean_test_score"]
        ],
        3,
    ),
    "nested search": (
        lambda: [cross_val_score(GridSearchCV(scaled(classifier()), {}, cv=CV), X, LABELS, cv=4)],
        9,
    ),
    "ColumnTransformer": (lambda: grid(columns(classifier()), prefixed(RATES, "mlptorchclassifier")), 18),
    "FeatureUnion": (lambda: grid(union(classifier()), prefixed(RATES, "mlptorchclassifier")), 18),
    "TransformedTargetRegressor": (
        lambda: grid(
            TransformedTargetRegressor(regressor(), transformer=StandardScaler()), prefixed(RATES, "regressor"), VALUES
        ),
        18,
    ),
}


@pytest.fixture
def stack_sizes(monkeypatch, one_thread):
    """Sizes of the stacks trained."""
    sizes, train = [], stacking.train
    for module in (stacking, dispatch):
        monkeypatch.setattr(module, "train", lambda tasks: sizes.append(len(tasks)) or train(tasks))
    return sizes


@pytest.mark.parametrize("caller", CALLERS)
def test_results_are_those_without_it(caller, stack_sizes):
    call, largest = CALLERS[caller]
    expected = call()
    assert set(stack_sizes) <= {1}
    with parallel_config("sk_mlp"):
        found = call()
    assert max(stack_sizes, default=0) >= largest
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_members_stop_when_they_would_alone(early_stopping):
    estimators = [
        classifier(
            max_iter=200, tol=0.01, n_iter_no_change=2, early_stopping=early_stopping, alpha=alpha, random_state=i
        )
        for i, alpha in enumerate([1e-4, 0.1, 1, 5, 10])
    ]
    with parallel_config("sk_mlp"):
        together = Parallel()(delayed(clone(e).fit)(X, LABELS) for e in estimators)
    alone = [clone(e).fit(X, LABELS) for e in estimators]
    assert len({e.n_iter_ for e in alone}) > 2
    for ours, expected in zip(together, alone, strict=True):
        assert ours.n_iter_ == expected.n_iter_
        np.testing.assert_allclose(ours.loss_curve_, expected.loss_curve_, rtol=1e-9)
        for a, b in zip(coefs(ours), coefs(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_float32_scores_and_choice():
    X, y = load_digits(return_X_y=True)
    estimator = scaled(MLPTorchClassifier((16,), max_iter=6, batch_size=32, random_state=0, device="cpu"))
    search = GridSearchCV(estimator, prefixed(RATES, "mlptorchclassifier"), cv=3)
    expected = clone(search).fit(X, y)
    runs = []
    for candidates in (RATES, {name: values[::-1] for name, values in RATES.items()}, RATES):
        with parallel_config("sk_mlp"):
            search.set_params(param_grid=prefixed(candidates, "mlptorchclassifier"))
            runs.append(clone(search).fit(X, y))
    assert {tuple(run.best_params_.items()) for run in runs} == {tuple(expected.best_params_.items())}
    first, backwards, again = (run.cv_results_["mean_test_score"] for run in runs)
    np.testing.assert_allclose(first, expected.cv_results_["mean_test_score"], atol=2e-3)
    np.testing.assert_allclose(backwards[::-1], first, atol=2e-3)
    np.testing.assert_array_equal(again, first)
    for a, b in zip(*(coefs(run.best_estimator_[-1]) for run in (runs[0], runs[2])), strict=True):
        np.testing.assert_array_equal(a, b)


class TestHowItIsAskedFor:
    def test_by_name(self, stack_sizes):
        fits = Parallel(backend="sk_mlp")(delayed(classifier(alpha=a).fit)(X, LABELS) for a in (0, 1))
        assert stack_sizes == [2]
        assert [fit.alpha for fit in fits] == [0, 1]

    def test_n_jobs_bounds_the_fits_in_flight(self, stack_sizes):
        with parallel_config(backend="sk_mlp", n_jobs=4):
            grid(classifier(), RATES, refit=False)
        assert stack_sizes == [4, 4, 4, 4, 2]

    def test_one_at_a_time(self, stack_sizes):
        with parallel_config(backend="sk_mlp", n_jobs=1):
            grid(classifier(), {"alpha": [0.1]}, refit=False)
        assert stack_sizes == [1, 1, 1]

    def test_none_at_a_time(self):
        with parallel_config(backend="sk_mlp"), pytest.raises(ValueError, match=r"n_jobs must not be 0.*got 0"):
            Parallel(n_jobs=0)(delayed(abs)(i) for i in range(3))

    def test_memory_bounds_the_fits_in_flight(self, stack_sizes, monkeypatch):
        task, _ = task_of(classifier(), Sample(X, LABELS), Sample(None, None), FitMode(goes_on=False))
        monkeypatch.setattr(stacking, "_BUDGET", 3 * stacking._weigh(task) - 1)
        with parallel_config("sk_mlp"):
            Parallel()(delayed(classifier(alpha=a).fit)(X, LABELS) for a in range(7))
        assert stack_sizes == [3, 3, 1]

    def test_outside_nothing_changes(self, stack_sizes):
        with parallel_config("sk_mlp"):
            pass
        grid(classifier(), {"alpha": [0.1]}, n_jobs=1)
        assert stack_sizes == [1, 1, 1, 1]

    def test_from_another_thread(self, stack_sizes):
        def search(_):
            with parallel_config("sk_mlp"):
                return grid(classifier(), RATES, refit=False)

        expected = search(0)
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(search, range(4)):
                for a, b in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(a, b)
        assert stack_sizes == [18] * 5


class TestWhatStacks:
    SAME: tuple = (
        ("learning_rate_init", 0.02), ("alpha", 1.0), ("beta_1", 0.5), ("beta_2", 0.9), ("epsilon", 1e-4),
        ("tol", 0.1), ("n_iter_no_change", 3), ("max_iter", 4), ("random_state", 5), ("shuffle", False),
    )  # fmt: skip
    OTHER: tuple = (
        ("hidden_layer_sizes", (5,)), ("activation", "tanh"), ("solver", "sgd"), ("batch_size", 41),
        ("dtype", "float32"),
    )  # fmt: skip

    @pytest.mark.parametrize(("name", "value"), SAME + OTHER)
    def test_parameters(self, name, value, stack_sizes):
        with parallel_config("sk_mlp"):
            Parallel()(delayed(classifier(**options).fit)(X, LABELS) for options in ({}, {name: value}))
        assert stack_sizes == ([1, 1] if name in dict(self.OTHER) else [2])

    def test_data(self, stack_sizes):
        """Other rows, weights, labels of as many classes, and numbers of rows, if they make as many batches."""
        more = [(X + 1, LABELS, WEIGHT), (X[:130], LABELS[:130], None), (X, LABELS[::-1], None)]
        with parallel_config("sk_mlp"):
            Parallel()(delayed(classifier().fit)(*data) for data in [(X, LABELS, None), *more])
            Parallel()(delayed(classifier().fit)(*data) for data in [(X, LABELS), (X[:120], LABELS[:120]), (X, WORDS)])
        assert stack_sizes == [4, 1, 1, 1]

    def test_equal_inputs_are_held_once(self, monkeypatch, one_thread):
        seen, train = [], stacking.train
        monkeypatch.setattr(
            stacking, "train", lambda tasks: seen.append({id(t.table.X) for t in tasks}) or train(tasks)
        )
        for inputs in (X, csr_array(X)):
            with parallel_config("sk_mlp"):
                Parallel()(delayed(classifier(dtype="float32").fit)(inputs, LABELS) for _ in range(5))
        assert [len(ids) for ids in seen] == [1, 1]
        gc.collect()
        assert not [held for held in (reference() for reference in stacking._inputs.values()) if held is not None]

    def test_large_networks_train_one_by_one(self, stack_sizes, monkeypatch):
        monkeypatch.setattr(stacking, "stack_bytes", lambda _: 1000)
        with parallel_config("sk_mlp"):
            Parallel()(delayed(classifier(alpha=a).fit)(X, LABELS) for a in range(3))
        assert stack_sizes == [1, 1, 1]


def nothing_is_left():
    """No greenlet of ours, no thread count, warning filter or configuration but the caller's."""
    gc.collect()
    alive = [o for o in gc.get_objects() if type(o) is _hub.Worker and not o.dead]
    return (
        not alive,
        torch.get_num_threads(),
        list(warnings.filters),
        sklearn.get_config(),
        dict(vars(joblib.parallel._backend)),
    )


class TestFailures:
    @pytest.fixture(autouse=True)
    def _nothing_is_left(self):
        before = nothing_is_left()
        yield
        assert nothing_is_left() == before
        with parallel_config("sk_mlp"):  # the next search works
            assert np.isfinite(grid(classifier(), {"alpha": [0.1, 1]})[0]).all()
        assert nothing_is_left() == before

    @pytest.mark.parametrize(
        "bad", [{"alpha": [-1.0]}, {"learning_rate_init": [1e308]}, {"hidden_layer_sizes": [(0,)]}]
    )
    def test_stay_with_their_member(self, bad):
        good = {"alpha": [1e-4, 0.1]}
        with parallel_config("sk_mlp"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Scoring failed|\\n3 fits failed|One or more")
            search = GridSearchCV(classifier(), [good, bad, good], cv=CV, error_score=-7.0).fit(X, LABELS)
            expected = GridSearchCV(classifier(), good, cv=CV).fit(X, LABELS)
        scores, alone = search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
        assert scores[2] == -7
        np.testing.assert_array_equal(scores[[0, 1]], alone)
        np.testing.assert_array_equal(scores[[3, 4]], alone)

    def test_raise_as_they_came(self):
        class Mistake(Exception):
            pass

        class Broken(TransformerMixin, BaseEstimator):
            def __init__(self, breaks=False):
                self.breaks = breaks

            def fit(self, X, y=None):
                return self

            def transform(self, X):
                if self.breaks:
                    raise Mistake("here")
                return X

        search = GridSearchCV(
            Pipeline([("b", Broken()), ("m", classifier())]),
            {"b__breaks": [False, True]},
            cv=CV,
            error_score="raise",
        )
        with parallel_config("sk_mlp"), pytest.raises(Mistake, match="here") as caught:
            search.fit(X, LABELS)
        assert "transform" in [entry.name for entry in caught.traceback]

    def test_in_a_nested_search(self):
        search = GridSearchCV(classifier(), {"alpha": [0.1, -1.0]}, cv=CV, error_score="raise")
        with parallel_config("sk_mlp"), pytest.raises(ValueError, match="alpha"):
            cross_validate(search, X, LABELS, cv=CV, error_score="raise")

    def test_of_a_stack_reach_all_its_members(self, monkeypatch):
        def fail(_):
            raise MemoryError("too large")

        monkeypatch.setattr(stacking, "train", fail)
        with parallel_config("sk_mlp"), pytest.raises(MemoryError, match="too large"):
            cross_val_score(classifier(), X, LABELS, cv=CV, error_score="raise")
        monkeypatch.undo()

    @pytest.mark.parametrize("where", ["training", "lbfgs", "scoring"])
    def test_ctrl_c_ends_the_search(self, where, monkeypatch, one_thread):
        fits = []

        def interrupt(*_):
            fits.append(1)
            raise KeyboardInterrupt

        estimator = classifier(solver="lbfgs") if where == "lbfgs" else classifier()
        target = {
            "training": "sk_mlp._training.optimizers.FusedAdam.prepare",
            "lbfgs": "sk_mlp._training.lbfgs._Search._value_and_gradient",
            "scoring": "sk_mlp.MLPTorchClassifier.score",
        }[where]
        monkeypatch.setattr(target, interrupt)
        with parallel_config("sk_mlp"), pytest.raises(KeyboardInterrupt):
            grid(estimator, RATES)
        assert len(fits) == 1
        monkeypatch.undo()

    def test_a_call_that_will_not_end_is_told_again(self):
        def stubborn():
            with contextlib.suppress(BaseException):
                classifier().fit(X, LABELS)
            return classifier().fit(X, LABELS)

        def fail():
            raise ZeroDivisionError

        with parallel_config("sk_mlp"), pytest.raises(ZeroDivisionError):
            Parallel()(delayed(function)() for function in (fail, stubborn, stubborn))


def test_each_warning_comes_once_from_its_member():
    estimators = [classifier(max_iter=n, tol=1.0, n_iter_no_change=3) for n in (3, 30, 4, 30)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with parallel_config("sk_mlp"):
            Parallel()(delayed(e.fit)(X, LABELS) for e in estimators)
    messages = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    assert [re.search(r"\((\d+)\)", message)[1] for message in messages] == ["3", "4"]


def test_filters_and_configuration_of_a_call_stay_with_it():
    def fit(i):
        with warnings.catch_warnings(record=True) as caught, sklearn.config_context(working_memory=100 + i):
            warnings.simplefilter("always" if i % 2 else "ignore")
            classifier(random_state=i).fit(X, LABELS)
            assert sklearn.get_config()["working_memory"] == 100 + i
            return len(caught)

    before = nothing_is_left()
    with parallel_config("sk_mlp"):
        assert Parallel()(delayed(fit)(i) for i in range(4)) == [0, 1, 0, 1]
    assert nothing_is_left() == before


def test_verbose_output_of_a_member_stays_together(capsys):
    with parallel_config("sk_mlp"):
        Parallel()(delayed(classifier(max_iter=3, verbose=True, alpha=a).fit)(X, LABELS) for a in (0, 1, 2))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"Iteration {i}" for i in (1, 2, 3)] * 3


def test_verbose_output_of_a_search_follows_its_members(capsys):
    with parallel_config("sk_mlp"):
        GridSearchCV(classifier(max_iter=1, verbose=True), {"alpha": [0, 1]}, cv=CV, verbose=2, refit=False).fit(
            X, LABELS
        )
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["Iteration", "[CV]"] * 6


def test_fit_time_is_a_members_share(one_thread):
    """The shares of all fits add up to no more than the search took on one thread."""
    search = GridSearchCV(classifier(max_iter=60), RATES, cv=CV, refit=False)
    with parallel_config("sk_mlp"):
        start = perf_counter()
        search.fit(X, LABELS)
        seconds = perf_counter() - start
    times = search.cv_results_["mean_fit_time"]
    assert (times > 0).all()
    assert 0.1 * seconds < 3 * times.sum() < seconds


SEARCH_MEMORY = """
import resource, warnings
import numpy as np
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sk_mlp import MLPTorchClassifier
warnings.simplefilter("ignore")
X, y = load_digits(return_X_y=True)
pipeline = make_pipeline(StandardScaler(), MLPTorchClassifier((32, 16), max_iter=1, batch_size=200))
pipeline.fit(X, y).score(X, y)
alphas = {"mlptorchclassifier__alpha": np.logspace(-6, 1, CANDIDATES)}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
with parallel_config("sk_mlp"):
    GridSearchCV(pipeline, alphas, cv=5, refit=False).fit(X, y)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_memory_of_a_search_is_bounded():
    """Measured by the operating system: 300 candidates in 5 folds, which unbounded would hold 3 GiB."""
    script = SEARCH_MEMORY.replace("CANDIDATES", "300")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2048


DASK = """
import os, warnings
import numpy as np
from distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sk_mlp import MLPTorchClassifier
warnings.simplefilter("ignore")

def where(estimator, X, y):
    return os.getpid()

if __name__ == "__main__":
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(
        MLPTorchClassifier((8,), max_iter=20, random_state=0, device="cpu"),
        {"alpha": [1e-4, 1e-2, 1.0]}, cv=4, refit="score",
        scoring={"score": "accuracy", "where": where},
    )
    expected = search.fit(X, y).cv_results_["mean_test_score"]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with parallel_config("dask"):
            search.fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected)
    processes = {search.cv_results_[f"split{i}_test_where"][j] for i in range(4) for j in range(3)}
    assert len(processes) == 2 and os.getpid() not in processes, processes
"""  # fmt: skip


def test_dask_runs_the_same_search_on_two_processes(tmp_path):
    pytest.importorskip("distributed")
    script = tmp_path / "search.py"
    script.write_text(DASK)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


class TestCallsWithinCalls:
    """joblib wherever code of a user's runs in a search: the backend is one, the calls are several."""

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self):
        before = nothing_is_left()
        yield
        assert nothing_is_left() == before

    @staticmethod
    def by_forest(estimator, X, y):
        forest = RandomForestClassifier(3, random_state=0).fit(X, y)  # trains and predicts with joblib
        return float((estimator.predict(X) == forest.predict(X)).mean())

    @staticmethod
    def by_search(estimator, _X, _y):
        return cross_val_score(classifier(alpha=estimator.alpha, batch_size="auto"), X, LABELS, cv=2).mean()

    @staticmethod
    def by_permutation(estimator, X, y):
        return permutation_importance(estimator, X, y, n_repeats=2, random_state=0).importances_mean.max()

    @pytest.mark.parametrize("scorer", ["by_forest", "by_search", "by_permutation"])
    @pytest.mark.parametrize("how", ["of the search", "of early stopping", "callback of lbfgs"])
    def test_in_a_scorer(self, scorer, how):
        score = getattr(self, scorer)
        estimator, scoring = classifier(max_iter=2), None
        if how == "of the search":
            scoring = score
        elif how == "of early stopping":
            estimator.set_params(early_stopping=True, scoring=score)
        else:
            estimator = classifier(max_iter=2, solver="lbfgs").set_callbacks(
                AfterEachEpoch(lambda e: score(e, X, LABELS))
            )
        search = GridSearchCV(estimator, {"alpha": [1e-4, 1.0]}, cv=2, scoring=scoring, error_score="raise")
        expected = search.fit(X, LABELS).cv_results_["mean_test_score"]
        with parallel_config("sk_mlp"):
            found = clone(search).fit(X, LABELS).cv_results_["mean_test_score"]
        np.testing.assert_allclose(found, expected, rtol=1e-9)

    @pytest.mark.parametrize("managed", [False, True])
    def test_in_a_generator_of_tasks(self, managed):
        def calls():
            for seed in range(4):
                assert Parallel()(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]
                yield delayed(classifier(random_state=seed).fit)(X, LABELS)

        expected = [classifier(random_state=seed).fit(X, LABELS).loss_ for seed in range(4)]
        with parallel_config("sk_mlp"), Parallel() if managed else contextlib.nullcontext(Parallel()) as parallel:
            assert [fit.loss_ for fit in parallel(calls())] == pytest.approx(expected, rel=1e-9)

    def test_errors_end_no_more_than_they_have_to(self):
        """A scorer whose own joblib call fails fails its candidate; the others are scored."""

        def fragile(estimator, X, y):
            Parallel()(delayed(self._fail_for)(alpha) for alpha in (0.5, estimator.alpha))
            return 1.0

        search = GridSearchCV(
            classifier(early_stopping=True, scoring=fragile), {"alpha": [0.1, 2.0, 0.2]}, cv=2, error_score=-1.0
        )
        with parallel_config("sk_mlp"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="\\n2 fits failed|Scoring failed")
            scores = search.fit(X, LABELS).cv_results_["mean_test_score"]
        assert scores[1] == -1
        assert (scores[[0, 2]] > 0).all()

    @staticmethod
    def _fail_for(alpha):
        if alpha > 1:
            raise ZeroDivisionError


@contextlib.contextmanager
def another_directory():
    before = os.getcwd()
    os.chdir(tempfile.gettempdir())
    try:
        yield
    finally:
        os.chdir(before)


# What a block changes, and how to look at it.
BLOCKS = {
    "stdout": (lambda: contextlib.redirect_stdout(io.StringIO()), lambda: sys.stdout),
    "stderr": (lambda: contextlib.redirect_stderr(io.StringIO()), lambda: sys.stderr),
    "directory": (another_directory, os.getcwd),
    "no_grad": (torch.no_grad, torch.is_grad_enabled),
    "inference_mode": (torch.inference_mode, torch.is_inference_mode_enabled),
    "device": (lambda: torch.device("meta"), lambda: str(torch.get_default_device())),
    "dtype": (default_float64, torch.get_default_dtype),
    "autocast": (lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.is_autocast_enabled("cpu")),
    "threads": (
        lambda: threadpool_limits(3),
        lambda: [pool["num_threads"] for pool in threadpool_info()],
    ),
    "errstate": (lambda: np.errstate(over="raise"), lambda: np.geterr()["over"]),
    "warnings": (warnings.catch_warnings, lambda: id(warnings.filters)),
    "config": (lambda: sklearn.config_context(working_memory=7), lambda: sklearn.get_config()["working_memory"]),
}


class TestBlocksAroundAFit:
    """What a `with` block around a fit changes is changed for that call alone, and only while it lasts."""

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("how", ["closed form", "lbfgs", "normalization"])
    def test_it_holds_in_its_call_and_ends_with_it(self, block, how):
        enter, state = BLOCKS[block]
        options = {"closed form": {}, "lbfgs": {"solver": "lbfgs"}, "normalization": {"normalization": "layer"}}[how]

        def call(i):
            outside = state()
            if i % 2:
                classifier(alpha=i, **options).fit(X, LABELS)
                return state() == outside
            with enter():
                inside = state()
                loss = classifier(alpha=i, **options).fit(X, LABELS).loss_
                assert state() == inside
            return state() == outside and np.isfinite(loss)

        before = state()
        assert all(Parallel(backend="sk_mlp")(delayed(call)(i) for i in range(5)))
        assert state() == before

    def test_a_scorer_runs_in_the_block_of_its_fit(self):
        """Though it is called where all calls' trainings are."""
        seen = []

        def score(estimator, X, y):
            seen.append((sklearn.get_config()["working_memory"], torch.is_grad_enabled(), sys.stdout is sys.__stdout__))
            return 1.0

        def call(i):
            with sklearn.config_context(working_memory=i), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
                classifier(early_stopping=True, scoring=score, max_iter=1, random_state=i).fit(X, LABELS)

        Parallel(backend="sk_mlp")(delayed(call)(i) for i in (5, 6, 7))
        assert sorted(seen) == [(5, False, False), (6, False, False), (7, False, False)]

    def test_event_loops(self):
        async def fit(i):
            await asyncio.sleep(0)
            loss = classifier(alpha=i).fit(X, LABELS).loss_
            await asyncio.sleep(0)
            return loss

        losses = Parallel(backend="sk_mlp")(delayed(lambda i: asyncio.run(fit(i)))(i) for i in range(3))
        assert losses == pytest.approx([classifier(alpha=i).fit(X, LABELS).loss_ for i in range(3)])


class TestBuffersThatAreFilledAgain:
    """A fit trains on what it was given, whatever its caller does to it while others have their turn."""

    @pytest.mark.parametrize("make", [np.array, csr_array, lambda X: pd.DataFrame(X, copy=False)])
    def test_input(self, make):
        rows = X.astype(np.float32)
        buffer = make(np.ones_like(rows))
        values = buffer.data if isinstance(buffer, csr_array) else np.asarray(buffer)
        if not isinstance(buffer, np.ndarray | csr_array):
            values = rows.copy()
            buffer = make(values)

        def call(i):
            values.flat[:] = np.roll(rows, 10 * i, axis=0).ravel()
            return classifier(dtype="float32").fit(buffer, LABELS).loss_

        one_by_one = [call(i) for i in range(4)]
        assert len(set(one_by_one)) == 4
        stacked = Parallel(backend="sk_mlp")(delayed(call)(i) for i in range(4))
        np.testing.assert_allclose(stacked, one_by_one, rtol=1e-5)

    @pytest.mark.parametrize("scoring", [None, "accuracy"])
    def test_everything_else(self, scoring):
        buffers = {"X": X.astype(np.float32), "y": LABELS.copy(), "sample_weight": WEIGHT.copy()}
        buffers |= {"X_val": buffers["X"].copy(), "y_val": LABELS.copy(), "sample_weight_val": WEIGHT.copy()}
        first = {name: buffer.copy() for name, buffer in buffers.items()}

        def call(i):
            for name, buffer in buffers.items():
                buffer[:] = np.roll(first[name], 7 * i, axis=0)
            estimator = classifier(dtype="float32", scoring=scoring, early_stopping=True)
            fit = estimator.fit(*(buffers[n] for n in ("X", "y", "sample_weight")), **{
                name: buffers[name] for name in ("X_val", "y_val", "sample_weight_val")
            })  # fmt: skip
            return [fit.loss_, *fit.validation_scores_]

        one_by_one = [call(i) for i in range(3)]
        stacked = Parallel(backend="sk_mlp")(delayed(call)(i) for i in range(3))
        np.testing.assert_allclose(stacked, one_by_one, rtol=1e-5)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of files that an interrupt leaves open
def test_no_interrupt_of_a_search_is_swallowed(monkeypatch):
    """But for those that come in a finaliser, where Python can only report them."""
    search = GridSearchCV(classifier(), {"alpha": [1e-4, 0.1, 1.0]}, cv=2, refit=False)
    rng, before, fired, reported = np.random.RandomState(0), nothing_is_left(), [], []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    def interrupt(*_):
        fired.append(1)
        raise KeyboardInterrupt

    with parallel_config("sk_mlp"):
        start = perf_counter()
        search.fit(X, LABELS)
        seconds = perf_counter() - start
    handler, start, n_raised = signal.signal(signal.SIGALRM, interrupt), perf_counter(), 0
    try:
        while perf_counter() - start < 3:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, seconds))
                with parallel_config("sk_mlp"):
                    search.fit(X, LABELS)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                n_raised += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert len(fired) > 10
    assert len(fired) - n_raised <= len(reported) <= len(fired) / 10
    # Greenlets and threads; an interrupt may come in the midst of a context manager of scikit-learn's own.
    assert nothing_is_left()[:2] == before[:2]


def test_a_fit_within_a_modules_making_is_a_fit_of_its_own():
    """It does not wait for others while the module has PyTorch's generators."""

    def module(n_features, n_outputs):
        inner = classifier(max_iter=3).fit(X, LABELS)
        net = torch.nn.Sequential(torch.nn.Linear(n_features, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, n_outputs))
        with torch.no_grad():
            net[0].bias += inner.loss_
        return net

    def fit(seed):
        return classifier(module=module, random_state=seed).fit(X, LABELS).loss_

    torch.manual_seed(3)
    alone, state = [fit(seed) for seed in range(3)], torch.get_rng_state()
    assert Parallel(backend="sk_mlp")(delayed(fit)(seed) for seed in range(3)) == alone
    assert torch.equal(torch.get_rng_state(), state)


def test_options_that_change_while_fits_wait():
    options = {}

    def fit(momentum):
        options["momentum"] = momentum
        return classifier(solver=torch.optim.SGD, solver_kwargs=options).fit(X, LABELS).loss_

    alone = [fit(momentum) for momentum in (0.0, 0.5, 0.9)]
    assert Parallel(backend="sk_mlp")(delayed(fit)(momentum) for momentum in (0.0, 0.5, 0.9)) == alone


def test_a_shared_random_state_is_not_taken_back_behind_others():
    shared = np.random.RandomState(0)

    def fit(fails):
        scorer = (lambda *_: np.nan) if fails else None
        estimator = classifier(random_state=shared, early_stopping=True, scoring=scorer)
        with contextlib.suppress(ValueError):
            estimator.fit(X, LABELS)

    Parallel(backend="sk_mlp")(delayed(fit)(fails) for fails in (True, False, False))
    assert not np.array_equal(shared.get_state()[1], np.random.RandomState(0).get_state()[1])


def test_a_search_without_a_seed_repeats_itself():
    """After the same seed of NumPy's global generator; fits that take turns draw in another order than one by one."""

    def scores(backend):
        np.random.seed(0)  # noqa: NPY002 (what random_state=None draws from)
        with parallel_config(backend):
            estimator = MLPTorchRegressor(hidden_layer_sizes=(4,), max_iter=3)
            search = GridSearchCV(estimator, {"alpha": [1.0, 2.0]}, cv=2)
            return search.fit(PROBLEMS["regression"].X, PROBLEMS["regression"].y).cv_results_["mean_test_score"]

    for backend in ("sequential", "sk_mlp"):
        np.testing.assert_array_equal(scores(backend), scores(backend))
