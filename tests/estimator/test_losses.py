"""Losses: known answers, standard deviations, and losses of the user's."""

import numpy as np
import pytest
from fits import assert_same
from marking import slow_but_every
from options import FAST, absolute, estimator, plain_cross_entropy
from problems import PROBLEMS, data
from sklearn.base import clone

from sk_mlp import MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize(
    ("loss", "optimum"),
    slow_but_every(
        7,
        [
            ("squared_error", np.mean),
            ("absolute_error", np.median),
            ("quantile", lambda y: np.quantile(y, 0.8)),
            ("poisson", np.mean),
            ("gamma", np.mean),
            ("gaussian_nll", np.mean),
            (absolute, np.median),
        ],
    ),
)
def test_an_intercept_alone_finds_the_known_answer(loss, optimum, where):
    y = np.random.RandomState(0).gamma(2.0, size=501)
    options = {"alpha": 0.0, "tol": 0.0, "n_iter_no_change": np.inf, "learning_rate": "cosine"}
    fitted = MLPTorchRegressor(
        loss, (), max_iter=1500, batch_size=501, learning_rate_init=0.02, random_state=0,
        quantile=0.8 if loss == "quantile" else 0.5, **options, **where,
    ).fit(np.zeros((501, 1)), y)  # fmt: skip
    np.testing.assert_allclose(fitted.predict([[0.0]]), optimum(y), rtol=5e-3)


def test_gaussian_nll_learns_standard_deviations(where):
    """Means and log-variances that are linear in X are just what a network without hidden layers has."""
    rng = np.random.RandomState(0)
    X = rng.uniform(-1, 1, (5000, 1))
    Y = np.c_[X[:, 0] + 0.2 * np.exp(X[:, 0]) * rng.normal(size=5000), 3 * X[:, 0] + 0.1 * rng.normal(size=5000)]
    fitted = MLPTorchRegressor("gaussian_nll", (), solver="lbfgs", alpha=0.0, random_state=0, **where).fit(X, Y)
    mean, std = fitted.predict([[-1.0], [0.5]], return_std=True)
    np.testing.assert_allclose(mean, [[-1.0, -3.0], [0.5, 1.5]], atol=0.01)
    np.testing.assert_allclose(std, [[0.2 * np.exp(-1), 0.1], [0.2 * np.exp(0.5), 0.1]], rtol=0.05)
    assert (fitted.n_outputs_, fitted.score(X, Y) > 0.5) == (2, True)
    one = clone(fitted).fit(X, Y[:, 0])
    assert [part.shape for part in one.predict(X, return_std=True)] == [(5000,), (5000,)]
    np.testing.assert_allclose(one.predict([[0.5]], return_std=True)[1], std[1, 0], rtol=0.01)


def test_a_users_loss_trains_as_the_same_one_built_in(where, rtol):
    X, y = data("classifier")
    own = estimator("classifier", where, loss=plain_cross_entropy).fit(X, y)
    assert_same(own, estimator("classifier", where).fit(X, y), rtol)
    X, y = data("regressor")
    own = estimator("regressor", where, loss=absolute).fit(X, y)
    assert_same(own, estimator("regressor", where, loss="absolute_error").fit(X, y), rtol)


def test_a_users_loss_gets_a_row_for_each_sample(where):
    seen = {}
    for name in ("binary", "multiclass", "multilabel", "regression", "regression_many"):
        problem = PROBLEMS[name]

        def loss(raw, target, name=name):
            seen[name] = tuple(raw.shape[1:]), tuple(target.shape[1:]), target.dtype.is_floating_point
            return raw.square().sum(1)

        problem.ours(**FAST, **where, loss=loss).fit(problem.X, problem.y)
    assert seen == {
        "binary": ((1,), (1,), True),
        "multiclass": ((3,), (), False),
        "multilabel": ((3,), (3,), True),
        "regression": ((1,), (1,), True),
        "regression_many": ((3,), (3,), True),
    }
