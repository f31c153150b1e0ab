"""Time searches: `python -m benchmarks.search`, with the options of `benchmarks.fit`, and `--plot docs/search.png`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter

import matplotlib as mpl
import numpy as np
from joblib import Parallel, delayed, parallel_config
from scipy.stats import loguniform
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

from . import peers
from .fit import main
from .peers import Job, options
from .timing import OURS

mpl.use("Agg")
import matplotlib.pyplot as plt

Contestants = Mapping[str, Callable[[], object]]
RATES, ALPHAS = [3e-4, 1e-3, 3e-3, 1e-2], [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
ONE_BY_ONE, SCIKIT_LEARN = "sk_mlp, one by one", "scikit-learn, n_jobs=-1"


def _digits(hidden: tuple[int, ...], batch_size: int, epochs: int) -> Job:
    X, y = load_digits(return_X_y=True)
    return Job(X, y, hidden, batch_size, epochs)


def _diabetes() -> Job:
    X, y = load_diabetes(return_X_y=True)
    return Job(X, y / 100, (64, 64), 32, 30)


def _models(job: Job) -> tuple[object, object]:
    """Return our estimator and scikit-learn's for the job."""
    ours = MLPTorchClassifier if job.is_classification else MLPTorchRegressor
    theirs = MLPClassifier if job.is_classification else MLPRegressor
    return ours(device="cpu", **options(job)), theirs(**options(job))


def _three_ways(run: Callable[[object], object], ours: object, theirs: object) -> Contestants:
    """Return a search of ours as stacks and one by one, and scikit-learn's with a process a core."""

    def under(backend: str, model: object, **more: object) -> Callable[[], object]:
        def search() -> None:
            with parallel_config(backend, **more):
                run(model)

        return search

    return {
        OURS: under("sk_mlp", ours),
        SCIKIT_LEARN: under("loky", theirs, n_jobs=-1),
        ONE_BY_ONE: under("sequential", ours),
    }


def _grid(job: Job, rates: list[float] = RATES, alphas: list[float] = ALPHAS) -> Contestants:
    """Return everyone's grid search over learning rates and penalties, in five folds."""

    def search(model: object, X: np.ndarray, y: np.ndarray, rate: str, alpha: str) -> None:
        pipeline = Pipeline([("scaler", StandardScaler()), ("model", model)])
        grid = {f"model__{rate}": rates, f"model__{alpha}": alphas}
        GridSearchCV(pipeline, grid, cv=5, refit=False).fit(X, y)

    def run(model: object) -> None:
        search(model, job.X, job.y, "learning_rate_init", "alpha")

    def skorch() -> None:
        X, y = peers.skorch_data(job)
        search(peers.skorch_net(job), X, y, "lr", "optimizer__weight_decay")

    return {**_three_ways(run, *_models(job)), "skorch": skorch}


def _randomized() -> Contestants:
    job = _digits((32,), 32, 40)
    draws = {
        "model__hidden_layer_sizes": [(32,), (32, 16), (64,)],
        "model__learning_rate_init": loguniform(3e-4, 1e-2),
        "model__alpha": loguniform(1e-6, 1e-1),
    }

    def run(model: object) -> None:
        early = model.set_params(early_stopping=True, n_iter_no_change=10)
        pipeline = Pipeline([("scaler", StandardScaler()), ("model", early)])
        RandomizedSearchCV(pipeline, draws, n_iter=60, cv=3, random_state=0, refit=False).fit(job.X, job.y)

    return _three_ways(run, *_models(job))


def _bagging() -> Contestants:
    job = _digits((32, 16), 32, 20)
    # Bootstraps weigh rows, and scikit-learn fails at a batch without weight: 1,792 rows leave no small last batch.
    X, y = job.X[:1792] / 16, job.y[:1792]

    def run(model: object) -> None:
        BaggingClassifier(model, n_estimators=64, random_state=0).fit(X, y)

    return _three_ways(run, *_models(job))


def _one_fit() -> Contestants:
    job = _digits((32, 16), 32, 10)
    model, _ = _models(job)

    def stacked() -> None:
        with parallel_config("sk_mlp"):
            Parallel()(delayed(model.fit)(job.X, job.y) for _ in range(1))

    return {OURS: stacked, "plain fit": lambda: model.fit(job.X, job.y)}


CASES: dict[str, tuple[Callable[[], Contestants], bool]] = {
    "grid of 20 in 5 folds, digits, (32, 16), batch 32": (lambda: _grid(_digits((32, 16), 32, 20)), True),
    "grid of 20 in 5 folds, digits, (100,), batch 200": (lambda: _grid(_digits((100,), 200, 40)), True),
    "grid of 20 in 5 folds, diabetes, (64, 64), batch 32": (lambda: _grid(_diabetes()), True),
    "60 random draws in 3 folds, digits, three shapes, early stopping": (_randomized, True),
    "bagging of 64, digits, (32, 16)": (_bagging, True),
    "a stack of one fit, digits, (32, 16)": (_one_fit, False),
}


def draw(path: Path) -> None:
    """Time grids of 1 to 60 candidates once each, in five folds, and draw seconds against their number."""
    warnings.simplefilter("ignore")
    sizes = {1: (1, 1), 5: (1, 5), 20: (4, 5), 60: (12, 5)}
    seconds: dict[str, list[float]] = {}
    for n_rates, n_alphas in sizes.values():
        contestants = _grid(_digits((32, 16), 32, 20), list(np.geomspace(3e-4, 1e-2, n_rates)), ALPHAS[:n_alphas])
        for name, run in contestants.items():
            start = perf_counter()
            run()
            seconds.setdefault(name, []).append(perf_counter() - start)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in seconds.items():
        axes.loglog(list(sizes), values, "o-", label=name)
    axes.set(xlabel="candidates, each fitted in 5 folds", ylabel="seconds", xticks=list(sizes))
    axes.set_xticks(list(sizes), [str(n) for n in sizes])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if "--plot" in sys.argv:
        draw(Path(sys.argv[sys.argv.index("--plot") + 1]))
    else:
        main(CASES, "Searches")
