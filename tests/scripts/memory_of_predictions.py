"""Print by how many MiB predictions for many rows, beyond what they return, raise the peak of the memory."""

import resource
import sys
import warnings

import numpy as np

from sk_mlp import MLPTorchClassifier


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


warnings.simplefilter("ignore")
case, n = sys.argv[1], 300_000
# Made in its final dtype: a copy freed before the measurement would hide as much of what it measures.
X = np.random.default_rng(0).random((n, 20), dtype="f8" if case == "float64 X" else "f4")
options = {
    "wide": {"hidden_layer_sizes": (1000, 1000)},
    "gelu": {"activation": "gelu"},
    "many classes": {"hidden_layer_sizes": ()},
}.get(case, {})
y = np.arange(2000) % (150 if case == "many classes" else 3)
estimator = MLPTorchClassifier(max_iter=1, **options).fit(X[:2000], y)
method = estimator.predict_proba if case == "many classes" else estimator.predict
method(X[:2000])
before = peak()
output = method(X)
print(peak() - before - output.nbytes / 2**20)
