"""Whether two values of a user's do the same: functions, classes and what they hold, compared by content.

The cell of a notebook that is run again makes other functions and classes of the same code, and `functools.partial` of
the same arguments makes another object. Both are what they were before. What a function looks up by name in its module
is not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

# What Python itself writes into a class, besides what the class statement says.
_WRITTEN_BY_PYTHON = {"__dict__", "__weakref__", "__firstlineno__", "__static_attributes__", "__doc__", "_abc_impl"}
_CODE = (
    "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_flags",
    "co_argcount", "co_posonlyargcount", "co_kwonlyargcount",
)  # fmt: skip
_ABSENT = "nothing"


def alike(a: Any, b: Any) -> bool:
    """Whether two values do the same, as far as their code and what they hold tells."""
    return difference(a, b) is None


def difference(a: Any, b: Any) -> str | None:
    """Say where two values differ, such as "width=8 before, 16 now"; None where they do not."""
    return next(_differences(a, b, "", frozenset()), None)


def _differences(a: Any, b: Any, place: str, under_way: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Yield the differences of two values; pairs that are being compared further up count as equal."""
    if a is b or (id(a), id(b)) in under_way:
        return
    under_way |= {(id(a), id(b))}
    kinds = _kind(a), _kind(b)
    is_one_kind = kinds[0] is kinds[1] or next(_differences(*kinds, place, under_way), None) is None
    before, now = _parts_of(a), _parts_of(b)
    if not is_one_kind or before is None or now is None:
        if not is_one_kind or not _equal(a, b):
            yield _described(a, b, place)
        return
    for name in dict.fromkeys((*before, *now)):
        inner = f"{place}.{name}".lstrip(".")
        yield from _differences(before.get(name, _ABSENT), now.get(name, _ABSENT), inner, under_way)


def _kind(value: Any) -> type:
    """Return the type by which a value is compared; classes of users' by `type` whatever their metaclass."""
    return type if isinstance(value, type) else type(value)


def _parts_of(value: Any) -> Mapping[Any, Any] | None:
    """Return what a value is compared by; None of one that knows by itself what it equals."""
    for kind, parts in _PARTS.items():
        if isinstance(value, kind):
            return parts(value)
    knows_identity_alone = all("__eq__" not in vars(cls) for cls in type(value).__mro__[:-1])
    return vars(value) if knows_identity_alone and hasattr(value, "__dict__") else None


def _of_function(function: FunctionType) -> dict[str, Any]:
    closure = dict(zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True))
    defaults = dict(enumerate(function.__defaults__ or ()))
    return {
        "module": function.__module__, "code": function.__code__, "defaults": defaults,
        **(function.__kwdefaults__ or {}), **closure,
    }  # fmt: skip


def _content(cell: Any) -> Any:
    """Return what a closure's cell holds."""
    try:
        return cell.cell_contents
    except ValueError:  # nothing yet
        return _ABSENT


def _of_code(code: CodeType) -> dict[str, Any]:
    # Not its line numbers, which change with what stands above.
    return {**{name: getattr(code, name) for name in _CODE}, "constants": code.co_consts}


def _of_partial(made: Any) -> dict[str, Any]:
    return {"func": made.func, **dict(enumerate(made.args)), **made.keywords}


def _of_class(cls: type) -> dict[str, Any]:
    own = {name: value for name, value in vars(cls).items() if name not in _WRITTEN_BY_PYTHON}
    return {"name": f"{cls.__module__}.{cls.__qualname__}", "bases": cls.__bases__, **own}


def _of_method(method: MethodType) -> dict[str, Any]:
    return {"function": method.__func__, "of": method.__self__}


def _of_sequence(values: Any) -> dict[Any, Any]:
    return dict(enumerate(values))


def _of_descriptor(made: Any) -> dict[str, Any]:
    return {"function": made.__func__}


def _of_property(made: property) -> dict[str, Any]:
    return {"get": made.fget, "set": made.fset}


_PARTS: dict[type, Callable[[Any], Mapping[Any, Any]]] = {
    FunctionType: _of_function, CodeType: _of_code, partial: _of_partial, type: _of_class, MethodType: _of_method,
    list: _of_sequence, tuple: _of_sequence, dict: lambda values: values,
    staticmethod: _of_descriptor, classmethod: _of_descriptor, property: _of_property,
}  # fmt: skip


def _equal(a: Any, b: Any) -> bool:
    """Whether two values of one type are equal."""
    if isinstance(a, np.ndarray | np.generic):
        return bool(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


def _described(a: Any, b: Any, place: str) -> str:
    """Say what two values were before and are now, or of what the code differs."""
    owner, is_code, _ = f".{place}".rpartition(".co_")
    if is_code:
        return f"other code in {owner.removesuffix('.code').lstrip('.') or 'the function'}"
    return f"{place}={a!r} before, {b!r} now" if place else f"{a!r} before, {b!r} now"
