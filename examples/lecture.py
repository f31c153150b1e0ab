"""The main points of a first lecture on neural networks, shown with `MLPTorchClassifier`.

1. A network without a hidden layer is logistic regression.
2. A deep network of linear layers is still a linear model; a network with one ReLU layer is not.
3. With ten sigmoid layers, almost no gradient reaches the first layer; with ten ReLU layers it does.
4. The run of the lecture, unscaled digits through 64-32-16-10, compared with plain PyTorch.
"""

import warnings

import numpy as np
import torch
from sklearn.datasets import load_digits, make_circles
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier

warnings.simplefilter("ignore", ConvergenceWarning)


def a_perceptron_is_logistic_regression():
    """Compare the probabilities of the two models at their optimum."""
    X, y = load_digits(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    linear = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit(X, y)
    network = MLPTorchClassifier((), solver="lbfgs", alpha=1.0, max_iter=5000, tol=1e-8, dtype="float64").fit(X, y)
    difference = np.abs(linear.predict_proba(X) - network.predict_proba(X)).max()
    print(f"1. no hidden layer against LogisticRegression: probabilities differ by at most {difference:.1e}")


def linear_layers_collapse():
    """Print the accuracy of a deep linear network and of a ReLU network on two rings."""
    X, y = make_circles(400, noise=0.05, factor=0.5, random_state=0)
    print("2. accuracy on two rings")
    print(f"   LogisticRegression            {LogisticRegression().fit(X, y).score(X, y):.2f}")
    for sizes, activation in (((20, 20, 20), "identity"), ((20,), "relu")):
        network = MLPTorchClassifier(sizes, activation=activation, solver="lbfgs", random_state=0).fit(X, y)
        print(f"   {len(sizes)} hidden layer(s), {activation:<10}  {network.score(X, y):.2f}")


def gradients_vanish():
    """Print the size of the first layer's gradient divided by that of the last layer."""
    X, y = load_digits(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    print("3. mean |gradient| of the first layer over the last's, ten hidden layers")
    for activation in ("sigmoid", "tanh", "relu", "leaky_relu", "elu"):
        network = MLPTorchClassifier(
            (30,) * 10, activation=activation, max_iter=1, learning_rate_init=1e-9, random_state=0
        )
        module = network.fit(X, y).module_
        torch.nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y)).backward()
        first, last = (module[i].weight.grad.abs().mean().item() for i in (0, -1))
        print(f"   {activation:<12}{first / last:.1e}")


def pytorch_losses(X, y, seed):
    """Train the network of the lecture in plain PyTorch; return the loss of each epoch."""
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers, torch.nn.Linear(16, 10))
    optimizer = torch.optim.Adam(module.parameters())
    X, y, losses = torch.from_numpy(X).float(), torch.from_numpy(y), []
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(module(X), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def the_lectures_run():
    """Print the loss at epochs 0, 10, ..., 90: lowest, median and highest value of five seeds."""
    X, y = load_digits(return_X_y=True)
    options = {"init": "torch", "alpha": 0.0, "batch_size": len(X), "max_iter": 100, "n_iter_no_change": 100}
    runs = {
        "MLPTorchClassifier": [
            MLPTorchClassifier((32, 16), **options, random_state=seed).fit(X, y).loss_curve_ for seed in range(5)
        ],
        "PyTorch": [pytorch_losses(X, y, seed) for seed in range(5)],
    }
    print("4. loss at epochs 0, 10, ..., 90, five seeds")
    for name, curves in runs.items():
        at = np.array(curves)[:, ::10]
        for part, values in (("lowest", at.min(0)), ("median", np.median(at, 0)), ("highest", at.max(0))):
            print(f"   {name:<19}{part:<8}" + " ".join(f"{value:.2f}" for value in values))


if __name__ == "__main__":
    a_perceptron_is_logistic_regression()
    linear_layers_collapse()
    gradients_vanish()
    the_lectures_run()
