"""How the private attributes of a fitted estimator are stored: one JSON text, with arrays and objects beside it.

So a file says little that has to be trusted or understood: numbers and names are text, arrays are NumPy's, and objects
are those that a user has passed as parameters. What is stored has the number of its format, by which a later version
reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

FORMAT = 1
_PLAIN = (bool, int, float, str, type(None))


def store(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored of attributes: numbers, text, arrays, objects, and dictionaries and lists of them."""
    arrays: list[np.ndarray] = []
    objects: list[Any] = []
    tree = {name: _encoded(value, arrays, objects) for name, value in attributes.items()}
    return {"json": json.dumps({"format": FORMAT, **tree}), "arrays": arrays, "objects": objects}


def restore(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that `store` was given. Raises ValueError for a format that this version does not know."""
    tree = json.loads(stored["json"])
    found = tree.pop("format")
    if found != FORMAT:
        raise ValueError(
            f"a fitted estimator must be loaded by the version of sk_mlp that stored it, or a later one, got format "
            f"{found} where this version knows {FORMAT}"
        )
    return {name: _decoded(value, stored["arrays"], stored["objects"]) for name, value in tree.items()}


def _encoded(value: Any, arrays: list[np.ndarray], objects: list[Any]) -> Any:
    """Return a value as JSON has it; what JSON has no form for is a dictionary of one entry that names the form."""
    if type(value) is float and not isfinite(value):
        return {"float": str(value)}  # JSON has no form for it
    if type(value) in _PLAIN:
        return value
    if type(value) is np.ndarray and value.dtype.kind != "O":
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if type(value) is list:
        return [_encoded(part, arrays, objects) for part in value]
    if type(value) is tuple:
        return {"tuple": [_encoded(part, arrays, objects) for part in value]}
    if type(value) is dict:
        return {"dict": [[_encoded(part, arrays, objects) for part in item] for item in value.items()]}
    objects.append(value)
    return {"object": len(objects) - 1}


def _decoded(value: Any, arrays: list[np.ndarray], objects: list[Any]) -> Any:
    """Return what was encoded."""
    if isinstance(value, list):
        return [_decoded(part, arrays, objects) for part in value]
    if not isinstance(value, dict):
        return value
    ((form, inner),) = value.items()
    if form == "array":
        return arrays[inner]
    if form == "object":
        return objects[inner]
    if form == "float":
        return float(inner)
    if form == "tuple":
        return tuple(_decoded(part, arrays, objects) for part in inner)
    if form != "dict":
        raise ValueError(f"a stored value must have a form that this version knows, got {form!r}")
    return dict(_decoded(item, arrays, objects) for item in inner)
