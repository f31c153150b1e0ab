"""What an estimator says of itself: clones, HTML, and errors that name what was meant."""

import numpy as np
import pytest
from sklearn.base import clone

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


def test_clone_and_set_params(where):
    estimator = MLPTorchClassifier((3,), activation="tanh", **where)
    assert clone(estimator).get_params() == estimator.get_params()
    assert clone(estimator).set_params(alpha=0.5).alpha == 0.5


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_html_links_to_the_documentation(cls):
    html = cls()._repr_html_()
    assert f"docs/api.md#{cls.__name__.lower()}" in html


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_html_explains_each_parameter(cls):
    html = cls()._repr_html_()
    for name in cls().get_params():
        assert f"{name}:" in html, name


@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
@pytest.mark.parametrize("method", ["__init__", "fit", "partial_fit", "predict", "predict_proba", "decision_function"])
def test_type_errors_name_the_class(cls, method):
    if hasattr(cls(), method):
        with pytest.raises(TypeError, match=rf"^{cls.__name__}\.{method}\(\) got an unexpected|{method}.. missing"):
            getattr(cls(), method)(lr=1)


def test_errors_name_the_parameter_that_was_meant(where):
    for rate in (0.01, 1, np.float32(0.5)):
        with pytest.raises(ValueError, match=r"'learning_rate' .* Did you mean learning_rate_init=.*\?$"):
            MLPTorchClassifier(learning_rate=rate, **where).fit([[0.0], [1.0]], [0, 1])
    for sizes in (8, (8, 4), [8]):
        with pytest.raises(ValueError, match=r"'loss' .* Did you mean hidden_layer_sizes=.*\?$"):
            MLPTorchRegressor(sizes, **where).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match=r"'learning_rate' .* Got 'slow' instead.$"):
        MLPTorchClassifier(learning_rate="slow", **where).fit([[0.0], [1.0]], [0, 1])
