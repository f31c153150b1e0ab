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


def require_no_dates(values: Any, name: str) -> None:
    """Raise ValueError for dates and durations, which NumPy would read as numbers of some unit or other."""
    for column, kind in _kinds(values):
        if kind is not None:
            raise ValueError(
                f"{name} must hold numbers, got {kind}{_in_column(column)}: turn it into numbers first, for example "
                f"into days since a date of your choice"
            )


@contextmanager
def naming_columns(**tables: Any) -> Iterator[None]:
    """Say in which of the tables, and in which column of it, the value is that could not be read as a number."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not any(words in str(error) for words in _UNREADABLE):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        for name, table in tables.items():
            found = _first_unreadable(table)
            if found is not None:
                raise kind(f"{name} must hold numbers, got {found}: {error}") from error
        raise


def _kinds(values: Any) -> Iterator[tuple[Any, str | None]]:
    """Yield columns (None for all of them) and their type if that is one of dates or durations, else None."""
    if hasattr(values, "columns") and hasattr(values, "dtypes"):
        yield from ((name, _kind_of(dtype)) for name, dtype in zip(values.columns, values.dtypes, strict=False))
        return
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values)
        except ValueError:  # of rows of unequal length, which scikit-learn has words for
            return
    yield None, _kind_of(getattr(values, "dtype", None))
    if isinstance(values, np.ndarray) and values.dtype.kind == "O":
        # NumPy's own scalars, in objects: `float` takes them.
        yield None, next((str(value.dtype) for value in values.flat if _is_date(value)), None)


def _kind_of(dtype: Any) -> str | None:
    """Return the name of a dtype of dates or durations, of NumPy, pandas or polars; None for any other."""
    is_date = getattr(dtype, "kind", None) in ("m", "M") or getattr(dtype, "is_temporal", bool)()
    return str(dtype) if is_date else None


def _is_date(value: Any) -> bool:
    """Tell a date or duration of NumPy's."""
    return isinstance(value, np.datetime64 | np.timedelta64)


def _first_unreadable(X: Any) -> str | None:
    """Describe the first value of a table `(n, n_columns)` or `(n,)` that is no number, and its column."""
    if sp.issparse(X):
        return None
    names = list(getattr(X, "columns", ()))
    try:
        values = np.asarray(X, dtype=object)
    except ValueError:  # rows of unequal length
        return None
    columns = values.T if values.ndim == 2 else [values.ravel()]
    for j, column in enumerate(columns):
        for value in column:
            try:
                float(value)
            except (TypeError, ValueError):
                where = _in_column(names[j] if names else j if values.ndim == 2 else None)
                if isinstance(value, str):
                    return f"text{where} ({str(value)!r}), which has to be encoded, by OneHotEncoder for example"
                return f"{type(value).__name__}{where}"
    return None


def _in_column(column: Any) -> str:
    return "" if column is None else f" in column {column!r}"
