"""Effects that the lecture behind this project teaches, in small networks."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_circles
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier

pytestmark = pytest.mark.usefixtures("unconverged")


def layer_gradients(activation, where, n_layers=10):
    """Norm of the loss gradient in each layer of a freshly initialised deep network, per weight."""
    X, y = load_digits(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    network = MLPTorchClassifier((30,) * n_layers, activation=activation, max_iter=1, random_state=0, **where)
    module = network.set_params(learning_rate_init=1e-12).fit(X, y).module_
    loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(X.astype(where["dtype"]))), torch.from_numpy(y))
    loss.backward()
    return np.array([layer.weight.grad.abs().mean().item() for layer in module if isinstance(layer, torch.nn.Linear)])


def test_sigmoid_layers_stop_the_gradient_and_relu_layers_do_not(where):
    sigmoid, relu = layer_gradients("sigmoid", where), layer_gradients("relu", where)
    assert sigmoid[0] < 1e-4 * sigmoid[-1]
    assert relu[0] > 1e-2 * relu[-1]


def test_a_deep_linear_network_is_a_linear_model(where):
    X, y = make_circles(300, noise=0.05, factor=0.5, random_state=0)
    deep = {"hidden_layer_sizes": (20, 20, 20), "solver": "lbfgs", "random_state": 0, **where}
    linear = LogisticRegression().fit(X, y).score(X, y)
    identity = MLPTorchClassifier(activation="identity", **deep).fit(X, y)
    assert abs(identity.score(X, y) - linear) < 0.05
    assert linear < 0.7
    assert MLPTorchClassifier(activation="relu", **deep).fit(X, y).score(X, y) > 0.99
    # Its layers multiply out to one.
    collapsed = np.linalg.multi_dot(identity.coefs_)
    shift = identity.intercepts_[0]
    for coef, intercept in zip(identity.coefs_[1:], identity.intercepts_[1:], strict=True):
        shift = shift @ coef + intercept
    np.testing.assert_allclose((X @ collapsed + shift).ravel(), identity.decision_function(X), rtol=1e-3, atol=1e-4)


def test_a_dead_relu_stays_dead_and_a_leaky_one_learns(where):
    X, y = load_digits(return_X_y=True)
    moved = {}
    for activation in ("relu", "leaky_relu"):
        network = MLPTorchClassifier(
            (20,), activation=activation, alpha=0.0, max_iter=1, warm_start=True, random_state=0, **where
        ).fit(X, y)
        network.intercepts_[0][0] = -1e4  # below every input: this unit never fires
        before = network.coefs_[0][:, 0].copy()
        moved[activation] = np.abs(network.fit(X, y).coefs_[0][:, 0] - before).max()
    assert moved["relu"] == 0.0
    assert moved["leaky_relu"] > 1e-4


@pytest.mark.slow
def test_the_lectures_run(where):
    """Unscaled digits, 64-32-16-10, all rows at once, PyTorch's initial weights and Adam; there it is 0.25 to 0.40."""
    X, y = load_digits(return_X_y=True)
    losses = [
        MLPTorchClassifier(
            (32, 16), init="torch", alpha=0.0, batch_size=len(X), max_iter=100, n_iter_no_change=100, random_state=seed,
            **where,
        ).fit(X, y).loss_curve_
        for seed in range(3)
    ]  # fmt: skip
    assert all(2.3 < curve[0] < 3.5 for curve in losses)
    assert all(0.2 < curve[90] < 0.5 for curve in losses)
