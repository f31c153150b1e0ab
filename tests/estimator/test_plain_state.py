"""What a fitted estimator keeps is plain: it outlives changes of this package, and loads where little is trusted."""

import copy
import pickle
import pickletools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from problems import PROBLEMS
from sklearn.datasets import load_iris
from torch import nn

from sk_mlp import MLPTorchClassifier
from sk_mlp._estimator.stored import restore, store

FAST = {"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 0}
# Ways to leave other values behind: solvers, stopping, networks with a state, forms of y.
FITS = [
    ("binary", {}),
    ("multiclass", {"solver": "sgd", "learning_rate": "adaptive", "warmup_epochs": 2}),
    ("multiclass", {"solver": "lbfgs"}),
    ("multiclass", {"solver": torch.optim.RMSprop}),
    ("multilabel", {"early_stopping": True, "scoring": "loss", "dropout": 0.2}),
    ("regression", {"early_stopping": True, "learning_rate": "plateau"}),
    ("regression_many", {"normalization": "batch", "activation": nn.Tanh}),
    ("poisson", {"normalization": "layer", "max_grad_norm": 1.0}),
]
PLAIN = (int, float, str, bool, type(None), np.bool_, np.integer, np.floating, np.ndarray)


def fitted(name, options, dtype="float32"):
    problem = PROBLEMS[name]
    return problem.ours(**FAST, **options, **problem.options, dtype=dtype, device="cpu").fit(problem.X, problem.y)


def is_plain(value):
    """Whether a value is a number, text or an array, or dictionaries, lists and tuples of them."""
    if isinstance(value, dict):
        return type(value) is dict and all(map(is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(is_plain, value))
    return type(value) in PLAIN or isinstance(value, np.generic)


def globals_of(pickled):
    """Modules and names of all that a pickle has to import, in protocol 4 or later."""
    texts, memory, found = [], [], set()  # texts in the order in which they come to the stack
    for code, argument, _ in pickletools.genops(pickled):
        if "UNICODE" in code.name:
            texts.append(argument)
        elif code.name == "MEMOIZE":
            memory.append(texts[-1])
        elif code.name in ("BINGET", "LONG_BINGET"):
            texts.append(memory[argument])
        elif code.name == "STACK_GLOBAL":
            found.add(tuple(texts[-2:]))
    return found


@pytest.mark.parametrize(("name", "options"), FITS, ids=str)
def test_what_a_fit_sets_is_plain(name, options, unconverged):
    estimator = fitted(name, options)
    given = {*estimator.get_params(), "_network"}
    for attribute, value in vars(estimator).items():
        assert attribute in given or is_plain(value), f"{attribute} is {value!r}"
    description = {key: value for key, value in estimator._network.items() if key not in ("activation", "module")}
    assert is_plain(description)


@pytest.mark.parametrize(("name", "options"), FITS, ids=str)
def test_a_pickle_names_the_estimators_class_alone(name, options, unconverged):
    estimator = fitted(name, options)
    found = globals_of(pickle.dumps(estimator))
    ours = {(module, kind) for module, kind in found if module.split(".")[0] == "sk_mlp"}
    assert ours == {(type(estimator).__module__, type(estimator).__name__)}
    users = [options.get("solver"), options.get("activation")]
    allowed = {user.__module__ for user in users if isinstance(user, type)}
    assert {module.split(".")[0] for module, _ in found - ours} <= {"numpy"} | {m.split(".")[0] for m in allowed}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_skops_asks_to_trust_the_class_alone(dtype, unconverged, tmp_path):
    import skops.io  # which takes two seconds

    X, y = load_iris(return_X_y=True)
    estimator = MLPTorchClassifier(max_iter=50, random_state=0, dtype=dtype, device="cpu").fit(X, y)
    path = tmp_path / "iris.skops"
    skops.io.dump(estimator, path)
    trusted = skops.io.get_untrusted_types(file=path)
    assert trusted == ["sk_mlp.classifier.MLPTorchClassifier"]
    assert dtype == "float64" or path.stat().st_size < 40_000
    loaded = skops.io.load(path, trusted=trusted)
    np.testing.assert_array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
    assert loaded.loss_curve_ == estimator.loss_curve_
    loaded.set_params(warm_start=True).fit(X, y)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "pickle"])
@pytest.mark.parametrize(("name", "options"), FITS, ids=str)
def test_a_copy_goes_on_as_the_estimator_does(name, options, copied, unconverged):
    estimator, problem = fitted(name, options), PROBLEMS[name]
    twin = copied(estimator)
    ends = [one.set_params(warm_start=True).fit(problem.X, problem.y) for one in (estimator, twin)]
    for a, b in zip(ends[0].coefs_, ends[1].coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert ends[0].loss_curve_ == ends[1].loss_curve_


def test_a_state_of_a_later_version_is_refused(unconverged):
    state = fitted("binary", {}).__getstate__()
    later = state["_stored"]["json"].replace('"format": 1', '"format": 2')
    with pytest.raises(ValueError, match=r"must be loaded by the version of sk_mlp .* format 2 where .* knows 1"):
        MLPTorchClassifier().__setstate__({**state, "_stored": {**state["_stored"], "json": later}})


@pytest.mark.slow
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_made_during_a_fit_is_of_one_moment(copied):
    problem = PROBLEMS["binary"]
    clf = problem.ours(**FAST, device="cpu").partial_fit(problem.X, problem.y, classes=["no", "yes"])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(1) as pool:
            calls = pool.submit(lambda: [clf.partial_fit(problem.X, problem.y) for _ in range(150)])
            copies = []
            while not calls.done():
                copies.append(copied(clf))
    finally:
        sys.setswitchinterval(interval)
    assert copies
    assert all(len(one.loss_curve_) * len(problem.X) == one.t_ for one in copies)


def test_a_shallow_copy_shares_its_history(unconverged):
    """A callback may copy the estimator after each epoch: that must not take longer with each."""
    estimator = fitted("binary", {})
    assert copy.copy(estimator)._progress is estimator._progress


def test_a_stored_value_of_an_unknown_form_is_refused():
    stored = store({"_scoring": (1.5, float("inf"), None)})
    assert restore(stored) == {"_scoring": (1.5, float("inf"), None)}
    assert "Infinity" not in stored["json"]
    with pytest.raises(ValueError, match="must have a form that this version knows, got 'pair'"):
        restore({**stored, "json": stored["json"].replace("tuple", "pair")})
