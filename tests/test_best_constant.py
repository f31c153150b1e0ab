"""The best constant prediction of each loss, which a fit has to beat."""

import numpy as np
import pytest
import torch
from user_code import cubic

from sk_mlp._objective import (
    BinaryCrossEntropy,
    CrossEntropy,
    CustomLoss,
    MultilabelCrossEntropy,
    SquaredError,
    average,
    regression_objective,
)

OBJECTIVES = {
    "binary": (BinaryCrossEntropy(), 1, "labels"),
    "binary, smoothed": (BinaryCrossEntropy(0.2), 1, "labels"),
    "multilabel": (MultilabelCrossEntropy(), 3, "labels"),
    "multiclass": (CrossEntropy(), 4, "classes"),
    "multiclass, smoothed": (CrossEntropy(0.3), 4, "classes"),
    **{
        name: (regression_objective(name, 0.3, 0.7), 3, "values")
        for name in ("squared_error", "absolute_error", "quantile", "huber", "poisson", "gamma", "gaussian_nll")
    },
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_best_constant_is_a_minimum(name, weighted, rng):
    """No other constant has a smaller loss, along any output."""
    objective, n_outputs, kind = OBJECTIVES[name]
    drawn = {
        "labels": lambda: rng.uniform(size=(1, n_outputs, 301)) < 0.3,
        "classes": lambda: rng.choice(4, size=(1, 1, 301), p=[0.1, 0.2, 0.7, 0.0]),
        "values": lambda: rng.gamma(2.0, size=(1, n_outputs, 301)),
    }[kind]()
    target = torch.from_numpy(drawn if kind == "classes" else drawn.astype(float))
    weight = torch.from_numpy(rng.uniform(0.1, 3, 301) if weighted else np.ones(301))
    n_raw = n_outputs * objective.n_raw
    best = objective.constant(target, weight, n_raw)
    assert best.shape == (1, n_raw, 1)

    def loss(raw):
        return average(objective.losses(raw.expand(-1, -1, 301).contiguous(), target), weight).item()

    found = objective.constant_loss(target[0].numpy().T, weight.numpy(), n_raw)
    assert found == pytest.approx(loss(best), rel=1e-6)
    for output in range(n_raw):
        for step in (-0.03, 0.03):
            other = best.clone()
            other[0, output] += step
            assert loss(other) > loss(best) - 1e-9


def test_no_constant_is_known_of_a_users_loss():
    assert CustomLoss(cubic, SquaredError()).constant(torch.zeros(1, 1, 3), torch.ones(3), 1) is None
