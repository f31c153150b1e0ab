"""The users' data, checked and in one dtype: NumPy arrays or SciPy CSR matrices, no tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from sk_mlp._compute.device import forwards

from .columns import naming_columns, require_no_dates
from .sklearn_private import check_sample_weight


@contextmanager
def rewound_on_error(random_state: Any) -> Iterator[None]:
    """Restore `random_state` if the block fails and it is a `RandomState` of the user."""
    if not isinstance(random_state, np.random.RandomState):
        yield
        return
    before = random_state.get_state(legacy=False)
    try:
        yield
    except BaseException:
        random_state.set_state(before)
        raise


def generator_for(random_state: Any, *, is_drawn_from: bool) -> np.random.RandomState | None:
    """Return the generator that `random_state` describes; None for an integer seed if nothing is drawn from it.

    Making a generator takes a tenth of the time of a `partial_fit` with few rows.
    """
    if not is_drawn_from and isinstance(random_state, Integral):
        return None
    return check_random_state(random_state)


def training_data(
    estimator: BaseEstimator, X: Any, y: Any, sample_weight: Any, *, dtype: np.dtype, reset: bool, y_numeric: bool
) -> tuple[Any, Any, np.ndarray | None]:
    """Return X (C-contiguous array or CSR, `dtype`), checked y, and float64 weights or None.

    X is cast once; an array of `dtype` in C order is not copied.
    """
    cast = _cast_plain(estimator, X, y, dtype, reset=reset)
    if cast is not None:
        X = cast
        estimator.n_features_in_ = X.shape[1]
    else:
        _require_sound(X)
        if y_numeric:
            require_no_dates(y, "y")
        with naming_columns(X=X, **({"y": y} if y_numeric else {})):
            X, y = validate_data(
                estimator,
                X,
                y,
                accept_sparse="csr",
                dtype=dtype,
                order="C",
                multi_output=True,
                y_numeric=y_numeric,
                reset=reset,
            )
    if sample_weight is not None:
        require_no_dates(sample_weight, "sample_weight")
        with naming_columns(sample_weight=sample_weight):
            sample_weight = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            sample_weight = forwards(sample_weight)
    X, y = (values if sp.issparse(values) else forwards(values) for values in (_csr(X), y))
    return X, y, sample_weight


def require_pair(X_val: Any, y_val: Any, sample_weight_val: Any) -> None:
    """Raise ValueError unless validation rows come with their targets."""
    if (X_val is None) != (y_val is None):
        given, lacking = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
        raise ValueError(f"X_val and y_val must be passed together, got {given} without {lacking}")
    if X_val is None and sample_weight_val is not None:
        raise ValueError("sample_weight_val must come with X_val and y_val, got it alone")


def prediction_data(estimator: BaseEstimator, X: Any) -> Any:
    """Return X checked but not cast: an array or CSR of any real dtype.

    A few quick checks accept most valid arrays, in a tenth of the time of scikit-learn's checks. scikit-learn checks
    everything else, and gives every error message.
    """
    if _is_plain(estimator, X, reset=False):
        return X
    _require_sound(X)
    with naming_columns(X=X):
        checked = validate_data(estimator, X, accept_sparse="csr", dtype="numeric", reset=False)
        # scikit-learn returns objects or text for data frames of some extension types.
        checked = checked if checked.dtype.kind in "fiub" else checked.astype(np.float64)
    return _csr(checked)


def _cast_plain(estimator: BaseEstimator, X: Any, y: Any, dtype: np.dtype, *, reset: bool) -> np.ndarray | None:
    """Return X in `dtype` and C order if X and y are plain; None if the full checks must decide."""
    if not (_is_plain(estimator, X, reset=reset) and _is_plain_target(y, X.shape[0])):
        return None
    try:
        with np.errstate(over="raise", under="ignore"):
            return np.ascontiguousarray(X, dtype)
    except FloatingPointError:
        return None


def _is_plain(estimator: BaseEstimator, X: Any, *, reset: bool) -> bool:
    """Whether X is a finite float array, of the fitted width unless `reset`, and the estimator has no feature names."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.dtype in (np.float32, np.float64)
        and X.shape[0] > 0
        and (X.shape[1] > 0 if reset else X.shape[1] == estimator.n_features_in_)
        and not hasattr(estimator, "feature_names_in_")
        # A sum is finite only if all its terms are. If it overflows, the full checks decide.
        and isfinite(X.sum())
    )


def _is_plain_target(y: Any, n_samples: int) -> bool:
    """Whether y is an array of `n_samples` integers or finite float64."""
    if type(y) is not np.ndarray or y.shape != (n_samples,):
        return False
    return y.dtype.kind == "i" or (y.dtype == np.float64 and isfinite(y.sum()))


def cast_rows(X: Any, start: int, stop: int, dtype: np.dtype) -> Any:
    """Return a slice of rows, C-contiguous and of `dtype`; a view if X already is."""
    rows = X[start:stop]
    if rows.dtype == dtype:
        return rows if sp.issparse(rows) else np.ascontiguousarray(rows)
    try:
        with np.errstate(over="raise", under="ignore"):
            return rows.astype(dtype) if sp.issparse(rows) else rows.astype(dtype, order="C")
    except FloatingPointError:
        raise ValueError(f"X must be finite in {dtype}, got a value too large for it") from None


def hidden_sizes(hidden_layer_sizes: Any) -> tuple[int, ...]:
    """Return the widths of the hidden layers; a single integer is one layer."""
    sizes = list(hidden_layer_sizes) if np.ndim(hidden_layer_sizes) else [np.asarray(hidden_layer_sizes).item()]
    if not all(isinstance(size, Integral) and not isinstance(size, bool) and int(size) > 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be positive integers, one a layer, got {hidden_layer_sizes!r}")
    return tuple(int(size) for size in sizes)


def _require_sound(X: Any) -> None:
    """Raise ValueError for invalid data that scikit-learn would accept.

    These are dates, sparse matrices of complex numbers or objects, and sparse matrices with indices outside their
    shape: products would read other memory.
    """
    require_no_dates(X, "X")
    if sp.issparse(X) and X.dtype.kind not in "fiub":
        raise ValueError(f"Complex data not supported: sparse X must hold real numbers, got dtype {X.dtype}")
    if sp.issparse(X):
        _require_indices(X)


def _csr(X: Any) -> Any:
    """Return validated X; a sparse matrix becomes a CSR array, whose indices are checked."""
    if not sp.issparse(X):
        return X
    X = sp.csr_array(X)
    _require_indices(X)
    return X


def _require_indices(X: Any) -> None:
    """Raise ValueError for indices outside the shape of a sparse matrix: conversions and products do not check them.

    Unlike `check_format`, this does not change the matrix. Formats without such indices (lil, dok, dia) are checked
    after their conversion to CSR.
    """
    if X.format == "coo":
        parts = list(zip(X.coords, X.shape, strict=True))
    elif X.format in ("csr", "csc", "bsr"):
        blocks = X.blocksize if X.format == "bsr" else (1, 1)
        n_major, n_minor = (size // block for size, block in zip(X.shape, blocks, strict=True))
        if X.format == "csc":
            n_major, n_minor = n_minor, n_major
        ends = X.indptr
        if len(ends) != n_major + 1 or ends[0] != 0 or (ends[1:] < ends[:-1]).any() or ends[-1] > len(X.indices):
            raise ValueError(f"X must be a valid sparse matrix, got indptr that does not go up to {len(X.indices)}")
        parts = [(X.indices[: ends[-1]], n_minor)]
    else:
        return
    for indices, size in parts:
        if indices.size and not (indices.min() >= 0 and indices.max() < size):
            raise ValueError(
                f"X must be a valid sparse matrix of shape {X.shape}, got indices from {indices.min()} to "
                f"{indices.max()}"
            )
