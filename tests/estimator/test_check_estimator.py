"""Every check of scikit-learn's `check_estimator`, with no expected failures."""

import json

import pytest
import torch
from processes import run_script
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import estimator_checks_generator
from user_code import cubic

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor


class Residual(torch.nn.Module):
    """One hidden layer beside a linear one."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.skip = torch.nn.Linear(n_features, n_outputs)
        self.deep = torch.nn.Sequential(
            torch.nn.Linear(n_features, 50), torch.nn.ReLU(), torch.nn.Linear(50, n_outputs)
        )

    def forward(self, X):
        return self.skip(X) + self.deep(X)


def residual(n_features, n_outputs):
    return Residual(n_features, n_outputs)


def halving(epoch):
    return 0.5 ** (epoch // 50)


def focal(raw, target):
    """Focal loss for single labels, binary cross-entropy for indicators."""
    if target.is_floating_point():
        return torch.nn.functional.binary_cross_entropy_with_logits(raw, target, reduction="none").sum(1)
    log_proba = torch.log_softmax(raw, 1).gather(1, target[:, None])[:, 0]
    return -((1 - log_proba.exp()) ** 0.5) * log_proba


BASE = [{"solver": solver, "dtype": dtype} for solver in ("adam", "sgd", "lbfgs") for dtype in ("float32", "float64")]
# Ten that between them switch on every option.
OPTIONS = [
    {"dropout": 0.2, "init": "he_normal", "max_grad_norm": 1.0},
    {"normalization": "layer", "solver": "adamw", "weight_decay": 0.1, "learning_rate": "one_cycle"},
    {"normalization": "batch", "dropout": 0.1, "init": "torch"},
    {"activation": torch.nn.PReLU, "learning_rate": "cosine", "warmup_epochs": 5, "verbose": 1000},
    {"activation": ["gelu"], "solver": torch.optim.RMSprop, "solver_kwargs": {"momentum": 0.5}},
    {"module": residual, "max_time": 100.0, "learning_rate_init": 0.01, "dtype": "float64"},
    {"scoring": "loss", "learning_rate": "plateau"},
    {"init": "he_uniform", "learning_rate": halving, "max_time": 60.0},
    {"dtype": "float64", "init": "lecun_normal", "activation": "selu"},
    {"solver": "lbfgs", "activation": torch.nn.Tanh},
]
# What only one class has, for each of the ten; "balanced" has no partial_fit, and so goes with L-BFGS.
OF_ONE = {
    MLPTorchClassifier: [
        {"label_smoothing": 0.1},
        {"loss": focal},
        {"label_smoothing": 0.05},
        *[{}] * 6,
        {"class_weight": "balanced"},
    ],
    MLPTorchRegressor: [
        {"loss": "huber", "huber_delta": 2.0},
        {"loss": "absolute_error"},
        {"loss": "quantile", "quantile": 0.4},
        {},
        {"loss": "gaussian_nll"},
        {"loss": cubic},
        *[{}] * 4,
    ],
}


def configurations(cls):
    """Every solver and dtype, then the ten with the options that only this class has spread over them."""
    # Fewer epochs than the default, for the sake of time.
    return BASE + [{**options, **more, "max_iter": 60} for options, more in zip(OPTIONS, OF_ONE[cls], strict=True)]


# Runs only where SciPy was imported in its array API mode, so it gets a process of its own below.
ARRAY_API_CHECK = "check_array_api_input"
# The others of a classifier with default options are fast.
LONG_CHECKS = {
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_classifiers_train",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
    "check_classifiers_classes",
    "check_estimators_dtypes",
    "check_classifier_data_not_an_array",
    "check_classifiers_multilabel_representation_invariance",
    "check_estimator_sparse_tag",
    "check_supervised_y_2d",
}


def checks():
    for cls in (MLPTorchClassifier, MLPTorchRegressor):
        for number, configuration in enumerate(configurations(cls)):
            for estimator, check in estimator_checks_generator(cls(**configuration)):
                is_fast = number == 0 and cls is MLPTorchClassifier and check.func.__name__ not in LONG_CHECKS
                name = f"{cls.__name__}-{number}-{'-'.join(configuration)}-{check.func.__name__}"
                if check.func.__name__ != ARRAY_API_CHECK:
                    yield pytest.param(estimator, check, id=name, marks=[] if is_fast else pytest.mark.slow)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:scoring='loss' has no effect")  # most checks have no rows to validate on
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_check(estimator, check, device):
    check(estimator.set_params(device=device))


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_default_instance_is_checked(cls):
    assert BASE[0] == {name: cls().get_params()[name] for name in BASE[0]}


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_every_option_is_checked(cls):
    switched_on = {name for configuration in configurations(cls) for name in configuration}
    theirs = MLPClassifier if cls is MLPTorchClassifier else MLPRegressor
    ours = set(cls().get_params()) - set(theirs().get_params())
    assert ours - {"device"} <= switched_on  # which every test here gets from the command line


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_tags_switch_on_all_checks(cls):
    tags = get_tags(cls())
    assert tags.target_tags.multi_output
    assert tags.input_tags.sparse
    assert not tags.non_deterministic
    assert cls is MLPTorchRegressor or tags.classifier_tags.multi_label


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
@pytest.mark.slow
def test_array_api_check(cls):
    printed = run_script(
        "array_api_check.py", cls.__name__, json.dumps(BASE), ARRAY_API_CHECK, variables={"SCIPY_ARRAY_API": "1"}
    )
    assert printed.strip() == f"run {len(BASE)}"
