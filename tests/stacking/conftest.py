"""How deep stacks are, and in how many threads they train, in the tests of this folder."""

import pytest

from sk_mlp import stacking


@pytest.fixture(autouse=True)
def _quiet(unconverged):
    """Fits of few epochs do not converge."""


@pytest.fixture(autouse=True)
def _in_threads(monkeypatch):
    """Stacks are small, and train three at a time, wherever tests run."""
    monkeypatch.setattr(stacking, "_MOST_IN_A_STACK", 3)
    monkeypatch.setattr(stacking, "available_threads", lambda: 3)


@pytest.fixture
def one_thread(monkeypatch, _in_threads):
    """Stacks are as deep as usual, and train one after another."""
    monkeypatch.setattr(stacking, "_MOST_IN_A_STACK", 32)
    monkeypatch.setattr(stacking, "available_threads", lambda: 1)


@pytest.fixture
def stack_sizes(one_thread, stack_sizes):
    """Sizes of the stacks that are trained, which are as deep as usual."""
    return stack_sizes
