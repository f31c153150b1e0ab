"""Time fits: `python -m benchmarks.fit`, with `--quick` under a minute, `--json` for machines, `--case` for some."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import scipy.sparse as sp
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.neural_network import MLPClassifier

from sk_mlp import MLPTorchClassifier

from . import peers
from .peers import Job
from .timing import OURS, Timing, has_native_bfloat16, interleave, machine, table, to_json

Contestants = Mapping[str, Callable[[], object]]


def _all_peers(job: Job) -> Contestants:
    return {
        OURS: peers.ours(job),
        "scikit-learn": peers.scikit_learn(job),
        "skorch": peers.skorch(job),
        "torch loop": peers.torch_loop(job),
        "products alone": peers.floor(job),
    }


def digits_job(hidden: tuple[int, ...], batch_size: int, epochs: int) -> Job:
    """Return scikit-learn's digits, pixels scaled to [0, 1]."""
    X, y = load_digits(return_X_y=True)
    return Job(X / 16, y, hidden, batch_size, epochs)


def _random(n: int, n_features: int, hidden: tuple[int, ...], epochs: int) -> Job:
    rng = np.random.default_rng(0)
    return Job(rng.normal(size=(n, n_features)), rng.integers(10, size=n), hidden, 200, epochs)


def wine_job() -> Job:
    """Return scikit-learn's wine, standardised: an epoch is one step."""
    X, y = load_wine(return_X_y=True)
    return Job((X - X.mean(0)) / X.std(0), y, (100,), 200, 200)


def diabetes_job() -> Job:
    """Return scikit-learn's diabetes data, features and target scaled to about 1."""
    X, y = load_diabetes(return_X_y=True)
    return Job(X * 20, y / 100, (64, 64), 32, 40)


def _bfloat16() -> Contestants:
    job = _random(20_000, 784, (512, 256), 3)
    return {OURS: peers.ours(job, dtype="bfloat16"), "scikit-learn": peers.scikit_learn(job)}


def _sparse() -> Contestants:
    rng = np.random.default_rng(0)
    X = sp.random_array((10_000, 20_000), density=0.005, format="csr", random_state=rng)
    job = Job(X, rng.integers(20, size=10_000), (64,), 200, 1)
    return {OURS: peers.ours(job), "scikit-learn": peers.scikit_learn(job)}


def _early_stopping() -> Contestants:
    job = digits_job((100,), 200, 40)
    more = {"early_stopping": True}
    return {OURS: peers.ours(job, **more), "scikit-learn": peers.scikit_learn(job, **more)}


def _lbfgs() -> Contestants:
    job = digits_job((100,), 200, 40)
    more = {"solver": "lbfgs"}
    return {OURS: peers.ours(job, **more), "scikit-learn": peers.scikit_learn(job, **more)}


def _partial_fit() -> Contestants:
    X, y = load_digits(return_X_y=True)
    batches = [np.random.RandomState(i).permutation(len(X))[:100] for i in range(1000)]

    def run(cls: type, **more: object) -> Callable[[], object]:
        def calls() -> None:
            estimator = cls(random_state=0, **more)
            for rows in batches:
                estimator.partial_fit(X[rows], y[rows], classes=range(10))

        return calls

    return {OURS: run(MLPTorchClassifier, device="cpu"), "scikit-learn": run(MLPClassifier)}


# Case, contestants, and whether it takes longer than a quick run allows.
CASES: dict[str, tuple[Callable[[], Contestants], bool]] = {
    "digits, (100,), batch 200": (lambda: _all_peers(digits_job((100,), 200, 40)), False),
    "digits, (32, 16), batch 32": (lambda: _all_peers(digits_job((32, 16), 32, 10)), False),
    "diabetes, (64, 64), batch 32": (lambda: _all_peers(diabetes_job()), False),
    "wine, (100,), one batch": (lambda: _all_peers(wine_job()), False),
    "20,000 x 784, (512, 256), batch 200": (lambda: _all_peers(_random(20_000, 784, (512, 256), 3)), True),
    "20,000 x 784, (512, 256), bfloat16": (_bfloat16, True),
    "sparse 10,000 x 20,000, (64,), batch 200": (_sparse, True),
    "digits, early stopping": (_early_stopping, False),
    "digits, lbfgs": (_lbfgs, False),
    "1,000 calls of partial_fit": (_partial_fit, True),
}


if not has_native_bfloat16():
    del CASES["20,000 x 784, (512, 256), bfloat16"]  # minutes a fit without such instructions


def main(
    cases: Mapping[str, tuple[Callable[[], Contestants], bool]] = CASES,
    title: str = "Fits",
    measure: Callable[[str, Contestants, int], list[Timing]] = interleave,
    show: Callable[[list[Timing]], str] = table,
) -> None:
    """Parse the command line, run the cases, print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the short cases, three repetitions")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--repetitions", type=int, default=0, help="of each case (default: 5, quick: 3)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    timings: list[Timing] = []
    if not arguments.json:
        print(f"## {title}\n\n{machine()}\n")
    for name, (contestants, is_long) in cases.items():
        if arguments.case not in name or (arguments.quick and is_long):
            continue
        found = measure(name, contestants(), arguments.repetitions or (3 if arguments.quick else 5))
        timings += found
        if not arguments.json:
            print(show(found), flush=True)
    if arguments.json:
        print(to_json(timings))


if __name__ == "__main__":
    main()
