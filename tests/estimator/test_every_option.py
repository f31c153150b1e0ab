"""Each option together with everything else that an estimator can do."""

import pickle

import numpy as np
import pytest
import torch
from fits import arrays_of, assert_same
from joblib import Parallel, delayed, parallel_config
from options import EACH_OPTION, TRAIN_ALONE, Residual, estimator
from problems import data, raw_prediction
from scipy.sparse import csr_array
from sklearn.base import clone

pytestmark = pytest.mark.usefixtures("unconverged")


@EACH_OPTION
@pytest.mark.filterwarnings("ignore:scoring='loss' has no effect")  # most of these have no rows to validate on
class TestWithEverythingElse:
    @pytest.mark.slow
    def test_learns_and_differs_from_the_default(self, name, task, options, where):
        X, y = data(task)
        fitted = estimator(task, where, **{**options, "max_iter": 40}).fit(X, y)
        plain = estimator(task, where, max_iter=40).fit(X, y)
        assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
        unlike = not np.allclose(raw_prediction(fitted, X), raw_prediction(plain, X))
        assert unlike or name in ("max_time", "scoring", "loss=squared_error", "classifier's own loss")

    @pytest.mark.slow
    def test_two_runs_give_the_same_bits(self, name, task, options, where):
        X, y = data(task)
        first, second = (estimator(task, where, **options).fit(X, y) for _ in range(2))
        assert_same(first, second)

    @pytest.mark.slow
    def test_pickles_go_on_alike(self, name, task, options, where, rtol):
        X, y = data(task)
        fitted = estimator(task, where, **options).fit(X, y)
        copied = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(raw_prediction(copied, X), raw_prediction(fitted, X))
        assert_same(copied.partial_fit(X, y), fitted.partial_fit(X, y), rtol)
        assert all(isinstance(array, np.ndarray) for array in arrays_of(fitted))

    @pytest.mark.slow
    def test_partial_fits_are_a_fit(self, name, task, options, where, rtol):
        """Without shuffling, and but for what a fit does with its own end in view."""
        X, y = data(task)
        options = {**options, "shuffle": False, "tol": 0.0, "n_iter_no_change": 100}
        whole = estimator(task, where, **options).fit(X, y)
        parts = estimator(task, where, **options)
        for _ in range(whole.n_iter_):
            parts.partial_fit(X, y, **({"classes": np.unique(y)} if task == "classifier" else {}))
        if options.get("module") is Residual:  # its dropout draws from PyTorch, anew in each call
            assert parts.loss_curve_[0] == pytest.approx(whole.loss_curve_[0])
        else:
            assert_same(parts, whole, rtol)
            np.testing.assert_allclose(parts.history_["learning_rate"], whole.history_["learning_rate"])

    @pytest.mark.slow
    def test_warm_start_goes_on(self, name, task, options, where):
        X, y = data(task)
        fitted = estimator(task, where, **options, warm_start=True).fit(X, y)
        loss, n = fitted.loss_curve_[-1], fitted.n_iter_
        fitted.fit(X, y)
        assert len(fitted.loss_curve_) == n + fitted.n_iter_
        assert fitted.loss_curve_[n] < 1.5 * loss + 0.1

    @pytest.mark.slow
    def test_weights_are_repetitions(self, name, task, options, where, rtol):
        """At full batch: a weight of 0 is the row removed, of 2 the row twice."""
        X, y = data(task)
        weight = np.arange(len(y)) % 3
        options = {**options, "batch_size": "auto", "shuffle": False, "max_iter": 5}
        weighted = estimator(task, where, **options).fit(X, y, sample_weight=weight)
        repeated = estimator(task, where, **options).fit(X.repeat(weight, 0), y.repeat(weight))
        if options.get("module") is not Residual:  # its dropout draws for each row
            np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=100 * rtol)
            np.testing.assert_allclose(raw_prediction(weighted, X), raw_prediction(repeated, X), rtol=1e-5)

    @pytest.mark.slow
    def test_sparse_rows_are_dense_ones(self, name, task, options, where, rtol):
        X, y = data(task)
        X = np.where(X > 0, X, 0)
        dense, sparse = (estimator(task, where, **options).fit(rows, y) for rows in (X, csr_array(X)))
        assert_same(sparse, dense, rtol)
        np.testing.assert_allclose(raw_prediction(sparse, csr_array(X)), raw_prediction(dense, X), rtol=rtol)

    @pytest.mark.slow
    def test_a_stack_is_its_members_alone(self, name, task, options, where, rtol, stack_sizes):
        X, y = data(task)
        members = [
            estimator(task, where, **{**options, "random_state": seed, "alpha": alpha, "early_stopping": early})
            for seed, alpha, early in ((0, 0.0, False), (1, 0.1, True), (2, 1.0, True))
        ]
        rows = [np.arange(150), np.arange(160), np.arange(2, 160)]  # three batches each, of what is not held out
        with parallel_config("sk_mlp"):
            together = Parallel()(delayed(clone(m).fit)(X[r], y[r]) for m, r in zip(members, rows, strict=True))
        assert stack_sizes == ([1, 1, 1] if name in TRAIN_ALONE else [3])
        for ours, member, r in zip(together, members, rows, strict=True):
            alone = clone(member).fit(X[r], y[r])
            assert ours.n_iter_ == alone.n_iter_
            assert_same(ours, alone, rtol)
            for key in ("loss", "validation_loss", "validation_score", "learning_rate", "gradient_norm"):
                np.testing.assert_allclose(ours.history_[key], alone.history_[key], rtol=1e-6, atol=1e-9)

    @pytest.mark.slow
    def test_module_gives_raw_predictions(self, name, task, options, where, rtol):
        X, y = data(task)
        fitted = estimator(task, where, **options).fit(X, y)
        raw = fitted.module_(torch.from_numpy(X.astype(where["dtype"]))).detach().numpy()
        if task == "classifier":
            expected = fitted.decision_function(X)
        else:
            expected = fitted.predict(X)[:, None]
            expected = np.log(expected) if fitted.out_activation_ == "exp" else expected
        np.testing.assert_allclose(raw[:, : expected.shape[1]], expected, rtol=10 * rtol, atol=rtol)
