"""One table of learning problems, one for each task that the estimators tell apart."""

from dataclasses import dataclass

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

N_SAMPLES, N_FEATURES = 160, 8  # more rows than are computed in float64 whatever the dtype


@dataclass(frozen=True)
class Problem:
    """A task, its data, and the estimators that solve it."""

    name: str
    ours: type
    theirs: type
    y: np.ndarray
    options: dict

    @property
    def X(self):
        return _X

    def __repr__(self):
        return self.name


def _make():
    rng = np.random.RandomState(0)
    X = rng.standard_normal((N_SAMPLES, N_FEATURES))
    signal = np.tanh(X @ rng.standard_normal((N_FEATURES, 3))) + 0.1 * rng.standard_normal((N_SAMPLES, 3))
    classifier, regressor = (MLPTorchClassifier, MLPClassifier), (MLPTorchRegressor, MLPRegressor)
    problems = [
        Problem("binary", *classifier, np.array(["no", "yes"])[(signal[:, 0] > 0).astype(int)], {}),
        Problem("multiclass", *classifier, signal.argmax(1) * 10, {}),
        Problem("multilabel", *classifier, (signal > 0).astype(int), {}),
        Problem("regression", *regressor, signal[:, 0], {}),
        Problem("regression_many", *regressor, signal, {}),
        Problem("poisson", *regressor, rng.poisson(np.exp(signal[:, 0])).astype(float), {"loss": "poisson"}),
    ]
    return X, {problem.name: problem for problem in problems}


_X, PROBLEMS = _make()


def raw_prediction(estimator, X):
    """Predictions as numbers, whatever the task."""
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


def data(task):
    """Three classes, or values that any regression loss takes."""
    problem = PROBLEMS["multiclass"]
    return problem.X, problem.y if task == "classifier" else np.exp(PROBLEMS["regression"].y)
