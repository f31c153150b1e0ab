"""Searches in processes of their own: how much memory they take, and by Dask."""

import subprocess
import sys

import pytest

SEARCH_MEMORY = """
import resource, warnings
import numpy as np
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sk_mlp import MLPTorchClassifier
warnings.simplefilter("ignore")
X, y = load_digits(return_X_y=True)
pipeline = make_pipeline(StandardScaler(), MLPTorchClassifier((32, 16), max_iter=1, batch_size=200))
pipeline.fit(X, y).score(X, y)
alphas = {"mlptorchclassifier__alpha": np.logspace(-6, 1, CANDIDATES)}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
with parallel_config("sk_mlp"):
    GridSearchCV(pipeline, alphas, cv=5, refit=False).fit(X, y)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_memory_of_a_search_is_bounded():
    """Measured by the operating system: 300 candidates in 5 folds, which unbounded would hold 3 GiB."""
    script = SEARCH_MEMORY.replace("CANDIDATES", "300")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2048


DASK = """
import os, warnings
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
        {"alpha": [1e-4, 1e-2, 1.0]}, cv=4, refit="score",
        scoring={"score": "accuracy", "where": where},
    )
    expected = search.fit(X, y).cv_results_["mean_test_score"]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        with parallel_config("dask"):
            search.fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected)
    processes = {search.cv_results_[f"split{i}_test_where"][j] for i in range(4) for j in range(3)}
    assert len(processes) == 2 and os.getpid() not in processes, processes
"""  # fmt: skip


def test_dask_runs_the_same_search_on_two_processes(tmp_path):
    pytest.importorskip("distributed")
    script = tmp_path / "search.py"
    script.write_text(DASK)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
