"""The numbers of a fitted network, and whether two networks have the same."""

import numpy as np


def arrays_of(fitted):
    """Return the weights of a fitted network, and what else its module keeps."""
    arrays = [*getattr(fitted, "coefs_", []), *getattr(fitted, "intercepts_", [])]
    return [*arrays, *getattr(fitted, "module_state_", {}).values()]


def assert_same(ours, expected, rtol=0):
    assert len(arrays_of(ours)) == len(arrays_of(expected)) > 0
    for a, b in zip(arrays_of(ours), arrays_of(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
