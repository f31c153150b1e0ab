"""Ctrl-C in the middle of a fit keeps what was learned, with a warning."""

import pytest
import torch
from problems import PROBLEMS
from small_fits import FAST, fitted

from sk_mlp._training.optimizers import Optimizer

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_in_the_middle_of_an_epoch(solver, early_stopping, where, monkeypatch):
    problem = PROBLEMS["multiclass"]
    rules = [cls for cls in Optimizer.__subclasses__() for cls in (cls, *cls.__subclasses__())]
    for rule in rules:
        monkeypatch.setattr(rule, "prepare", _interrupting(rule.prepare, after=8))
    estimator = problem.ours(
        **FAST, solver=solver, early_stopping=early_stopping, batch_size=40, verbose=False, **where
    )
    with pytest.warns(UserWarning, match="interrupted"):
        estimator.fit(problem.X, problem.y)
    assert 1 <= estimator.n_iter_ == len(estimator.loss_curve_) <= 2
    assert estimator.predict(problem.X).shape == (len(problem.X),)
    assert torch.get_num_threads() >= 1


def test_in_the_middle_of_lbfgs(where, monkeypatch):
    import sk_mlp._training.lbfgs as module

    problem = PROBLEMS["multiclass"]
    search = module._Search
    monkeypatch.setattr(search, "_value_and_gradient", _interrupting(search._value_and_gradient, after=9))
    with pytest.warns(UserWarning, match="interrupted"):
        estimator = fitted(problem, where, solver="lbfgs")
    assert 1 <= estimator.n_iter_ < 9
    assert estimator.loss_ == min(estimator.loss_curve_)


def _interrupting(function, after):
    calls = []

    def wrapper(*args):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return function(*args)

    return wrapper
