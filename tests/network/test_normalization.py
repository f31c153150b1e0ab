"""Batch and layer normalization: PyTorch's modules, with weighted rows."""

import pickle

import numpy as np
import pytest
import torch
from fits import arrays_of
from marking import slow_but
from options import estimator
from problems import data
from torch import nn

from sk_mlp._network.autograd import WeightedBatchNorm

pytestmark = pytest.mark.usefixtures("unconverged")


def test_the_module_is_made_of_pytorchs_layers(where):
    X, y = data("classifier")
    for normalization, kind in (("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)):
        fitted = estimator("classifier", where, normalization=normalization, dropout=0.1).fit(X, y)
        kinds = [type(layer) for layer in fitted.module_]
        assert kinds == [nn.Linear, kind, nn.ReLU, nn.Dropout] * 2 + [nn.Linear]
        assert pickle.loads(pickle.dumps(fitted.module_)).state_dict().keys() == fitted.module_.state_dict().keys()


def test_batch_statistics_are_pytorchs(rng):
    """Values and gradients of a batch; running variances are the biased ones."""
    x = torch.from_numpy(rng.normal(size=(20, 3)) * 5 + 2).requires_grad_()
    ours, theirs = WeightedBatchNorm(3).double(), nn.BatchNorm1d(3).double()
    for norm in (ours, theirs):
        nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(0))
    weight = torch.from_numpy(rng.normal(size=(20, 3)))
    gradients = []
    for norm in (ours, theirs):
        out = norm(x)
        gradients.append((out, *torch.autograd.grad((out * weight).sum(), [x, norm.weight, norm.bias])))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var - 0.9, (theirs.running_var - 0.9) * 19 / 20)


def test_weights_count_as_repetitions(rng):
    x = torch.from_numpy(rng.normal(size=(6, 3)))
    counts = torch.tensor([1, 2, 3, 0, 1, 1])
    weighted, repeated = WeightedBatchNorm(3).double(), WeightedBatchNorm(3).double()
    weighted.share = (counts / counts.sum()).unsqueeze(1)
    torch.testing.assert_close(weighted(x).repeat_interleave(counts, 0), repeated(x.repeat_interleave(counts, 0)))
    torch.testing.assert_close(weighted.running_var, repeated.running_var)


def test_a_batch_without_weight_is_forgotten(where):
    """Rows of weight 0 fill whole batches and leave no trace in the running statistics."""
    X, y = data("regressor")
    options = {"normalization": "batch", "batch_size": 20, "shuffle": False, "solver": "sgd", "momentum": 0.0}
    weighted = estimator("regressor", where, **options).fit(X + 100, y, np.arange(160) < 40)
    alone = estimator("regressor", where, **options).fit(X[:40] + 100, y[:40])
    running = [fitted.module_state_["1.running_mean"] for fitted in (weighted, alone)]
    np.testing.assert_allclose(*running, rtol=1e-9)


@pytest.mark.parametrize("batch_size", slow_but([53], [1, 53]))
def test_a_batch_may_have_one_row(batch_size, where):
    """160 rows in batches of 53 leave one."""
    X, y = data("regressor")
    fitted = estimator("regressor", where, normalization="batch", batch_size=batch_size).fit(X, y)
    assert all(np.isfinite(array).all() for array in arrays_of(fitted))


def test_running_statistics_predict_and_stop_early_with_the_best(where):
    X, y = data("classifier")
    fitted = estimator(
        "classifier", where, normalization="batch", early_stopping=True, max_iter=60, validation_fraction=0.4
    ).fit(X, y, X_val=X, y_val=y)
    np.testing.assert_allclose(fitted.score(X, y), fitted.best_validation_score_)
    assert {"1.running_mean", "1.running_var", "1.weight"} <= set(fitted.module_state_)
