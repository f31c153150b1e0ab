"""Gradients that are cut to a largest norm."""

import numpy as np
import pytest
from fits import arrays_of, assert_same
from options import estimator
from problems import data

from sk_mlp import MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_gradients_are_kept_within_a_norm(solver, where):
    X, y = data("regressor")
    options = {"solver": solver, "batch_size": 160, "momentum": 0.0, "max_iter": 1, "alpha": 0.1}
    free = estimator("regressor", where, **options).fit(X, y)
    start = estimator("regressor", where, **{**options, "learning_rate_init": 1e-12}).fit(X, y)
    norm = free.history_["gradient_norm"][0]
    far = estimator("regressor", where, **options, max_grad_norm=2 * norm).fit(X, y)
    assert_same(far, free)
    near = estimator("regressor", where, **options, max_grad_norm=norm / 4).fit(X, y)
    assert near.history_["gradient_norm"][0] == pytest.approx(norm)
    if solver == "sgd":
        moved = [np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(arrays_of(e), arrays_of(start), strict=True)))
                 for e in (free, near)]  # fmt: skip
        np.testing.assert_allclose(moved, [0.01 * norm, 0.01 * norm / 4], rtol=1e-3)


def test_the_penalty_counts_in_the_norm():
    X, y = data("regressor")
    fitted = MLPTorchRegressor(
        hidden_layer_sizes=(), solver="sgd", momentum=0.0, alpha=3.0, max_iter=1, batch_size=160, dtype="float64",
        learning_rate_init=1e-12, random_state=0, device="cpu",
    ).fit(X, y)  # fmt: skip
    residual = fitted.predict(X) - y
    slope = np.r_[X.T @ residual + 3.0 * fitted.coefs_[0].ravel(), residual.sum()] / 160
    np.testing.assert_allclose(fitted.history_["gradient_norm"], np.linalg.norm(slope), rtol=1e-6)
