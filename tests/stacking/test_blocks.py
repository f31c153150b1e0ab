"""What surrounds each of the fits of a stack: `with` blocks, event loops, arrays that are filled again."""

import asyncio
import contextlib
import io
import os
import sys
import tempfile
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from joblib import Parallel, delayed
from marking import slow_but
from scipy.sparse import csr_array
from searches import LABELS, WEIGHT, X, classifier
from threadpoolctl import threadpool_info, threadpool_limits
from user_code import default_float64


@contextlib.contextmanager
def another_directory():
    before = os.getcwd()
    os.chdir(tempfile.gettempdir())
    try:
        yield
    finally:
        os.chdir(before)


# What a block changes, and how to look at it.
BLOCKS = {
    "stdout": (lambda: contextlib.redirect_stdout(io.StringIO()), lambda: sys.stdout),
    "stderr": (lambda: contextlib.redirect_stderr(io.StringIO()), lambda: sys.stderr),
    "directory": (another_directory, os.getcwd),
    "no_grad": (torch.no_grad, torch.is_grad_enabled),
    "inference_mode": (torch.inference_mode, torch.is_inference_mode_enabled),
    "device": (lambda: torch.device("meta"), lambda: str(torch.get_default_device())),
    "dtype": (default_float64, torch.get_default_dtype),
    "autocast": (lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.is_autocast_enabled("cpu")),
    "threads": (
        lambda: threadpool_limits(3),
        lambda: [pool["num_threads"] for pool in threadpool_info()],
    ),
    "errstate": (lambda: np.errstate(over="raise"), lambda: np.geterr()["over"]),
    "warnings": (warnings.catch_warnings, lambda: id(warnings.filters)),
    "config": (lambda: sklearn.config_context(working_memory=7), lambda: sklearn.get_config()["working_memory"]),
}


class TestBlocksAroundAFit:
    """What a `with` block around a fit changes is changed for that call alone, and only while it lasts."""

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("how", slow_but(["closed form"], ["closed form", "lbfgs", "normalization"]))
    def test_it_holds_in_its_call_and_ends_with_it(self, block, how):
        enter, state = BLOCKS[block]
        options = {"closed form": {}, "lbfgs": {"solver": "lbfgs"}, "normalization": {"normalization": "layer"}}[how]

        def call(i):
            outside = state()
            if i % 2:
                classifier(alpha=i, **options).fit(X, LABELS)
                return state() == outside
            with enter():
                inside = state()
                loss = classifier(alpha=i, **options).fit(X, LABELS).loss_
                assert state() == inside
            return state() == outside and np.isfinite(loss)

        before = state()
        assert all(Parallel(backend="sk_mlp")(delayed(call)(i) for i in range(5)))
        assert state() == before

    def test_a_scorer_runs_in_the_block_of_its_fit(self):
        """Though it is called where all calls' trainings are."""
        seen = []

        def score(estimator, X, y):
            seen.append((sklearn.get_config()["working_memory"], torch.is_grad_enabled(), sys.stdout is sys.__stdout__))
            return 1.0

        def call(i):
            with sklearn.config_context(working_memory=i), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
                classifier(early_stopping=True, scoring=score, max_iter=1, random_state=i).fit(X, LABELS)

        Parallel(backend="sk_mlp")(delayed(call)(i) for i in (5, 6, 7))
        assert sorted(seen) == [(5, False, False), (6, False, False), (7, False, False)]

    def test_event_loops(self):
        async def fit(i):
            await asyncio.sleep(0)
            loss = classifier(alpha=i).fit(X, LABELS).loss_
            await asyncio.sleep(0)
            return loss

        losses = Parallel(backend="sk_mlp")(delayed(lambda i: asyncio.run(fit(i)))(i) for i in range(3))
        assert losses == pytest.approx([classifier(alpha=i).fit(X, LABELS).loss_ for i in range(3)])


class TestBuffersThatAreFilledAgain:
    """A fit trains on what it was given, whatever its caller does to it while others have their turn."""

    @pytest.mark.slow
    @pytest.mark.parametrize("make", [np.array, csr_array, lambda X: pd.DataFrame(X, copy=False)])
    def test_input(self, make):
        rows = X.astype(np.float32)
        buffer = make(np.ones_like(rows))
        values = buffer.data if isinstance(buffer, csr_array) else np.asarray(buffer)
        if not isinstance(buffer, np.ndarray | csr_array):
            values = rows.copy()
            buffer = make(values)

        def call(i):
            values.flat[:] = np.roll(rows, 10 * i, axis=0).ravel()
            return classifier(dtype="float32").fit(buffer, LABELS).loss_

        one_by_one = [call(i) for i in range(4)]
        assert len(set(one_by_one)) == 4
        stacked = Parallel(backend="sk_mlp")(delayed(call)(i) for i in range(4))
        np.testing.assert_allclose(stacked, one_by_one, rtol=1e-5)

    @pytest.mark.parametrize("scoring", [None, "accuracy"])
    def test_everything_else(self, scoring):
        buffers = {"X": X.astype(np.float32), "y": LABELS.copy(), "sample_weight": WEIGHT.copy()}
        buffers |= {"X_val": buffers["X"].copy(), "y_val": LABELS.copy(), "sample_weight_val": WEIGHT.copy()}
        first = {name: buffer.copy() for name, buffer in buffers.items()}

        def call(i):
            for name, buffer in buffers.items():
                buffer[:] = np.roll(first[name], 7 * i, axis=0)
            estimator = classifier(dtype="float32", scoring=scoring, early_stopping=True)
            fit = estimator.fit(*(buffers[n] for n in ("X", "y", "sample_weight")), **{
                name: buffers[name] for name in ("X_val", "y_val", "sample_weight_val")
            })  # fmt: skip
            return [fit.loss_, *fit.validation_scores_]

        one_by_one = [call(i) for i in range(3)]
        stacked = Parallel(backend="sk_mlp")(delayed(call)(i) for i in range(3))
        np.testing.assert_allclose(stacked, one_by_one, rtol=1e-5)
