"""Print by how many MiB a search of so many candidates, in five folds, raises the peak of its process's memory."""

import resource
import sys
import warnings

import numpy as np
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


warnings.simplefilter("ignore")
X, y = load_digits(return_X_y=True)
pipeline = make_pipeline(StandardScaler(), MLPTorchClassifier((32, 16), max_iter=1, batch_size=200))
pipeline.fit(X, y).score(X, y)
alphas = {"mlptorchclassifier__alpha": np.logspace(-6, 1, int(sys.argv[1]))}
before = peak()
with parallel_config("sk_mlp"):
    GridSearchCV(pipeline, alphas, cv=5, refit=False).fit(X, y)
print(peak() - before)
