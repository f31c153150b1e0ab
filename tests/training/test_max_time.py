"""Fits that end when their time is over."""

import numpy as np
import pytest
from options import estimator
from problems import data
from sklearn.exceptions import ConvergenceWarning

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_an_end_is_set(solver, where):
    X, y = data("classifier")
    fitted = estimator("classifier", where, solver=solver, max_iter=10_000, max_time=1e-9, tol=0.0)
    with pytest.warns(ConvergenceWarning, match=r"passed max_time=1e-09 seconds"):
        fitted.fit(X, y)
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 1


def test_it_keeps_the_best(where):
    X, y = data("classifier")
    fitted = estimator(
        "classifier", where, early_stopping=True, max_iter=100_000, max_time=0.2, n_iter_no_change=np.inf
    )
    with pytest.warns(ConvergenceWarning, match="max_time"):
        fitted.fit(X, y, X_val=X, y_val=y)
    np.testing.assert_allclose(fitted.score(X, y), max(fitted.validation_scores_))
