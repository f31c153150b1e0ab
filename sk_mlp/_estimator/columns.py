"""Columns of a table that hold no numbers: found, and named to the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp

# What NumPy and scikit-learn say when values cannot be read as numbers.
_UNREADABLE = (
    "could not convert",
    "argument must be a string or a real number",
    "not compatible with arrays of bytes/strings",
    "setting an array element with a sequence",
)


_OF_CATEGORIES = "which has to be encoded, by OneHotEncoder for example"
_OF_DATES = "turn it into numbers first, for example into days since a date of your choice"
# Dates that are objects, by name: pandas is not imported here.
_DATES = {"date", "datetime", "time", "timedelta", "Timestamp", "Timedelta", "Period"}


def require_no_dates(values: Any, name: str) -> None:
    """Raise ValueError for dates and durations, which NumPy would read as numbers of some unit or other."""
    for column, kind in _kinds(values):
        if kind is not None:
            raise ValueError(f"{name} must hold numbers, got {kind}{_in_column(column)}: {_OF_DATES}")


@contextmanager
def naming_columns(**tables: Any) -> Iterator[None]:
    """Say in which of the tables, and in which column of it, the value is that could not be read as a number."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not any(words in str(error) for words in _UNREADABLE):
            raise
        for name, table in tables.items():
            found = _first_unreadable(table)
            if found is not None:
                # A TypeError where scikit-learn's checks ask for one: for what is nothing that a table holds.
                kind = TypeError if isinstance(error, TypeError) and _OF_DATES not in found else ValueError
                raise kind(f"{name} must hold numbers, got {found}: {error}") from error
        raise


def _kinds(values: Any) -> Iterator[tuple[Any, str | None]]:
    """Yield columns (None for all of them) and their type if that is one of dates or durations, else None."""
    if hasattr(values, "columns") and hasattr(values, "dtypes"):
        for j, (name, dtype) in enumerate(zip(values.columns, values.dtypes, strict=False)):
            yield name, _kind_of(dtype) or (_kind_in(_column(values, j)) if _holds_objects(dtype) else None)
        return
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values)
        except ValueError:  # of rows of unequal length, which scikit-learn has words for
            return
    dtype = getattr(values, "dtype", None)
    yield None, _kind_of(dtype) or (_kind_in(np.asarray(values)) if _holds_objects(dtype) else None)


def _kind_of(dtype: Any) -> str | None:
    """Return the name of a dtype of dates or durations, of NumPy, pandas or polars; None for any other."""
    is_date = getattr(dtype, "kind", None) in ("m", "M") or getattr(dtype, "is_temporal", bool)()
    return str(dtype) if is_date else None


def _holds_objects(dtype: Any) -> bool:
    """Whether values of a dtype may be of any type: NumPy's objects, which pandas has too, and those of polars."""
    return (isinstance(dtype, np.dtype) and dtype.kind == "O") or str(dtype) == "Object"


def _kind_in(values: np.ndarray) -> str | None:
    """Return the type of NumPy's own dates among objects, if there are any: `float` takes those."""
    if not {np.datetime64, np.timedelta64}.isdisjoint(map(type, values.ravel())):
        return next(str(value.dtype) for value in values.flat if isinstance(value, np.datetime64 | np.timedelta64))
    return None


def _first_unreadable(X: Any) -> str | None:
    """Describe the first value of a table `(n, n_columns)` or `(n,)` that is no number, and its column."""
    missing = None
    for name, column in _columns(X):
        for value in column:
            if not _is_number(value):
                where = _in_column(name)
                if value is None or type(value).__name__ == "NAType":
                    missing = missing or f"a missing value{where}"
                elif isinstance(value, str):
                    # One that most others are unlike stands for a missing number.
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
    """Yield the columns that may hold something else than numbers, with their names."""
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
