"""Activations: one for each layer, modules of PyTorch's, and modules with parameters."""

import numpy as np
import pytest
import torch
from fits import assert_same
from marking import slow_but
from options import FAST, estimator
from problems import PROBLEMS, data
from torch import nn

pytestmark = pytest.mark.usefixtures("unconverged")


def test_a_sequence_has_an_activation_for_each_layer(where):
    X, y = data("classifier")
    fitted = estimator("classifier", where, activation=["tanh", "gelu"]).fit(X, y)
    assert [type(layer) for layer in fitted.module_][1::2] == [nn.Tanh, nn.GELU]
    same = estimator("classifier", where, activation=["tanh", "tanh"]).fit(X, y)
    assert_same(same, estimator("classifier", where, activation="tanh").fit(X, y))


def test_parameters_of_a_module_are_trained(where):
    X, y = data("classifier")
    fitted = estimator("classifier", where, activation=nn.PReLU, learning_rate_init=0.1).fit(X, y)
    assert fitted.module_state_["1.weight"].shape == (1,)
    assert abs(fitted.module_state_["1.weight"][0] - 0.25) > 1e-3
    assert isinstance(fitted.module_[1], nn.PReLU)


def test_what_a_module_draws_follows_random_state(where):
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.randn(1))

        def forward(self, x):
            return torch.tanh(x) * self.scale

    X, y = data("classifier")
    before = torch.get_rng_state()
    first, second = (estimator("classifier", where, activation=Scale).fit(X, y) for _ in range(2))
    assert_same(first, second)
    first.predict(X)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("name", slow_but(["multiclass", "regression"], PROBLEMS))
def test_autograd_trains_the_same_network(name, solver, where, rtol):
    problem, tanh = PROBLEMS[name], {}
    for activation in ("tanh", nn.Tanh):
        options = {**FAST, **problem.options, "solver": solver, "max_iter": 10}
        tanh[activation] = problem.ours(**options, activation=activation, **where).fit(problem.X, problem.y)
    closed, through = tanh.values()
    np.testing.assert_allclose(through.loss_curve_, closed.loss_curve_, rtol=rtol)
    for a, b in zip(through.coefs_ + through.intercepts_, closed.coefs_ + closed.intercepts_, strict=True):
        np.testing.assert_allclose(a, b, rtol=100 * rtol, atol=100 * rtol)
