"""Finds the columns of a table that contain no numbers, to name them in errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp

# Parts of the messages of NumPy and scikit-learn for values that cannot be read as numbers.
_UNREADABLE = (
    "could not convert",
    "argument must be a string or a real number",
    "not compatible with arrays of bytes/strings",
    "setting an array element with a sequence",
)


_OF_CATEGORIES = "which has to be encoded, by OneHotEncoder for example"
_OF_DATES = "turn it into numbers first, for example into days since a date of your choice"
# Names of types of dates that are objects; names, because pandas is not imported here.
_DATES = {"date", "datetime", "time", "timedelta", "Timestamp", "Timedelta", "Period"}


def require_no_dates(values: Any, name: str) -> None:
    """Raise ValueError for dates and durations, which NumPy would read as numbers in an arbitrary unit."""
    for column, kind in _kinds(values):
        if kind is not None:
            raise ValueError(f"{name} must hold numbers, got {kind}{_in_column(column)}: {_OF_DATES}")


@contextmanager
def naming_columns(**tables: Any) -> Iterator[None]:
    """Add to an error the table and the column of the value that could not be read as a number."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not any(words in str(error) for words in _UNREADABLE):
            raise
        for name, table in tables.items():
            found = _first_unreadable(table)
            if found is not None:
                # scikit-learn's checks expect a TypeError for values that no table contains.
                kind = TypeError if isinstance(error, TypeError) and _OF_DATES not in found else ValueError
                raise kind(f"{name} must hold numbers, got {found}: {error}") from error
        raise


def _kinds(values: Any) -> Iterator[tuple[Any, str | None]]:
    """Yield columns (None for all of them) and the name of their type if it is one of dates or durations, else None."""
    if hasattr(values, "columns") and hasattr(values, "dtypes"):
        for j, (name, dtype) in enumerate(zip(values.columns, values.dtypes, strict=False)):
            yield name, _kind_of(dtype) or (_kind_in(_column(values, j)) if _holds_objects(dtype) else None)
        return
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values)
        except ValueError:  # rows of unequal length, for which scikit-learn raises an error
            return
    dtype = getattr(values, "dtype", None)
    yield None, _kind_of(dtype) or (_kind_in(np.asarray(values)) if _holds_objects(dtype) else None)


def _kind_of(dtype: Any) -> str | None:
    """Return the name of a dtype of dates or durations (of NumPy, pandas or polars); None for any other dtype."""
    is_date = getattr(dtype, "kind", None) in ("m", "M") or getattr(dtype, "is_temporal", bool)()
    return str(dtype) if is_date else None


def _holds_objects(dtype: Any) -> bool:
    """Whether a dtype is that of objects, in NumPy (also used by pandas) or polars."""
    return (isinstance(dtype, np.dtype) and dtype.kind == "O") or str(dtype) == "Object"


def _kind_in(values: np.ndarray) -> str | None:
    """Return the dtype of NumPy dates among objects, None if there are none; `float` would accept them."""
    if not {np.datetime64, np.timedelta64}.isdisjoint(map(type, values.ravel())):
        return next(str(value.dtype) for value in values.flat if isinstance(value, np.datetime64 | np.timedelta64))
    return None


def _first_unreadable(X: Any) -> str | None:
    """Return a text with the first value of a table `(n, n_columns)` or `(n,)` that is no number, and its column."""
    missing = None
    for name, column in _columns(X):
        for value in column:
            if not _is_number(value):
                where = _in_column(name)
                if value is None or type(value).__name__ == "NAType":
                    missing = missing or f"a missing value{where}"
                elif isinstance(value, str):
                    # A text among numbers is a mark for a missing number, not a category.
                    is_category = name is not None and not _is_number(column[len(column) // 2])
                    return f"text{where} ({str(value)!r})" + (f", {_OF_CATEGORIES}" if is_category else "")
                else:
                    kind = type(value).__name__
                    return f"{kind}{where}" + (f", {_OF_DATES}" if kind in _DATES else "")
    return missing


def _is_number(value: Any) -> bool:
    """Whether a value can be read as a number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _columns(X: Any) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield the columns that may contain other values than numbers, with their names."""
    if sp.issparse(X):
        return
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        for j, (name, dtype) in enumerate(zip(X.columns, X.dtypes, strict=False)):
            if not (isinstance(dtype, np.dtype) and dtype.kind in "fiub"):
                yield name, _column(X, j)
        return
    try:
        values = np.asarray(X, dtype=object)
    except ValueError:  # rows of unequal length
        return
    yield from enumerate(values.T) if values.ndim == 2 else [(None, values.ravel())]


def _column(frame: Any, j: int) -> np.ndarray:
    """Return the `j`-th column of a frame of pandas or polars, as objects."""
    return np.asarray(frame.iloc[:, j] if hasattr(frame, "iloc") else frame[:, j], dtype=object)


def _in_column(column: Any) -> str:
    return "" if column is None else f" in column {column!r}"
