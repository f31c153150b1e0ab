"""The first weights of a network: how they are scattered."""

import numpy as np
import pytest
from torch import nn

from sk_mlp._network.init import INITIALISATIONS, draw_weights


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_weights_have_the_variance_of_their_rule(init):
    sizes = (400, 300, 2)
    coefs, intercepts, _ = draw_weights(sizes, init, (6.0, 6.0), np.random.RandomState(0), np.float64)
    variance = {
        "glorot_uniform": 2 / 700, "he_normal": 2 / 400, "he_uniform": 2 / 400, "lecun_normal": 1 / 400,
        "torch": 1 / 1200,
    }[init]  # fmt: skip
    np.testing.assert_allclose(coefs[0].var(), variance, rtol=0.02)
    assert (intercepts[0] == 0).all() == init.startswith(("he", "lecun"))
    is_normal = np.abs(coefs[0]).max() > 2 * np.sqrt(variance)
    assert is_normal == init.endswith("normal")


def test_torch_draws_as_nn_linear_does():
    linear = nn.Linear(400, 300)
    sizes = (400, 300)
    coefs, intercepts, _ = draw_weights(sizes, "torch", (6.0,), np.random.RandomState(0), np.float64)
    for ours, theirs in ((coefs[0], linear.weight), (intercepts[0], linear.bias)):
        np.testing.assert_allclose(np.abs(ours).max(), theirs.abs().max().item(), rtol=0.02)
        np.testing.assert_allclose(ours.std(), theirs.std().item(), rtol=0.1)
