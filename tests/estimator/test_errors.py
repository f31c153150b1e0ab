"""Bad parameters: an error that states the rule and what was seen, and an estimator that is as it was."""

import numpy as np
import pytest
import torch
from bad_input import FAST, assert_unchanged
from marking import slow_but
from problems import PROBLEMS, raw_prediction
from torch import nn
from user_code import normed_net

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


class WithExtraState(nn.Linear):
    def get_extra_state(self):
        return torch.zeros(2)

    def set_extra_state(self, state):
        pass


class Complex(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_features, n_outputs, dtype=torch.complex64)

    def forward(self, x):
        return self.linear(x.to(torch.complex64)).real


# (what is wrong, changed parameters, changed data, the message)
PARAMETERS = [
    ({"hidden_layer_sizes": 0}, "'hidden_layer_sizes' parameter of .* Got 0 instead"),
    ({"hidden_layer_sizes": -3}, "'hidden_layer_sizes' parameter of .* Got -3 instead"),
    ({"hidden_layer_sizes": (5, 0)}, r"hidden_layer_sizes must be positive integers, one a layer, got \(5, 0\)"),
    ({"hidden_layer_sizes": (5, -1)}, r"hidden_layer_sizes must be positive integers, one a layer, got \(5, -1\)"),
    ({"hidden_layer_sizes": (5.0,)}, r"hidden_layer_sizes must be positive integers, one a layer, got \(5.0,\)"),
    ({"hidden_layer_sizes": [(5, 4)]}, r"hidden_layer_sizes must be positive integers, one a layer, got \[\(5, 4\)\]"),
    ({"hidden_layer_sizes": np.ones((2, 2), int)}, "hidden_layer_sizes must be positive integers, one a layer"),
    ({"hidden_layer_sizes": (True,)}, "hidden_layer_sizes must be positive integers"),
    ({"activation": "swish"}, "'activation' parameter of .* must be a str among .*'gelu'.* Got 'swish' instead"),
    ({"solver": "newton"}, "'solver' parameter of .* Got 'newton' instead"),
    ({"dtype": "float16"}, "'dtype' parameter of .*'bfloat16'.* Got 'float16' instead"),
    ({"device": "gpu"}, "device must be 'auto' or a name PyTorch knows .*, got 'gpu'"),
    ({"device": "meta"}, "device must be present on this machine, got 'meta'"),
    ({"device": 3}, "'device' parameter of .* Got 3 instead"),
    ({"alpha": -1.0}, "'alpha' parameter of .* Got -1.0 instead"),
    ({"batch_size": 0}, "'batch_size' parameter of .* Got 0 instead"),
    ({"beta_1": 1.0}, "'beta_1' parameter of .* Got 1.0 instead"),
    ({"max_iter": 0}, "'max_iter' parameter of .* Got 0 instead"),
    ({"early_stopping": True, "validation_fraction": 0.001}, r"at least 2 validation rows .*, got 1 and 159"),
    ({"early_stopping": True, "validation_fraction": 0.0}, "at least 2 validation rows .*, got 0 and 160"),
    (
        {"warm_start": True, "hidden_layer_sizes": (5,)},
        r"must go on with the network they left, of layer_sizes=\(8, 4",
    ),
    ({"solver": "sgd", "learning_rate_init": 1e30, "max_iter": 9}, r"non-finite parameter weights.*1e\+30 is too"),
    ({"dropout": 1.5}, "'dropout' parameter of .* Got 1.5 instead"),
    ({"dropout": 1.0}, "'dropout' parameter of .* Got 1.0 instead"),
    ({"dropout": (1.5,)}, r"dropout must be in \[0, 1\), got \(1.5,\)"),
    ({"dropout": ("a",)}, r"dropout must be in \[0, 1\), got \('a',\)"),
    ({"dropout": (0.1, 0.2)}, r"sequence of one each, 1 in all, got 2: \(0.1, 0.2\)"),
    ({"dropout": (None,)}, r"dropout must be in \[0, 1\), got \(None,\)"),
    ({"dropout": [[0.1]]}, r"dropout must be in \[0, 1\), got \[\[0.1\]\]"),
    ({"hidden_layer_sizes": (), "dropout": (0.1,)}, r"sequence of one each, 0 in all, got 1: \(0.1,\)"),
    ({"dropout": 0.5, "solver": "lbfgs"}, "must come with a solver that works in epochs, got dropout=0.5 with 'lbfgs'"),
    ({"activation": ("relu", "relu")}, r"sequence of one each, 1 in all, got 2: \('relu', 'relu'\)"),
    ({"activation": ("swish",)}, r"activation must be among .*'gelu'.*, got 'swish'"),
    ({"activation": (3,)}, "activation must be among .*, got 3"),
    ({"activation": nn.ReLU(), "hidden_layer_sizes": ()}, r"an nn.Module class or a function .*, got ReLU\(\)"),
    ({"activation": nn.ReLU()}, r"an nn.Module class or a function that makes an nn.Module, got ReLU\(\)"),
    ({"activation": torch.relu}, r"when called without arguments \(nn.ReLU, not torch.relu\), got <built-in"),
    ({"activation": lambda: "relu"}, "activation must make an nn.Module, got 'relu'"),
    ({"normalization": "group"}, "'normalization' parameter of .* Got 'group' instead"),
    (
        {"normalization": "batch", "solver": "lbfgs"},
        "a solver that works in epochs, got normalization='batch' with",
    ),
    ({"init": "zeros"}, "'init' parameter of .* Got 'zeros' instead"),
    ({"module": "resnet"}, "'module' parameter of .* Got 'resnet' instead"),
    ({"module": lambda n_features, n_outputs: 3}, "module must return an nn.Module, got 3"),
    (
        {"module": lambda n_features, n_outputs: nn.Linear(n_features, 7)},
        r"map rows \(n, 8\) to raw predictions \(n, [13]\), got shape \(2, 7\) for n = 2",
    ),
    ({"module": lambda *_: nn.Flatten()}, "module must have parameters to train, got Flatten"),
    ({"module": nn.Linear(8, 3)}, r"module must be a class or a function .*, got an instance, Linear\("),
    ({"module": lambda n_features, n_outputs: nn.LazyLinear(n_outputs)}, "must know the shapes .*, got lazy ones"),
    ({"module": nn.Linear, "dropout": 0.1}, "module must build the whole network itself, got dropout=0.1 besides"),
    ({"module": nn.Linear, "normalization": "layer"}, "the whole network itself, got normalization='layer' besides"),
    ({"solver": int}, "'solver' parameter of .* or a torch.optim.Optimizer class, .* Got <class 'int'> instead"),
    ({"solver": torch.optim.LBFGS}, "solver must step without a closure, got LBFGS"),
    ({"solver": "adam", "solver_kwargs": {"lr": 1}}, "solver_kwargs must come with a torch.optim.Optimizer .*'adam'"),
    (
        {"solver": torch.optim.SGD, "solver_kwargs": {"lr": 1}},
        "must not hold 'lr', which is learning_rate_.*, got lr=1",
    ),
    (
        {"solver": torch.optim.SGD, "solver_kwargs": {"speed": 1}},
        r"make an optimizer of .*, got SGD with {'speed': 1}: ",
    ),
    ({"solver": torch.optim.SparseAdam}, "must make an optimizer of one flat parameter, got SparseAdam with {}: "),
    ({"weight_decay": -1}, "'weight_decay' parameter of .* Got -1 instead"),
    ({"learning_rate": "linear"}, "'learning_rate' parameter of .* Got 'linear' instead"),
    ({"learning_rate": lambda epoch: -1.0}, "learning_rate must return a finite factor >= 0 .*, got -1.0 for 0"),
    ({"learning_rate": lambda epoch: None if epoch else 1}, "must return a finite factor >= 0 .*, got None for 1"),
    ({"warmup_epochs": -1}, "'warmup_epochs' parameter of .* Got -1 instead"),
    ({"max_grad_norm": 0}, "'max_grad_norm' parameter of .* Got 0 instead"),
    ({"max_time": 0.0}, "'max_time' parameter of .* Got 0.0 instead"),
    (
        {"early_stopping": True, "scoring": lambda *_: np.nan},
        "must give a finite number, got nan after epoch 1",
    ),
    ({"early_stopping": True, "scoring": lambda *_: {}}, "scoring must give a finite number, got {} after epoch 1"),
    ({"scoring": "speed"}, "'speed' is not a valid scoring value"),
    ({"solver": "sgd", "learning_rate": "invscaling", "power_t": 1000}, "power_t must leave .*, got 1000 at t=160"),
    ({"solver": "sgd", "learning_rate": "invscaling", "power_t": 1e3}, r"power_t must leave .*, got 1000.0 at t=160"),
    ({"activation": nn.GLU}, r"activation must map \(n, 4\) to \(n, 4\), got \(2, 2\) from GLU\(dim=-1\) for n = 2"),
    (
        {"activation": nn.GLU, "hidden_layer_sizes": (3,)},
        r"activation must map \(n, 3\) to \(n, 3\), got GLU\(dim=-1\): ",
    ),
    ({"activation": (nn.Tanh, nn.Flatten, lambda: nn.Linear(5, 4)), "hidden_layer_sizes": (3, 4, 5)}, r"\(n, 5\), got"),
    (
        {"module": lambda n_features, n_outputs: nn.Linear(n_features + 1, n_outputs)},
        r"module must map rows \(n, 8\) to .*, got Linear\(in_features=9",
    ),
    ({"module": Detached}, "raw predictions that its parameters can be trained by, got a tensor without a graph"),
    ({"module": WithExtraState}, "keep their state in parameters and buffers, got '_extra_state' from get_extra_state"),
    ({"module": Complex}, "module must have parameters of real numbers, got torch.complex64"),
    ({"module": normed_net, "batch_size": 1}, r"at least 2 rows a batch .*, got batch_size=1 for 160 row\(s\)"),
    ({"loss": lambda raw, target: raw.sum()}, r"one loss a row, .* shape \(160,\), got shape \(\)"),
    ({"loss": lambda raw, target: 1.0}, r"one loss a row, .* shape \(160,\), got 1.0"),
    (
        {"loss": lambda raw, target: torch.zeros(len(raw))},
        "a differentiable function of raw_prediction, got ",
    ),
]
OF_ONE = [
    ("multilabel", {"class_weight": [None] * 3}, r"must hold a dict or 'balanced' for each label, got \[None, None"),
    ("multilabel", {"class_weight": ["Balanced"] * 3}, "must hold a dict or 'balanced' for each label, got .'Bal"),
    ("multiclass", {"class_weight": [None]}, r"must be a dict or 'balanced' for single labels, got \[None\]"),
    ("multiclass", {"class_weight": ["Balanced"]}, r"must be a dict or 'balanced' for single labels, got \['Balanced"),
    ("multiclass", {"class_weight": {0: None}}, "class_weight must be non-negative numbers, got {0: None}"),
    ("multiclass", {"class_weight": {"no such": 2.0}}, r"must name classes in \[ 0 10 20\] only, .*got \['no"),
    ("multiclass", {"class_weight": {0: 0, 10: 0, 20: 0}}, "class_weight must leave some row a weight above 0, got {0"),
    ("multiclass", {"class_weight": [{10: 2.0}]}, r"must be a dict or 'balanced' for single labels, got \[\{10"),
    ("multiclass", {"loss": lambda raw, target: raw.sum(1), "label_smoothing": 0.1}, "must be 0 with a loss of your"),
    ("multiclass", {"class_weight": {10: -2.0}}, "class_weight must be non-negative numbers, got {10: -2.0}"),
    ("multiclass", {"class_weight": "even"}, "'class_weight' parameter of .* Got 'even' instead"),
    ("multilabel", {"class_weight": [{1: 2.0}]}, "class_weight must hold one dict for each of 3 labels, got 1"),
    ("multiclass", {"label_smoothing": 1.0}, "'label_smoothing' parameter of .* Got 1.0 instead"),
    ("multiclass", {"loss": "hinge"}, "'loss' parameter of .* Got 'hinge' instead"),
    ("regression", {"loss": "quantile", "quantile": 1.0}, "'quantile' parameter of .* Got 1.0 instead"),
    ("regression", {"loss": "quantile", "quantile": 0}, "'quantile' parameter of .* Got 0 instead"),
    ("regression", {"loss": "huber", "huber_delta": 0.0}, "'huber_delta' parameter of .* Got 0.0 instead"),
    ("regression", {"loss": "gamma"}, "y must be positive for loss='gamma', got -"),
    ("regression", {"loss": "poisson"}, "y must be non-negative for loss='poisson', got -"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), PARAMETERS, ids=[message for _, message in PARAMETERS])
@pytest.mark.parametrize("name", slow_but(["multiclass"], ["multiclass", "regression"]))
def test_parameters(name, options, message, where):
    problem = PROBLEMS[name]
    estimator = problem.ours(**FAST, **where).fit(problem.X, problem.y)
    sound = estimator.get_params()
    before = assert_unchanged(estimator, problem, lambda e: e.set_params(**options).fit(problem.X, problem.y), message)
    np.testing.assert_array_equal(raw_prediction(estimator.set_params(**sound), problem.X), before)


@pytest.mark.parametrize(("name", "options", "message"), OF_ONE, ids=[case[2] for case in OF_ONE])
def test_parameters_of_one_class(name, options, message, where):
    problem = PROBLEMS[name]
    estimator = problem.ours(**FAST, **where).fit(problem.X, problem.y)
    assert_unchanged(estimator, problem, lambda e: e.set_params(**options).fit(problem.X, problem.y), message)


def test_standard_deviations_of_another_loss(where):
    X, y = PROBLEMS["regression"].X, PROBLEMS["regression"].y
    with pytest.raises(ValueError, match="must come with loss='gaussian_nll', got a fit with loss='squared_error'"):
        MLPTorchRegressor(**FAST, **where).fit(X, y).predict(X, return_std=True)


def of_the_users(*_):
    return {}["the user's own"]


@pytest.mark.parametrize(
    "options",
    [
        {"loss": of_the_users},
        {"module": of_the_users},
        {"activation": of_the_users},
        {"learning_rate": of_the_users},
        {"scoring": of_the_users, "early_stopping": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_a_users_function_raises_surfaces(options, where):
    estimator = MLPTorchRegressor(**FAST, **options, **where)
    with pytest.raises(KeyError, match="the user's own") as caught:
        estimator.fit(PROBLEMS["regression"].X, PROBLEMS["regression"].y)
    assert caught.traceback[-1].name == "of_the_users"
    assert not hasattr(estimator, "n_features_in_")


def test_absent_cuda_says_so():
    problem, n_present = PROBLEMS["regression"], torch.cuda.device_count()
    absent = f"cuda:{n_present}"
    with pytest.raises(ValueError, match=rf"got '{absent}'; PyTorch sees {n_present} CUDA device\(s\)"):
        MLPTorchRegressor(**FAST, device=absent).fit(problem.X, problem.y)


def test_float64_on_mps():
    problem = PROBLEMS["regression"]
    with pytest.raises(ValueError, match=r"dtype must be 'float32' or 'bfloat16' on device 'mps'.*got 'float64'"):
        MLPTorchRegressor(**FAST, device="mps", dtype="float64").fit(problem.X, problem.y)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function", "module_"])
def test_not_fitted(method):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        getattr(MLPTorchClassifier(), method)(PROBLEMS["binary"].X)


# Numbers of Python's that are none in float32, or 0 there.
EXTREMES = [
    ("regression", {"loss": "huber", "huber_delta": 1e39}, r"huber_delta must be finite in float32, got 1e\+39"),
    ("regression", {"loss": "huber", "huber_delta": 1e-50}, "huber_delta must be above 0 in float32, got 1e-50"),
    ("multiclass", {"epsilon": 1e-50}, "epsilon must be above 0 in float32, got 1e-50"),
    ("multiclass", {"learning_rate_init": 1e-50}, "learning_rate_init must be above 0 in float32, got 1e-50"),
    ("multiclass", {"learning_rate_init": 1e39}, r"learning_rate_init must be finite in float32, got 1e\+39"),
    ("multiclass", {"alpha": 1e39}, r"alpha must be finite in float32, got 1e\+39"),
    ("multiclass", {"alpha": 10**400}, "alpha must be finite in float32, got 1000"),
    ("multiclass", {"solver": "adamw", "weight_decay": 1e39}, r"weight_decay must be finite in float32, got 1e\+39"),
    ("multiclass", {"max_grad_norm": 1e-50}, "max_grad_norm must be above 0 in float32, got 1e-50"),
]


@pytest.mark.parametrize(("name", "options", "message"), EXTREMES, ids=[case[2] for case in EXTREMES])
def test_numbers_that_float32_does_not_have(name, options, message, device):
    problem = PROBLEMS[name]
    estimator = problem.ours(**FAST, device=device).fit(problem.X, problem.y)
    assert_unchanged(estimator, problem, lambda e: e.set_params(**options).fit(problem.X, problem.y), message)


def test_numbers_that_nobody_reads_may_be_anything(device):
    problem = PROBLEMS["multiclass"]
    options = {"solver": "sgd", "epsilon": 1e-50, "power_t": 1000, "alpha": 1e-60}
    assert problem.ours(**FAST, **options, device=device).fit(problem.X, problem.y).n_iter_ == 3
