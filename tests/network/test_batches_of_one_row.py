"""Batches of one row, on which PyTorch's batch normalization cannot be trained."""

import numpy as np
import pytest
from bad_input import FAST, assert_unchanged
from problems import PROBLEMS
from torch import nn
from user_code import normed_net

from sk_mlp import MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


X, y = PROBLEMS["regression"].X, PROBLEMS["regression"].y


@pytest.mark.parametrize(("n", "batch_size"), [(101, 50), (41, 40), (21, 2), (31, 10)])
def test_a_row_that_is_left_joins_the_batch_before(n, batch_size, where):
    estimator = MLPTorchRegressor(**FAST, **where, module=normed_net, batch_size=batch_size)
    assert np.isfinite(estimator.fit(X[:n], y[:n]).predict(X)).all()
    assert estimator.t_ == 3 * n


def test_it_stays_a_batch_where_the_module_can_train_on_it(where):
    """The networks built here know what to do with one row, as do most modules."""
    sizes = []

    class Noting(nn.Linear):
        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return super().forward(x)

    MLPTorchRegressor(**FAST, **where, module=Noting, batch_size=50, shuffle=False).fit(X[:101], y[:101])
    assert sizes[-3:] == [50, 50, 1]
    MLPTorchRegressor(**FAST, **where, normalization="batch", batch_size=50).fit(X[:101], y[:101])


def test_a_module_may_scale_rows_to_length_one(where):
    """A row of zeros has no length, so that the module is tried on other rows."""

    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x / x.norm(dim=1, keepdim=True))

    MLPTorchRegressor(**FAST, **where, module=Scaled, batch_size=1).fit(X[:9], y[:9])


def test_chunks_of_lbfgs_have_more_than_one_row(where, monkeypatch):
    monkeypatch.setattr("sk_mlp._training.lbfgs._CHUNK_BYTES", 1)
    MLPTorchRegressor(**FAST, **where, module=normed_net, solver="lbfgs").fit(X[:101], y[:101])


def test_one_row_alone_is_an_error(where):
    estimator = MLPTorchRegressor(**FAST, **where, module=normed_net).partial_fit(X, y)
    call = lambda e: e.partial_fit(X[:1], y[:1])  # noqa: E731
    assert_unchanged(estimator, PROBLEMS["regression"], call, r"at least 2 rows a batch .*=1 for 1 row\(s\)")
