"""Time predictions: `python -m benchmarks.predict`, with the options of `benchmarks.fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.datasets import load_digits

from . import peers
from .fit import main
from .peers import Job
from .timing import OURS

Contestants = Mapping[str, Callable[[], object]]


def _predict(job: Job, X: np.ndarray, repeat: int, with_skorch: bool) -> Contestants:
    """Return contestants that predict probabilities of X, `repeat` times a run."""
    fitted = {OURS: peers.ours(job)(), "scikit-learn": peers.scikit_learn(job)()}
    inputs = {OURS: X, "scikit-learn": X, "skorch": X.astype(np.float32)}
    if with_skorch:
        fitted["skorch"] = peers.skorch(job)()

    def contestant(name: str) -> Callable[[], object]:
        return lambda: [fitted[name].predict_proba(inputs[name]) for _ in range(repeat)]

    return {name: contestant(name) for name in fitted}


def _one_row() -> Contestants:
    X, y = load_digits(return_X_y=True)
    return _predict(Job(X / 16, y, (100,), 200, 5), X[:1] / 16, 500, True)


def _many_rows() -> Contestants:
    rng = np.random.default_rng(0)
    job = Job(rng.normal(size=(2000, 784)), rng.integers(10, size=2000), (512, 256), 200, 1)
    return _predict(job, rng.normal(size=(200_000, 784)), 1, False)


def _narrow() -> Contestants:
    rng = np.random.default_rng(0)
    job = Job(rng.normal(size=(2000, 20)), rng.integers(2, size=2000), (16,), 200, 1)
    return _predict(job, rng.normal(size=(1_000_000, 20)), 1, False)


CASES = {
    "predict_proba, one row, 500 calls": (_one_row, False),
    "predict_proba, 200,000 x 784, (512, 256)": (_many_rows, True),
    "predict_proba, 1,000,000 x 20, (16,)": (_narrow, False),
}

if __name__ == "__main__":
    main(CASES, "Predictions")
