"""Estimators with assigned attributes and no fit, as federated learning makes them."""

import numpy as np
import pytest
import torch
from problems import PROBLEMS, raw_prediction
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from small_fits import fitted

pytestmark = pytest.mark.usefixtures("unconverged")


PUBLIC = ("coefs_", "intercepts_", "n_features_in_", "n_outputs_", "out_activation_", "n_layers_")


def made_by_hand(fitted, **options):
    """An estimator that has never been fitted, with the public attributes of another."""
    made = type(fitted)(**{**fitted.get_params(), **options})
    for name in (*PUBLIC, *(["classes_"] if hasattr(fitted, "classes_") else [])):
        setattr(made, name, getattr(fitted, name))
    return made


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_predicts(name, where):
    problem = PROBLEMS[name]
    expected = fitted(problem, where, activation="tanh")
    made = made_by_hand(expected)
    check_is_fitted(made)
    np.testing.assert_array_equal(made.predict(problem.X), expected.predict(problem.X))
    np.testing.assert_array_equal(raw_prediction(made, problem.X), raw_prediction(expected, problem.X))
    assert made.module_[0].weight.shape == (made.coefs_[0].shape[1], 8)
    assert len(made.history_["loss"]) == 0


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_goes_on_with_fits(name, where, unconverged):
    problem = PROBLEMS[name]
    expected = fitted(problem, where)
    start = [coef.copy() for coef in expected.coefs_]
    for again in (
        made_by_hand(expected).set_params(learning_rate_init=1e-12).partial_fit(problem.X, problem.y),
        made_by_hand(expected, warm_start=True, learning_rate_init=1e-12, max_iter=1).fit(problem.X, problem.y),
    ):
        for coef, before in zip(again.coefs_, start, strict=True):
            np.testing.assert_allclose(coef, before, atol=1e-6)
        assert len(again.loss_curve_) == 1


def test_it_predicts_standard_deviations(where):
    problem = PROBLEMS["regression_many"]
    expected = fitted(problem, where, loss="gaussian_nll")
    found = made_by_hand(expected).predict(problem.X, return_std=True)
    np.testing.assert_array_equal(found, expected.predict(problem.X, return_std=True))


@pytest.mark.parametrize("name", ["binary", "regression"])
def test_it_is_not_fitted_while_an_attribute_is_missing(name, where):
    problem = PROBLEMS[name]
    for missing in (*PUBLIC[:5], *(["classes_"] if name == "binary" else [])):
        made = made_by_hand(fitted(problem, where))
        delattr(made, missing)
        for call in (made.predict, check_is_fitted, lambda X, made=made: made.module_):
            with pytest.raises(NotFittedError):
                call(made if call is check_is_fitted else problem.X)
        if missing not in ("coefs_", "intercepts_"):
            with pytest.raises(NotFittedError, match=rf"must come with \['{missing}'\] to predict without a fit"):
                made.predict(problem.X)


@pytest.mark.parametrize("network", [{"normalization": "batch"}, {"activation": [torch.nn.PReLU] * 2}])
def test_a_network_with_a_state_needs_it(network, where):
    problem = PROBLEMS["regression"]
    expected = fitted(problem, where, **network)
    made = made_by_hand(expected)
    with pytest.raises(ValueError, match=r"module_state_ must hold \[.*\] of the network, got \[\]"):
        made.predict(problem.X)
    made.module_state_ = expected.module_state_
    np.testing.assert_array_equal(made.predict(problem.X), expected.predict(problem.X))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "multiclass",
            {"classes_": np.array([2, 0, 1])},
            "must be different labels in ascending order, got .2 0 1",
        ),
        ("multiclass", {"classes_": np.arange(2)}, "must belong together, got 2 classes, 'softmax' and 3 output"),
        ("multiclass", {"out_activation_": "tanh"}, "must belong together, got 3 classes, 'tanh' and 3 output"),
        ("binary", {"classes_": np.arange(3)}, "must belong together, got 3 classes, 'logistic' and 1 output"),
        (
            "regression",
            {"out_activation_": "tanh"},
            r"must be among \['exp', 'identity'\], got 'tanh'",
        ),
        ("regression", {"coefs_": [np.ones((8, 2))]}, "coefs_ must be matrices that lead from 8 features to 1 out"),
    ],
)
def test_attributes_that_do_not_belong_together_are_errors(name, change, message, where):
    made = made_by_hand(fitted(PROBLEMS[name], where))
    for attribute, value in change.items():
        setattr(made, attribute, value)
    with pytest.raises(ValueError, match=message):
        made.predict(PROBLEMS[name].X)
