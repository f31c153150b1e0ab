"""The learning rate of each epoch."""

import warnings

import numpy as np
import pytest
import torch
from options import estimator, tenth_after_three
from problems import data

from sk_mlp import MLPTorchRegressor
from sk_mlp._training.schedules import SCHEDULES

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", torch.optim.SGD])
def test_schedules_set_the_rate_of_each_epoch(solver, where):
    X, y = data("regressor")
    options = {"max_iter": 10, "n_iter_no_change": 100, "solver": solver, "learning_rate_init": 0.01}

    def rates(**more):
        return estimator("regressor", where, **{**options, **more}).fit(X, y).history_["learning_rate"] / 0.01

    np.testing.assert_allclose(rates(), 1)
    np.testing.assert_allclose(rates(learning_rate="cosine"), (1 + np.cos(np.pi * np.arange(10) / 10)) / 2)
    np.testing.assert_allclose(rates(learning_rate=tenth_after_three), [1] * 3 + [0.1] * 7)
    np.testing.assert_allclose(rates(warmup_epochs=4)[:5], [0.2, 0.4, 0.6, 0.8, 1])
    warm = rates(warmup_epochs=4, learning_rate="cosine")
    np.testing.assert_allclose(warm[4:], (1 + np.cos(np.pi * np.arange(6) / 6)) / 2)
    cycle = rates(learning_rate="one_cycle")
    np.testing.assert_allclose(cycle[[0, 3]], [1 / 25, 1])
    assert (np.diff(cycle[:4]) > 0).all()
    assert (np.diff(cycle[3:]) < 0).all()


def test_a_function_is_asked_for_epochs_that_come(where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, learning_rate=[1.0, 0.5, 0.1].__getitem__, max_iter=3).fit(X, y)
    np.testing.assert_allclose(fitted.history_["learning_rate"], [0.01, 0.005, 0.001])


@pytest.mark.parametrize("learning_rate", ["cosine", "one_cycle"])
def test_a_schedule_at_its_end_warns_of_nothing(learning_rate, where):
    X, y = data("regressor")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimator("regressor", where, learning_rate=learning_rate).fit(X, y).n_iter_ == 8


def test_one_cycle_is_pytorchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    # PyTorch counts both ends, the rise to 0.3 of what is left without the first.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=101, pct_start=31 / 101)
    expected = []
    for _ in range(100):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    fitted = MLPTorchRegressor(
        hidden_layer_sizes=(),
        learning_rate="one_cycle",
        max_iter=100,
        n_iter_no_change=100,
        learning_rate_init=1e-3,
    ).fit(*data("regressor"))
    np.testing.assert_allclose(fitted.history_["learning_rate"] * 1e3, expected, rtol=1e-6, atol=1e-9)


def test_plateaus_divide_the_rate_until_it_is_nothing(where):
    X, y = data("regressor")
    fitted = estimator(
        "regressor",
        where,
        learning_rate="plateau",
        tol=1e9,
        n_iter_no_change=1,
        max_iter=50,
        learning_rate_init=1e-3,
    ).fit(X, y)
    rates = fitted.history_["learning_rate"]
    np.testing.assert_allclose(rates, 1e-3 * np.array([1] * 3 + [0.1] * 2 + [0.01] * 2 + [0.001] * 2), rtol=1e-6)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_warm_starts_begin_schedules_anew(schedule, where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, learning_rate=schedule, solver="sgd", warm_start=True).fit(X, y).fit(X, y)
    rates = fitted.history_["learning_rate"]
    assert rates[0] == rates[fitted.n_iter_]
