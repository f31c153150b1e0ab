"""Fits that go on with other parameters than before."""

import numpy as np
import pytest
import torch
from options import Residual, estimator
from problems import data
from torch import nn

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
def test_another_dropout_is_not(network, where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, **network).fit(X, y)
    fitted.set_params(dropout=0.5).partial_fit(X, y).set_params(dropout=0.0).partial_fit(X, y)
    assert len(fitted.loss_curve_) == 10


def test_torch_optimizers(where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, solver=torch.optim.SGD, solver_kwargs={"momentum": 0.9}).fit(X, y)
    still = fitted.set_params(solver_kwargs={"momentum": 0.0}, learning_rate_init=1e-30).partial_fit(X, y)
    coefs = [coef.copy() for coef in still.coefs_]
    for coef, expected in zip(still.partial_fit(X, y).coefs_, coefs, strict=True):
        np.testing.assert_array_equal(coef, expected)  # no momentum is left
    for solver in (torch.optim.RMSprop, torch.optim.Adagrad, "adam"):
        fitted.set_params(solver=solver, solver_kwargs=None).partial_fit(X, y)


def test_many_partial_fits_take_equal_time(where):
    """What is kept of each epoch is added at the end of the same memory; curves are worked out when asked for."""
    X, y = data("regressor")
    fitted = estimator("regressor", where)
    for _ in range(17):
        fitted.partial_fit(X, y)
    memory = fitted._progress.history.loss.base
    for n in range(18, 33):
        fitted.partial_fit(X, y)
        assert fitted._progress.history.loss.base is memory
        assert len(fitted.loss_curve_) == n
    assert not {"history_", "loss_curve_", "validation_scores_"} & vars(fitted).keys()
