"""What a fit warns of, and in which line of the user's."""

import warnings

import numpy as np
import pytest
import torch
from problems import PROBLEMS
from sklearn.exceptions import ConvergenceWarning
from small_fits import FAST

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


class TestWarnings:
    def test_max_iter(self, where):
        problem = PROBLEMS["multiclass"]
        with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\) reached"):
            problem.ours(max_iter=3, **where).fit(problem.X, problem.y)

    def test_lbfgs(self, where):
        problem = PROBLEMS["multiclass"]
        with pytest.warns(ConvergenceWarning, match=r"(?s)lbfgs failed to converge after 3 iteration.*max_iter=3"):
            problem.ours(max_iter=3, solver="lbfgs", **where).fit(problem.X, problem.y)

    def test_clipped_batch(self, where):
        problem = PROBLEMS["multiclass"]
        with pytest.warns(UserWarning, match="larger than sample size. It is going to be clipped"):
            problem.ours(**FAST, batch_size=1000, **where).fit(problem.X, problem.y)

    def test_points_at_the_caller(self, where):
        problem = PROBLEMS["multiclass"]
        with pytest.warns(ConvergenceWarning) as record:
            problem.ours(max_iter=3, **where).fit(problem.X, problem.y)
        assert [warning.filename for warning in record] == [__file__]


UNREAD = [
    (MLPTorchRegressor, {"quantile": 0.9}, "quantile=0.9 has no effect without loss='quantile'"),
    (MLPTorchRegressor, {"loss": "huber", "quantile": 0.9}, "quantile=0.9 has no effect without loss='quantile'"),
    (MLPTorchRegressor, {"huber_delta": 2.0}, "huber_delta=2.0 has no effect without loss='huber'"),
    (MLPTorchClassifier, {"scoring": "accuracy"}, "scoring='accuracy' has no effect without rows to validate on"),
    (
        MLPTorchClassifier,
        {"scoring": "loss", "solver": "lbfgs", "early_stopping": True},
        "scoring='loss' has no effect without rows to validate on",
    ),
    (MLPTorchClassifier, {"weight_decay": 0.1}, "weight_decay=0.1 has no effect without solver='adamw'"),
    (
        MLPTorchClassifier,
        {"weight_decay": 0.1, "solver": torch.optim.AdamW},
        "weight_decay=0.1 has no effect without solver='adamw'",
    ),
    (
        MLPTorchClassifier,
        {"warmup_epochs": 3, "solver": "lbfgs"},
        "warmup_epochs=3 has no effect without a solver that",
    ),
    (MLPTorchClassifier, {"max_grad_norm": 1.0, "solver": "lbfgs"}, "max_grad_norm=1.0 has no effect without a solver"),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
class TestParametersThatNothingReads:
    X, y = PROBLEMS["binary"].X, np.arange(160) % 2

    @pytest.mark.parametrize(("cls", "options", "message"), UNREAD, ids=[case[2] for case in UNREAD])
    def test_are_warned_of(self, cls, options, message, where):
        with pytest.warns(UserWarning, match=message) as caught:
            cls(**{**FAST, **options}, **where).fit(self.X, self.y)
        assert [one.filename for one in caught if "no effect" in str(one.message)] == [__file__]

    @pytest.mark.parametrize(
        "options",
        [
            {"loss": "quantile", "quantile": 0.9}, {"loss": "huber", "huber_delta": 2.0}, {"quantile": 0.5},
            {"solver": "adamw", "weight_decay": 0.1}, {"early_stopping": True, "scoring": "r2"}, {"scoring": None},
            {"warmup_epochs": 3, "max_grad_norm": 1.0}, {"momentum": 0.5}, {"huber_delta": np.float64(1)},
        ],
    )  # fmt: skip
    def test_others_are_not(self, options, where):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            MLPTorchRegressor(**{**FAST, **options}, **where).fit(self.X, self.y)

    def test_a_scorer_of_some_calls_of_partial_fit(self, where):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clf = MLPTorchClassifier(**FAST, **where, scoring="accuracy")
            clf.partial_fit(self.X, self.y, classes=[0, 1]).partial_fit(self.X, self.y, X_val=self.X, y_val=self.y)
        assert len(clf.validation_scores_) == 1
