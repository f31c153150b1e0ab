"""What the tests of errors share: values that are wrong, and how an error leaves an estimator."""

import numpy as np
import pytest
from problems import raw_prediction

FAST = {"hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}


def with_value(array, value):
    array = np.array(array, dtype=float)
    array.flat[3] = value
    return array


def assert_unchanged(estimator, problem, call, message):
    """The call raises ValueError and a fitted estimator goes on predicting as before."""
    before, attributes = raw_prediction(estimator, problem.X), {**vars(estimator)}
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=f"(?s){message}"):
        call(estimator)
    fitted = {name: value for name, value in vars(estimator).items() if name.endswith("_") or name.startswith("_")}
    assert all(fitted[name] is attributes[name] for name in fitted)
    return before
