"""Fits that end when their time is over."""

import numpy as np
import pytest
from options import estimator
from problems import data
from sklearn.exceptions import ConvergenceWarning
from user_code import AfterEachEpoch

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_first_epoch_is_the_last_when_the_time_is_over(solver, where, clock):
    clock.step = 1e-6
    X, y = data("classifier")
    fitted = estimator("classifier", where, solver=solver, max_iter=10_000, max_time=1e-9, tol=0.0)
    with pytest.warns(ConvergenceWarning, match=r"passed max_time=1e-09 seconds"):
        fitted.fit(X, y)
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 1


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_fit_has_the_epochs_that_its_time_lasts_for(solver, where, clock):
    X, y = data("classifier")
    fitted = estimator("classifier", where, solver=solver, max_iter=10_000, max_time=4.5, tol=0.0)
    fitted.set_callbacks(AfterEachEpoch(lambda _: clock.wait(1.0)))
    with pytest.warns(ConvergenceWarning, match=r"passed max_time=4.5 seconds"):
        fitted.fit(X, y)
    assert fitted.n_iter_ == 6  # a callback is told of an epoch after the look at the clock


def test_early_stopping_keeps_the_best_when_the_time_is_over(where, clock):
    X, y = data("classifier")
    fitted = estimator(
        "classifier", where, early_stopping=True, max_iter=100_000, max_time=50.5, n_iter_no_change=np.inf
    )
    fitted.set_callbacks(AfterEachEpoch(lambda _: clock.wait(1.0)))
    with pytest.warns(ConvergenceWarning, match="max_time"):
        fitted.fit(X, y, X_val=X, y_val=y)
    np.testing.assert_allclose(fitted.score(X, y), max(fitted.validation_scores_))
