"""Tables of every kind give the same fit, and take no more memory than they have to."""

import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from marking import slow_but
from problems import PROBLEMS, raw_prediction
from processes import run_script
from sklearn.base import clone

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._estimator import held_out
from sk_mlp._estimator import prediction as prediction_module
from sk_mlp._estimator.fitting import task_of
from sk_mlp._estimator.reading import FitMode, Sample
from sk_mlp._network.batch import SparseRows

FAST = {"hidden_layer_sizes": (10, 6), "max_iter": 5, "random_state": 0, "batch_size": 50}
pytestmark = pytest.mark.usefixtures("unconverged")


def _read_only(X, tmp_path):
    X = X.copy()
    X.flags.writeable = False
    return X


def _memory_map(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


INPUTS = {
    "fortran": lambda X, _: np.asfortranarray(X),
    "strided": lambda X, _: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": lambda X, _: X[::-1][::-1],
    "float32": lambda X, _: X.astype(np.float32),
    "float16": lambda X, _: X.astype(np.float16),
    "longdouble": lambda X, _: X.astype(np.longdouble),
    "int8": lambda X, _: X.astype(np.int8),
    "uint16": lambda X, _: X.astype(np.uint16),
    "bool": lambda X, _: X > 0,
    "object": lambda X, _: X.astype(object),
    "big endian": lambda X, _: X.astype(">f8"),
    "list": lambda X, _: X.tolist(),
    "read-only": _read_only,
    "memory map": _memory_map,
    "memory map, float32": lambda X, path: _memory_map(X.astype(np.float32), path),
    "pandas": lambda X, _: pd.DataFrame(X, columns=list("abcdefgh")),
    "pandas, mixed": lambda X, _: pd.DataFrame(X, columns=list("abcdefgh")).astype({"a": np.float32, "b": int}),
    "polars": lambda X, _: pl.DataFrame(X, schema=list("abcdefgh")),
    "csr_matrix": lambda X, _: sp.csr_matrix(X),
    "csr_array": lambda X, _: sp.csr_array(X),
    "csc_array": lambda X, _: sp.csc_array(X),
    "coo_array": lambda X, _: sp.coo_array(X),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", INPUTS)
def test_one_fit_whatever_the_container(kind, where, rtol, tmp_path, rng):
    values = np.round(rng.uniform(0, 3, (160, 8)))  # exact in every dtype
    y = rng.randint(3, size=160)
    if kind == "bool":
        values = (values > 0).astype(float)
    expected = MLPTorchClassifier(**FAST, **where).fit(values, y)
    X = INPUTS[kind](values, tmp_path)
    estimator = MLPTorchClassifier(**FAST, **where).fit(X, y)
    np.testing.assert_allclose(estimator.predict_proba(X), expected.predict_proba(values), rtol=rtol, atol=rtol)
    assert hasattr(estimator, "feature_names_in_") == (kind.startswith(("pandas", "polars")))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_one_row_of_a_reversed_table(solver, dtype):
    """NumPy calls it contiguous, and PyTorch takes no memory read backwards."""
    X, y = PROBLEMS["regression"].X[:7].astype(dtype), np.arange(7.0)
    forwards, backwards = (
        {"X": a[:1], "y": b[:1], "sample_weight": c[:1]}
        for a, b, c in ((X[::-1].copy(), y[::-1].copy(), y[::-1].copy()), (X[::-1], y[::-1], y[::-1]))
    )
    model = MLPTorchRegressor(hidden_layer_sizes=(3,), solver=solver, dtype=dtype, max_iter=3, random_state=0)
    found = clone(model).fit(**backwards)
    expected = clone(model).fit(**forwards)
    np.testing.assert_array_equal(found.predict(backwards["X"]), expected.predict(forwards["X"]))
    found.intercepts_ = [*found.intercepts_[:-1], np.repeat(found.intercepts_[-1], 2)[::-2]]
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))
    if solver == "adam":
        validated = {"X_val": backwards["X"], "y_val": backwards["y"], "sample_weight_val": backwards["sample_weight"]}
        found.partial_fit(**backwards)
        expected.partial_fit(**forwards)
        np.testing.assert_array_equal(found.coefs_[0], expected.coefs_[0])
        clone(model).fit(X, y, **validated)


def test_feature_names_are_checked(where):
    problem = PROBLEMS["regression"]
    frame = pd.DataFrame(problem.X, columns=list("abcdefgh"))
    estimator = MLPTorchRegressor(**FAST, **where).fit(frame, problem.y)
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame[list("hgfedcba")])
    with pytest.warns(UserWarning, match="valid feature names"):
        estimator.predict(problem.X)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matching_input_is_not_copied(dtype, device):
    problem = PROBLEMS["multiclass"]
    X = np.ascontiguousarray(problem.X, dtype=dtype)
    estimator = MLPTorchClassifier(**FAST, dtype=dtype, device=device)
    task, _ = task_of(estimator, Sample(X, problem.y), Sample(None, None), FitMode(goes_on=False))
    assert np.shares_memory(task.table.X, X)
    sparse = sp.csr_array(X)
    task, _ = task_of(estimator, Sample(sparse, problem.y), Sample(None, None), FitMode(goes_on=False))
    assert np.shares_memory(task.table.X.data, sparse.data)


def test_sparse_rows_are_never_densified(where, monkeypatch, rng):
    X = sp.random_array((500, 100_000), density=1e-4, format="csr", random_state=np.random.default_rng(0))

    def refuse(*_args, **_kwargs):
        raise AssertionError("a sparse matrix was densified")

    for method in ("toarray", "todense"):
        monkeypatch.setattr(sp.csr_array, method, refuse)
    estimator = MLPTorchClassifier((2,), max_iter=1, random_state=0, **where).fit(X, rng.randint(2, size=500))
    assert estimator.predict(X).shape == (500,)


def test_wide_sparse_rows_are_cut_by_what_they_store(where, monkeypatch):
    """5 values a row are one chunk, however many columns there are; for predictions, L-BFGS and validation alike."""
    rng = np.random.RandomState(0)
    indices, n_rows, n_columns = rng.randint(100_000, size=10_000), 2000, 100_000
    X = sp.csr_array((rng.standard_normal(10_000), indices, np.arange(0, 10_001, 5)), shape=(n_rows, n_columns))
    y = np.arange(n_rows) % 2
    rows, affine = [], SparseRows.affine
    monkeypatch.setattr(SparseRows, "affine", lambda self, *args: rows.append(args[-1].shape[1]) or affine(self, *args))
    for options in ({"solver": "lbfgs"}, {"early_stopping": True, "validation_fraction": 0.5}):
        rows.clear()
        estimator = MLPTorchClassifier((4,), max_iter=2, random_state=0, **options, **where).fit(X, y)
        assert set(rows) <= {2000, 1000, 200}, "all rows, half of them, or a batch"
        rows.clear()
        estimator.predict(X)
        assert rows == [2000]


@pytest.mark.parametrize("change", [lambda i: i + 8, lambda i: i - 8, lambda i: i.astype(np.int64) * 10**12])
@pytest.mark.parametrize("made", [sp.csr_array, sp.csc_array, sp.csr_matrix])
def test_columns_out_of_range_are_refused(change, made, where):
    """Products would read, and in a gradient write, other memory."""
    problem = PROBLEMS["multiclass"]
    estimator = problem.ours(**FAST, **where).fit(made(problem.X), problem.y)
    bad = made(problem.X)
    bad.indices = change(bad.indices)
    for call in (
        lambda: estimator.predict(bad),
        lambda: estimator.fit(bad, problem.y),
        lambda: estimator.partial_fit(bad, problem.y),
        lambda: estimator.fit(problem.X, problem.y, X_val=bad, y_val=problem.y),
    ):
        with pytest.raises(
            ValueError, match=r"X must be a valid sparse matrix of shape \(160, 8\), got indices from -?\d+ to"
        ):
            call()


def test_columns_out_of_range_in_other_forms(where):
    problem = PROBLEMS["multiclass"]
    estimator = problem.ours(**FAST, **where).fit(problem.X, problem.y)
    coo, lil = sp.coo_array(problem.X), sp.lil_array(problem.X)
    coo.coords = (coo.coords[0], np.full_like(coo.coords[1], 10**8))
    lil.rows[3][:] = [10**8] * len(lil.rows[3])
    for bad in (coo, lil):
        with pytest.raises(ValueError, match=r"X must be a valid sparse matrix of shape \(160, 8\), got indices from"):
            estimator.predict(bad)


def test_sparse_input_with_room_to_spare_is_left_as_it_is(where):
    problem = PROBLEMS["multiclass"]
    X = sp.csr_array(problem.X)
    X.data, X.indices = np.r_[X.data, [1.0] * 9], np.r_[X.indices, np.zeros(9, X.indices.dtype)]
    data = X.data
    problem.ours(**FAST, **where).fit(X, problem.y).predict(X)
    assert X.data is data


@pytest.mark.parametrize("kind", slow_but(["array"], ["array", "matrix"]))
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
def test_sparse_rows_of_every_form_are_held_out_for_a_scorer(form, kind, where):
    problem = PROBLEMS["multilabel"]
    options = {**FAST, "early_stopping": True, "scoring": "accuracy", "validation_fraction": 0.3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.SparseEfficiencyWarning)
        X, y = (getattr(sp, f"{form}_{kind}")(values) for values in (problem.X, problem.y))
    fit = problem.ours(**options, **where).fit(X, y)
    expected = problem.ours(**options, **where).fit(problem.X, problem.y)
    np.testing.assert_allclose(fit.validation_scores_, expected.validation_scores_)


def test_a_split_by_two_classes_takes_flat_labels(where, monkeypatch):
    """A column of them takes scikit-learn ten times as long, a string a row."""
    problem, seen = PROBLEMS["binary"], []
    split = held_out.train_test_split
    monkeypatch.setattr(
        held_out, "train_test_split", lambda *a, **k: seen.append(np.shape(k["stratify"])) or split(*a, **k)
    )
    problem.ours(**FAST, early_stopping=True, **where).fit(problem.X, problem.y)
    assert seen == [(160,)]


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_prediction_in_chunks_is_prediction(name, kind, where, rtol, monkeypatch):
    problem = PROBLEMS[name]
    X = sp.csr_array(problem.X) if kind == "sparse" else problem.X
    estimator = problem.ours(**FAST, **problem.options, **where).fit(X, problem.y)
    expected, labels = raw_prediction(estimator, X), estimator.predict(X)
    monkeypatch.setattr(prediction_module, "chunk_bytes", lambda _: 10_000)
    seen = []
    cast_rows = prediction_module.cast_rows
    monkeypatch.setattr(
        prediction_module, "cast_rows", lambda *args: seen.append(args[2] - args[1]) or cast_rows(*args)
    )
    np.testing.assert_allclose(raw_prediction(estimator, X), expected, rtol=rtol, atol=1e-6)
    assert len(seen) > 2
    if labels.dtype.kind != "f":
        np.testing.assert_array_equal(estimator.predict(X), labels)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("case", ["plain", "wide", "gelu", "many classes", "float64 X"])
@pytest.mark.slow
def test_prediction_memory_is_bounded(case):
    """Measured by the operating system, in a process of its own: 64 MiB beyond the output."""
    assert float(run_script("memory_of_predictions.py", case)) < 64


@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is read from /proc")
@pytest.mark.parametrize(
    ("case", "hidden"),
    [
        ("float32", 1000),
        ("float64", 16),
        ("memory map", 16),
        ("sparse float32", 64),
        ("sparse float64", 16),
        ("float32, early stopping", 16),
    ],
)
@pytest.mark.slow
def test_fit_memory_is_bounded(case, hidden, tmp_path):
    """Measured by the operating system, in a process of its own: at most one float32 copy of the input, none where it
    is float32 already, and 64 MiB, and eight times the parameters.
    """
    assert float(run_script("memory_of_a_fit.py", case, tmp_path / "X.npy", hidden)) < 64


def test_lbfgs_in_chunks_is_lbfgs(where, monkeypatch, rng):
    problem, weight = PROBLEMS["multiclass"], rng.uniform(0, 2, 160)
    fits = []
    for n_bytes in (32 * 2**20, 3000):
        monkeypatch.setattr("sk_mlp._training.lbfgs._CHUNK_BYTES", n_bytes)
        estimator = problem.ours(**{**FAST, "max_iter": 15}, solver="lbfgs", **where)
        fits.append(estimator.fit(problem.X, problem.y, sample_weight=weight))
    np.testing.assert_allclose(fits[0].coefs_[0], fits[1].coefs_[0], rtol=1e-5, atol=1e-7)


def test_validation_in_chunks_is_validation(where, monkeypatch):
    problem = PROBLEMS["regression"]
    fits = []
    for n_bytes in (16 * 2**20, 1000):
        monkeypatch.setattr("sk_mlp._training.validation._VALIDATION_BYTES", n_bytes)
        fits.append(problem.ours(**FAST, early_stopping=True, **where).fit(problem.X, problem.y))
    np.testing.assert_allclose(fits[0].validation_scores_, fits[1].validation_scores_, rtol=1e-5)


@pytest.mark.parametrize(
    "y", [lambda y: y.tolist(), lambda y: pd.Series(y), lambda y: pl.Series(y), lambda y: y[:, None]]
)
def test_targets_in_many_containers(y, where):
    problem = PROBLEMS["regression"]
    expected = MLPTorchRegressor(**FAST, **where).fit(problem.X, problem.y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a column vector draws scikit-learn's DataConversionWarning
        estimator = MLPTorchRegressor(**FAST, **where).fit(problem.X, y(problem.y))
    np.testing.assert_array_equal(estimator.predict(problem.X), expected.predict(problem.X))


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_weight_is_repetition(name, solver, where, rng):
    """At full batch a weight of 2 is the row twice, a weight of 0 the row removed."""
    problem = PROBLEMS[name]
    weight = rng.randint(3, size=len(problem.X))
    rows = np.repeat(np.arange(len(problem.X)), weight)
    options = {**FAST, **problem.options, "solver": solver, "shuffle": False, "alpha": 0.1}
    weighted = problem.ours(**{**options, "batch_size": 160}, **where)
    repeated = problem.ours(**{**options, "batch_size": len(rows)}, **where)
    weighted.fit(problem.X, problem.y, sample_weight=weight)
    repeated.fit(problem.X[rows], problem.y[rows])
    tolerance = 1e-7 if where["dtype"] == "float64" else 1e-3
    np.testing.assert_allclose(
        raw_prediction(weighted, problem.X), raw_prediction(repeated, problem.X), rtol=tolerance, atol=tolerance
    )


def test_a_batch_without_weight_changes_nothing_but_the_moments(where):
    problem = PROBLEMS["regression"]
    weight = np.repeat([0.0, 1.0], 80)
    estimator = problem.ours(**{**FAST, "batch_size": 40}, shuffle=False, momentum=0.0, solver="sgd", **where)
    estimator.fit(problem.X, problem.y, sample_weight=weight)
    alone = problem.ours(**{**FAST, "batch_size": 40}, shuffle=False, momentum=0.0, solver="sgd", **where)
    alone.fit(problem.X[80:], problem.y[80:])
    np.testing.assert_allclose(estimator.coefs_[0], alone.coefs_[0], rtol=1e-6, atol=1e-7)
