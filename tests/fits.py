"""The numbers of a fitted network, and whether two networks have the same."""

import numpy as np


def state(fitted):
    """All of a network's numbers."""
    arrays = [*getattr(fitted, "coefs_", []), *getattr(fitted, "intercepts_", [])]
    return [*arrays, *getattr(fitted, "module_state_", {}).values()]


def assert_same(ours, expected, rtol=0):
    assert len(state(ours)) == len(state(expected)) > 0
    for a, b in zip(state(ours), state(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
