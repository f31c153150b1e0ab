"""Which units dropout leaves out, and that predictions leave out none."""

import numpy as np
import pytest
import torch
from options import estimator
from problems import data
from scipy.sparse import csr_array
from torch import nn

from sk_mlp._network.dropout import Masks, hash_rows

pytestmark = pytest.mark.usefixtures("unconverged")


def masks(rate, n=4000, widths=(3, 5), epoch=0, seed=1):
    hashes = hash_rows(np.random.default_rng(0).normal(size=(n, 4)))
    made = Masks(widths, np.array([[rate] * len(widths)]), [seed], hashes, torch.float64, torch.device("cpu"))
    return [mask[0].numpy() for mask in next(made.draw(np.arange(n).reshape(1, 1, n), [epoch], 1))]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_units_drop_their_share_each_by_itself(rate):
    """Each unit drops its share, kept values are scaled to a mean of 1, and no two units drop together."""
    mask = np.concatenate(masks(rate), axis=1)
    kept = mask > 0
    np.testing.assert_allclose(mask[kept], 1 / (1 - rate), rtol=1e-4)
    np.testing.assert_allclose(kept.mean(0), 1 - rate, atol=5 * np.sqrt(rate * (1 - rate) / len(mask)))
    assert np.abs(np.corrcoef(kept.T) - np.eye(8)).max() < 5 / np.sqrt(len(mask))
    assert abs(np.corrcoef(kept[1:, 0], kept[:-1, 0])[0, 1]) < 5 / np.sqrt(len(mask))


def test_masks_of_other_epochs_and_seeds_differ():
    first = masks(0.5)[0]
    for other in (masks(0.5, epoch=1)[0], masks(0.5, seed=2)[0]):
        assert 0.4 < (first == other).mean() < 0.6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_hash_of_a_row_depends_on_its_values_alone(dtype):
    X = np.random.default_rng(0).integers(0, 3, size=(500, 9)).astype(dtype)
    np.testing.assert_array_equal(hash_rows(np.where(X == 0, -0.0, X).astype(dtype)), hash_rows(X))
    grid = np.stack(np.meshgrid(*[[-1.0, 0, 1, 2, 0.5, 1000]] * 5), -1).reshape(-1, 5).astype(dtype)
    assert len(np.unique(hash_rows(grid))) == len(grid)
    hashes = hash_rows(X)
    assert len(np.unique(hashes)) == len(np.unique(X, axis=0))
    np.testing.assert_array_equal(hash_rows(csr_array(X)), hashes)
    np.testing.assert_array_equal(hash_rows(np.tile(X, (200, 1)))[-500:], hashes)  # over several chunks


def test_no_dropout_shuffles_and_splits_as_dropout_does(where):
    """A fit without dropout has the weights of one with next to none."""
    X, y = data("classifier")
    tasks = [estimator("classifier", where, dropout=d, early_stopping=True).fit(X, y) for d in (0.0, 1e-6)]
    np.testing.assert_allclose(tasks[0].coefs_[0], tasks[1].coefs_[0], rtol=1e-4)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
def test_closed_form_and_modules_drop_alike(activation, where, rtol):
    modules = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}
    X, y = data("classifier")
    options = {"dropout": (0.4, 0.1), "early_stopping": True}
    closed = estimator("classifier", where, activation=activation, **options).fit(X, y)
    through = estimator("classifier", where, activation=modules[activation], **options).fit(X, y)
    np.testing.assert_allclose(through.loss_curve_, closed.loss_curve_, rtol=rtol)
    for a, b in zip(through.coefs_, closed.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("widths", [(6, 5), (6, 6)])
def test_modules_drop_in_the_right_layer(widths, where, rtol):
    X, y = data("classifier")
    options = {"dropout": (0.0, 0.5), "hidden_layer_sizes": widths}
    closed = estimator("classifier", where, activation="tanh", **options).fit(X, y)
    through = estimator("classifier", where, activation=nn.Tanh, **options).fit(X, y)
    np.testing.assert_allclose(through.loss_curve_, closed.loss_curve_, rtol=rtol)


def test_a_rate_next_to_one_leaves_weights_finite(where):
    X, y = data("regressor")
    fitted = estimator("regressor", where, dropout=np.nextafter(1, 0), max_iter=2).fit(X, y)
    assert np.isfinite(fitted.coefs_[0]).all()


def test_predictions_drop_nothing(where):
    X, y = data("classifier")
    fitted = estimator("classifier", where, dropout=0.5).fit(X, y)
    assert any(isinstance(layer, nn.Dropout) for layer in fitted.module_)
    np.testing.assert_array_equal(fitted.predict_proba(X), fitted.predict_proba(X))
