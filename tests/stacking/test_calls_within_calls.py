"""Code of a user's that calls joblib, or fits, in the midst of a search."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from searches import LABELS, X, classifier, nothing_is_left
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from user_code import AfterEachEpoch


class TestCallsWithinCalls:
    """joblib wherever user-defined code runs in a search: the backend is one, the calls are several."""

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

    @pytest.mark.slow
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
    @pytest.mark.slow
    def test_in_a_generator_of_tasks(self, managed):
        def calls():
            for seed in range(4):
                assert Parallel()(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]
                yield delayed(classifier(random_state=seed).fit)(X, LABELS)

        expected = [classifier(random_state=seed).fit(X, LABELS).loss_ for seed in range(4)]
        with parallel_config("sk_mlp"), Parallel() if managed else contextlib.nullcontext(Parallel()) as parallel:
            assert [fit.loss_ for fit in parallel(calls())] == pytest.approx(expected, rel=1e-9)

    @pytest.mark.slow
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
