"""Time what goes beyond scikit-learn's MLP: `python -m benchmarks.options`, with the options of `benchmarks.fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from . import peers
from .fit import diabetes_job, digits_job, main
from .peers import Job
from .timing import OURS

Contestants = Mapping[str, Callable[[], object]]
NETWORK = {
    "dropout=0.2": {"dropout": 0.2},
    'activation="leaky_relu"': {"activation": "leaky_relu"},
    'solver="adamw"': {"solver": "adamw"},
    "max_grad_norm=1": {"max_grad_norm": 1.0},
    'learning_rate="cosine"': {"learning_rate": "cosine"},
}
CLASSIFIER = {'class_weight="balanced"': {"class_weight": "balanced"}, "label_smoothing=0.1": {"label_smoothing": 0.1}}
REGRESSOR = {f'loss="{name}"': {"loss": name} for name in ("huber", "absolute_error", "quantile", "gaussian_nll")}


def _beside_the_plain_fit(job: Job, options: Mapping[str, Mapping[str, object]]) -> Contestants:
    return {OURS: peers.ours(job), **{name: peers.ours(job, **more) for name, more in options.items()}}


def _normalised(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return a network with batch normalization before each activation."""
    *hidden, last = [layer for layer in peers.build(sizes) if isinstance(layer, nn.Linear)]
    layers = [part for layer in hidden for part in (layer, nn.BatchNorm1d(layer.out_features), nn.ReLU())]
    return nn.Sequential(*layers, last)


def _autograd(job: Job) -> Contestants:
    """Return our fit through autograd, beside the closed form of the same network, and loops in PyTorch."""
    return {
        OURS: peers.ours(job, activation=nn.ReLU),
        "closed form": peers.ours(job),
        "torch loop": peers.torch_loop(job),
        'normalization="batch"': peers.ours(job, normalization="batch"),
        "torch loop with BatchNorm1d": peers.torch_loop(job, _normalised),
        "solver=torch.optim.Adam": peers.ours(job, solver=torch.optim.Adam, solver_kwargs={"fused": True}),
    }


CASES: dict[str, tuple[Callable[[], Contestants], bool]] = {
    "options, digits, (100,), batch 200": (
        lambda: _beside_the_plain_fit(digits_job((100,), 200, 40), {**NETWORK, **CLASSIFIER}),
        False,
    ),
    "options, digits, (32, 16), batch 32": (
        lambda: _beside_the_plain_fit(digits_job((32, 16), 32, 10), {**NETWORK, **CLASSIFIER}),
        False,
    ),
    "options, diabetes, (64, 64), batch 32": (
        lambda: _beside_the_plain_fit(diabetes_job(), {**NETWORK, **REGRESSOR}),
        False,
    ),
    "autograd, digits, (100,), batch 200": (lambda: _autograd(digits_job((100,), 200, 40)), False),
    "autograd, digits, (32, 16), batch 32": (lambda: _autograd(digits_job((32, 16), 32, 10)), False),
}

if __name__ == "__main__":
    main(CASES, "Options")
