"""Buffers of a module that are no longer finite end a fit, as weights do."""

import numpy as np
import pytest
import torch
from bad_input import FAST
from problems import PROBLEMS
from torch import nn

from sk_mlp import MLPTorchClassifier

pytestmark = pytest.mark.usefixtures("unconverged")


X, y = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("scale", [1e19, 1e20, 1e37])
def test_statistics_that_overflow_end_a_fit(scale, early_stopping, device):
    estimator = MLPTorchClassifier(
        **FAST, device=device, dtype="float32", normalization="batch", early_stopping=early_stopping
    )
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        estimator.fit(X.astype(np.float32) * np.float32(scale), y)


def test_buffers_that_are_infinite_from_the_start_do_not(where):
    class Masked(nn.Linear):
        def __init__(self, n_features, n_outputs):
            super().__init__(n_features, n_outputs)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    fit = MLPTorchClassifier(**FAST, **where, module=Masked).fit(X, y)
    assert np.isinf(fit.module_state_["mask"][1])
