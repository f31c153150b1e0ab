"""What an estimator keeps between calls: the optimizer's state, attributes, and how they are checked."""

import copy
import io
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from marking import slow_but
from problems import PROBLEMS, raw_prediction
from sklearn.exceptions import ConvergenceWarning
from torch import nn
from user_code import Raising

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._network.layout import Layout
from sk_mlp._network.network import Buffers
from sk_mlp._training.optimizers import FusedAdam

PROBLEM = PROBLEMS["binary"]
X, Y, CLASSES = PROBLEM.X, PROBLEM.y, ["no", "yes"]
SOLVERS = ["adam", "adamw", "sgd", torch.optim.Adam, torch.optim.SGD, torch.optim.NAdam, torch.optim.RMSprop]


def begun(solver="adam", n_calls=3, **options):
    momentum = {"solver_kwargs": {"momentum": 0.9}} if solver is torch.optim.SGD else {}
    common = {"hidden_layer_sizes": (5,), "random_state": 0, "learning_rate_init": 0.01, "device": "cpu"}
    estimator = MLPTorchClassifier(**{**common, **momentum, "solver": solver, **options})
    for _ in range(n_calls):
        estimator.partial_fit(X, Y, classes=CLASSES)
    return estimator


def proba_after(estimator, n_calls=2):
    for _ in range(n_calls):
        estimator.partial_fit(X, Y)
    return estimator.predict_proba(X)


class TestOptimizerState:
    # Each pair has the same weights to go on with, in another order, number or shape.
    CHANGES = (
        ({"activation": "relu"}, {"activation": nn.PReLU}),
        ({"activation": "relu"}, {"activation": lambda: nn.Sequential(nn.Linear(5, 900), nn.Linear(900, 5))}),
        ({"activation": "tanh"}, {"activation": nn.Tanh}),
        ({"activation": nn.Tanh}, {"activation": "tanh"}),
    )

    @pytest.mark.parametrize(("before", "after"), CHANGES)
    @pytest.mark.parametrize("solver", slow_but(["adam", torch.optim.SGD], SOLVERS))
    def test_starts_anew_for_another_network(self, solver, before, after):
        went_on = begun(solver, dtype="float64", **before).set_params(**after)
        anew = copy.deepcopy(went_on)
        anew._optimizer_state = {}
        np.testing.assert_array_equal(proba_after(went_on), proba_after(anew))

    def test_a_network_of_other_shapes_is_refused(self):
        estimator = begun(activation=nn.PReLU).set_params(activation=lambda: nn.PReLU(5))
        with pytest.raises(ValueError, match=r"with {'1.weight': \(1,\)}, got {'1.weight': \(5,\)}"):
            estimator.partial_fit(X, Y)

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_starts_anew_for_another_rule(self, solver):
        other = "sgd" if solver != "sgd" else "adam"
        went_on = begun(other).set_params(solver=solver)
        anew = copy.deepcopy(went_on)
        anew._optimizer_state = {}
        np.testing.assert_array_equal(proba_after(went_on), proba_after(anew))

    def test_goes_on_from_adam_to_adamw(self):
        """One rule for their moments."""
        went_on = begun("adam").set_params(solver="adamw", weight_decay=0.0)
        np.testing.assert_array_equal(proba_after(went_on), proba_after(begun("adam")))

    def test_goes_on_with_other_options_as_far_as_it_holds_what_they_need(self):
        amsgrad = begun(torch.optim.Adam).set_params(solver_kwargs={"amsgrad": True})
        anew = copy.deepcopy(amsgrad)
        anew._optimizer_state = {}
        np.testing.assert_array_equal(proba_after(amsgrad), proba_after(anew))

    @pytest.mark.parametrize(
        "solver", slow_but(["adam", torch.optim.RMSprop], ["adam", "sgd", torch.optim.Adam, torch.optim.RMSprop])
    )
    @pytest.mark.parametrize(
        "damage",
        [lambda a: a[:1], lambda a: a[:0], lambda a: np.r_[a, a], lambda a: a[None], lambda a: a.astype(object),
         lambda a: a.astype(int), lambda a: None, lambda a: a.tolist()],
    )  # fmt: skip
    def test_a_damaged_one_is_refused(self, solver, damage):
        estimator = begun(solver)
        state = copy.deepcopy(estimator._optimizer_state)
        arrays = state["torch"][0] if "torch" in state else state
        name = next(key for key, value in arrays.items() if isinstance(value, np.ndarray) and value.ndim)
        arrays[name] = damage(arrays[name])
        estimator._optimizer_state, before = state, dict(vars(estimator)) | {"_optimizer_state": state}
        with pytest.raises(ValueError, match=rf"the optimizer's {name} must have shape \(\d+,\).*, got "):
            estimator.partial_fit(X, Y)
        assert vars(estimator) == before

    @pytest.mark.parametrize("steps", [-1, 0.5, None, "3"])
    def test_damaged_steps_are_refused(self, steps):
        estimator = begun()
        estimator._optimizer_state = {**estimator._optimizer_state, "steps": steps}
        with pytest.raises(ValueError, match="the optimizer's steps must be a number of steps, got"):
            estimator.partial_fit(X, Y)

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_is_never_worked_on_in_place(self, solver):
        """A failed call, a shallow copy and a memory map see it as it was."""
        fails = []

        def scorer(estimator, X, y):
            if fails:
                raise LookupError
            return 1.0

        estimator = begun(solver, scoring=scorer)
        twin, before = copy.copy(estimator), pickle.dumps(estimator._optimizer_state)
        expected = proba_after(copy.deepcopy(estimator))
        fails.append(1)
        with pytest.raises(LookupError):
            estimator.partial_fit(X, Y, X_val=X, y_val=Y)
        assert pickle.dumps(estimator._optimizer_state) == before
        np.testing.assert_array_equal(proba_after(estimator), expected)
        np.testing.assert_array_equal(proba_after(twin), expected)

    @pytest.mark.parametrize("solver", slow_but(["adam", torch.optim.SGD], SOLVERS))
    @pytest.mark.parametrize("network", [{}, {"normalization": "batch"}, {"activation": nn.PReLU}])
    def test_memory_maps(self, solver, network, tmp_path):
        """Of a file, read-only: predictions and training go on, without a word."""
        estimator = begun(solver, **network)
        joblib.dump(estimator, tmp_path / "estimator.joblib")
        torch.set_warn_always(True)
        try:
            mapped = joblib.load(tmp_path / "estimator.joblib", mmap_mode="r")
            assert isinstance(mapped.coefs_[0], np.memmap)
            np.testing.assert_array_equal(mapped.predict_proba(X), estimator.predict_proba(X))
            mapped.module_(torch.zeros(1, X.shape[1]))
            np.testing.assert_array_equal(proba_after(mapped), proba_after(estimator))
        finally:
            torch.set_warn_always(False)

    def test_the_kernel_takes_nothing_else(self):
        """Whatever comes of the checks before: memory is not written past its end."""
        layout = Layout.of_layers((3, 2, 1), 1)
        parameters, settings = torch.zeros(layout.n_parameters), [_settings()]
        for gradient in (torch.zeros(layout.n_parameters - 1), parameters.double(), torch.zeros(22)[::2]):
            with pytest.raises(RuntimeError, match="a kernel needs tensors of one kind in contiguous memory"):
                FusedAdam(Buffers(layout, parameters, gradient), settings, [{}])


def _settings():
    class Settings:
        solver, weight_decay, beta_1, beta_2, epsilon = "adam", 0.0, 0.9, 0.999, 1e-8

    return Settings()


# What `set_params` may put in the place of a sound value, and what the error says.
UNSOUND = [
    ({"dtype": "float16"}, "'dtype' parameter"),
    ({"dtype": None}, "'dtype' parameter"),
    ({"device": None}, "'device' parameter"),
    ({"device": torch.device("cpu")}, "'device' parameter"),
    ({"batch_size": 0}, "'batch_size' parameter"),
    ({"learning_rate_init": -1.0}, "'learning_rate_init' parameter"),
    ({"learning_rate_init": np.nan}, "'learning_rate_init' parameter"),
    ({"solver": "rmsprop"}, "'solver' parameter"),
    ({"alpha": -1}, "'alpha' parameter"),
    ({"max_iter": 0}, "'max_iter' parameter"),
    ({"shuffle": "no"}, "'shuffle' parameter"),
    ({"beta_2": 1.0}, "'beta_2' parameter"),
    ({"epsilon": 0}, "'epsilon' parameter"),
    ({"momentum": 2.0}, "'momentum' parameter"),
    ({"dropout": 1.0}, "'dropout' parameter"),
    ({"warmup_epochs": 1.5}, "'warmup_epochs' parameter"),
    ({"max_grad_norm": "a"}, "'max_grad_norm' parameter"),
    ({"hidden_layer_sizes": "5"}, "'hidden_layer_sizes' parameter"),
    ({"random_state": "a"}, "'random_state' parameter"),
    ({"tol": 1e-3, "n_iter_no_change": 0}, "'n_iter_no_change' parameter"),
]


@pytest.mark.parametrize(("options", "message"), UNSOUND, ids=[str(options) for options, _ in UNSOUND])
@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_parameters_are_checked_after_set_params(cls, options, message):
    first = {"classes": CLASSES} if cls is MLPTorchClassifier else {}
    y = Y if cls is MLPTorchClassifier else X[:, 0]
    estimator = cls(hidden_layer_sizes=(3,), random_state=0, device="cpu").partial_fit(X, y, **first)
    expected, before = raw_prediction(estimator, X), estimator.get_params()
    estimator.set_params(**options)
    calls = [lambda: estimator.partial_fit(X, y)]
    if {"dtype", "device"} & options.keys():
        calls += [lambda: estimator.predict(X), lambda: estimator.score(X, y), lambda: estimator.module_]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(raw_prediction(estimator.set_params(**before), X), expected)


def test_equal_values_of_other_types_are_told_apart():
    """1 is not True, though it equals it: what was found sound is remembered by type and value."""
    options = {"max_iter": 1000, "tol": 10.0, "n_iter_no_change": 1, "random_state": 0}
    MLPTorchClassifier((2,), **options, shuffle=True).fit(X, Y)
    with pytest.raises(ValueError, match="'shuffle' parameter"):
        MLPTorchClassifier((2,), **options, shuffle=1).fit(X, Y)


@pytest.mark.parametrize(
    ("assigned", "message"),
    [
        ({"coefs_": [np.zeros((8, 3)), np.zeros((4, 1))]}, r"coefs_ must .* got shapes \[\(8, 3\), \(4, 1\)\]"),
        ({"coefs_": [np.zeros((7, 3)), np.zeros((3, 1))]}, r"coefs_ must .* lead from 8 features to 1 outputs"),
        ({"coefs_": [np.zeros((8, 3)), np.zeros((3, 2))]}, r"coefs_ must .* lead from 8 features to 1 outputs"),
        ({"coefs_": [np.zeros(8), np.zeros(1)]}, "coefs_ must be matrices"),
        ({"coefs_": []}, "coefs_ must be matrices"),
        ({"coefs_": None}, "coefs_ must be matrices"),
        ({"intercepts_": [np.zeros(3), np.zeros(2)]}, r"intercepts_ must have lengths \[3, 1\], .* got \[\(3,\), \(2,"),
        ({"intercepts_": [np.zeros(3)]}, r"intercepts_ must have lengths \[3, 1\]"),
    ],
)
@pytest.mark.parametrize("network", [{}, {"normalization": "layer"}])
def test_assigned_weights_that_make_no_network(assigned, message, network):
    estimator = begun(hidden_layer_sizes=(3,), **network)
    for name, value in assigned.items():
        setattr(estimator, name, value)
    for call in (lambda: estimator.predict(X), lambda: estimator.module_, lambda: estimator.partial_fit(X, Y)):
        with pytest.raises(ValueError, match=message):
            call()


class TestAFailedFitLeavesEverythingAsItWas:
    """Attributes, and a RandomState that the caller has passed."""

    def assert_unchanged(self, estimator, call, error):
        random_state = estimator.random_state
        before = dict(vars(estimator)), pickle.dumps(random_state)
        with pytest.raises(error):
            call()
        assert (vars(estimator), pickle.dumps(random_state)) == before

    @pytest.fixture(params=[False, True], ids=["new", "fitted"])
    def estimator(self, request):
        options = {"hidden_layer_sizes": (3,), "max_iter": 2, "device": "cpu"}
        estimator = MLPTorchClassifier(**options, random_state=np.random.RandomState(3))
        if request.param:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                estimator.fit(X[:, :4], np.arange(160) % 3)
        return estimator

    def test_a_warning_that_is_an_error(self, estimator):
        self.assert_unchanged(estimator, lambda: estimator.fit(X, Y), ConvergenceWarning)

    def test_a_clipped_batch(self, estimator):
        estimator.set_params(batch_size=1000)
        self.assert_unchanged(estimator, lambda: estimator.fit(X, Y), UserWarning)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize(
        ("hook", "task", "error"),
        [
            *((hook, "epoch", error) for hook in ("begin", "end") for error in (StopIteration, KeyError)),
            # In an epoch Ctrl-C keeps what there is, as scikit-learn's does.
            *(("end", "fit", error) for error in (StopIteration, KeyError, KeyboardInterrupt)),
        ],
    )
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_callbacks(self, estimator, solver, hook, task, error):
        estimator.set_params(solver=solver).set_callbacks(Raising(hook, task, error("of the callback's")))
        self.assert_unchanged(estimator, lambda: estimator.fit(X, Y), error)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"X_val": X[:, :3], "y_val": Y},
            {"X_val": X, "y_val": np.arange(160)},
            {"X_val": X, "y_val": Y, "sample_weight_val": -np.ones(160)},
        ],
    )
    def test_validation_rows(self, estimator, arguments):
        self.assert_unchanged(estimator, lambda: estimator.fit(X, Y, **arguments), ValueError)

    def test_late_errors(self, estimator):
        estimator.set_params(early_stopping=True, scoring=lambda *_: np.nan)
        self.assert_unchanged(estimator, lambda: estimator.fit(X, Y), ValueError)

    @pytest.mark.parametrize("options", [{"scoring": "speed"}, {"huber_delta": 1e39}, {"X_val": np.ones((3, 2))}])
    def test_everything_is_checked_before_a_users_module_is_built(self, options):
        built = []

        def module(n_features, n_outputs):
            built.append(1)
            return nn.Linear(n_features, n_outputs)

        validation = {"X_val": options.pop("X_val"), "y_val": np.ones(3)} if "X_val" in options else {}
        estimator = MLPTorchRegressor(**{"loss": "huber", "module": module, **options})
        with pytest.raises(ValueError, match=r"speed|huber_delta must be finite in float32, got|in X_val"):
            estimator.fit(X, X[:, 0], **validation)
        assert not built


def test_pickles_hold_no_optimizer_of_another_kind():
    """What is kept between calls is NumPy and plain Python."""
    for solver in SOLVERS:
        state = pickle.load(io.BytesIO(pickle.dumps(begun(solver)._optimizer_state)))
        assert _kinds(state) <= {dict, list, tuple, str, int, float, bool, type(None), np.ndarray}, solver


def _kinds(tree):
    if isinstance(tree, dict):
        return {dict}.union(*map(_kinds, tree.values()))
    if isinstance(tree, list | tuple):
        return {type(tree)}.union(*map(_kinds, tree))
    return {type(tree)}
