"""Fits that go on with other parameters than before."""

import copy

import numpy as np
import pytest
import torch
from options import Residual, estimator
from problems import PROBLEMS, data
from small_fits import FAST, fitted
from torch import nn

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"normalization": "layer"}, "of normalization=None, got normalization='layer'"),
        ({"normalization": "batch"}, {"normalization": None}, "of normalization='batch', got normalization=None"),
        ({"normalization": "batch"}, {"normalization": "layer"}, "of normalization='batch', got norm"),
        ({}, {"module": Residual}, "of module=None, got module=<class .*Residual'>$"),
        ({}, {"hidden_layer_sizes": (3,)}, r"of layer_sizes=\(8, 6, 5, 1\), got layer_sizes=\(8, 3, 1\)"),
        ({"module": Residual}, {"module": nn.Linear}, "of module=<class .*Residual'>, got module="),
        ({"activation": nn.PReLU}, {"activation": nn.Tanh}, "build the network that was fitted, with"),
    ],
)
def test_another_network_is_an_error(before, after, message, where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, **before).fit(X, y)
    expected = fitted.predict(X)
    fitted.set_params(**after)
    np.testing.assert_array_equal(fitted.predict(X), expected)  # as fitted
    with pytest.raises(ValueError, match=message):
        fitted.partial_fit(X, y)


@pytest.mark.parametrize("network", [{}, {"normalization": "batch"}])
def test_another_dropout_is_no_error(network, where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, **network).fit(X, y)
    fitted.set_params(dropout=0.5).partial_fit(X, y).set_params(dropout=0.0).partial_fit(X, y)
    assert len(fitted.loss_curve_) == 10


def test_solvers_and_their_options_may_change(where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, solver=torch.optim.SGD, solver_kwargs={"momentum": 0.9}).fit(X, y)
    still = fitted.set_params(solver_kwargs={"momentum": 0.0}, learning_rate_init=1e-30).partial_fit(X, y)
    coefs = [coef.copy() for coef in still.coefs_]
    for coef, expected in zip(still.partial_fit(X, y).coefs_, coefs, strict=True):
        np.testing.assert_array_equal(coef, expected)  # no momentum is left
    for solver in (torch.optim.RMSprop, torch.optim.Adagrad, "adam"):
        fitted.set_params(solver=solver, solver_kwargs=None).partial_fit(X, y)


@pytest.mark.slow
def test_many_partial_fits_keep_one_memory_for_the_history(where):
    """What is kept of each epoch is added at the end of the same memory; curves are worked out when asked for."""
    X, y = data("regressor")
    fitted = estimator("regressor", where)
    for _ in range(17):
        fitted.partial_fit(X, y)
    memory = fitted._progress["history"]["columns"]["loss"]
    for n in range(18, 33):
        fitted.partial_fit(X, y)
        assert fitted._progress["history"]["columns"]["loss"] is memory
        assert len(fitted.loss_curve_) == n
    assert not {"history_", "loss_curve_", "validation_scores_"} & vars(fitted).keys()


def test_a_changed_loss_waits_for_the_next_fit(where):
    problem = PROBLEMS["poisson"]
    estimator = problem.ours(**FAST, **where).fit(problem.X, problem.y)
    before = estimator.predict(problem.X)
    estimator.set_params(loss="poisson", warm_start=True)
    np.testing.assert_array_equal(estimator.predict(problem.X), before)
    with pytest.raises(ValueError, match=r"must keep the output activation .*'identity', got loss='poisson'"):
        estimator.fit(problem.X, problem.y)
    assert estimator.set_params(warm_start=False).fit(problem.X, problem.y).out_activation_ == "exp"


def test_another_schedule_starts_at_the_initial_rate(where):
    problem = PROBLEMS["regression"]
    options = {**FAST, "solver": "sgd", "momentum": 0.0, "shuffle": False}
    decayed = problem.ours(**options, learning_rate="invscaling", power_t=1.0, **where).fit(problem.X, problem.y)
    fresh = copy.deepcopy(decayed).set_params(learning_rate="constant", warm_start=True, max_iter=1)
    decayed.set_params(learning_rate="constant").partial_fit(problem.X, problem.y)
    np.testing.assert_array_equal(decayed.coefs_[0], fresh.fit(problem.X, problem.y).coefs_[0])


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_partial_fit_is_there_unless_lbfgs(cls, solver):
    assert hasattr(cls(solver=solver), "partial_fit")
    assert not hasattr(cls(solver="lbfgs"), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        cls(solver="lbfgs").partial_fit  # noqa: B018 (the access raises)


def test_partial_fit_honours_a_changed_rate(where):
    """scikit-learn keeps the rate of the first call; here parameters mean what they say (docs/decisions.md)."""
    problem = PROBLEMS["regression"]
    estimators = [problem.ours(**FAST, **where).partial_fit(problem.X, problem.y) for _ in range(2)]
    before = estimators[0].coefs_[0].copy()
    for going_on, rate in zip(estimators, (1e-3, 1e-9), strict=True):
        going_on.set_params(learning_rate_init=rate).partial_fit(problem.X, problem.y)
    assert not np.allclose(estimators[0].coefs_[0], before, atol=1e-5)
    np.testing.assert_allclose(estimators[1].coefs_[0], before, atol=1e-6)


def test_warm_start_from_one_solver_to_another(where):
    problem = PROBLEMS["multiclass"]
    estimator = fitted(problem, where, warm_start=True, solver="lbfgs")
    loss = estimator.loss_
    for solver in ("adam", "sgd", "lbfgs"):
        estimator.set_params(solver=solver, learning_rate_init=1e-4).fit(problem.X, problem.y)
        assert estimator.loss_ <= loss * 1.05
