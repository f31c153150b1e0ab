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
def test_joins_the_one_before(n, batch_size, where):
    estimator = MLPTorchRegressor(**FAST, **where, module=normed_net, batch_size=batch_size)
    assert np.isfinite(estimator.fit(X[:n], y[:n]).predict(X)).all()
    assert estimator.t_ == 3 * n


def test_only_where_it_has_to(where):
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


def test_rows_that_a_module_scales_to_length_one(where):
    """Of which a row of zeros has none: it is tried on other rows."""

    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x / x.norm(dim=1, keepdim=True))

    MLPTorchRegressor(**FAST, **where, module=Scaled, batch_size=1).fit(X[:9], y[:9])


def test_chunks_of_lbfgs_have_more(where, monkeypatch):
    monkeypatch.setattr("sk_mlp._training.lbfgs._CHUNK_BYTES", 1)
    MLPTorchRegressor(**FAST, **where, module=normed_net, solver="lbfgs").fit(X[:101], y[:101])


def test_is_an_error_where_there_is_none_before(where):
    estimator = MLPTorchRegressor(**FAST, **where, module=normed_net).partial_fit(X, y)
    call = lambda e: e.partial_fit(X[:1], y[:1])  # noqa: E731
    assert_unchanged(estimator, PROBLEMS["regression"], call, r"at least 2 rows a batch .*=1 for 1 row\(s\)")
