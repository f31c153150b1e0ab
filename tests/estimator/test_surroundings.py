"""Fits in other modes and threads, beside forks and interrupts: the same numbers, and nothing is left changed."""

import os
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from marking import slow_but
from problems import PROBLEMS, raw_prediction
from processes import run_script
from torch import nn
from user_code import AfterEachEpoch, alarms, default_float64, torch_threads

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")
FAST = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0, "device": "cpu"}
PROBLEM = PROBLEMS["binary"]
X, Y = PROBLEM.X, PROBLEM.y


def noisy_net(n_features, n_outputs):
    return nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, n_outputs))


def own_loss(raw, target):
    return nn.functional.binary_cross_entropy_with_logits(raw, target, reduction="none").sum(1)


NETWORKS = {
    "closed form": {},
    "dropout": {"dropout": 0.3},
    "batch normalization": {"normalization": "batch"},
    "layer normalization": {"normalization": "layer"},
    "activation of one's own": {"activation": nn.PReLU},
    "module": {"module": noisy_net},
    "optimizer of PyTorch's": {"solver": torch.optim.NAdam},
    "lbfgs": {"solver": "lbfgs"},
    "loss of one's own": {"loss": own_loss},
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16, layer normalization": {"dtype": "bfloat16", "normalization": "layer"},
    "early stopping": {"early_stopping": True, "scoring": "neg_log_loss"},
}


AROUND = {
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64 by default": default_float64,
    "another device by default": lambda: torch.device("meta"),
    "errors of NumPy's raised": lambda: np.errstate(all="raise"),
}


@pytest.mark.parametrize("around", slow_but(["inference mode"], AROUND))
@pytest.mark.parametrize("network", NETWORKS)
def test_numbers_do_not_depend_on_modes(network, around):
    estimator = MLPTorchClassifier(**{**FAST, **NETWORKS[network]})
    expected = estimator.fit(X, Y).predict_proba(X)
    weights = estimator.module_.state_dict()
    with AROUND[around]():
        np.testing.assert_array_equal(estimator.predict_proba(X), expected)
        module = estimator.module_
        again = MLPTorchClassifier(**{**FAST, **NETWORKS[network]}).fit(X, Y)
        if hasattr(again, "partial_fit") and not again.early_stopping:
            again.partial_fit(X, Y)
            again.fit(X, Y)
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    torch.testing.assert_close(dict(module.state_dict()), dict(weights), rtol=0, atol=0)
    # It can be trained, wherever it was made.
    module(torch.zeros(2, X.shape[1], dtype=next(module.parameters()).dtype)).sum().backward()


# What user-defined code may do in the midst of a fit, with the estimator as it is there.
def reads_the_module(estimator):
    estimator.module_(torch.zeros(2, X.shape[1])).sum().backward()


def trains_another(estimator):
    MLPTorchClassifier(**FAST, normalization="batch").fit(X, Y)


def takes_gradients(estimator):
    weight = nn.Parameter(torch.from_numpy(estimator.coefs_[0].copy()))
    weight.square().sum().backward()
    assert weight.grad is not None


def looks_around(estimator):
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == 3
    assert np.geterr()["divide"] == "raise"


@pytest.mark.parametrize("function", [reads_the_module, trains_another, takes_gradients, looks_around])
@pytest.mark.parametrize("how", ["scorer", "callback", "schedule", "lbfgs", "optimizer of PyTorch's"])
def test_users_code_runs_in_users_modes(function, how):
    fitted = MLPTorchClassifier(**FAST).fit(X, Y)
    calls = []

    def called(estimator=None, *_):
        calls.append(function(fitted if estimator is None else estimator))
        return 1.0

    options = {
        "scorer": {"scoring": called, "early_stopping": True},
        "schedule": {"learning_rate": lambda epoch: called(), "solver": "sgd"},
        "lbfgs": {"solver": "lbfgs"},
        "optimizer of PyTorch's": {"solver": torch.optim.SGD, "scoring": called, "early_stopping": True},
    }.get(how, {})
    estimator = MLPTorchClassifier(**{**FAST, **options})
    if how in ("callback", "lbfgs"):
        estimator.set_callbacks(AfterEachEpoch(called))
    with torch_threads(3), np.errstate(divide="raise"):
        estimator.fit(X, Y)
    assert calls


def test_a_loss_has_the_callers_threads():
    seen = set()

    def loss(raw, target):
        seen.add((torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return own_loss(raw, target)

    with torch_threads(3):
        MLPTorchClassifier(**FAST, loss=loss).fit(X, Y)
    assert seen == {(3, True, False)}


FINITE_FLOATS = np.full((300, 8), 3e38, np.float32)


@pytest.mark.parametrize(
    "call",
    [
        lambda: MLPTorchClassifier(**FAST).fit(X, Y).predict_proba(FINITE_FLOATS),
        lambda: MLPTorchRegressor(**FAST).fit(X * 1e-300, 1e-40 * X[:, 0]).score(X, X[:, 0]),
        lambda: MLPTorchRegressor(**FAST, loss="poisson").fit(X, X[:, 0] ** 2).predict(1e4 * X),
        lambda: MLPTorchRegressor(**FAST).fit(sp.csr_array(X), X[:, 0]).predict(sp.csr_array(X * 1e-300)),
        lambda: MLPTorchClassifier(**FAST, dropout=0.5, early_stopping=True).fit(X, Y).decision_function(X),
    ],
)
def test_no_floating_point_error_leaks(call):
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning)
        call()


@pytest.mark.parametrize("n", [100, 160])
def test_divergence_is_one_clear_error(n):
    """In float64, which is rounded to float32 at the end, and in float32."""
    estimator = MLPTorchClassifier(**{**FAST, "max_iter": 20}, solver="sgd", learning_rate_init=1e30)
    with np.errstate(all="raise"), pytest.raises(ValueError, match=r"learning_rate_init=1e\+30 is too large"):
        estimator.fit(X[:n], Y[:n])


class TestThreads:
    """The same as alone, and nothing of other threads' is touched."""

    @pytest.mark.slow
    def test_modules_that_draw(self):
        def fit(seed):
            options = {**FAST, "random_state": seed}
            return MLPTorchClassifier(**options, module=noisy_net, batch_size=20).fit(X, Y).module_state_["0.weight"]

        alone = [fit(seed) for seed in range(8)]
        torch.manual_seed(7)
        before = torch.get_rng_state()
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(fit, range(8)))
        np.testing.assert_array_equal(together, alone)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("options", [{"module": noisy_net}, {"normalization": "batch"}, {"activation": nn.PReLU}])
    def test_predictions_leave_the_generator_alone(self, options):
        estimator = MLPTorchClassifier(**FAST, **options).fit(X, Y)
        torch.manual_seed(7)
        before = torch.get_rng_state()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(estimator.predict, [X] * 40))
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_networks_draws_leave_the_generator_alone_between_steps(self):
        """What a scorer draws is the caller's, and what the network draws does not depend on it."""

        def fit(scorer):
            torch.manual_seed(7)
            options = {"module": noisy_net, "early_stopping": True, "batch_size": 20}
            return MLPTorchClassifier(**FAST, **options, scoring=scorer).fit(X, Y)

        drawn = []
        drawing = fit(lambda *_: float(drawn.append(torch.rand(1).item()) or 1))
        torch.manual_seed(7)
        assert drawn == [torch.rand(1).item() for _ in drawn]
        np.testing.assert_array_equal(raw_prediction(drawing, X), raw_prediction(fit(lambda *_: 1.0), X))

    def test_filters_of_warnings(self, monkeypatch):
        """Sparse and read-only input: nothing enters the one context that all threads share."""
        entered = []
        enter = warnings.catch_warnings.__enter__

        def note(self):
            if sys._getframe(1).f_globals["__name__"].startswith("sk_mlp"):
                entered.append(1)
            return enter(self)

        monkeypatch.setattr(warnings.catch_warnings, "__enter__", note)
        frozen = X.astype(np.float32)
        frozen.flags.writeable = False
        for table in (sp.csr_array(X), frozen):
            MLPTorchClassifier(**FAST).fit(table, Y).predict(table)
        assert not entered

    @pytest.mark.slow
    def test_predictions_while_another_thread_fits(self):
        """Networks of two kinds by turns: each prediction is that of a whole one."""
        fits = [MLPTorchClassifier(**{**FAST, **options}) for options in ({}, {"normalization": "batch"})]
        served = fits[0].fit(X, Y)
        allowed = {fit.fit(X, Y).predict_proba(X).tobytes() for fit in fits}
        found, is_over = set(), threading.Event()

        def serve():
            while not is_over.is_set():
                found.add(served.predict_proba(X).tobytes())

        with ThreadPoolExecutor(2) as pool:
            serving = [pool.submit(serve) for _ in range(2)]
            for _ in range(15):
                served.set_params(normalization="batch").fit(X, Y)
                served.set_params(normalization=None).fit(X, Y)
            is_over.set()
            for future in serving:
                future.result()
        assert found <= allowed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.slow
def test_forked_children():
    """Two threads as long as the parent has computed nothing, one after; nothing changes in the parent."""
    assert run_script("fork_after_fits.py", timeout=200).split() == ["2", "1", "1", "1", "1", "2"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers")
@pytest.mark.parametrize("network", ["closed form", "batch normalization"])
def test_interrupts_leave_everything_as_it_was(network):
    """Wherever an interrupt comes: threads, modes and NumPy's errors are those from before."""
    estimator = MLPTorchClassifier(**{**FAST, **NETWORKS[network]}).fit(X, Y)
    rng = np.random.RandomState(0)

    def state():
        return torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled(), np.geterr()

    def interrupt(*_):
        raise KeyboardInterrupt

    n_interrupts = 0
    with torch_threads(2), alarms(interrupt):
        before = state()
        while n_interrupts < 500:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-5, 1e-3))
                while True:
                    estimator.predict_proba(X)
            except KeyboardInterrupt:
                n_interrupts += 1
            assert state() == before
    assert n_interrupts > 100
