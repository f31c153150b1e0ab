"""Check that Dask runs a search on two other processes, with the scores that it has in this one."""

import os
import warnings

import numpy as np
from distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

from sk_mlp import MLPTorchClassifier

warnings.simplefilter("ignore")


def where(estimator, X, y):
    return os.getpid()


if __name__ == "__main__":
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(
        MLPTorchClassifier((8,), max_iter=20, random_state=0, device="cpu"),
        {"alpha": [1e-4, 1e-2, 1.0]},
        cv=4,
        refit="score",
        scoring={"score": "accuracy", "where": where},
    )
    expected = search.fit(X, y).cv_results_["mean_test_score"]
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        parallel_config("dask"),
    ):
        search.fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected)
    processes = {search.cv_results_[f"split{i}_test_where"][j] for i in range(4) for j in range(3)}
    assert len(processes) == 2, processes
    assert os.getpid() not in processes, processes
