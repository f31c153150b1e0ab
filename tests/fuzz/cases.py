"""What the fuzz draws: estimators with sound and unsound parameters, tables in every form, and surroundings."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from hypothesis import strategies as st
from torch import nn
from user_code import InPlace, default_float64, normed_net

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor


def plain_net(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, n_outputs))


class Mixing(nn.Module):
    """An activation with a buffer and no parameters."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x):
        return torch.relu(x + self.shift)


def narrow_net(n_features, n_outputs):
    return nn.Linear(n_features, n_outputs + 1)


def absolute(raw, target):
    if target.ndim == 1:
        target = nn.functional.one_hot(target, raw.shape[1])
    return (raw - target).abs().sum(1)


def halving(epoch):
    return 0.5**epoch


# Sound values of each parameter, then unsound ones.
COMMON: dict[str, tuple[list[Any], list[Any]]] = {
    "hidden_layer_sizes": ([(4,), (5, 3), (), 6, [3], np.array([2, 2])], [0, (3, 0), (2.5,), "5", None]),
    "activation": (
        ["identity", "logistic", "tanh", "relu", "gelu", "mish", nn.PReLU, nn.Tanh, nn.RReLU, Mixing],
        ["swish", nn.GLU, nn.ReLU(), lambda: 3, None, ("relu",) * 9],
    ),
    "solver": (
        ["adam", "adamw", "sgd", "lbfgs", torch.optim.Adam, torch.optim.RMSprop, torch.optim.SGD],
        ["newton", torch.optim.LBFGS, None, int],
    ),
    "solver_kwargs": ([None, None, None], [{"lr": 1}, [1], {"speed": 2}]),
    "alpha": ([0, 1e-4, 0.1, 10.0, 1e-60], [-1, np.nan, 1e39, 10**400, "a", None]),
    "batch_size": (["auto", 1, 2, 7, 30, 10**30], [0, -1, 2.5, "all", None]),
    "learning_rate": (
        ["constant", "invscaling", "adaptive", "cosine", "one_cycle", "plateau", halving],
        ["step", lambda _: -1, lambda _: "a", None],
    ),
    "learning_rate_init": ([1e-3, 0.01, 0.3], [0, -0.1, 1e-60, 1e39, np.inf, None]),
    "power_t": ([0.5, 0, 3], [-1, "a"]),
    "max_iter": ([1, 2, 5, np.int64(3)], [0, 1.5, None]),
    "shuffle": ([True, False], ["no", None]),
    "tol": ([1e-4, 0, 10.0], [-1, None]),
    "n_iter_no_change": ([10, 1, np.inf], [0, None]),
    "momentum": ([0.9, 0, 1], [-0.1, 1.5]),
    "nesterovs_momentum": ([True, False], [None]),
    "early_stopping": ([False, False, True], ["auto", None]),
    "validation_fraction": ([0.1, 0.3], [0.0, 1.0, 1e-300, -1, None]),
    "beta_1": ([0.9, 0.0, 1 - 1e-12], [1, -1]),
    "beta_2": ([0.999, 0.0, 1 - 1e-12], [1.0, None]),
    "epsilon": ([1e-8, 1e-3], [0, 1e-60, -1]),
    "max_fun": ([15000, 1, 10**20], [0]),
    "device": (["cpu"], ["gpu", None, 3, torch.device("cpu")]),
    "dtype": (["float32", "float64", "bfloat16"], ["float16", None, np.float32]),
    "dropout": ([0.0, 0.0, 0.5, 1 - 1e-12], [1.0, -0.5, (0.1,) * 9, None]),
    "normalization": ([None, None, "layer", "batch"], ["group"]),
    "init": (["glorot_uniform", "he_normal", "torch"], ["xavier", None]),
    "module": (
        [None, None, None, plain_net, normed_net, InPlace],
        [3, narrow_net, nn.Linear(2, 2), lambda *_: nn.Flatten()],
    ),
    "weight_decay": ([0.01, 0], [-1, None]),
    "warmup_epochs": ([0, 2], [-1, 1.5]),
    "max_grad_norm": ([None, 1.0, 1e-3], [0, 1e-60, "a"]),
    "scoring": ([None, None, "loss"], [3, "speed", lambda *_: np.nan]),
    "max_time": ([None, 1e6], [0, -1]),
    "warm_start": ([False, True], [None]),
    "verbose": ([False], ["yes", -1]),
}
OF_CLASSIFIER = {
    "class_weight": ([None, None, "balanced"], ["Balanced", {0: -1}, [None], ["Balanced"], 3]),
    "label_smoothing": ([0.0, 0.1], [1.0, -1]),
    "loss": (["log_loss", "log_loss", absolute], ["hinge", None]),
}
OF_REGRESSOR = {
    "loss": (
        ["squared_error", "absolute_error", "huber", "quantile", "gaussian_nll", "poisson", "gamma", absolute],
        ["mse", None],
    ),
    "quantile": ([0.5, 0.9], [0, 1, None]),
    "huber_delta": ([1.0, 1e-3], [0, -1, None]),
}
TABLES = {MLPTorchClassifier: COMMON | OF_CLASSIFIER, MLPTorchRegressor: COMMON | OF_REGRESSOR}


@st.composite
def parameters(draw, cls, *, unsound=True, most=6):
    """A few parameters with sound values, sometimes one with an unsound value; and the name of that one."""
    table = TABLES[cls]
    names = draw(st.lists(st.sampled_from(sorted(table)), max_size=most, unique=True))
    values = {name: draw(st.sampled_from(table[name][0])) for name in names}
    bad = draw(st.sampled_from(sorted(table))) if unsound and draw(st.integers(0, 3)) == 0 else None
    if bad is not None:
        values[bad] = draw(st.sampled_from(table[bad][1]))
    return values, bad


@st.composite
def estimators(draw, *, unsound=True):
    """An estimator, and the name of its unsound parameter, if it has one."""
    cls = draw(st.sampled_from([MLPTorchClassifier, MLPTorchRegressor]))
    values, bad = draw(parameters(cls, unsound=unsound))
    base = {"hidden_layer_sizes": (4,), "max_iter": 2, "device": "cpu", "random_state": draw(st.integers(0, 3))}
    return cls(**{**base, **values}), bad


@dataclass
class Data:
    """A table, targets, and weights or None."""

    X: Any
    y: Any
    sample_weight: Any

    def __repr__(self):
        weight = None if self.sample_weight is None else "weights"
        return f"Data({type(self.X).__name__} {self.X.shape}, y {np.shape(self.y)}, {weight})"


def _read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda X: X,
    "float32": lambda X: X.astype(np.float32),
    "read-only float32": lambda X: _read_only(X.astype(np.float32)),
    "Fortran": np.asfortranarray,
    "every second row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "int": lambda X: np.rint(3 * X).astype(int),
    "bool": lambda X: X > 0,
    "frame": lambda X: pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]),
    "csr": sp.csr_array,
    "read-only csr": lambda X: _frozen(sp.csr_array(X.astype(np.float32))),
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "bsr": lambda X: sp.bsr_array(X, blocksize=(1, 1)),
    "dia matrix": lambda X: _quietly(sp.dia_matrix, X),
}


def _quietly(make, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.SparseEfficiencyWarning)
        return make(X)


def _frozen(matrix):
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.flags.writeable = False
    return matrix


@st.composite
def data(draw, estimator, n=None, n_features=None, kind=None):
    """A table of a few rows, and targets that fit the estimator; unsound sometimes in `unsound_data` only."""
    rng = np.random.RandomState(draw(st.integers(0, 50)))
    n = n or draw(st.sampled_from([12, 31, 150]))
    X = rng.standard_normal((n, n_features or draw(st.sampled_from([1, 3]))))
    X = X * draw(st.sampled_from([1.0, 1.0, 1.0, 1e-3, 1e6, 0.0]))
    form = draw(st.sampled_from(sorted(FORMS)))
    is_classifier = isinstance(estimator, MLPTorchClassifier)
    kind = kind or draw(st.sampled_from(["binary", "several", "labels"] if is_classifier else ["one", "two"]))
    y = {
        "binary": lambda: np.array(["no", "yes"])[np.arange(n) % 2],
        "several": lambda: np.arange(n) % 3 * 10,
        "labels": lambda: (rng.standard_normal((n, 2)) > 0).astype(int),
        "one": lambda: 0.1 + rng.random(n),
        "two": lambda: 0.1 + rng.random((n, 2)),
    }[kind]()
    weight = draw(st.sampled_from([None, None, "ones", "some"]))
    weights = {None: None, "ones": np.ones(n), "some": rng.random(n) + 0.01}[weight]
    return Data(FORMS[form](X), y, weights)


# What a caller may have around a call.
SURROUNDINGS = {
    "nothing": contextlib.nullcontext,
    "np.errstate(all='raise')": lambda: np.errstate(all="raise"),
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "default float64": default_float64,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "meta device": lambda: torch.device("meta"),
}


def _let_pytorch_import_what_it_needs():
    """Enter modes and take a step once: what PyTorch imports for them adds warning filters."""
    for around in SURROUNDINGS.values():
        with around():
            torch.zeros(1)
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.Adam([parameter]).step()


_let_pytorch_import_what_it_needs()
