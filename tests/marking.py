"""Which cases of a parametrised test are slow."""

import pytest


def slow_but(fast, cases):
    """Return the cases of one argument, all marked as slow but the fast ones."""
    return [case if case in fast else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def slow_but_every(n, cases):
    """Return the cases of several arguments, all marked as slow but the first of each `n`."""
    return [pytest.param(*case, marks=[] if i % n == 0 else pytest.mark.slow) for i, case in enumerate(cases)]
