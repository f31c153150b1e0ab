"""A module of the user's in the place of the network."""

import numpy as np
import pytest
import torch
from fits import assert_same
from options import FAST, Residual, estimator
from problems import data
from sklearn.linear_model import LogisticRegression
from torch import nn

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


def test_a_module_replaces_the_network_and_nothing_else(where):
    X, y = data("classifier")
    fitted = estimator("classifier", where, module=Residual, early_stopping=True).fit(X, y)
    assert isinstance(fitted.module_, Residual)
    assert not hasattr(fitted, "coefs_")
    assert set(fitted.module_state_) == set(Residual(8, 3).state_dict())
    assert fitted.predict_proba(X).shape == (160, 3)
    assert fitted.set_params(module=None).fit(X, y).coefs_[0].shape == (8, 6)
    assert not hasattr(fitted, "module_state_")


def test_linear_module_is_logistic_regression(where):
    X, y = data("classifier")
    options = {"alpha": 1.0, "max_iter": 1000, "tol": 1e-10, "solver": "lbfgs"}
    fitted = estimator("classifier", {**where, "dtype": "float64"}, module=nn.Linear, **options).fit(X, y)
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(X, y)
    np.testing.assert_allclose(fitted.predict_proba(X), expected.predict_proba(X), atol=1e-4)


def test_a_fitted_module_shares_memory_with_the_estimator(where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, module=Residual).fit(X, y)
    before = fitted.predict(X)
    with torch.no_grad():
        fitted.module_.skip.bias.add_(1.0)
    np.testing.assert_allclose(fitted.predict(X), before + 1, rtol=1e-5)


def test_frozen_parameters_stay(where):
    def frozen(n_features, n_outputs):
        module = Residual(n_features, n_outputs)
        module.skip.requires_grad_(False)
        return module

    X, y = data("regressor")
    options = {"module": frozen, "alpha": 1.0}
    long, short = (estimator("regressor", where, **options, max_iter=n).fit(X, y) for n in (8, 1))
    np.testing.assert_array_equal(long.module_state_["skip.weight"], short.module_state_["skip.weight"])
    assert not np.array_equal(long.module_state_["deep.0.weight"], short.module_state_["deep.0.weight"])


class Tied(nn.Module):
    """Two layers with one weight, which has two names."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.first, self.second = nn.Linear(n_features, n_features), nn.Linear(n_features, n_features)
        self.second.weight = self.first.weight
        self.last = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.last(self.second(torch.relu(self.first(X))))


def test_tied_parameters_stay_tied(where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, module=Tied).fit(X, y)
    state = fitted.module_state_
    np.testing.assert_array_equal(state["first.weight"], state["second.weight"])
    module = fitted.module_
    assert module.first.weight is module.second.weight


def test_a_function_may_return_one_module_each_time(where, rtol):
    one = Residual(8, 1)
    X, y = data("regressor")
    fits = [estimator("regressor", where, module=lambda *_: one).fit(X, y) for _ in range(2)]
    assert_same(*fits)


def test_few_rows_are_of_the_type_asked_for(device):
    class OfFloats(nn.Linear):
        def forward(self, x):
            return super().forward(x.float())

    X, y = data("regressor")
    fitted = MLPTorchRegressor(**FAST, module=OfFloats, device=device).fit(X[:100], y[:100])
    assert fitted.predict(X[:3]).shape == (3,)


def test_pytorchs_generator_is_left_alone(where):
    X, y = data("regressor")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    estimator("regressor", where, module=Residual).fit(X, y).predict(X)
    assert torch.equal(torch.rand(1), expected)


def test_a_module_learns_in_bfloat16(device):
    X, y = data("classifier")
    fitted = MLPTorchClassifier(**{**FAST, "max_iter": 60}, normalization="layer", dtype="bfloat16", device=device).fit(
        X, y
    )
    assert fitted.score(X, y) > 0.7


def shared_activation():
    activation = nn.PReLU()
    return {"hidden_layer_sizes": (6, 5), "activation": lambda: activation}


@pytest.mark.parametrize("options", [{"module": Tied}, shared_activation()], ids=["module", "activation"])
def test_what_is_done_to_tied_parameters_counts(options, where):
    """Through the live module: predictions follow it, and so does training that goes on."""
    X, y = data("regressor")
    fitted = estimator("regressor", where, **options, warm_start=True, max_iter=2).fit(X, y)
    before = fitted.predict(X)
    with torch.no_grad():
        for parameter in fitted.module_.parameters():
            parameter.mul_(2)
    assert not np.allclose(fitted.predict(X), before)
    rows = torch.from_numpy(X).to(next(fitted.module_.parameters()).dtype)
    np.testing.assert_allclose(fitted.predict(X), fitted.module_(rows).detach().numpy()[:, 0], rtol=1e-4, atol=1e-5)
    edited = fitted.predict(X)
    fitted.set_params(learning_rate_init=1e-9, max_iter=1).fit(X, y)
    np.testing.assert_allclose(fitted.predict(X), edited, rtol=1e-4, atol=1e-5)


class Masked(nn.Module):
    """A module with buffers of whole numbers and of truth values."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_features, n_outputs)
        self.register_buffer("mask", torch.arange(n_features) % 2 == 0)
        self.register_buffer("places", torch.arange(n_features))

    def forward(self, X):
        return self.linear(X[:, self.places] * self.mask)


def test_buffers_keep_their_dtype(where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, module=Masked, warm_start=True).fit(X, y).fit(X, y)
    assert {name: value.dtype.kind for name, value in fitted.module_state_.items()} == {
        "linear.weight": "f", "linear.bias": "f", "mask": "b", "places": "i",
    }  # fmt: skip
    assert fitted.predict(X).shape == (160,)
