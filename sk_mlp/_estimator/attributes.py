"""The attributes of an estimator as a whole: a fit changes a twin, and the estimator gets all changes at once, or none.

Predictions in other threads therefore see the state before a fit or after it, never a state between. A fit that fails
leaves the estimator as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

E = TypeVar("E")


class OfProgress:
    """An attribute that is computed from an estimator's progress at each access; an assigned value has precedence.

    If each call of `partial_fit` stored the whole curve, each call would take longer than the one before.
    """

    def __init__(self, value: Callable[[Any], Any]) -> None:
        self._value = value

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, estimator: Any, owner: type | None = None) -> Any:
        if estimator is None:
            return self
        if "_progress" not in vars(estimator):
            raise AttributeError(f"{type(estimator).__name__!r} object has no attribute {self._name!r}")
        return self._value(estimator)


def twin_of(estimator: E, **others: Any) -> E:
    """Return another estimator with the same attributes, except `others`; no array is copied."""
    twin = object.__new__(type(estimator))
    twin.__dict__.update({**vars(estimator), **others})
    return twin


def as_it_is(estimator: E) -> E:
    """Return an estimator with the current attributes, which fits in other threads do not change.

    A fit replaces the dictionary of attributes by a new one, so no copy is needed; `twin_of` would take longer.
    """
    view = object.__new__(type(estimator))
    view.__dict__ = estimator.__dict__
    return view


def changes(before: Mapping[str, Any], twin: object) -> dict[str, Any]:
    """Return the attributes that are new, or another object than before."""
    return {name: value for name, value in vars(twin).items() if name not in before or before[name] is not value}


@contextmanager
def becoming(estimator: object, twin: object, before: Mapping[str, Any]) -> Iterator[None]:
    """Give the estimator the attributes of a twin that began with `before`; restore the old ones if the block fails.

    Attributes that callbacks have set on the estimator in the meantime remain.
    """
    own = estimator.__dict__
    new = {**own, **changes(before, twin)}
    for name in before.keys() - vars(twin).keys():
        new.pop(name, None)
    estimator.__dict__ = new
    try:
        yield
    except BaseException:
        estimator.__dict__ = own
        raise
