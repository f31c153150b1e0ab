"""An estimator's attributes as a whole: a fit works on a twin, and the estimator becomes it at once, or not at all.

So predictions in other threads see the state before a fit or after it, never one between; and whatever fails, fails on
the twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

E = TypeVar("E")


class OfProgress:
    """An attribute that is worked out from an estimator's progress when it is asked for; what is assigned comes first.

    Written out at each call of `partial_fit`, a curve would take longer with each.
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
    """Return another estimator with the same attributes, but for `others`; no array is copied."""
    twin = object.__new__(type(estimator))
    twin.__dict__.update({**vars(estimator), **others})
    return twin


def as_it_is(estimator: E) -> E:
    """Return an estimator with the attributes of now, whatever fits in other threads come to.

    A fit puts a new dictionary in the place of this one; `twin_of` would take longer.
    """
    view = object.__new__(type(estimator))
    view.__dict__ = estimator.__dict__
    return view


def changes(before: Mapping[str, Any], twin: object) -> dict[str, Any]:
    """Return the attributes that are new, or another object than before."""
    return {name: value for name, value in vars(twin).items() if name not in before or before[name] is not value}


@contextmanager
def becoming(estimator: object, twin: object, before: Mapping[str, Any]) -> Iterator[None]:
    """Take over what has become of a twin that began as `before`; be again what it was if what follows fails.

    What callbacks have set on the estimator before that stays.
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
