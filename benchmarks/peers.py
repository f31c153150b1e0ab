"""The same training as others would write it: scikit-learn, skorch, a PyTorch loop, and the bare matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor


@dataclass(frozen=True)
class Job:
    """One network to train on one table."""

    X: np.ndarray
    y: np.ndarray
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int

    @property
    def is_classification(self) -> bool:
        """Integer targets are classes."""
        return self.y.dtype.kind == "i"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of all layers; every classification here has more than two classes."""
        n_outputs = int(self.y.max()) + 1 if self.is_classification else 1
        return (self.X.shape[1], *self.hidden, n_outputs)


def options(job: Job) -> dict:
    """Parameters that make scikit-learn's MLP and ours run all epochs, from one seed."""
    return {
        "hidden_layer_sizes": job.hidden,
        "batch_size": job.batch_size,
        "max_iter": job.epochs,
        "n_iter_no_change": job.epochs,
        "random_state": 0,
    }


def scikit_learn(job: Job, **more: object) -> Callable[[], object]:
    """Return scikit-learn's fit."""
    cls = MLPClassifier if job.is_classification else MLPRegressor
    return lambda: cls(**{**options(job), **more}).fit(job.X, job.y)


def ours(job: Job, **more: object) -> Callable[[], object]:
    """Return our fit, on the CPU."""
    cls = MLPTorchClassifier if job.is_classification else MLPTorchRegressor
    return lambda: cls(**{"device": "cpu", **options(job), **more}).fit(job.X, job.y)


def build(sizes: Sequence[int]) -> nn.Sequential:
    """Return a ReLU network."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def skorch_data(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Return the job's data as skorch asks for it: float32, and int64 classes or a 2-D y."""
    y = job.y.astype(np.int64) if job.is_classification else job.y.astype(np.float32)[:, None]
    return job.X.astype(np.float32), y


def skorch_net(job: Job) -> NeuralNetClassifier | NeuralNetRegressor:
    """Return skorch's estimator."""
    common = {
        "max_epochs": job.epochs, "batch_size": job.batch_size, "optimizer": torch.optim.Adam, "lr": 1e-3,
        "train_split": None, "verbose": 0, "iterator_train__shuffle": True,
    }  # fmt: skip
    if job.is_classification:
        return NeuralNetClassifier(build(job.sizes), criterion=nn.CrossEntropyLoss, **common)
    return NeuralNetRegressor(build(job.sizes), **common)


def skorch(job: Job) -> Callable[[], object]:
    """Return skorch's fit."""
    X, y = skorch_data(job)
    return lambda: skorch_net(job).fit(X, y)


def torch_loop(job: Job, make: Callable[[Sequence[int]], nn.Module] = build) -> Callable[[], object]:
    """Return the loop a PyTorch user writes: tensors in memory, shuffled indices, fused Adam, losses summed."""

    def fit() -> float:
        X = torch.from_numpy(job.X).float()
        y = torch.from_numpy(job.y) if job.is_classification else torch.from_numpy(job.y).float()[:, None]
        module, criterion = make(job.sizes), nn.CrossEntropyLoss() if job.is_classification else nn.MSELoss()
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
        for _ in range(job.epochs):
            total = 0.0
            for rows in torch.randperm(len(X)).split(job.batch_size):
                optimizer.zero_grad()
                loss = criterion(module(X[rows]), y[rows])
                loss.backward()
                optimizer.step()
                total += loss.item() * len(rows)
        return total

    return fit


def floor(job: Job) -> Callable[[], object]:
    """Return the matrix products of the same steps alone, on preallocated float32 tensors."""
    shapes = list(pairwise(job.sizes))
    coefs = [torch.randn(shape) for shape in shapes]
    gradients = [torch.empty(shape) for shape in shapes]
    n_full, n_last = divmod(len(job.X), job.batch_size)
    buffers = {n: [torch.randn(n, size) for size in job.sizes] for n in {job.batch_size, n_last} - {0}}
    deltas = {n: [torch.randn(n, size) for size in job.sizes] for n in buffers}
    steps = [job.batch_size] * n_full + [n_last] * (n_last > 0)

    def products() -> None:
        with torch.inference_mode():
            for _ in range(job.epochs):
                for n in steps:
                    values, errors = buffers[n], deltas[n]
                    for i, coef in enumerate(coefs):
                        torch.mm(values[i], coef, out=values[i + 1])
                    for i in reversed(range(len(coefs))):
                        torch.mm(values[i].T, errors[i + 1], out=gradients[i])
                        if i > 0:
                            torch.mm(errors[i + 1], coefs[i].T, out=errors[i])

    def best_threads() -> None:
        before = torch.get_num_threads()
        largest = job.batch_size * max(fan_in * fan_out for fan_in, fan_out in shapes)
        torch.set_num_threads(before if largest > 8e6 else 1)
        products()
        torch.set_num_threads(before)

    return best_threads
