"""Fits that fail in a stack, and interrupts: whom they end, and that nothing is left behind."""

import contextlib
import signal
import sys
import warnings
from time import perf_counter

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from marking import slow_but
from searches import CV, LABELS, RATES, X, classifier, grid, nothing_is_left
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline
from user_code import alarms

from sk_mlp import stacking


class TestFailures:
    @pytest.fixture(autouse=True)
    def _nothing_is_left(self):
        before = nothing_is_left()
        yield
        assert nothing_is_left() == before
        with parallel_config("sk_mlp"):  # the next search works
            assert np.isfinite(grid(classifier(), {"alpha": [0.1, 1]})[0]).all()
        assert nothing_is_left() == before

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "bad",
        slow_but(
            [{"alpha": [-1.0]}], [{"alpha": [-1.0]}, {"learning_rate_init": [1e308]}, {"hidden_layer_sizes": [(0,)]}]
        ),
    )
    def test_stay_with_their_member(self, bad):
        good = {"alpha": [1e-4, 0.1]}
        with parallel_config("sk_mlp"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Scoring failed|\\n3 fits failed|One or more")
            search = GridSearchCV(classifier(), [good, bad, good], cv=CV, error_score=-7.0).fit(X, LABELS)
            expected = GridSearchCV(classifier(), good, cv=CV).fit(X, LABELS)
        scores, alone = search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
        assert scores[2] == -7
        np.testing.assert_array_equal(scores[[0, 1]], alone)
        np.testing.assert_array_equal(scores[[3, 4]], alone)

    @pytest.mark.slow
    def test_raise_as_they_came(self):
        class Mistake(Exception):
            pass

        class Broken(TransformerMixin, BaseEstimator):
            def __init__(self, breaks=False):
                self.breaks = breaks

            def fit(self, X, y=None):
                return self

            def transform(self, X):
                if self.breaks:
                    raise Mistake("here")
                return X

        search = GridSearchCV(
            Pipeline([("b", Broken()), ("m", classifier())]),
            {"b__breaks": [False, True]},
            cv=CV,
            error_score="raise",
        )
        with parallel_config("sk_mlp"), pytest.raises(Mistake, match="here") as caught:
            search.fit(X, LABELS)
        assert "transform" in [entry.name for entry in caught.traceback]

    @pytest.mark.slow
    def test_in_a_nested_search(self):
        search = GridSearchCV(classifier(), {"alpha": [0.1, -1.0]}, cv=CV, error_score="raise")
        with parallel_config("sk_mlp"), pytest.raises(ValueError, match="alpha"):
            cross_validate(search, X, LABELS, cv=CV, error_score="raise")

    @pytest.mark.slow
    def test_of_a_stack_reach_all_its_members(self, monkeypatch):
        def fail(_):
            raise MemoryError("too large")

        monkeypatch.setattr(stacking, "train", fail)
        with parallel_config("sk_mlp"), pytest.raises(MemoryError, match="too large"):
            cross_val_score(classifier(), X, LABELS, cv=CV, error_score="raise")
        monkeypatch.undo()

    @pytest.mark.parametrize("where", ["training", "lbfgs", "scoring"])
    @pytest.mark.slow
    def test_ctrl_c_ends_the_search(self, where, monkeypatch, one_thread):
        fits = []

        def interrupt(*_):
            fits.append(1)
            raise KeyboardInterrupt

        estimator = classifier(solver="lbfgs") if where == "lbfgs" else classifier()
        target = {
            "training": "sk_mlp._training.optimizers.FusedAdam.prepare",
            "lbfgs": "sk_mlp._training.lbfgs._Search._value_and_gradient",
            "scoring": "sk_mlp.MLPTorchClassifier.score",
        }[where]
        monkeypatch.setattr(target, interrupt)
        with parallel_config("sk_mlp"), pytest.raises(KeyboardInterrupt):
            grid(estimator, RATES)
        assert len(fits) == 1
        monkeypatch.undo()

    @pytest.mark.slow
    def test_a_call_that_will_not_end_is_told_again(self):
        def stubborn():
            with contextlib.suppress(BaseException):
                classifier().fit(X, LABELS)
            return classifier().fit(X, LABELS)

        def fail():
            raise ZeroDivisionError

        with parallel_config("sk_mlp"), pytest.raises(ZeroDivisionError):
            Parallel()(delayed(function)() for function in (fail, stubborn, stubborn))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of files that an interrupt leaves open
@pytest.mark.slow
def test_no_interrupt_of_a_search_is_swallowed(monkeypatch):
    """But for those that come in a finaliser, where Python can only report them."""
    search = GridSearchCV(classifier(), {"alpha": [1e-4, 0.1, 1.0]}, cv=2, refit=False)
    rng, before, fired, reported = np.random.RandomState(0), nothing_is_left(), [], []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    def interrupt(*_):
        fired.append(1)
        raise KeyboardInterrupt

    with parallel_config("sk_mlp"):
        start = perf_counter()
        search.fit(X, LABELS)
        seconds = perf_counter() - start
    n_raised = 0
    with alarms(interrupt):
        for _ in range(50):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, seconds))
                with parallel_config("sk_mlp"):
                    search.fit(X, LABELS)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                n_raised += 1
    assert len(fired) > 10
    assert len(fired) - n_raised <= len(reported) <= len(fired) / 10
    # Greenlets and threads; an interrupt may come in the midst of a context manager of scikit-learn's own.
    assert nothing_is_left()[:2] == before[:2]
