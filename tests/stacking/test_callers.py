"""Searches and ensembles of scikit-learn's have the same results in stacks as without."""

import numpy as np
import pytest
import sklearn
from joblib import parallel_config
from marking import slow_but
from scipy.sparse import csr_array
from scipy.stats import loguniform
from searches import (
    CV,
    INDICATOR,
    LABELS,
    MANY,
    RATES,
    VALUES,
    WEIGHT,
    WORDS,
    X,
    classifier,
    coefs,
    grid,
    prefixed,
    regressor,
    scaled,
    search_results,
)
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFECV, SelectKBest, f_classif
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


FAST = [
    "GridSearchCV",
    "GridSearchCV, pipeline",
    "cross_validate, regressor",
    "BaggingClassifier",
    "MultiOutputRegressor",
]


@pytest.mark.parametrize("caller", slow_but(FAST, CALLERS))
def test_results_are_those_without_it(caller, stack_sizes):
    call, largest = CALLERS[caller]
    expected = call()
    assert set(stack_sizes) <= {1}
    with parallel_config("sk_mlp"):
        found = call()
    assert max(stack_sizes, default=0) >= largest
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
