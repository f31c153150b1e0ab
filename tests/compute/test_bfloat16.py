"""Networks that compute in bfloat16 are about as accurate."""

import numpy as np
import pytest
import scipy.sparse as sp
from problems import PROBLEMS
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split

from sk_mlp import MLPTorchClassifier

pytestmark = pytest.mark.usefixtures("unconverged")


@pytest.mark.slow
@pytest.mark.parametrize("table", ["digits", "20,000 rows"])
def test_bfloat16_is_as_accurate(table, device):
    if table == "digits":
        X, y = load_digits(return_X_y=True)
        X = X / 16
    else:
        X, y = make_classification(20_000, 40, n_informative=20, n_classes=5, class_sep=1.5, random_state=0)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)
    accuracy = {
        dtype: MLPTorchClassifier(max_iter=25, random_state=0, device=device, dtype=dtype)
        .fit(X_train, y_train)
        .score(X_test, y_test)
        for dtype in ("float32", "bfloat16")
    }
    assert accuracy["float32"] > 0.9
    assert abs(accuracy["float32"] - accuracy["bfloat16"]) <= 0.005


def test_bfloat16_learns(device):
    problem = PROBLEMS["multiclass"]
    options = {"hidden_layer_sizes": (32,), "max_iter": 60, "random_state": 0, "learning_rate_init": 0.01}
    exact = problem.ours(**options, device=device).fit(problem.X, problem.y)
    rough = problem.ours(**options, device=device, dtype="bfloat16").fit(problem.X, problem.y)
    assert rough.coefs_[0].dtype == np.float32
    assert rough.predict_proba(problem.X).dtype == np.float64
    assert abs(exact.score(problem.X, problem.y) - rough.score(problem.X, problem.y)) < 0.05
    np.testing.assert_allclose(rough.loss_curve_[:5], exact.loss_curve_[:5], rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_input_in_bfloat16(solver, device, rng):
    X = sp.random_array((300, 40), density=0.2, format="csr", random_state=np.random.default_rng(0))
    y = (X @ rng.normal(size=40) > 0).astype(int)
    options = {"hidden_layer_sizes": (20,), "solver": solver, "random_state": 0, "device": device, "max_iter": 60}
    rough = MLPTorchClassifier(**options, dtype="bfloat16").fit(X, y)
    exact = MLPTorchClassifier(**options, dtype="float32").fit(X, y)
    assert abs(rough.score(X, y) - exact.score(X, y)) < 0.05
