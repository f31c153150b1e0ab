"""Modules that write to their input or their buffers, and activations with buffers alone."""

import joblib
import numpy as np
import pytest
import torch
from problems import PROBLEMS
from torch import nn
from user_code import InPlace

from sk_mlp import MLPTorchClassifier

PROBLEM = PROBLEMS["binary"]
X, Y = PROBLEM.X, PROBLEM.y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
class TestModulesThatWriteInPlace:
    rows = X.astype(np.float32)

    def fitted(self, **options):
        common = {"module": InPlace, "random_state": 0, "max_iter": 4, "device": "cpu"}
        return MLPTorchClassifier(**{**common, **options})

    @pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"early_stopping": True}, {"solver": "lbfgs"}])
    def test_leave_the_callers_rows_alone(self, options):
        rows = self.rows.copy()
        estimator = self.fitted(**options).fit(rows, Y)
        expected = estimator.predict_proba(rows)
        np.testing.assert_array_equal(estimator.predict_proba(rows), expected)
        np.testing.assert_array_equal(rows, self.rows)

    def test_predictions_leave_the_state_alone(self, tmp_path):
        estimator = self.fitted().fit(self.rows, Y)
        before = estimator.module_state_["calls"].copy()
        joblib.dump((estimator, self.rows), tmp_path / "both.joblib")
        mapped, rows = joblib.load(tmp_path / "both.joblib", mmap_mode="r")
        np.testing.assert_array_equal(mapped.predict(rows), estimator.predict(self.rows))
        np.testing.assert_array_equal(estimator.module_state_["calls"], before)

    def test_epochs_in_one_order_train_on_the_same_rows(self):
        class Doubled(nn.Linear):
            def forward(self, x):
                return super().forward(x * 2)

        options = {"shuffle": False, "batch_size": 160}
        expected = self.fitted(**options, module=Doubled).fit(self.rows, Y)
        found = self.fitted(**options).fit(self.rows, Y)
        assert len(set(found.loss_curve_)) == 4
        np.testing.assert_allclose(found.loss_curve_[0], expected.loss_curve_[0], rtol=0.5)
        differences = np.diff(found.loss_curve_)
        assert (differences < 0).all(), "rows that double each epoch would make the loss grow"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n", [40, 160])
def test_an_activation_may_have_buffers_alone(n):
    """Of whatever dtype is computed in: few rows are computed in float64."""

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("matrix", torch.eye(4))

        def forward(self, x):
            return torch.relu(x) @ self.matrix

    options = {"hidden_layer_sizes": (4,), "random_state": 0, "max_iter": 3, "device": "cpu"}
    found = MLPTorchClassifier(activation=Mixing, **options).fit(X[:n], Y[:n]).predict_proba(X)
    expected = MLPTorchClassifier(activation="relu", **options).fit(X[:n], Y[:n]).predict_proba(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
