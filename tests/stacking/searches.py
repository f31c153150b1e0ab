"""Small networks and searches of them, for the tests of stacked training."""

import gc
import warnings

import joblib
import numpy as np
import sklearn
import torch
from joblib import parallel_config
from problems import PROBLEMS
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor, _hub

OPTIONS = {"hidden_layer_sizes": (6,), "max_iter": 8, "batch_size": 40, "random_state": 0, "learning_rate_init": 0.01}
X, WEIGHT = PROBLEMS["multiclass"].X, np.random.RandomState(5).uniform(0, 2, 160)
LABELS, VALUES, MANY = (PROBLEMS[name].y for name in ("multiclass", "regression", "regression_many"))
INDICATOR, WORDS = PROBLEMS["multilabel"].y, PROBLEMS["binary"].y
with parallel_config("sk_mlp"):
    pass  # joblib keeps from now on that none is in force
RATES = {"alpha": [1e-4, 0.1], "learning_rate_init": [1e-3, 0.01, 0.03]}


def classifier(**options):
    return MLPTorchClassifier(**{**OPTIONS, "dtype": "float64", "device": "cpu", **options})


def regressor(**options):
    return MLPTorchRegressor(**{**OPTIONS, "dtype": "float64", "device": "cpu", **options})


class _RoundRobin:
    """Folds of unequal sizes, without a state."""

    def __init__(self, n_splits=3):
        self.n_splits = n_splits

    def split(self, X, y=None, groups=None):
        folds = np.arange(X.shape[0]) % (2 * self.n_splits) % self.n_splits
        for i in range(self.n_splits):
            yield np.flatnonzero(folds != i), np.flatnonzero(folds == i)

    def get_n_splits(self, X=None, y=None, groups=None):
        return self.n_splits


CV = _RoundRobin()


def search_results(search):
    scores = {key: value for key, value in search.cv_results_.items() if "time" not in key and "param" not in key}
    return [*scores.values(), search.best_index_]


def coefs(*estimators):
    return [coef for estimator in estimators for coef in estimator.coefs_]


def grid(estimator, parameters, y=LABELS, X=X, **options):
    return search_results(GridSearchCV(estimator, parameters, cv=CV, **options).fit(X, y))


def scaled(estimator):
    return make_pipeline(StandardScaler(), estimator)


def prefixed(parameters, prefix):
    return {f"{prefix}__{name}": values for name, values in parameters.items()}


def nothing_is_left():
    """No greenlet of ours, no thread count, warning filter or configuration but the caller's."""
    gc.collect()
    alive = [o for o in gc.get_objects() if type(o) is _hub.Worker and not o.dead]
    return (
        not alive,
        torch.get_num_threads(),
        list(warnings.filters),
        sklearn.get_config(),
        dict(vars(joblib.parallel._backend)),
    )
