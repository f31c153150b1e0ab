"""Bad input: a clear error that states the rule and what was seen, and an estimator that is as it was."""

import re

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from problems import PROBLEMS, raw_prediction
from torch import nn

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")
FAST = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}


def with_value(array, value):
    array = np.array(array, dtype=float)
    array.flat[3] = value
    return array


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


def normed(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, n_outputs))


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
    ({"module": normed, "batch_size": 1}, r"at least 2 rows a batch .*, got batch_size=1 for 160 row\(s\)"),
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

DATA = [
    ("NaN in X", lambda X, y: (with_value(X, np.nan), y), "Input X contains NaN"),
    ("infinity in X", lambda X, y: (with_value(X, np.inf), y), "Input X contains infinity"),
    ("one column fewer than y rows", lambda X, y: (X[:-1], y), "inconsistent numbers of samples"),
    ("empty X", lambda X, y: (X[:0], y[:0]), r"Found array with 0 sample\(s\)"),
    ("no features", lambda X, y: (X[:, :0], y), r"Found array with 0 feature\(s\)"),
    ("flat X", lambda X, y: (X[:, 0], y), "Expected 2D array, got 1D array instead"),
    ("complex X", lambda X, y: (X + 1j, y), "Complex data not supported"),
    (
        "sparse complex X",
        lambda X, y: (sp.csr_array(X + 1j), y),
        "sparse X must hold real numbers, got dtype complex128",
    ),
    ("sparse object X", lambda X, y: (_sparse_objects(X), y), "sparse X must hold real numbers, got dtype object"),
    ("words in X", lambda X, y: (np.full(X.shape, "word"), y), "could not convert string to float"),
    ("y missing", lambda X, y: (X, None), "requires y to be passed"),
]


def _sparse_objects(X):
    matrix = sp.csr_array(X)
    matrix.data = matrix.data.astype(object)
    return matrix


WEIGHTS = [
    (lambda n: -np.ones(n), "Negative values in data"),
    (lambda n: with_value(np.ones(n), np.nan), "sample_weight contains NaN"),
    (lambda n: np.zeros(n), "Sample weights must contain at least one non-zero number"),
    (lambda n: np.ones(n - 1), r"sample_weight.shape == \(159,\)"),
]

TARGETS = [
    ("multiclass", lambda y: y + 0.5, "Unknown label type: continuous"),
    ("multiclass", lambda y: np.c_[y, y], "multiclass-multioutput"),
    ("multiclass", lambda y: with_value(y, np.nan), "Input y contains NaN"),
    ("regression", lambda y: with_value(y, np.nan), "Input y contains NaN"),
    ("regression", lambda y: with_value(y, np.inf), "Input y contains infinity"),
    ("regression", lambda y: y.astype(str).astype(object) + "x", "could not convert string to float"),
    ("regression", lambda y: y.astype(str), "y must hold real numbers, got dtype <U"),
    ("regression", lambda y: y + 1j, "Complex data not supported|y must hold real numbers, got dtype complex128"),
    ("multiclass", lambda y: np.array([1, "a"] * 80, dtype=object), "labels must be of one kind, .* got int, str"),
    ("multiclass", lambda y: np.array(["a", 1] * 80, dtype=object), "labels must be of one kind, .* got int, str"),
    ("multilabel", lambda y: 2 * y, r"y must be an indicator of zeros and ones, got values \[0 2\]"),
    ("multilabel", lambda y: 2 * y - 1, r"y must be an indicator of zeros and ones, got values \[-1  1\]"),
    ("poisson", lambda y: y - 3, "y must be non-negative for loss='poisson', got -3"),
]  # fmt: skip


def assert_unchanged(estimator, problem, call, message):
    """The call raises ValueError and a fitted estimator goes on predicting as before."""
    before, attributes = raw_prediction(estimator, problem.X), {**vars(estimator)}
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=f"(?s){message}"):
        call(estimator)
    fitted = {name: value for name, value in vars(estimator).items() if name.endswith("_") or name.startswith("_")}
    assert all(fitted[name] is attributes[name] for name in fitted)
    return before


@pytest.mark.parametrize(("options", "message"), PARAMETERS, ids=[message for _, message in PARAMETERS])
@pytest.mark.parametrize("name", ["multiclass", "regression"])
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


VALIDATION = [
    (lambda X, y: {"X_val": X}, "X_val and y_val must be passed together, got X_val without y_val"),
    (lambda X, y: {"y_val": y}, "X_val and y_val must be passed together, got y_val without X_val"),
    (
        lambda X, y: {"sample_weight_val": np.ones(160)},
        "sample_weight_val must come with X_val and y_val",
    ),
    (lambda X, y: {"X_val": X[:, :3], "y_val": y}, "X has 3 features, but .* is expecting 8"),
    (lambda X, y: {"X_val": X[:5], "y_val": y}, "inconsistent numbers of samples"),
    (lambda X, y: {"X_val": with_value(X, np.nan), "y_val": y}, "in X_val, y_val or .*: Input X contains NaN"),
    (lambda X, y: {"X_val": X, "y_val": y, "sample_weight_val": np.zeros(160)}, "at least one non-zero number"),
    (lambda X, y: {"X_val": X, "y_val": y, "sample_weight_val": -np.ones(160)}, "Negative values in data"),
    (lambda X, y: {"X_val": X, "y_val": np.c_[y, y]}, r"multiclass-multioutput|y must have 1 output\(s\).*got 2"),
]


@pytest.mark.parametrize(("given", "message"), VALIDATION, ids=[message for _, message in VALIDATION])
@pytest.mark.parametrize("name", ["multiclass", "regression"])
def test_validation_rows(name, given, message, where):
    X, y = PROBLEMS[name].X, PROBLEMS[name].y
    estimator = PROBLEMS[name].ours(**FAST, **where).fit(X, y)
    assert_unchanged(estimator, PROBLEMS[name], lambda e: e.fit(X, y, **given(X, y)), message)


def test_validation_labels_that_were_not_seen(where):
    X, y = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y
    estimator = MLPTorchClassifier(**FAST, **where).fit(X, y)
    call = lambda e: e.fit(X, y, X_val=X, y_val=y + 1)  # noqa: E731
    assert_unchanged(estimator, PROBLEMS["multiclass"], call, r"labels in classes_ only, got \[ 1 11 21\]")


def test_validation_rows_with_lbfgs(where):
    X, y = PROBLEMS["regression"].X, PROBLEMS["regression"].y
    with pytest.raises(ValueError, match="X_val must come with a solver that works in epochs, got solver='lbfgs'"):
        MLPTorchRegressor(**FAST, **where, solver="lbfgs").fit(X, y, X_val=X, y_val=y)


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


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in DATA], ids=[case[0] for case in DATA])
@pytest.mark.parametrize("name", ["multiclass", "regression"])
def test_data(name, change, message, where):
    problem = PROBLEMS[name]
    estimator = problem.ours(**FAST, **where).fit(problem.X, problem.y)
    before = assert_unchanged(estimator, problem, lambda e: e.fit(*change(problem.X, problem.y)), message)
    np.testing.assert_array_equal(raw_prediction(estimator, problem.X), before)


@pytest.mark.parametrize(("weight", "message"), WEIGHTS, ids=[message for _, message in WEIGHTS])
@pytest.mark.parametrize("name", ["multiclass", "regression"])
def test_weights(name, weight, message, where):
    problem = PROBLEMS[name]
    estimator = problem.ours(**FAST, **where).fit(problem.X, problem.y)
    assert_unchanged(estimator, problem, lambda e: e.fit(problem.X, problem.y, sample_weight=weight(160)), message)


@pytest.mark.parametrize(("name", "change", "message"), TARGETS, ids=[f"{n}: {m}" for n, _, m in TARGETS])
def test_targets(name, change, message, where):
    problem = PROBLEMS[name]
    estimator = problem.ours(**FAST, **problem.options, **where).fit(problem.X, problem.y)
    assert_unchanged(estimator, problem, lambda e: e.fit(problem.X, change(problem.y)), message)


def test_a_class_too_small_for_an_early_stopping_split(where):
    problem, built = PROBLEMS["binary"], []
    y = np.where(np.arange(160) == 3, "yes", "no")
    estimator = problem.ours(
        **FAST, early_stopping=True, **where, module=lambda *sizes: built.append(1) or nn.Linear(*sizes)
    )
    with pytest.raises(ValueError, match=r"at least 2 rows of each class for early_stopping.*got \[159, 1\] rows"):
        estimator.fit(problem.X, y)
    assert not built


def test_weightless_part_of_an_early_stopping_split(where):
    problem = PROBLEMS["regression"]
    estimator = problem.ours(**FAST, early_stopping=True, **where).fit(problem.X, problem.y)
    weight = np.zeros(160)
    weight[0] = 1.0
    call = lambda e: e.fit(problem.X, problem.y, sample_weight=weight)  # noqa: E731
    assert_unchanged(estimator, problem, call, "must not be all zero on the (training|validation) rows")


class TestPartialFit:
    X, y = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y

    def fitted(self, where, **options):
        return MLPTorchClassifier(**{**FAST, **options}, **where).partial_fit(self.X, self.y, classes=[0, 10, 20])

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda e, X, y: e.partial_fit(X, y + 1), r"in classes_ only, got \[ 1 11 21\]; classes_ is \[ 0 10"),
            (lambda e, X, y: e.partial_fit(X, y, classes=[0, 10]), r"classes must stay the same .*, got \[ 0 10\]"),
            (lambda e, X, y: e.partial_fit(X, np.eye(3, dtype=int)[y // 10]), "must be single labels out of 3 classes"),
            (lambda e, X, y: e.partial_fit(X[:, :3], y), "X has 3 features, but .* is expecting 8"),
            (lambda e, X, y: e.set_params(early_stopping=True).partial_fit(X, y), "not support early_stopping=True"),
            (lambda e, X, y: e.set_params(class_weight="balanced").partial_fit(X, y), "must not be 'balanced' in p"),
            (lambda e, X, y: e.set_params(warm_start=True).fit(X, y * 0), r"must have the same classes .*, got \[0\]"),
        ],
    )  # fmt: skip
    def test_later_calls(self, call, message, where):
        estimator = self.fitted(where)
        problem = PROBLEMS["multiclass"]
        assert_unchanged(estimator, problem, lambda e: call(e, self.X, self.y), message)

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ([], r"classes must be a flat list of at least one label, got \[\]"),
            ([[0, 10, 20]], "classes must be a flat list of at least one label"),
        ],
    )
    def test_listed_classes(self, classes, message, where):
        with pytest.raises(ValueError, match=message):
            MLPTorchClassifier(**FAST, **where).partial_fit(self.X, self.y, classes=classes)

    def test_classes_of_an_indicator(self, where):
        y = PROBLEMS["multilabel"].y
        with pytest.raises(ValueError, match=r"classes must be \[0 1 2\] for an indicator of 3 labels, got \[0 1\]"):
            MLPTorchClassifier(**FAST, **where).partial_fit(self.X, y, classes=[0, 1])
        MLPTorchClassifier(**FAST, **where).partial_fit(self.X, y)

    def test_classes_are_required_first(self, where):
        with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
            MLPTorchClassifier(**FAST, **where).partial_fit(self.X, self.y)

    def test_fewer_classes_listed_than_seen(self, where):
        estimator = MLPTorchClassifier(**FAST, **where)
        with pytest.raises(ValueError, match=r"got \[20\]; classes_ is \[ 0 10\]"):
            estimator.partial_fit(self.X, self.y, classes=[0, 10])
        assert not hasattr(estimator, "classes_")
        assert not hasattr(estimator, "n_features_in_")

    def test_a_batch_need_not_hold_all_classes(self, where):
        rows = self.y == 10
        estimator = self.fitted(where).partial_fit(self.X[rows], self.y[rows])
        np.testing.assert_array_equal(estimator.classes_, [0, 10, 20])

    def test_other_number_of_outputs(self, where):
        problem = PROBLEMS["regression_many"]
        estimator = problem.ours(**FAST, **where).partial_fit(problem.X, problem.y)
        call = lambda e: e.partial_fit(problem.X, problem.y[:, :2])  # noqa: E731
        assert_unchanged(estimator, problem, call, r"y must have 3 output\(s\), as in the first fit, got 2")


@pytest.mark.parametrize("change", [lambda X: X[:, :3], lambda X: with_value(X, np.nan), lambda X: X[0]])
def test_prediction_data(change, where):
    problem = PROBLEMS["regression"]
    estimator = problem.ours(**FAST, **where).fit(problem.X, problem.y)
    with pytest.raises(ValueError, match=r"expecting 8 features|contains NaN|Expected 2D array"):
        estimator.predict(change(problem.X))


def test_values_too_large_for_float32(device):
    problem = PROBLEMS["regression"]
    estimator = MLPTorchRegressor(**FAST, device=device, dtype="float32").fit(problem.X, problem.y)
    for X in (with_value(problem.X, 1e300), sp.csr_array(with_value(problem.X, 1e300))):
        with pytest.raises(ValueError, match="X must be finite in float32, got a value too large"):
            estimator.predict(X)
        with np.errstate(over="ignore"), pytest.raises(ValueError, match=re.escape("too large for dtype('float32')")):
            estimator.fit(X, problem.y)
    with pytest.raises(ValueError, match=r"y must be finite in float32, got values up to 1e\+300"):
        estimator.fit(problem.X, with_value(problem.y, 1e300))
    with np.errstate(all="raise"):  # a value too small for float32 is 0 there, whatever NumPy is told
        estimator.predict(with_value(problem.X, 1e-300))


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


class TestABatchOfOneRow:
    """Batch normalization of PyTorch's cannot be trained on it."""

    X, y = PROBLEMS["regression"].X, PROBLEMS["regression"].y

    @pytest.mark.parametrize(("n", "batch_size"), [(101, 50), (41, 40), (21, 2), (31, 10)])
    def test_joins_the_one_before(self, n, batch_size, where):
        estimator = MLPTorchRegressor(**FAST, **where, module=normed, batch_size=batch_size)
        assert np.isfinite(estimator.fit(self.X[:n], self.y[:n]).predict(self.X)).all()
        assert estimator.t_ == 3 * n

    def test_only_where_it_has_to(self, where):
        """The networks built here know what to do with one row, as do most modules."""
        sizes = []

        class Noting(nn.Linear):
            def forward(self, x):
                if self.training:
                    sizes.append(len(x))
                return super().forward(x)

        MLPTorchRegressor(**FAST, **where, module=Noting, batch_size=50, shuffle=False).fit(self.X[:101], self.y[:101])
        assert sizes[-3:] == [50, 50, 1]
        MLPTorchRegressor(**FAST, **where, normalization="batch", batch_size=50).fit(self.X[:101], self.y[:101])

    def test_rows_that_a_module_scales_to_length_one(self, where):
        """Of which a row of zeros has none: it is tried on other rows."""

        class Scaled(nn.Linear):
            def forward(self, x):
                return super().forward(x / x.norm(dim=1, keepdim=True))

        MLPTorchRegressor(**FAST, **where, module=Scaled, batch_size=1).fit(self.X[:9], self.y[:9])

    def test_chunks_of_lbfgs_have_more(self, where, monkeypatch):
        monkeypatch.setattr("sk_mlp._training.lbfgs._CHUNK_BYTES", 1)
        MLPTorchRegressor(**FAST, **where, module=normed, solver="lbfgs").fit(self.X[:101], self.y[:101])

    def test_is_an_error_where_there_is_none_before(self, where):
        estimator = MLPTorchRegressor(**FAST, **where, module=normed).partial_fit(self.X, self.y)
        call = lambda e: e.partial_fit(self.X[:1], self.y[:1])  # noqa: E731
        assert_unchanged(estimator, PROBLEMS["regression"], call, r"at least 2 rows a batch .*=1 for 1 row\(s\)")


class TestBuffersCountAsWeights:
    X, y = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y

    @pytest.mark.parametrize("early_stopping", [False, True])
    @pytest.mark.parametrize("scale", [1e19, 1e20, 1e37])
    def test_statistics_that_overflow(self, scale, early_stopping, device):
        estimator = MLPTorchClassifier(
            **FAST, device=device, dtype="float32", normalization="batch", early_stopping=early_stopping
        )
        with pytest.raises(ValueError, match="non-finite parameter weights"):
            estimator.fit(self.X.astype(np.float32) * np.float32(scale), self.y)

    def test_infinities_by_design_do_not(self, where):
        class Masked(nn.Linear):
            def __init__(self, n_features, n_outputs):
                super().__init__(n_features, n_outputs)
                self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

        fit = MLPTorchClassifier(**FAST, **where, module=Masked).fit(self.X, self.y)
        assert np.isinf(fit.module_state_["mask"][1])
