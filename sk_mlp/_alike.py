"""Whether two user-defined values do the same: functions and classes, with the values they hold, compared by content.

If a notebook cell is run again, it makes new functions and classes from the same code; `functools.partial` with the
same arguments makes a new object. Both count as equal to the previous ones. Names that a function looks up in its
module are not compared.
"""

from __future__ import annotations

import math
import reprlib
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from types import CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType
from typing import Any, TypeVar

import numpy as np
import torch

# Names that Python itself adds to a class.
_WRITTEN_BY_PYTHON = {
    "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__", "__doc__", "_abc_impl", "__orig_bases__",
    "__parameters__",
}  # fmt: skip
_NamedTupleField = type(vars(namedtuple("_Point", "x"))["x"])
# Line numbers are not included: they change with the code above.
_CODE = (
    "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_flags",
    "co_argcount", "co_posonlyargcount", "co_kwonlyargcount",
)  # fmt: skip
_PLAIN = (bool, int, float, str, bytes, type(None))

Parts = dict[tuple[str, Any], Any]  # the parts of a value that are compared, by their kind and name


class _Absent:
    """Placeholder for a part that one of two values lacks."""

    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def alike(a: Any, b: Any) -> bool:
    """Whether two values do the same, judged by their code and the values they hold."""
    return difference(a, b) is None


def difference(a: Any, b: Any) -> str | None:
    """Return a text that says where two values differ, such as "width=8 before, 16 now"; None if they are alike."""
    try:
        return next(_differences(a, b, (), set()), None)
    except RecursionError:  # nested too deeply to be compared
        return _described(a, b, ())


def is_same_function(a: Any, b: Any) -> bool:
    """Whether two functions are the same object, or partials of one function with the same plain arguments.

    If that function keeps a state from call to call, both share it.
    """
    if a is b or not (type(a) is type(b) is partial):
        return a is b
    arguments = [(made.args, made.keywords) for made in (a, b)]
    are_plain = all(isinstance(value, _PLAIN) for args, named in arguments for value in (*args, *named.values()))
    return a.func is b.func and are_plain and alike(*arguments)


def _differences(a: Any, b: Any, place: tuple[str, ...], seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield texts of differences; pairs in `seen` are equal, since a difference would have ended the comparison."""
    if a is b or (id(a), id(b)) in seen:
        return
    seen.add((id(a), id(b)))
    kinds = _kind(a), _kind(b)
    is_one_kind = kinds[0] is kinds[1] or next(_differences(*kinds, place, set(seen)), None) is None
    # If the two classes are alike but not the same, their `==` may say that the objects differ.
    parts_of = _parts_of if kinds[0] is kinds[1] else lambda value: _parts_of(value) or _attributes_of(value)
    before, now = (parts_of(a), parts_of(b)) if is_one_kind else (None, None)
    if before is None or now is None:
        if not is_one_kind or not _equal(a, b):
            yield _described(a, b, place)
        return
    for kind, name in dict.fromkeys((*before, *now)):
        inner = (*place, name if kind in _NAMED else f"<{kind}>") if kind in _SHOWN else place
        yield from _differences(before.get((kind, name), _ABSENT), now.get((kind, name), _ABSENT), inner, seen)


_NAMED = {"argument", "attribute", "closure", "keyword", "member"}
_SHOWN = {*_NAMED, "code"}


def _kind(value: Any) -> type:
    """Return the type by which a value is compared; for classes this is `type`, for every metaclass."""
    return type if isinstance(value, type) else type(value)


def _parts_of(value: Any) -> Parts | None:
    """Return the parts by which a value is compared; None for a value that is compared by its own `==`."""
    for kind, parts in _PARTS.items():
        if isinstance(value, kind):
            return {**parts(value), **_attributes_of(value)}
    knows_identity_alone = all("__eq__" not in vars(cls) for cls in type(value).__mro__[:-1])
    attributes = _attributes_of(value)
    return attributes if knows_identity_alone and attributes else None


def _attributes_of(value: Any) -> Parts:
    """Return the attributes in the dictionary and the slots of an object."""
    if isinstance(value, type | cached_property):  # a cached_property holds a lock
        return {}
    declared = [vars(cls).get("__slots__", ()) for cls in type(value).__mro__]
    slots = [name for names in declared for name in ([names] if isinstance(names, str) else names)]
    in_slots = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {("attribute", name): kept for name, kept in {**in_slots, **getattr(value, "__dict__", {})}.items()}


def _of_function(function: FunctionType) -> Parts:
    closure = zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True)
    return {
        ("module", ""): function.__module__,
        ("function", ""): function.__code__,
        **_numbered("argument", function.__defaults__ or ()),
        **_named("keyword", function.__kwdefaults__ or {}),
        **_named("closure", dict(closure)),
    }


def _content(cell: Any) -> Any:
    """Return the content of a closure's cell."""
    try:
        return cell.cell_contents
    except ValueError:  # the cell is empty
        return _ABSENT


def _of_code(code: CodeType) -> Parts:
    return {**{("code", name): getattr(code, name) for name in _CODE}, **_numbered("constant", code.co_consts)}


def _of_partial(made: Any) -> Parts:
    return {("function", ""): made.func, **_numbered("argument", made.args), **_named("keyword", made.keywords)}


def _of_class(cls: type) -> Parts:
    own = {name: value for name, value in vars(cls).items() if name not in _WRITTEN_BY_PYTHON}
    return {("name", ""): f"{cls.__module__}.{cls.__qualname__}", ("bases", ""): cls.__bases__, **_named("member", own)}


def _named(kind: str, values: Mapping[Any, Any]) -> Parts:
    return {(kind, name): value for name, value in values.items()}


def _numbered(kind: str, values: Any) -> Parts:
    return {(kind, i): value for i, value in enumerate(values)}


_PARTS: dict[type, Callable[[Any], Parts]] = {
    FunctionType: _of_function,
    CodeType: _of_code,
    partial: _of_partial,
    type: _of_class,
    MethodType: lambda method: {("function", ""): method.__func__, ("argument", "self"): method.__self__},
    list: lambda values: _numbered("item", values),
    tuple: lambda values: _numbered("item", values),
    dict: lambda values: _named("argument", values),
    staticmethod: lambda made: {("function", ""): made.__func__},
    classmethod: lambda made: {("function", ""): made.__func__},
    property: lambda made: {("function", "get"): made.fget, ("function", "set"): made.fset},
    cached_property: lambda made: {("function", ""): made.func},
    MemberDescriptorType: lambda made: {("name", ""): made.__name__},
    GetSetDescriptorType: lambda made: {("name", ""): made.__name__},
    _NamedTupleField: lambda made: {("name", ""): made.__reduce__()[1]},
    TypeVar: lambda made: {("name", ""): repr(made)},
}


def _equal(a: Any, b: Any) -> bool:
    """Whether two values of one type are equal; NaN equals NaN, and -0.0 differs from 0.0."""
    try:
        if isinstance(a, np.ndarray | np.generic) and a.dtype.kind != "O":
            return bool(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
        if isinstance(a, torch.Tensor):
            return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
        if isinstance(a, float):
            return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
        if isinstance(a, set | frozenset) and a != b:
            return len(a) == len(b) and all(any(alike(x, y) for y in b) for x in a)
        return bool(a == b)
    except Exception:  # user-defined objects and tables may raise any error when compared
        return False


def _described(a: Any, b: Any, place: tuple[str, ...]) -> str:
    """Return a text with the value before and now, or with the place of the code that differs."""
    if place and place[-1] == "<code>":
        return f"other code in {'.'.join(map(str, place[:-1])) or 'the function'}"
    values = f"{reprlib.repr(a)} before, {reprlib.repr(b)} now"
    return f"{'.'.join(map(str, place))}={values}" if place else values
