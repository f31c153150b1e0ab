"""How stacked training is asked for, which fits make one stack, and when its members stop."""

import contextlib
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from fits import assert_same
from joblib import Parallel, delayed, parallel_config
from problems import PROBLEMS
from scipy.sparse import csr_array
from searches import LABELS, RATES, WEIGHT, WORDS, X, classifier, grid, prefixed, scaled
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor, stacking
from sk_mlp._estimator.fitting import task_of
from sk_mlp._estimator.reading import FitMode, Sample


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
        assert_same(ours, expected, 1e-9)


@pytest.mark.slow
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
    assert_same(runs[2].best_estimator_[-1], runs[0].best_estimator_[-1])


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

    @pytest.mark.slow
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

    @pytest.mark.slow
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


@pytest.mark.slow
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
