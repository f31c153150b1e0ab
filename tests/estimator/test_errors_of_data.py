"""Bad tables, targets, weights and validation rows: a clear error, and an estimator that is as it was."""

import re

import numpy as np
import pytest
import scipy.sparse as sp
from bad_input import FAST, assert_unchanged, with_value
from problems import PROBLEMS, raw_prediction
from torch import nn

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


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
