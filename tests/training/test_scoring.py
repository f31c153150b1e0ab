"""Scorers that early stopping goes by."""

from functools import partial

import numpy as np
import pytest
from joblib import parallel_config
from options import estimator
from problems import data
from sklearn.base import clone
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize(
    ("task", "scoring", "same"),
    [("classifier", "accuracy", True), ("regressor", "r2", True), ("classifier", "neg_log_loss", False),
     ("regressor", make_scorer(mean_absolute_error, greater_is_better=False), False)],
)  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
def test_a_scorer_takes_the_place_of_the_own_score(task, scoring, same, weighted, where):
    X, y = data(task)
    weight = np.random.RandomState(0).uniform(0.5, 2, 160) if weighted else None
    options = {"early_stopping": True, "max_iter": 20, "n_iter_no_change": 3}
    fitted = estimator(task, where, **options, scoring=scoring).fit(X, y, sample_weight=weight)
    plain = estimator(task, where, **options).fit(X, y, sample_weight=weight)
    n = min(plain.n_iter_, fitted.n_iter_)
    close = np.allclose(fitted.validation_scores_[:n], plain.validation_scores_[:n], rtol=1e-5)
    assert close == same
    assert fitted.best_validation_score_ == max(fitted.validation_scores_)


def test_neg_log_loss_is_minus_the_loss(where):
    X, y = data("classifier")
    curves = [
        estimator("classifier", where, early_stopping=True, scoring=scoring).fit(X, y).validation_scores_
        for scoring in ("loss", "neg_log_loss")
    ]
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_a_callable_sees_a_fitted_estimator(where):
    def score(fitted, X, y):
        assert fitted.predict(X).shape == y.shape
        return float(np.abs(fitted.coefs_[0]).sum())

    X, y = data("regressor")
    weight = np.ones(160)
    fitted = estimator("regressor", where, early_stopping=True, scoring=score).fit(X, y, weight)
    assert fitted.best_validation_score_ == pytest.approx(np.abs(fitted.coefs_[0]).sum(), rel=1e-5)


def test_weights_go_to_scorers_that_take_them(where):
    def weighted(fitted, X, y, sample_weight=None):
        return float(sample_weight.sum())

    X, y = data("regressor")
    weight = np.random.RandomState(0).uniform(size=160)
    for scoring in ("max_error", weighted, partial(weighted), partial(lambda fitted, X, y: 1.0)):
        scoring = "neg_max_error" if scoring == "max_error" else scoring
        estimator("regressor", where, early_stopping=True, scoring=scoring).fit(X, y, weight)


@pytest.mark.slow
def test_a_search_scores_the_same_in_stacks(where):
    X, y = data("classifier")
    search = GridSearchCV(
        make_pipeline(StandardScaler(), estimator("classifier", where, early_stopping=True, scoring="roc_auc_ovr")),
        {"mlptorchclassifier__alpha": [1e-4, 1.0]},
        cv=3,
    )
    expected = clone(search).fit(X, y).cv_results_["mean_test_score"]
    with parallel_config("sk_mlp"):
        np.testing.assert_allclose(search.fit(X, y).cv_results_["mean_test_score"], expected)
