"""Random calls: a clear error or a sound result, nothing else touched, and the same again.

`make fuzz` runs many times as many.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.sparse as sp
from cases import FORMS, SURROUNDINGS, TABLES, data, estimators, parameters
from hypothesis import given
from hypothesis import strategies as st
from invariants import assert_sound, fitted, is_clear, nothing_global_changes, outcome, predictions
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone

from sk_mlp import MLPTorchClassifier

pytestmark = [
    pytest.mark.usefixtures("unconverged"),
    pytest.mark.filterwarnings("ignore:.* has no effect without:UserWarning"),
]
ignore_clipping = pytest.mark.filterwarnings("ignore:Got `batch_size` less than 1:UserWarning")


def sparse_or_array(X):
    return X.tocsr() if sp.issparse(X) else X


@ignore_clipping
@given(st.data())
@pytest.mark.slow
def test_a_fit(draws):
    """A fit is sound or names what is wrong; it repeats itself, whatever is around it, and touches nothing."""
    estimator, bad = draws.draw(estimators())
    rows = draws.draw(data(estimator))
    around = draws.draw(st.sampled_from(sorted(SURROUNDINGS)))
    twin, before = clone(estimator), dict(vars(estimator))
    with nothing_global_changes(), SURROUNDINGS[around]():
        found = outcome(lambda: estimator.fit(rows.X, rows.y, rows.sample_weight))
    if isinstance(found, Exception):
        assert dict(vars(estimator)) == before
        return
    assert bad not in ("alpha", "batch_size", "learning_rate_init", "max_iter", "dtype", "init", "tol"), bad
    with nothing_global_changes(), SURROUNDINGS[around]():
        assert_sound(estimator, rows.X, len(rows.y))
    twin.fit(rows.X, rows.y, rows.sample_weight)
    assert fitted(twin) == fitted(estimator)


@ignore_clipping
@given(st.data())
@pytest.mark.slow
def test_predictions_do_not_depend_on_neighbours(draws):
    estimator, _ = draws.draw(estimators(unsound=False))
    rows = draws.draw(data(estimator))
    if isinstance(outcome(lambda: estimator.fit(rows.X, rows.y, rows.sample_weight)), Exception):
        return
    X = sparse_or_array(rows.X)
    chosen = draws.draw(st.lists(st.integers(0, len(rows.y) - 1), min_size=1, max_size=5))
    take = (lambda X: X.iloc[chosen]) if hasattr(X, "iloc") else (lambda X: X[chosen])
    alone, among = predictions(estimator, take(X)), predictions(estimator, X)
    # Rows at the edge of a product's block are summed in another order.
    rtol, atol = (0.05, 0.05) if estimator.dtype == "bfloat16" else (1e-4, 1e-5)
    for name in set(alone) - {"predict"} or {"predict"}:
        expected = np.asarray(among[name])[chosen]
        scale = np.abs(expected).max() + 1
        np.testing.assert_allclose(alone[name], expected, rtol=rtol, atol=atol * scale, err_msg=name)


CALLS = ("partial_fit", "fit", "set_params", "predict", "damage")


def _damage(draws, estimator):
    """Put something else in the place of fitted arrays, as a user or a damaged file may."""
    which = draws.draw(st.sampled_from(["coefs_", "intercepts_", "moments", "shallow copy"]))
    if which == "moments" and hasattr(estimator, "_optimizer_state"):
        state = copy.copy(estimator._optimizer_state)
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                state[name] = draws.draw(st.sampled_from([value[:1], value[:0], value.astype(object), None]))
        estimator._optimizer_state = state
    elif which in ("coefs_", "intercepts_") and hasattr(estimator, which) and getattr(estimator, which):
        arrays = list(getattr(estimator, which))
        i = draws.draw(st.integers(0, len(arrays) - 1))
        arrays[i] = draws.draw(st.sampled_from([arrays[i][:-1], arrays[i][..., None], np.zeros((2, 2)), arrays[i]]))
        setattr(estimator, which, arrays)
    else:
        copy.copy(estimator)


@ignore_clipping
@given(st.data())
@pytest.mark.slow
def test_calls_in_any_order(draws):
    """After each failed call the estimator is as it was; no call crashes or meets what it cannot tell of."""
    estimator, _ = draws.draw(estimators(unsound=False))
    cls = type(estimator)
    kind = draws.draw(st.sampled_from(["binary", "several"] if cls is MLPTorchClassifier else ["one", "two"]))
    rows = draws.draw(data(estimator, n=31, n_features=3, kind=kind))
    classes = {"classes": np.unique(rows.y)} if cls is MLPTorchClassifier else {}
    for call in draws.draw(st.lists(st.sampled_from(CALLS), min_size=2, max_size=6)):
        before = dict(vars(estimator))
        if call == "set_params":
            estimator.set_params(**draws.draw(parameters(cls, most=2))[0])
            continue
        if call == "damage":
            _damage(draws, estimator)
            continue
        if call == "partial_fit" and not hasattr(estimator, "partial_fit"):
            continue
        with nothing_global_changes():
            if call == "predict":
                found = outcome(lambda: predictions(estimator, rows.X) if hasattr(estimator, "n_iter_") else None)
            elif call == "partial_fit":
                found = outcome(lambda: estimator.partial_fit(rows.X, rows.y, rows.sample_weight, **classes))
            else:
                found = outcome(lambda: estimator.fit(rows.X, rows.y, rows.sample_weight))
        if isinstance(found, Exception) or call == "predict":
            after = vars(estimator)
            assert before.keys() == after.keys()
            assert all(after[name] is before[name] for name in before), call


@ignore_clipping
@given(st.data())
@pytest.mark.slow
def test_stacked_is_alone(draws):
    """Fits that train side by side come to what each comes to alone, errors included."""
    estimator, _ = draws.draw(estimators(unsound=False))
    cls = type(estimator)
    kind = draws.draw(st.sampled_from(["binary", "several"] if cls is MLPTorchClassifier else ["one", "two"]))
    rows = [draws.draw(data(estimator, n=n, n_features=3, kind=kind)) for n in (31, 31, 30)]
    members = [
        clone(estimator).set_params(
            **{
                name: draws.draw(st.sampled_from(TABLES[cls][name][0]))
                for name in ("alpha", "learning_rate_init", "max_iter", "early_stopping", "tol")
            },
            random_state=i,
            dtype="float64",
        )
        for i in range(len(rows))
    ]

    around = draws.draw(st.lists(st.sampled_from(sorted(SURROUNDINGS)), min_size=len(rows), max_size=len(rows)))

    def fit(member, rows, around):
        with SURROUNDINGS[around]():
            return outcome(lambda: clone(member).fit(rows.X, rows.y, rows.sample_weight))

    calls = list(zip(members, rows, around, strict=True))
    alone = [fit(*call) for call in calls]
    with nothing_global_changes(), parallel_config("sk_mlp"):
        stacked = Parallel()(delayed(fit)(*call) for call in calls)
    for one, other, own in zip(alone, stacked, rows, strict=True):
        if isinstance(one, Exception):
            assert str(one) == str(other)
            continue
        assert one.n_iter_ == other.n_iter_
        expected = predictions(one, own.X)
        for name, values in predictions(other, own.X).items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-8, err_msg=name)


UNSOUND_TABLES = {
    "NaN": lambda X: np.where(np.arange(X.size).reshape(X.shape) == 3, np.nan, X),
    "infinite": lambda X: np.where(np.arange(X.size).reshape(X.shape) == 3, -np.inf, X),
    "too large": lambda X: X * 1e300,
    "complex": lambda X: X + 1j,
    "flat": lambda X: X[:, 0],
    "empty": lambda X: X[:0],
    "words": lambda X: X.astype(str).astype(object) + "x",
    "no columns": lambda X: X[:, :0],
    "columns out of range": lambda X: _out_of_range(sp.csr_array(X)),
    "negative columns": lambda X: _out_of_range(sp.csr_array(X), -5),
    "rows out of range, by column": lambda X: _out_of_range(sp.csc_array(X)),
    "columns out of range, by coordinates": lambda X: _out_of_range(sp.coo_array(X)),
    "columns out of range, by lists": lambda X: _out_of_range(sp.lil_array(X)),
}


def _out_of_range(matrix, column=10**6):
    if matrix.format == "lil":
        matrix.rows[0][:] = [column] * len(matrix.rows[0])
    elif matrix.format == "coo":
        matrix.coords = (matrix.coords[0], np.full_like(matrix.coords[1], column))
    else:
        matrix.indices = np.full_like(matrix.indices, column)
    return matrix


@given(st.data())
@pytest.mark.slow
def test_unsound_tables(draws):
    """A table that cannot be used is refused with a clear error by every method that takes one."""
    estimator, _ = draws.draw(estimators(unsound=False))
    estimator.set_params(dtype="float32", batch_size="auto", solver="adam", solver_kwargs=None, scoring=None)
    X = np.random.RandomState(0).standard_normal((40, 3))
    y = np.arange(40) % 2 if isinstance(estimator, MLPTorchClassifier) else 0.1 + np.arange(40) / 40
    if isinstance(outcome(lambda: estimator.fit(X, y)), Exception):
        return
    spoil = draws.draw(st.sampled_from(sorted(UNSOUND_TABLES)))
    bad, before = UNSOUND_TABLES[spoil](X), dict(vars(estimator))
    y_bad = y[: bad.shape[0]]
    calls = {
        "fit": lambda: estimator.fit(bad, y_bad),
        "partial_fit": lambda: estimator.partial_fit(bad, y_bad),
        "predict": lambda: estimator.predict(bad),
        "X_val": lambda: estimator.fit(X, y, X_val=bad, y_val=y_bad),
    }
    name = draws.draw(st.sampled_from(sorted(calls)))
    with nothing_global_changes(), pytest.raises((ValueError, TypeError)) as caught:
        calls[name]()
    assert is_clear(caught.value)
    assert dict(vars(estimator)) == before


def test_forms_agree():
    """The forms of one table are the same rows."""
    X = np.random.RandomState(0).standard_normal((20, 3)).astype(np.float32).astype(float)
    y = np.arange(20) % 2
    expected = MLPTorchClassifier((4,), max_iter=3, random_state=0).fit(X, y).predict_proba(X)
    for form, make in FORMS.items():
        if form not in ("int", "bool"):
            found = MLPTorchClassifier((4,), max_iter=3, random_state=0).fit(make(X), y).predict_proba(make(X))
            np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=form)
