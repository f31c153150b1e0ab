"""Calls of `partial_fit` that do not go with the calls before: a clear error, and an estimator that is as it was."""

import numpy as np
import pytest
from bad_input import FAST, assert_unchanged
from problems import PROBLEMS

from sk_mlp import MLPTorchClassifier

pytestmark = pytest.mark.usefixtures("unconverged")


class TestPartialFit:
    X, y = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y

    def fitted(self, where, **options):
        return MLPTorchClassifier(**{**FAST, **options}, **where).partial_fit(self.X, self.y, classes=[0, 10, 20])

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda e, X, y: e.partial_fit(X, y + 1), r"in classes_ only, got \[ 1 11 21\]; classes_ is \[ 0 10"),
            (lambda e, X, y: e.partial_fit(X, y, classes=[0, 10]), r"classes must stay the same .*, got \[ 0 10\]"),
            (lambda e, X, y: e.partial_fit(X, np.eye(3, dtype=int)[y // 10]), "must be single labels out of 3 classes"),
            (lambda e, X, y: e.partial_fit(X[:, :3], y), "X has 3 features, but .* is expecting 8"),
            (lambda e, X, y: e.set_params(early_stopping=True).partial_fit(X, y), "not support early_stopping=True"),
            (lambda e, X, y: e.set_params(class_weight="balanced").partial_fit(X, y), "must not be 'balanced' in p"),
            (lambda e, X, y: e.set_params(warm_start=True).fit(X, y * 0), r"must have the same classes .*, got \[0\]"),
        ],
    )  # fmt: skip
    def test_later_calls(self, call, message, where):
        estimator = self.fitted(where)
        problem = PROBLEMS["multiclass"]
        assert_unchanged(estimator, problem, lambda e: call(e, self.X, self.y), message)

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ([], r"classes must be a flat list of at least one label, got \[\]"),
            ([[0, 10, 20]], "classes must be a flat list of at least one label"),
        ],
    )
    def test_listed_classes(self, classes, message, where):
        with pytest.raises(ValueError, match=message):
            MLPTorchClassifier(**FAST, **where).partial_fit(self.X, self.y, classes=classes)

    def test_classes_of_an_indicator(self, where):
        y = PROBLEMS["multilabel"].y
        with pytest.raises(ValueError, match=r"classes must be \[0 1 2\] for an indicator of 3 labels, got \[0 1\]"):
            MLPTorchClassifier(**FAST, **where).partial_fit(self.X, y, classes=[0, 1])
        MLPTorchClassifier(**FAST, **where).partial_fit(self.X, y)

    def test_classes_are_required_first(self, where):
        with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
            MLPTorchClassifier(**FAST, **where).partial_fit(self.X, self.y)

    def test_fewer_classes_listed_than_seen(self, where):
        estimator = MLPTorchClassifier(**FAST, **where)
        with pytest.raises(ValueError, match=r"got \[20\]; classes_ is \[ 0 10\]"):
            estimator.partial_fit(self.X, self.y, classes=[0, 10])
        assert not hasattr(estimator, "classes_")
        assert not hasattr(estimator, "n_features_in_")

    def test_a_batch_need_not_hold_all_classes(self, where):
        rows = self.y == 10
        estimator = self.fitted(where).partial_fit(self.X[rows], self.y[rows])
        np.testing.assert_array_equal(estimator.classes_, [0, 10, 20])

    def test_other_number_of_outputs(self, where):
        problem = PROBLEMS["regression_many"]
        estimator = problem.ours(**FAST, **where).partial_fit(problem.X, problem.y)
        call = lambda e: e.partial_fit(problem.X, problem.y[:, :2])  # noqa: E731
        assert_unchanged(estimator, problem, call, r"y must have 3 output\(s\), as in the first fit, got 2")
