"""scikit-learn's own contract: every check of `check_estimator`, no expected failures."""

import os
import subprocess
import sys

import pytest
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

CONFIGURATIONS = [
    {"solver": solver, "dtype": dtype} for solver in ("adam", "sgd", "lbfgs") for dtype in ("float32", "float64")
]
# Runs only where SciPy was imported in its array API mode, so it gets a process of its own below.
ARRAY_API_CHECK = "check_array_api_input"


def checks():
    for cls in (MLPTorchClassifier, MLPTorchRegressor):
        for configuration in CONFIGURATIONS:
            for estimator, check in estimator_checks_generator(cls(**configuration)):
                name = "-".join([cls.__name__, *configuration.values(), check.func.__name__])
                if check.func.__name__ != ARRAY_API_CHECK:
                    yield pytest.param(estimator, check, id=name)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_check(estimator, check, device):
    check(estimator.set_params(device=device))


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_default_instance_is_checked(cls):
    assert CONFIGURATIONS[0] == {name: cls().get_params()[name] for name in CONFIGURATIONS[0]}


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_tags_switch_on_all_checks(cls):
    tags = get_tags(cls())
    assert tags.target_tags.multi_output
    assert tags.input_tags.sparse
    assert not tags.non_deterministic
    assert cls is MLPTorchRegressor or tags.classifier_tags.multi_label


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_array_api_check(cls):
    script = f"""
import warnings
from sklearn.utils.estimator_checks import estimator_checks_generator
from sk_mlp import {cls.__name__}
warnings.simplefilter("ignore")
n_run = 0
for configuration in {CONFIGURATIONS}:
    for estimator, check in estimator_checks_generator({cls.__name__}(**configuration)):
        if check.func.__name__ == "{ARRAY_API_CHECK}":
            check(estimator)
            n_run += 1
print("run", n_run)
"""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"run {len(CONFIGURATIONS)}", done.stderr
