"""Early stopping goes by the loss where scikit-learn's MLP lacks it, and by scikit-learn's score where it has it."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale
from torch import nn
from user_code import cubic

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

X_DIGITS, DIGITS = load_digits(return_X_y=True)
X_DIGITS = scale(X_DIGITS)


class TestEarlyStoppingGoesByTheLoss:
    X = np.random.RandomState(0).uniform(-1, 1, (4000, 1))
    y = (X[:, 0] + np.random.RandomState(1).exponential(size=4000)) / 2

    @pytest.mark.parametrize(
        ("loss", "by_loss"),
        [
            ("squared_error", False), ("poisson", False), ("quantile", True), ("absolute_error", True), ("huber", True),
            ("gamma", True), ("gaussian_nll", True), (cubic, True),
        ],
    )  # fmt: skip
    def test_regressors(self, loss, by_loss):
        y = np.maximum(self.y, 0.1)
        fitted = MLPTorchRegressor(loss, (8,), early_stopping=True, max_iter=3, n_iter_no_change=3, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(self.X, y)
        losses = -np.array(fitted.validation_loss_curve_)
        assert np.array_equal(fitted.validation_scores_, losses) == by_loss

    def test_classifiers(self, where):
        def fit(**options):
            fitted = MLPTorchClassifier((8,), early_stopping=True, max_iter=3, random_state=0, **options, **where)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return fitted.fit(X_DIGITS, DIGITS)

        own = fit(loss=lambda raw, target: nn.functional.cross_entropy(raw, target, reduction="none"))
        np.testing.assert_array_equal(own.validation_scores_, -np.array(own.validation_loss_curve_))
        for options in ({}, {"label_smoothing": 0.1}, {"class_weight": "balanced"}, {"scoring": "accuracy"}):
            assert min(fit(**options).validation_scores_) > 0

    def test_a_quantile_covers_what_it_says(self):
        fitted = MLPTorchRegressor("quantile", quantile=0.95, early_stopping=True, random_state=0)
        covered = (self.y <= fitted.fit(self.X, self.y).predict(self.X)).mean()
        assert covered == pytest.approx(0.95, abs=0.02)

    def test_a_score_by_another_loss_is_no_record_to_beat(self):
        fitted = MLPTorchRegressor(
            "quantile", (8,), quantile=0.5, early_stopping=True, max_iter=2, warm_start=True, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(self.X, self.y)
            first = fitted.best_validation_score_
            again = fitted.fit(self.X, self.y)._progress
            assert again["best_score"] >= first
            fitted.set_params(quantile=0.9).fit(self.X, 100 + self.y)
        assert fitted.best_validation_score_ < first
