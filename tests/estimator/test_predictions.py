"""What an estimator predicts from labels and values of each kind, and that predicting changes nothing."""

import pickle

import numpy as np
import pytest
from problems import PROBLEMS, raw_prediction
from scipy.sparse import coo_matrix, csc_array, csr_array, csr_matrix
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from small_fits import FAST, fitted

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._estimator.prediction import predict_rows

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize("name", PROBLEMS)
def test_predictions_change_nothing(name, where):
    problem = PROBLEMS[name]
    estimator = fitted(problem, where)
    before = pickle.dumps(estimator)
    raw_prediction(estimator, problem.X)
    estimator.predict(problem.X)
    estimator.score(problem.X, problem.y)
    assert pickle.dumps(estimator) == before


@pytest.mark.parametrize(
    "y",
    [
        np.array(["b", "a", "c"]),
        np.array(["b", "a", "c"], dtype=object),
        np.array([3, -1, 7]),
        np.array([3, -1, 7], dtype=object),
        np.array([2.0, 1.0, 5.0]),
        np.array([2, 1, 5], dtype=np.uint8),
        np.array([True, False, True]),
        np.array([True, False, True], dtype=object),
        ["b", "a", "c"],
        [0, 1, 0],
    ],
    ids=str,
)
def test_labels_of_many_kinds(y, where, rng):
    X = rng.normal(size=(60, 4)) + 5 * np.eye(4)[np.arange(60) % 3]
    y = np.tile(y, 20) if isinstance(y, np.ndarray) else y * 20
    estimator = MLPTorchClassifier((10,), learning_rate_init=0.05, random_state=0, **where).fit(X, y)
    np.testing.assert_array_equal(estimator.classes_, np.unique(np.asarray(y).tolist()))
    assert estimator.score(X, np.asarray(np.asarray(y).tolist())) > 0.9
    assert set(estimator.predict(X)) <= set(np.asarray(y).tolist())


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_one_class_only_as_in_scikit_learn(solver, where, rng):
    X, y = rng.normal(size=(30, 3)), np.full(30, "only")
    ours = MLPTorchClassifier(**FAST, solver=solver, **where).fit(X, y)
    theirs = MLPClassifier(**FAST, solver=solver).fit(X, y)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-3)


def test_one_class_stops_early_as_in_scikit_learn(where, rng):
    X, y = rng.normal(size=(300, 3)), np.full(300, "only")
    options = {**FAST, "max_iter": 300, "early_stopping": True, "n_iter_no_change": 5}
    ours, theirs = MLPTorchClassifier(**options, **where).fit(X, y), MLPClassifier(**options).fit(X, y)
    assert ours.validation_scores_ == theirs.validation_scores_


@pytest.mark.parametrize("y", [np.ones(300), np.r_[np.ones(299), 2.0]], ids=["constant", "nearly constant"])
def test_constant_targets_stop_early_as_in_scikit_learn(y, where, rng):
    X = rng.normal(size=(300, 3))
    options = {**FAST, "max_iter": 100, "early_stopping": True, "n_iter_no_change": 5}
    ours, theirs = MLPTorchRegressor(**options, **where).fit(X, y), MLPRegressor(**options).fit(X, y)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "found"),
    [(csr_array, csr_array), (csc_array, csr_array), (csr_matrix, csr_matrix), (coo_matrix, csr_matrix)],
)
def test_sparse_multilabel_targets_come_back_sparse(given, found, where):
    problem = PROBLEMS["multilabel"]
    dense = fitted(problem, where)
    sparse = problem.ours(**FAST, **where).fit(problem.X, given(problem.y))
    predicted = pickle.loads(pickle.dumps(sparse)).predict(problem.X)
    assert type(predicted) is found
    np.testing.assert_array_equal(predicted.toarray(), dense.predict(problem.X))


@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel"])
def test_probabilities_belong_together(name, where):
    problem = PROBLEMS[name]
    estimator = fitted(problem, where)
    proba, log_proba = estimator.predict_proba(problem.X), estimator.predict_log_proba(problem.X)
    logits = estimator.decision_function(problem.X)
    np.testing.assert_allclose(np.log(proba), log_proba, rtol=1e-6, atol=1e-8)
    if name == "multilabel":
        np.testing.assert_array_equal(estimator.predict(problem.X), (proba > 0.5).astype(int))
        np.testing.assert_array_equal(logits > 0, proba > 0.5)
        return
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-14)
    np.testing.assert_array_equal(estimator.predict(problem.X), estimator.classes_[proba.argmax(1)])
    assert logits.shape == ((len(problem.X),) if name == "binary" else proba.shape)


@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel"])
def test_log_proba_is_finite_for_huge_logits(name, where):
    problem = PROBLEMS[name]
    estimator = fitted(problem, where)
    estimator.coefs_ = [coef * 1e4 for coef in estimator.coefs_]
    assert np.abs(estimator.decision_function(problem.X)).max() > 1e6
    assert np.isfinite(estimator.predict_log_proba(problem.X)).all()
    assert (estimator.predict_proba(problem.X) > 0).all()


# Where the optimum is known: no hidden layer is a linear model, an intercept alone a mean.
@pytest.mark.parametrize(
    ("name", "linear"),
    [
        ("binary", LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000)),
        ("multiclass", LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000)),
        ("regression", Ridge(alpha=2.0)),
        ("regression_many", Ridge(alpha=2.0)),
        ("poisson", PoissonRegressor(alpha=2.0 / 160, tol=1e-10, max_iter=10_000)),
    ],
)
def test_no_hidden_layer_is_the_linear_model(name, linear, where):
    problem = PROBLEMS[name]
    linear.fit(problem.X, problem.y)
    network = fitted(problem, where, hidden_layer_sizes=(), solver="lbfgs", alpha=2.0, tol=1e-10, max_iter=2000)
    np.testing.assert_allclose(
        raw_prediction(network, problem.X), raw_prediction(linear, problem.X), rtol=2e-4, atol=2e-5
    )


def test_standard_deviations_take_one_pass(where, monkeypatch):
    passes, X = [], PROBLEMS["regression"].X
    reg = fitted(PROBLEMS["regression"], where, loss="gaussian_nll")
    monkeypatch.setattr("sk_mlp._estimator.fitted.predict_rows", lambda *args: passes.append(1) or predict_rows(*args))
    mean, std = reg.predict(X, return_std=True)
    assert len(passes) == 1
    np.testing.assert_array_equal(mean, reg.predict(X))
    for part in (mean, std):
        assert part.shape == (160,)
        assert part.flags.c_contiguous
