"""What has to hold for every random call."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
import threading
import warnings

import numpy as np
import sklearn
import torch

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

_NAMES = {*inspect.signature(MLPTorchClassifier).parameters, *inspect.signature(MLPTorchRegressor).parameters}
# Other words that an error may be about: what methods take, and the end of a training.
_RULES = {"X", "X_val", "y", "sample_weight", "sample_weight_val", "classes", "coefs_", "intercepts_", "optimizer's"}
# And scikit-learn's words for tables that are none.
_THEIRS = "Found array|Expected 2D array|Complex data not supported|could not convert string"
_NAMED = re.compile(rf"\b({'|'.join(_NAMES | _RULES)})\b|non-finite parameter weights|{_THEIRS}")


def state_of_the_process():
    """What a call must leave as it was."""
    return {
        "threads": torch.get_num_threads(),
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": np.random.mtrand._rand.get_state()[1].tobytes(),
        "filters": list(warnings.filters),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "dtype": torch.get_default_dtype(),
        "errors": np.geterr(),
        "config": sklearn.get_config(),
        "folder": os.getcwd(),
        "output": (sys.stdout, sys.stderr),
    }


@contextlib.contextmanager
def nothing_global_changes():
    before, threads = state_of_the_process(), set(threading.enumerate())
    yield
    after = state_of_the_process()
    assert set(threading.enumerate()) <= threads  # those of an earlier test may end in the meantime
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, changed


def is_clear(error):
    """Whether an error says which parameter or rule it is about."""
    return isinstance(error, ValueError | TypeError) and bool(_NAMED.search(str(error)))


def outcome(call):
    """What a call returns, or the clear error that it raises."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        if not is_clear(error):
            raise
        return error


def contents(value):
    """A value as nested tuples that `==` compares by content."""
    if isinstance(value, np.ndarray) and value.shape == ():
        return float(value)  # PyTorch counts steps in the default dtype
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes() if value.dtype != object else tuple(value.ravel()))
    if isinstance(value, dict):
        return tuple((key, contents(own)) for key, own in value.items())
    if isinstance(value, list | tuple):
        return tuple(contents(own) for own in value)
    return value if not isinstance(value, float) or value == value else "nan"


def fitted(estimator):
    """The fitted state of an estimator by content, without the seconds that its epochs took."""
    state = {k: v for k, v in vars(estimator).items() if k.endswith("_") or k in ("_optimizer_state", "_network")}
    return contents(state)


def predictions(estimator, X):
    """All that an estimator predicts, by method."""
    methods = ("predict", "predict_proba", "predict_log_proba", "decision_function")
    return {name: getattr(estimator, name)(X) for name in methods if hasattr(estimator, name)}


def assert_sound(estimator, X, n):
    """Predictions are finite and have a row for each row.

    Exponentials of large numbers may be infinite. So may be what a network predicts that is about to diverge: its
    weights are finite and its products are not, in float32, which scikit-learn's rule does not look at.
    """
    weights = [*getattr(estimator, "coefs_", []), *getattr(estimator, "module_state_", {}).values()]
    if max((np.abs(array).max() for array in weights if array.size), default=0) > 1e12:
        return
    for name, values in predictions(estimator, X).items():
        assert len(values) == n, name
        if values.dtype.kind == "f":
            unsound = np.isnan(values) if estimator.out_activation_ == "exp" else ~np.isfinite(values)
            assert not unsound.any(), name
