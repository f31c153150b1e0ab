"""Whether two functions or classes do the same, and the error that says in what they differ."""

import abc
import copy
import functools
import pickle
import re
from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed
from problems import PROBLEMS
from scipy.sparse import csr_array
from torch import nn

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._alike import alike, difference

pytestmark = pytest.mark.usefixtures("unconverged")
FAST = {"max_iter": 4, "random_state": 0, "learning_rate_init": 0.01}
X, Y = PROBLEMS["regression"].X, PROBLEMS["regression"].y


def run(cell, name="made", **names):
    """Run the cell of a notebook and return what it has defined."""
    names = {"nn": nn, "torch": torch, "np": np, "abc": abc, "functools": functools, "partial": partial, **names}
    names |= {"dataclass": dataclass, "namedtuple": namedtuple, "cached_property": functools.cached_property}
    names |= {"Generic": Generic, "TypeVar": TypeVar, "__name__": "__main__"}
    exec(cell, names)
    return names[name]


NET = """
class made(nn.Module):
    'A network.'
    width = {width}

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, self.width), nn.ReLU(), nn.Linear(self.width, n_outputs))

    def forward(self, X):
        return {sign}self.layers(X)
"""
FACTORY = """
def net(n_features, n_outputs, width):
    return nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_outputs))

made = partial(net, width={width})
"""
CLOSURE = """
def of(power, scale):
    def made(raw, target):
        return (scale * (raw - target).abs() ** power).sum(1)
    return made

made = of({power}, {scale})
"""
INSTANCE = """
class Loss:
    def __init__(self, power):
        self.power = power

    def __call__(self, raw, target):
        return ((raw - target).abs() ** self.power).sum(1)

made = Loss({power})
"""


def power_loss(raw, target, power):
    return ((raw - target).abs() ** power).sum(1)


SLOTS = "class A:\n    __slots__ = ('q',)\n    def __init__(self, q): self.q = q\nmade = A({})"
DATACLASS = "@dataclass\nclass A:\n    x: int\nmade = A({})"


# Cells that make the same twice, and one with a change, in which the difference shows.
CELLS = [
    (NET.format(width=5, sign="+"), NET.format(width=6, sign="+"), "width=5 before, 6 now"),
    (NET.format(width=5, sign="+"), NET.format(width=5, sign="-"), "other code in forward"),
    (FACTORY.format(width=5), FACTORY.format(width=6), "width=5 before, 6 now"),
    (CLOSURE.format(power=2, scale=1), CLOSURE.format(power=3, scale=1), "power=2 before, 3 now"),
    (
        CLOSURE.format(power=2, scale="torch.ones(3)"),
        CLOSURE.format(power=2, scale="torch.zeros(3)"),
        r"scale=tensor\(\[1., 1., 1.\]\) before",
    ),
    (CLOSURE.format(power=2, scale="np.ones(3)"), CLOSURE.format(power=2, scale="np.ones(4)"), "scale=array"),
    (INSTANCE.format(power=2), INSTANCE.format(power=3), "power=2 before, 3 now"),
    (INSTANCE.format(power=2) + "made = made.__call__", INSTANCE.format(power=3) + "made = made.__call__", "power=2"),
    ("made = lambda x, y=1: x + y", "made = lambda x, y=2: x + y", "1 before, 2 now"),
    ("made = lambda x, *, y=1: x + y", "made = lambda x, *, y=2: x + y", "y=1 before, 2 now"),
    ("made = lambda x: x + 1", "made = lambda x: x + 2", "1 before, 2 now"),
    ("made = lambda x: torch.relu(x)", "made = lambda x: torch.tanh(x)", "other code in the function"),
    (
        "made = functools.lru_cache(lambda x: x + 1)",
        "made = functools.lru_cache(lambda x: x + 2)",
        "1 before, 2 now",
    ),
    ("class made(abc.ABC):\n    a = [1, {'b': 2}]", "class made(abc.ABC):\n    a = [1, {'b': 3}]", "b=2 before, 3"),
    (
        "class made:\n    @staticmethod\n    def f(): return 1\n    @property\n    def g(self): return 1",
        "class made:\n    @staticmethod\n    def f(): return 1\n    @property\n    def g(self): return 2",
        "1 before, 2 now",
    ),
    ("torch.manual_seed(0)\nmade = nn.Linear(2, 2)", "made = nn.Linear(2, 3)", "before"),
    ("made = 1.0", "made = 1", "1.0 before, 1 now"),
    ("made = 0.0", "made = -0.0", "0.0 before, -0.0 now"),
    ("made = float('nan')", "made = 0.0", "nan before"),
    ("made = partial(print, sep='nothing')", "made = partial(print)", "sep='nothing' before, absent now"),
    ("made = partial(print, co_width=8)", "made = partial(print, co_width=16)", "co_width=8 before, 16 now"),
    ("class made:\n    name, bases = 1, 2", "class made:\n    name, bases = 2, 2", "name=1 before, 2 now"),
    (SLOTS.format(1), SLOTS.format(2), "q=1 before, 2 now"),
    (DATACLASS.format(1), DATACLASS.format(2), "x=1 before, 2 now"),
    ("made = namedtuple('A', 'x y')(1, 2)", "made = namedtuple('A', 'x y')(1, 3)", "2 before, 3 now"),
    ("class made:\n    @cached_property\n    def f(self): return 1", "class made: pass", "f=.* before, absent now"),
    ("class made(Generic[TypeVar('T')]): pass", "class made(list): pass", "before"),
    ("made = {(lambda x: 1), (lambda x: 2)}", "made = {(lambda x: 1)}", "before"),
    ("made = partial(print, torch.tensor([float('nan')]))", "made = partial(print, torch.zeros(1))", "tensor"),
    ("made = float('nan')", "made = 0.0", "nan before"),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "changed", "found"), CELLS, ids=[str(i) for i in range(len(CELLS))])
def test_by_what_they_do(cell, changed, found):
    once, again = run(cell), run("\n\n" + cell)  # further down in the notebook
    assert once is not again
    assert alike(once, again)
    assert alike(once, once)
    assert re.search(found, difference(once, run(changed)))


def test_what_refers_to_itself_ends():
    def made():
        around = {"list": [1]}
        around["itself"] = around
        return around

    assert alike(made(), made())


@pytest.mark.slow
def test_what_is_nested_or_shared_ends_soon():
    def nested(depth, again):
        made = [1]
        for _ in range(depth):
            made = [made, made] if again else [made]
        return made

    assert alike(nested(60, True), nested(60, True))
    assert not alike(nested(50_000, False), nested(50_000, False))  # too deep to tell
    assert len(difference(list(range(10**5)), list(range(10**5 + 1)))) < 200


@pytest.mark.parametrize("held", [pd.DataFrame([1.0]), csr_array([[1.0]]), torch.zeros(1, device="meta")])
def test_what_cannot_be_compared_differs(held):
    assert not alike(partial(print, held), partial(print, copy.deepcopy(held)))
    assert alike(partial(print, held), partial(print, held))


def test_a_network_goes_on_when_its_cell_is_run_again(where):
    for cell in (NET.format(width=5, sign="+"), FACTORY.format(width=5)):
        reg = MLPTorchRegressor(**FAST, **where, module=run(cell), warm_start=True).fit(X, Y)
        reg.set_params(module=run(cell)).fit(X, Y).partial_fit(X, Y)
        assert len(reg.loss_curve_) == 9
        other = run(cell.replace("5", "6"))
        with pytest.raises(ValueError, match=r"must go on with the network they left, .*: .*width=5 before, 6 now"):
            reg.set_params(module=other).partial_fit(X, Y)


def test_equal_losses_train_as_one_stack(where, stack_sizes):
    losses = [partial(power_loss, power=power) for power in (2, 2, 3)]
    Parallel(backend="sk_mlp")(delayed(MLPTorchRegressor(loss, **FAST, **where).fit)(X, Y) for loss in losses)
    assert sorted(stack_sizes) == [1, 2]


STATEFUL = [
    "def of(q):\n    def made(raw, target):\n        return ((raw - target) ** 2).sum(1) * made.q\n"
    "    made.q = q\n    return made",
    "class of:\n    def __init__(self, q): self.q = q\n    def __call__(self, raw, target):\n"
    "        self.q *= 1.01\n        return ((raw - target) ** 2).sum(1) * self.q",
    "def of(q):\n    seen = [q]\n    def made(raw, target):\n        seen.append(q)\n"
    "        return ((raw - target) ** 2).sum(1) * sum(seen)\n    return made",
]  # fmt: skip


@pytest.mark.parametrize("cell", STATEFUL)
def test_losses_that_keep_something_train_by_themselves(cell, where):
    """Though they are alike at the start."""
    of = run(cell, "of")

    def fits(backend):
        made = [MLPTorchRegressor(of(q), **FAST, **where, solver="sgd") for q in (0.5, 0.5, 0.1)]
        return Parallel(backend=backend)(delayed(one.fit)(X, Y) for one in made)

    for stacked, alone in zip(fits("sk_mlp"), fits("sequential"), strict=True):
        np.testing.assert_allclose(stacked.predict(X), alone.predict(X), rtol=1e-4)


def test_an_equal_scorer_keeps_its_record(where):
    def scorer():
        return partial(lambda estimator, X, y, sign: sign * estimator.score(X, y), sign=1.0)

    options = {**FAST, **where, "early_stopping": True, "warm_start": True, "hidden_layer_sizes": (5,)}
    reg = MLPTorchRegressor(**options, scoring=scorer()).fit(X, Y)
    best = reg.best_validation_score_
    reg.set_params(scoring=scorer(), max_iter=1, learning_rate_init=1e-12).fit(X, Y)
    assert reg.best_validation_score_ == best


def test_a_pickled_network_goes_on(where):
    """With the functions that pickle makes of those it stored."""
    clf = MLPTorchClassifier(**FAST, **where, module=partial(nn.Linear, bias=False))
    clf = pickle.loads(pickle.dumps(clf.partial_fit(X, Y > 0, classes=[False, True])))
    assert len(clf.partial_fit(X, Y > 0).loss_curve_) == 2
