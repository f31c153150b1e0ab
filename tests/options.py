"""Options of the estimators: what each is tested with, and the problems that it is for."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._objective import REGRESSION_LOSSES

FAST = {"hidden_layer_sizes": (6, 5), "max_iter": 8, "batch_size": 50, "random_state": 0, "learning_rate_init": 0.01}


class Residual(nn.Module):
    """One hidden layer with dropout beside a linear one."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.skip = nn.Linear(n_features, n_outputs)
        self.deep = nn.Sequential(nn.Linear(n_features, 7), nn.ReLU(), nn.Dropout(0.2), nn.Linear(7, n_outputs))

    def forward(self, X):
        return self.skip(X) + self.deep(X)


def tenth_after_three(epoch):
    return 1.0 if epoch < 3 else 0.1


def absolute(raw, target):
    return (raw - target).abs().sum(1)


def plain_cross_entropy(raw, target):
    return cross_entropy(raw, target, reduction="none")


# An option, the problems it is for, and the networks that train together in a search.
OPTIONS = {
    "dropout": {"dropout": 0.3},
    "dropout, one each": {"dropout": (0.5, 0.0)},
    "layer normalization": {"normalization": "layer"},
    "batch normalization": {"normalization": "batch", "dropout": 0.1},
    "activations": {"activation": ("tanh", "silu")},
    "activation module": {"activation": nn.PReLU},
    "activation factories": {"activation": (nn.Tanh, "relu"), "dropout": 0.2},
    "module": {"module": Residual},
    "he_normal": {"init": "he_normal"},
    "adamw": {"solver": "adamw", "weight_decay": 0.5},
    "torch optimizer": {"solver": torch.optim.RMSprop, "solver_kwargs": {"momentum": 0.9}},
    "cosine": {"learning_rate": "cosine", "warmup_epochs": 2},
    "one_cycle": {"learning_rate": "one_cycle", "solver": "sgd"},
    "plateau": {"learning_rate": "plateau", "n_iter_no_change": 1, "tol": 1.0},
    "callable schedule": {"learning_rate": tenth_after_three},
    "max_grad_norm": {"max_grad_norm": 0.05, "solver": "sgd"},
    "max_time": {"max_time": 1e6},
    "scoring": {"scoring": "loss"},
}
OF_ONE = {
    "class_weight": ("classifier", {"class_weight": {10: 3.0}}),
    "label_smoothing": ("classifier", {"label_smoothing": 0.2}),
    "classifier's own loss": ("classifier", {"loss": plain_cross_entropy}),
    "regressor's own loss": ("regressor", {"loss": absolute}),
    **{f"loss={name}": ("regressor", {"loss": name}) for name in sorted(REGRESSION_LOSSES - {"quantile"})},
    "loss=quantile": ("regressor", {"loss": "quantile", "quantile": 0.7}),
}
CASES = [(name, task, options) for name, options in OPTIONS.items() for task in ("classifier", "regressor")]
CASES += [(name, task, options) for name, (task, options) in OF_ONE.items()]
TRAIN_ALONE = {
    "layer normalization", "batch normalization", "activation module", "activation factories", "module",
    "torch optimizer",
}  # fmt: skip


def estimator(task, where, **options):
    return (MLPTorchClassifier if task == "classifier" else MLPTorchRegressor)(**{**FAST, **options, **where})


EACH_OPTION = pytest.mark.parametrize(
    ("name", "task", "options"), CASES, ids=[f"{name}, {task}" for name, task, _ in CASES]
)
