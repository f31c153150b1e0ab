"""Sample weights count by their ratios, and beside a penalty by their scale."""

import numpy as np
import pytest
import torch
from fits import assert_same
from marking import slow_but
from problems import PROBLEMS
from sklearn.base import clone

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._training.weights import Scaled, penalty_for

pytestmark = pytest.mark.usefixtures("unconverged")
FAST = {"hidden_layer_sizes": (6,), "max_iter": 12, "batch_size": 40, "random_state": 0, "learning_rate_init": 0.01}
SCALES = [1e-320, 1e-50, 1e-42, 1e-20, 1e20, 1e37, 1e39, 1e300]
SOLVERS = ["adam", "sgd", "lbfgs", torch.optim.Adam]


def weights(scale=1.0):
    """A power of two times a number near one, so that ratios are the same to the last digit, but for subnormal ones."""
    exact = np.ldexp(1.0, int(np.log2(scale)))
    return exact * np.round(np.random.RandomState(1).uniform(0.5, 3, 160), 2)


@pytest.mark.parametrize("scale", slow_but([1e300], SCALES[1:]))
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["binary", "multilabel", "regression"])
def test_without_a_penalty_the_scale_changes_no_digit(name, solver, scale, where):
    problem = PROBLEMS[name]
    estimator = problem.ours(**FAST, **where, alpha=0.0, solver=solver)
    expected = clone(estimator).fit(problem.X, problem.y, sample_weight=weights())
    assert_same(estimator.fit(problem.X, problem.y, sample_weight=weights(scale)), expected)


@pytest.mark.parametrize("call", ["early stopping", "partial_fit", "class_weight", "balanced", "validation"])
@pytest.mark.parametrize("scale", slow_but([1e300], SCALES[1:]))
def test_wherever_weights_are_taken(call, scale, where):
    problem = PROBLEMS["multiclass"]
    X, y = problem.X, problem.y

    def fit(weight):
        fitted = MLPTorchClassifier(**FAST, **where, alpha=0.0)
        match call:
            case "early stopping":
                return fitted.set_params(early_stopping=True).fit(X, y, sample_weight=weight)
            case "partial_fit":
                for part in (slice(0, 100), slice(100, 160)):
                    fitted.partial_fit(X[part], y[part], sample_weight=weight[part], classes=[0, 10, 20])
                return fitted
            case "validation":
                fitted.set_params(early_stopping=True, scoring="loss")
                return fitted.fit(X, y, X_val=X[:50], y_val=y[:50], sample_weight_val=weight[:50])
        class_weight = "balanced" if call == "balanced" else {0: weight[0], 10: weight[1], 20: weight[2]}
        return fitted.set_params(class_weight=class_weight).fit(X, y, sample_weight=weight)

    ours, expected = fit(weights(scale)), fit(weights())
    assert_same(ours, expected)
    assert ours.validation_loss_curve_ == expected.validation_loss_curve_


@pytest.mark.parametrize("solver", SOLVERS[:3])
@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e20])
def test_a_penalty_is_shared_among_the_weights(scale, solver, device):
    """As in scikit-learn: `alpha` over the weights' sum."""
    problem = PROBLEMS["regression"]
    options = {**FAST, "solver": solver, "alpha": 0.5 * scale}
    weight = weights(scale)
    ours = MLPTorchRegressor(**options, device=device, dtype="float64").fit(problem.X, problem.y, sample_weight=weight)
    theirs = problem.theirs(**options).fit(problem.X, problem.y, sample_weight=weight)
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(("alpha", "scale"), [(1e-4, 1e-42), (1e-4, 1e-320), (1.0, 1e-30)])
def test_a_penalty_beyond_the_dtype(alpha, scale, device):
    problem = PROBLEMS["regression"]
    estimator = MLPTorchRegressor(**FAST, alpha=alpha, device=device, dtype="float32")
    with pytest.raises(
        ValueError, match=r"alpha must be at most 1.8e\+19 times the largest sample_weight .*got alpha="
    ):
        estimator.fit(problem.X, problem.y, sample_weight=np.full(160, scale))
    assert not hasattr(estimator, "coefs_")


def test_scorers_get_the_weights_as_they_were_given(where):
    seen = []

    def scorer(estimator, X, y, sample_weight=None):
        seen.append(sample_weight)
        return 0.5

    problem = PROBLEMS["regression"]
    fitted = MLPTorchRegressor(**{**FAST, "max_iter": 1}, **where, early_stopping=True, scoring=scorer)
    fitted.fit(problem.X, problem.y, X_val=problem.X, y_val=problem.y, sample_weight_val=weights(1e30))
    np.testing.assert_array_equal(seen, [weights(1e30)])


def test_one_weight_may_be_far_from_the_others(where):
    """A row that weighs next to nothing is as if it were not there."""
    problem = PROBLEMS["regression"]
    options = {**FAST, "batch_size": 160, "alpha": 0.0, "solver": "lbfgs"}
    light, none = np.ones(160), np.ones(160)
    light[0], none[0] = 1e-300, 0.0
    ours = MLPTorchRegressor(**options, **where).fit(problem.X, problem.y, sample_weight=light)
    assert_same(ours, MLPTorchRegressor(**options, **where).fit(problem.X, problem.y, sample_weight=none))


@pytest.mark.parametrize("scale", SCALES)
def test_scaled_weights_are_the_weights(scale):
    given = scale * np.array([0.0, 0.3, 1.7])
    scaled = Scaled.of(given)
    np.testing.assert_array_equal(np.ldexp(scaled.values, scaled.exponent), given)
    assert 0.5 <= scaled.values.max() < 1
    product = scaled.times(np.array([4.0, 0.5, 0.0]))
    expected = np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(product.values / product.values.max(), expected)
    assert penalty_for(scaled.values.max() * 2.0**scaled.exponent, scaled.exponent, np.dtype(float)) < 1


def test_the_weights_of_many_labels_do_not_vanish(where):
    rng = np.random.RandomState(0)
    X, Y = rng.normal(size=(60, 3)), (rng.uniform(size=(60, 400)) < 0.1).astype(int)
    fitted = MLPTorchClassifier((2,), max_iter=1, class_weight="balanced", random_state=0, **where).fit(X, Y)
    assert np.isfinite(fitted.loss_)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_rows_held_out_count_by_their_own_ratios(solver, where):
    """However much heavier a row is that is trained on."""
    problem = PROBLEMS["regression"]
    weight = weights()
    options = {**FAST, "max_iter": 3, "batch_size": 144, "early_stopping": True, "solver": solver, "alpha": 0.0}
    expected = MLPTorchRegressor(**options, **where).fit(problem.X, problem.y, sample_weight=weight)
    (held_out,) = np.nonzero(np.isin(np.arange(160), _held_out(expected, problem, weight)))
    for scale in (1e-200, 1e-30, 1e30, 1e200):
        other = weight * np.ldexp(1.0, int(np.log2(scale)))
        other[held_out] = weight[held_out]
        assert_same(MLPTorchRegressor(**options, **where).fit(problem.X, problem.y, sample_weight=other), expected)


def _held_out(estimator, problem, weight):
    """Return the rows that a fit has held out, by their weights, as a scorer gets them."""
    seen = []

    def scorer(estimator, X, y, sample_weight=None):
        seen.append(X)
        return -len(seen)

    clone(estimator).set_params(scoring=scorer, max_iter=1).fit(problem.X, problem.y, sample_weight=weight)
    return [i for i, row in enumerate(problem.X) if (row == seen[0]).all(1).any()]
