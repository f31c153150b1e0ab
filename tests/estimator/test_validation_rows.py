"""Rows that a user passes to validate on."""

import numpy as np
import pandas as pd
import pytest
from fits import assert_same
from options import estimator
from problems import data
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = pytest.mark.usefixtures("unconverged")


def split(task):
    X, y = data(task)
    return X[:110], y[:110], X[110:], y[110:]


@pytest.mark.parametrize("task", ["classifier", "regressor"])
def test_rows_to_validate_on_take_the_place_of_held_out_ones(task, where):
    X, y, X_val, y_val = split(task)
    fitted = estimator(task, where, early_stopping=True, max_iter=30, n_iter_no_change=3)
    fitted.fit(X, y, X_val=X_val, y_val=y_val)
    np.testing.assert_allclose(fitted.best_validation_score_, fitted.score(X_val, y_val), rtol=1e-5)
    assert len(fitted.validation_scores_) == len(fitted.validation_loss_curve_) == fitted.n_iter_
    assert fitted.t_ == 110 * fitted.n_iter_  # all rows are trained on


def test_without_early_stopping_they_change_no_weight(where, rtol):
    X, y, X_val, y_val = split("classifier")
    watched = estimator("classifier", where).fit(X, y, X_val=X_val, y_val=y_val)
    assert_same(watched, estimator("classifier", where).fit(X, y), rtol)
    np.testing.assert_allclose(watched.validation_scores_[-1], watched.score(X_val, y_val))
    expected = log_loss(y_val, watched.predict_proba(X_val))
    np.testing.assert_allclose(watched.validation_loss_curve_[-1], expected, rtol=1e-5)
    assert watched.best_loss_ == min(watched.loss_curve_)


def test_their_weights_are_repetitions(where):
    X, y, X_val, y_val = split("classifier")
    weight = np.arange(50) % 3
    weighted = estimator("classifier", where).fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=weight)
    repeated = estimator("classifier", where).fit(X, y, X_val=X_val.repeat(weight, 0), y_val=y_val.repeat(weight))
    np.testing.assert_allclose(weighted.validation_scores_, repeated.validation_scores_)
    np.testing.assert_allclose(weighted.validation_loss_curve_, repeated.validation_loss_curve_, rtol=1e-5)


def test_partial_fit_records_them(where):
    X, y, X_val, y_val = split("classifier")
    fitted = estimator("classifier", where)
    fitted.partial_fit(X, y, classes=[0, 10, 20])
    assert fitted.validation_scores_ is None
    for _ in range(2):
        fitted.partial_fit(X, y, X_val=X_val, y_val=y_val)
    np.testing.assert_array_equal(np.isnan(fitted.history_["validation_loss"]), [True, False, False])
    np.testing.assert_allclose(fitted.validation_scores_[-1], fitted.score(X_val, y_val))


def test_through_a_pipeline_that_transforms_them(where):
    X, y, X_val, y_val = split("regressor")
    X, X_val = 5 * X + 3, 5 * X_val + 3
    scaler = StandardScaler().fit(X)
    with config_context(enable_metadata_routing=True):
        network = estimator("regressor", where, early_stopping=True).set_fit_request(X_val=True, y_val=True)
        pipeline = Pipeline([("scale", StandardScaler()), ("network", network)], transform_input=["X_val"])
        pipeline.fit(X, y, X_val=X_val, y_val=y_val)
    alone = clone(network).fit(scaler.transform(X), y, X_val=scaler.transform(X_val), y_val=y_val)
    np.testing.assert_allclose(pipeline[-1].validation_scores_, alone.validation_scores_)


def test_they_may_be_data_frames(where):
    X, y, X_val, y_val = split("classifier")
    frame, val = (pd.DataFrame(rows, columns=list("abcdefgh")) for rows in (X, X_val))
    fitted = estimator("classifier", where, early_stopping=True, scoring="roc_auc_ovr")
    fitted.fit(frame, y, X_val=val, y_val=y_val)
    held_out = clone(fitted).fit(frame, pd.Series(y))
    assert len(held_out.validation_scores_) == held_out.n_iter_


def test_they_may_be_sparse_beside_dense_rows(where):
    X, y, X_val, y_val = split("classifier")
    dense = estimator("classifier", where).fit(X, y, X_val=X_val, y_val=y_val)
    for rows, val in ((X, csr_array(X_val)), (csr_array(X), X_val)):
        mixed = estimator("classifier", where).fit(rows, y, X_val=val, y_val=y_val)
        np.testing.assert_allclose(mixed.validation_loss_curve_, dense.validation_loss_curve_, rtol=1e-5)


def test_partial_fit_keeps_what_it_learned(where):
    """Each call is one step on the way: early stopping has nothing to take back."""
    X, y, X_val, y_val = split("classifier")
    watched = estimator("classifier", where, early_stopping=True)
    plain = estimator("classifier", where)
    for _ in range(10):
        watched.partial_fit(X, y, classes=[0, 10, 20], X_val=X_val, y_val=y_val)
        plain.partial_fit(X, y, classes=[0, 10, 20])
    assert_same(watched, plain, 1e-6)


def test_another_scoring_forgets_the_best_score(where):
    X, y, X_val, y_val = split("classifier")
    fitted = estimator("classifier", where, early_stopping=True, warm_start=True, n_iter_no_change=3, max_iter=20)
    fitted.fit(X, y, X_val=X_val, y_val=y_val)
    before = fitted.coefs_[0].copy()
    fitted.set_params(scoring="loss").fit(X, y, X_val=X_val, y_val=y_val)
    assert fitted.best_validation_score_ < 0
    assert not np.array_equal(fitted.coefs_[0], before)
