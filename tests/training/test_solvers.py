"""The steps of each solver are PyTorch's."""

import numpy as np
import pytest
import torch
from options import FAST
from problems import PROBLEMS
from torch.nn.functional import cross_entropy

from sk_mlp import MLPTorchClassifier

pytestmark = pytest.mark.usefixtures("unconverged")


def reference(fitted, X, y, make_optimizer, epochs):
    """Train PyTorch's own network from the same start on all rows at once; return its losses."""
    module = fitted.module_
    optimizer = make_optimizer(module)
    losses = []
    for _ in range(epochs):
        loss = cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({"solver": "adam"}, lambda m: torch.optim.Adam(m.parameters(), lr=0.01)),
        (
            {"solver": "adamw", "weight_decay": 0.3},
            lambda m: torch.optim.AdamW(
                [
                    {"params": [p for p in m.parameters() if p.ndim == 2], "weight_decay": 0.3},
                    {"params": [p for p in m.parameters() if p.ndim == 1], "weight_decay": 0.0},
                ],
                lr=0.01,
            ),
        ),
        (
            {"solver": torch.optim.RMSprop, "solver_kwargs": {"alpha": 0.9}},
            lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, alpha=0.9),
        ),
        ({"solver": torch.optim.AdamW}, lambda m: torch.optim.AdamW(m.parameters(), lr=0.01)),
    ],
)
def test_steps_are_pytorchs(options, make):
    X, y = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y // 10
    options = {**options, "alpha": 0.0, "batch_size": 160, "max_iter": 20, "n_iter_no_change": 100, "epsilon": 1e-8}
    ours = MLPTorchClassifier(**{**FAST, **options}, dtype="float64", device="cpu").fit(X, y)
    start = MLPTorchClassifier(
        **{**FAST, **options, "max_iter": 1, "learning_rate_init": 1e-300}, dtype="float64", device="cpu"
    ).fit(X, y)
    np.testing.assert_allclose(ours.loss_curve_, reference(start, X, y, make, 20), rtol=1e-5)
