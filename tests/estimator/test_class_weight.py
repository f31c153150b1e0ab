"""Class weights are sample weights."""

import numpy as np
import pytest
from fits import assert_same
from options import FAST, estimator
from problems import PROBLEMS, data
from sklearn.utils.class_weight import compute_class_weight

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize("name", ["binary", "multiclass"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_class_weight_is_a_sample_weight(name, weighted, where, rtol):
    problem = PROBLEMS[name]
    own = np.random.RandomState(0).uniform(0.5, 2, 160) if weighted else np.ones(160)
    classes = np.unique(problem.y)
    of_class = dict(zip(classes.tolist(), [0.5, 2.0, 3.0], strict=False))
    balanced = compute_class_weight("balanced", classes=classes, y=problem.y, sample_weight=own)
    for class_weight, weight in (
        (of_class, np.array([of_class[label] for label in problem.y])),
        ("balanced", balanced[np.searchsorted(classes, problem.y)]),
        ({classes[0]: 2.0}, np.where(problem.y == classes[0], 2.0, 1.0)),
    ):
        ours = problem.ours(**FAST, **where, class_weight=class_weight).fit(problem.X, problem.y, own)
        assert_same(ours, problem.ours(**FAST, **where).fit(problem.X, problem.y, own * weight), 10 * rtol)


def test_weights_of_several_labels_multiply(where, rtol):
    problem = PROBLEMS["multilabel"]
    each = [{1: 3.0}, {0: 0.5, 1: 2.0}, {}]
    weight = np.prod([[d.get(v, 1.0) for v in column] for d, column in zip(each, problem.y.T, strict=True)], axis=0)
    ours = problem.ours(**FAST, **where, class_weight=each).fit(problem.X, problem.y)
    assert_same(ours, problem.ours(**FAST, **where).fit(problem.X, problem.y, weight), 10 * rtol)
    every = problem.ours(**FAST, **where, class_weight={1: 2.0}).fit(problem.X, problem.y)
    assert_same(every, problem.ours(**FAST, **where).fit(problem.X, problem.y, 2.0 ** problem.y.sum(1)), 10 * rtol)


def test_class_weights_count_in_validation_too(where):
    X, y = data("classifier")
    options = {"class_weight": {10: 5.0}, "early_stopping": True, "scoring": "accuracy"}
    by_scorer = estimator("classifier", where, **options).fit(X, y)
    by_default = estimator("classifier", where, **{**options, "scoring": None}).fit(X, y)
    np.testing.assert_allclose(by_scorer.validation_scores_, by_default.validation_scores_, rtol=1e-6)


def test_weights_may_name_classes_that_are_not_there(where):
    """A fold of a search may lack one of them."""
    X, y = data("classifier")
    estimator("classifier", where, class_weight={0: 1.0, 10: 2.0, 20: 1.0, 30: 5.0}).fit(X, y)
