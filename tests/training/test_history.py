"""What is kept of each epoch, and how it grows."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from options import estimator
from problems import PROBLEMS, data
from user_code import Raising

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._training.history import Epoch, History

FAST = {"hidden_layer_sizes": (4,), "random_state": 0}
X, Y, LABELS = PROBLEMS["regression"].X, PROBLEMS["regression"].y, PROBLEMS["multiclass"].y


def epochs(*losses):
    return [Epoch(loss, learning_rate=0.1, gradient_norm=loss / 2, seconds=0.25) for loss in losses]


def test_a_history_does_not_change():
    first = History().extended(epochs(1.0, 2.0))
    second = first.extended(epochs(3.0))
    other = first.extended(epochs(4.0, 5.0))
    assert [one.loss.tolist() for one in (first, second, other)] == [[1, 2], [1, 2, 3], [1, 2, 4, 5]]
    assert first.extended([]) is first
    assert [len(one) for one in (History(), first, second, other)] == [0, 2, 3, 4]


def test_going_on_takes_no_copy():
    history = History().extended(epochs(0.0))
    memories = set()
    for i in range(1, 1000):
        history = history.extended(epochs(float(i)))
        memories.add(id(history.loss.base))
        assert history.loss[-1] == i
    np.testing.assert_array_equal(history.loss, np.arange(1000))
    assert len(memories) < 10  # it doubles


def test_scores_are_known_from_epochs_without():
    history = History().extended([Epoch(1.0), Epoch(2.0, 0.5, np.nan), Epoch(3.0, 0.25, 0.75)])
    assert history.where_scored("validation_loss") == [0.5, 0.25]
    np.testing.assert_array_equal(history.where_scored("validation_score"), [np.nan, 0.75])
    np.testing.assert_array_equal(history.arrays()["validation_score"], [np.nan, np.nan, 0.75])


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda history: pickle.loads(pickle.dumps(history))])
@pytest.mark.parametrize("n", [0, 1, 40])
def test_copies_are_equal_and_go_on_by_themselves(copied, n):
    history = History().extended([*epochs(*range(n))])
    again = copied(history)
    for name, column in history.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], column)
    longer = again.extended(epochs(7.0)), history.extended(epochs(8.0))
    assert [one.loss[-1] for one in longer] == [7, 8]
    assert len(history) == len(again) == n


@pytest.mark.slow
def test_a_pickle_of_many_epochs_is_small():
    """A loss, a gradient norm and a time of each: scikit-learn's takes 19 bytes a call of `partial_fit`."""
    reg = MLPTorchRegressor(**FAST).partial_fit(X, Y)
    sizes = []
    for _ in range(2):
        for _ in range(100):
            reg.partial_fit(X[:1], Y[:1])
        sizes.append(len(pickle.dumps(reg)))
    assert sizes[1] - sizes[0] <= 19 * 100


def test_copies_of_an_estimator_go_on_by_themselves(where):
    reg = MLPTorchRegressor(**FAST, **where).partial_fit(X, Y)
    other = copy.copy(reg)
    reg.partial_fit(X, Y).partial_fit(X, Y)
    other.partial_fit(X, -Y)
    assert (len(reg.loss_curve_), len(other.loss_curve_)) == (3, 2)
    assert reg.loss_curve_[1] != other.loss_curve_[1]


def test_a_failed_call_leaves_the_curve_as_it_was(where, unconverged):
    """Though it has written its epochs to the memory that both share."""
    reg = MLPTorchRegressor(**FAST, **where, warm_start=True, max_iter=2, tol=0.0).partial_fit(X, Y)
    before = reg.loss_curve_
    with pytest.raises(ZeroDivisionError):
        reg.set_callbacks(Raising("end", "fit", ZeroDivisionError())).fit(X, -Y)
    assert reg.loss_curve_ == before
    assert reg.partial_fit(X, Y).loss_curve_[:1] == before
    assert len(reg.loss_curve_) == 2


def test_curves_are_lists_of_numbers_that_may_be_assigned(where, unconverged):
    clf = MLPTorchClassifier(**FAST, **where, max_iter=3, early_stopping=True).fit(X, LABELS)
    for curve in (clf.loss_curve_, clf.validation_scores_, clf.validation_loss_curve_):
        assert type(curve) is list
        assert [type(value) for value in curve] == [float] * 3
    clf.loss_curve_ = [1.0]
    assert clf.loss_curve_ == [1.0]
    assert len(clf.set_params(early_stopping=False).fit(X, LABELS).loss_curve_) == 3
    assert clf.validation_scores_ is None
    assert not hasattr(MLPTorchClassifier(), "loss_curve_")


@pytest.mark.parametrize("value", [0.0, 1e-60, 0.1, 6.4e59, np.inf])
def test_norms_have_the_range_of_floats(value):
    history = History().extended([Epoch(1.0, gradient_norm=value), Epoch(2.0, gradient_norm=0.3)])
    for found in (history, pickle.loads(pickle.dumps(history))):
        np.testing.assert_allclose(found.arrays()["gradient_norm"], [value, 0.3], rtol=1e-7)


def test_one_history_goes_on_in_many_threads():
    """Each by itself: of two that go on from one place only one may write behind it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(200):
                history = History().extended(epochs(0.0, 1.0))
                longer = pool.map(lambda i, history=history: history.extended(epochs(i, i, i)), range(4))
                for i, one in enumerate(longer):
                    assert one.loss.tolist() == [0, 1, i, i, i]
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_history_makes_a_data_frame(solver, where, unconverged):
    X, y = data("classifier")
    fitted = estimator("classifier", where, solver=solver, early_stopping=True).fit(X, y)
    frame = pd.DataFrame(fitted.history_)
    names = ["loss", "validation_loss", "validation_score", "learning_rate", "gradient_norm", "seconds"]
    assert list(frame.columns) == names
    assert len(frame) == fitted.n_iter_
    np.testing.assert_array_equal(frame["loss"], fitted.loss_curve_)
    assert (frame["seconds"] > 0).all()
    assert (frame["gradient_norm"] > 0).all()
    if solver == "adam":
        np.testing.assert_array_equal(frame["validation_score"], fitted.validation_scores_)
        np.testing.assert_array_equal(frame["validation_loss"], fitted.validation_loss_curve_)
    else:
        assert frame[["validation_score", "learning_rate"]].isna().all(axis=None)
