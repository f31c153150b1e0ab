"""Which fits are warned of as untrained, with what cause, and that other fits are not."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from joblib import Parallel, delayed
from marking import slow_but_every
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import scale
from torch import nn
from user_code import cubic

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp.exceptions import UntrainedWarning


def classes(load):
    X, y = load(return_X_y=True)
    return MLPTorchClassifier, scale(X), y


RAW_DIGITS, DIGITS = load_digits(return_X_y=True)
RAW_DIABETES, PROGRESSION = load_diabetes(return_X_y=True)
X_DIGITS, X_DIABETES = scale(RAW_DIGITS), scale(RAW_DIABETES)
BITS = (DIGITS[:, None] >> np.arange(4)) & 1
NOISE = np.random.default_rng(0).normal(size=(len(DIGITS), 1))
FRAME = pd.DataFrame(X_DIGITS).rename(columns="pixel {}".format)
DATA = {
    "iris": classes(load_iris),
    "wine": classes(load_wine),
    "breast cancer": classes(load_breast_cancer),
    "digits": (MLPTorchClassifier, X_DIGITS, DIGITS),
    "digits as they are": (MLPTorchClassifier, RAW_DIGITS, DIGITS),
    "bits of digits": (MLPTorchClassifier, X_DIGITS, BITS),
    "eights among digits": (MLPTorchClassifier, X_DIGITS, DIGITS == 8),
    "sparse digits": (MLPTorchClassifier, sp.csr_array(RAW_DIGITS / 16), DIGITS),
    "diabetes": (MLPTorchRegressor, X_DIABETES, scale(PROGRESSION)),
    "diabetes, two outputs": (MLPTorchRegressor, X_DIABETES, np.c_[scale(PROGRESSION), scale(PROGRESSION) ** 2]),
    "diabetes, positive": (MLPTorchRegressor, X_DIABETES, PROGRESSION / 150),
    "diabetes, y as it is": (MLPTorchRegressor, X_DIABETES, PROGRESSION),
    "diabetes, tiny y": (MLPTorchRegressor, X_DIABETES, 1e-4 * scale(PROGRESSION)),
    "a column of millions": (MLPTorchClassifier, np.c_[X_DIGITS, 1e6 * NOISE], DIGITS),
    "a frame with incomes": (MLPTorchClassifier, FRAME.assign(income=1e6 * NOISE), DIGITS),
    "sparse digits, large": (MLPTorchClassifier, sp.csr_array(RAW_DIGITS * 1e5), DIGITS),
    "diabetes, y far away": (MLPTorchRegressor, X_DIABETES, 1.7e9 + 10 * scale(PROGRESSION)),
    "a few digits": (MLPTorchClassifier, RAW_DIGITS[:100], DIGITS[:100]),
    "one of 2,000": (MLPTorchClassifier, np.repeat(X_DIGITS[:1000, :5], 20, axis=0), np.arange(20_000) % 2000 == 0),
    "rare": (MLPTorchClassifier, X_DIGITS[:600], (np.arange(600) % 40 == 0).astype(int)),
    "tiny digits": (MLPTorchClassifier, 1e-6 * X_DIGITS, DIGITS),
}  # fmt: skip


def warnings_of(data, **options):
    """Return the messages of a fit's warnings that are ours, and the estimator."""
    cls, X, y = DATA[data]
    rows = {"X_val": options.pop("X_val", None), "y_val": options.pop("y_val", None)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = cls(**{"random_state": 0, **options}).fit(X, y, **rows)
    return [str(one.message) for one in caught if issubclass(one.category, UntrainedWarning)], fitted


FAST_SGD = {"solver": "sgd", "learning_rate_init": 0.05}
HEALTHY = [
    *[(data, options) for data in ("iris", "wine", "breast cancer", "digits") for options in (
        {}, FAST_SGD, {"solver": "lbfgs"}, {"early_stopping": True, "scoring": "loss"}, {"early_stopping": True},
        {"activation": "logistic"}, {"dropout": 0.3}, {"class_weight": "balanced"}, {"hidden_layer_sizes": ()},
    )],
    ("digits", {"normalization": "batch"}),
    ("digits", {"label_smoothing": 0.1}),
    ("digits", {"alpha": 1.0}),
    ("digits", {"activation": nn.ReLU, "max_iter": 30}),
    ("digits", {"module": nn.Linear}),
    ("digits as they are", {}),
    ("bits of digits", {}),
    ("eights among digits", {"early_stopping": True, "scoring": "loss"}),
    ("sparse digits", {}),
    *[("diabetes", options) for options in (
        {}, {"solver": "sgd"}, {"solver": "lbfgs"}, {"early_stopping": True}, {"loss": "quantile", "quantile": 0.9},
        {"loss": "quantile", "quantile": 0.1, "early_stopping": True}, {"loss": "absolute_error"}, {"loss": "huber"},
        {"loss": "gaussian_nll"}, {"loss": cubic}, {"hidden_layer_sizes": (20, 20), "activation": "tanh"},
    )],
    ("diabetes, two outputs", {}),
    ("diabetes, positive", {"loss": "poisson"}),
    ("diabetes, positive", {"loss": "gamma", "early_stopping": True}),
]  # fmt: skip


@pytest.mark.parametrize(("data", "options"), slow_but_every(30, HEALTHY), ids=range(len(HEALTHY)))
def test_healthy_fits_say_nothing(data, options):
    assert warnings_of(data, **options)[0] == []


def test_there_are_many_healthy_fits():
    assert len(HEALTHY) >= 30


# What was done, and the cause that is named.
BROKEN = [
    ("digits as they are", {"learning_rate_init": 10}, "All 100 units of hidden layer 1 are zero .*=10 may be too"),
    ("digits", {"learning_rate_init": 10}, r"Raw predictions are of about \d.*learning_rate_init=10 may be too large"),
    ("digits", {"activation": "tanh", "learning_rate_init": 10}, r"learning_rate_init=10 may be too large"),
    ("digits", {"learning_rate_init": 1e-9}, "loss never moved .*, and the weights by .*=1e-09 may be too"),
    ("bits of digits", {"learning_rate_init": 1e-9}, "loss never moved .*, and the weights by .*=1e-09 may be too"),
    ("sparse digits", {"learning_rate_init": 1e-9}, "loss never moved .*, and the weights by .*=1e-09 may be too"),
    ("diabetes", {"learning_rate_init": 1e-9}, "loss never moved .*, and the weights by .*=1e-09 may be too"),
    ("digits", {"normalization": "layer", "learning_rate_init": 1e3}, "units of hidden layer 1 .*=1000 may be too"),
    ("digits", {"alpha": 1e4}, r"alpha=1e\+04 is large beside a batch of 200 rows"),
    ("digits", {"alpha": 1e5, "solver": "lbfgs"}, r"alpha=1e\+05 is large beside a batch of 1797 rows"),
    ("digits", {"hidden_layer_sizes": (30,) * 10, "activation": "logistic"}, "about the same value .*: fewer layers"),
    ("a column of millions", {}, r"X holds values of about 9.97e\+05 in column 64: scale X"),
    ("a column of millions", {"solver": "lbfgs"}, r"X holds values of about 9.97e\+05 in column 64: scale X"),
    ("a frame with incomes", {}, r"X holds values of about 9.97e\+05 in column 'income': scale X"),
    ("tiny digits", {}, r"X holds no value beyond .*e-0\d: scale X"),
    ("diabetes, y as it is", {}, "y holds values of about 171: scale y, with TransformedTargetRegressor"),
    ("diabetes, y as it is", {"loss": "gaussian_nll"}, "y holds values of about 171: scale y"),
    ("diabetes, y as it is", {"early_stopping": True}, "y holds values of about 171: scale y"),
    ("diabetes, tiny y", {}, "y holds values of about 0.0001: scale y"),
    ("diabetes", {"loss": cubic, "learning_rate_init": 1e-9}, "Training has not lowered the loss.* may be too small"),
    (
        "diabetes",
        {"early_stopping": True, "X_val": X_DIABETES[:1], "y_val": scale(PROGRESSION)[:1]},
        "the validation score was 0 after each of 12 epochs .on 1 row.*Pass scoring='loss'",
    ),
    (
        "diabetes",
        {"early_stopping": True, "X_val": X_DIABETES[:9], "y_val": np.ones(9)},
        "the validation score was 0 after each of 12 epochs .on 9 rows with the same y",
    ),
    (
        "digits",
        {"early_stopping": True, "scoring": lambda *_: 0.5, "learning_rate_init": 0.1},
        r"the validation score was 0.5 after each of 12 epochs .on 180 rows",
    ),
]  # fmt: skip


BROKEN += [
    ("sparse digits, large", {}, "X holds values of about .* in column .*: scale X, with MaxAbsScaler"),
    ("digits", {"max_grad_norm": 1e-9}, "max_grad_norm=1e-09 cuts gradients of about"),
    ("digits", {"solver": "adamw", "weight_decay": 900}, "weight_decay=900 takes a share of 0.9 from the coefs"),
    ("digits", {"class_weight": dict.fromkeys(range(10), 1e-8)}, r"alpha=0.0001 is large beside .* that weigh 2e-06"),
    ("diabetes, y far away", {}, r"y holds values of about 1.7e\+09: scale y"),
    ("a few digits", {"learning_rate_init": 10}, "learning_rate_init=10 may be too large"),
    ("rare", {"early_stopping": True}, r"Early stopping kept epoch \d+ of \d+ by its score; .*: pass scoring='loss'"),
    ("digits", {"early_stopping": True, "X_val": X_DIGITS[:1], "y_val": DIGITS[:1]}, "on 1 row.*Pass scoring='loss'"),
    *[(data, {"learning_rate_init": 1e-9, "random_state": seed}, "=1e-09 may be too small")
      for data in ("iris", "wine", "breast cancer", "diabetes") for seed in range(4)],
    ("digits", {"learning_rate_init": 1e-9, "dropout": 0.5}, "=1e-09 may be too small"),
    ("digits", {"learning_rate_init": 1e-9, "early_stopping": True}, "=1e-09 may be too small"),
    ("one of 2,000", {"learning_rate_init": 1e-9, "max_iter": 14}, "=1e-09 may be too small"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "options", "cause"), slow_but_every(25, BROKEN), ids=[cause[:50] for *_, cause in BROKEN]
)
def test_broken_fits_say_why(data, options, cause):
    (message,), _ = warnings_of(data, **options)
    assert re.search(cause, message), message


def test_a_training_that_diverges_names_the_column():
    _, X, y = DATA["diabetes"]
    X = pd.DataFrame(X, columns=load_diabetes().feature_names).assign(bmi=1e6 * X[:, 2])
    with pytest.raises(ValueError, match=r"non-finite parameter weights.*values of about 1e\+06 in column 'bmi'"):
        MLPTorchRegressor(solver="sgd", random_state=0).fit(X, y)


@pytest.mark.filterwarnings("ignore:Stochastic")
def test_scales_whose_squares_overflow():
    _, X, y = DATA["diabetes"]
    reg = MLPTorchRegressor(dtype="float64", max_iter=9, random_state=0)
    with pytest.warns(UntrainedWarning, match=r"y holds values of about 1e\+200"):
        reg.fit(X, 1e200 * y)
    with pytest.raises(ValueError, match=r"non-finite .* X holds values of about 1e\+200 in column"):
        reg.fit(1e200 * X, y)


def test_it_is_a_convergence_warning_on_the_line_of_the_user():
    with pytest.warns(ConvergenceWarning, match="no better than a constant prediction") as caught:
        MLPTorchClassifier(learning_rate_init=1e-9, random_state=0).fit(X_DIGITS, DIGITS)
    assert [one.filename for one in caught] == [__file__]


@pytest.mark.slow
def test_each_call_of_a_stack_has_its_own():
    rates = [1e-9, 1e-3]
    with pytest.warns(UntrainedWarning) as caught:
        Parallel(backend="sk_mlp")(
            delayed(MLPTorchClassifier(learning_rate_init=rate, random_state=0).fit)(X_DIGITS, DIGITS) for rate in rates
        )
    assert len(caught) == 1


@pytest.mark.parametrize("module", [nn.Linear, lambda n, m: nn.Sequential(nn.Linear(n, 9), nn.ReLU(), nn.Linear(9, m))])
def test_networks_of_users_count_too(module):
    (message,), _ = warnings_of("digits", module=module, learning_rate_init=1e-9)
    assert "learning_rate_init=1e-09 may be too small" in message


def test_weights_of_zero_that_stay_zero():
    """A share of no length at all."""

    def zeros(n_features, n_outputs):
        module = nn.Sequential(nn.Linear(n_features, 4, bias=False), nn.ReLU(), nn.Linear(4, n_outputs, bias=False))
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
        return module

    (message,), _ = warnings_of("digits", module=zeros)
    assert "the weights by a share of 0:" in message


class TestSilence:
    """Where there is nothing to tell."""

    @pytest.mark.parametrize("y", [np.zeros(200), np.full(200, 7)])
    @pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
    @pytest.mark.parametrize("early_stopping", [False, True])
    def test_constant_targets(self, cls, y, early_stopping):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UntrainedWarning)
            warnings.filterwarnings("ignore", "Stochastic")
            cls(early_stopping=early_stopping, learning_rate_init=1e-9, random_state=0).fit(X_DIGITS[:200], y)

    @pytest.mark.parametrize("options", [{"max_iter": 4}, {"tol": 1.0, "n_iter_no_change": 2}, {"max_time": 1e-6}])
    def test_ends_that_a_user_has_set(self, options):
        assert warnings_of("digits", **options, learning_rate_init=1e-4)[0] == []

    @pytest.mark.slow
    def test_a_trained_network_that_goes_on(self):
        cls, X, y = DATA["breast cancer"]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UntrainedWarning)
            warnings.filterwarnings("ignore", "Stochastic")
            for loss in ("log_loss", lambda raw, target: nn.functional.softplus((1 - 2 * target) * raw).sum(1)):
                clf = cls((50,), loss=loss, warm_start=True, early_stopping=loss == "log_loss", random_state=0)
                for _ in range(4):
                    clf.fit(X, y)

    @pytest.mark.slow
    def test_a_weak_signal_among_many_rows(self):
        """Some rows do not tell it from none; many do."""
        rng = np.random.RandomState(0)
        X = rng.normal(size=(40_000, 4))
        y = 0.05 * X[:, 0] + rng.normal(size=40_000)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UntrainedWarning)
            reg = MLPTorchRegressor(hidden_layer_sizes=(4,), early_stopping=True, scoring="loss", random_state=0)
            assert reg.fit(X, y).score(X, y) < 0.004

    def test_partial_fit(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            MLPTorchClassifier(learning_rate_init=1e-9).partial_fit(X_DIGITS, DIGITS, classes=np.arange(10))

    @pytest.mark.slow
    def test_few_rows_without_a_cause(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UntrainedWarning)
            warnings.filterwarnings("ignore", "Stochastic")
            for seed in range(20):
                MLPTorchClassifier((3,), max_iter=9, random_state=seed).fit(X_DIGITS[:100], DIGITS[:100] % 2)

    def test_weights_that_leave_one_target(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            weight = np.where(DIGITS == 3, 1.0, 1e-9)
            MLPTorchClassifier(learning_rate_init=1e-9, random_state=0).fit(X_DIGITS, DIGITS, sample_weight=weight)


def test_nothing_is_drawn_and_nothing_is_changed():
    def fit(rate):
        random_state = np.random.RandomState(0)
        fitted = MLPTorchClassifier((), max_iter=2, tol=1.0, random_state=random_state, learning_rate_init=rate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted.fit(np.repeat(X_DIGITS, 2, axis=0), np.repeat(DIGITS, 2))
        return random_state.randint(2**31)

    np.random.seed(0)  # noqa: NPY002 (the state of which is looked at)
    before, torchs = np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
    assert fit(1e-9) == fit(1e-3)
    np.testing.assert_equal(np.random.get_state(legacy=False), before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torchs)
