"""Tools of scikit-learn's that people put around an MLP, on real data."""

import matplotlib as mpl
import numpy as np
import pytest
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, StackingRegressor, VotingClassifier
from sklearn.inspection import PartialDependenceDisplay, permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate, train_test_split
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor

pytestmark = pytest.mark.usefixtures("unconverged")


def classifier(where, **options):
    return MLPTorchClassifier(
        **{
            "hidden_layer_sizes": (16,),
            "max_iter": 40,
            "random_state": 0,
            "learning_rate_init": 0.02,
            **where,
            **options,
        }
    )


def regressor(where, **options):
    options = {"hidden_layer_sizes": (16,), "solver": "lbfgs", "alpha": 1.0, "random_state": 0, **where, **options}
    return MLPTorchRegressor(**options)


@pytest.mark.slow
def test_pipeline_and_grid_search_choose_as_scikit_learn_does(device):
    X, y = load_iris(return_X_y=True)
    grid = {"alpha": [1e-4, 1.0, 30.0], "learning_rate_init": [0.003, 0.03]}
    options = {"hidden_layer_sizes": (8,), "max_iter": 30, "random_state": 0}
    found = [
        GridSearchCV(make_pipeline(StandardScaler(), mlp), {f"{mlp_name}__{k}": v for k, v in grid.items()}, cv=3).fit(
            X, y
        )
        for mlp, mlp_name in (
            (MLPTorchClassifier(**options, device=device), "mlptorchclassifier"),
            (MLPClassifier(**options), "mlpclassifier"),
        )
    ]
    np.testing.assert_allclose(*(search.cv_results_["mean_test_score"] for search in found), atol=0.011)
    assert found[0].best_score_ > 0.9


def test_digits_split(where):
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    model = make_pipeline(StandardScaler(), classifier(where, early_stopping=True))
    assert model.fit(X_train, y_train).score(X_test, y_test) > 0.93


@pytest.mark.slow
def test_cross_val_predict_and_parallel_jobs(where):
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), classifier(where))
    proba = cross_val_predict(model, X, y, method="predict_proba", cv=3, n_jobs=2)
    assert (proba.argmax(1) == y).mean() > 0.9


def test_transformed_target_regressor(where):
    X, y = load_diabetes(return_X_y=True)
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), regressor(where, max_iter=15)), transformer=StandardScaler()
    )
    assert model.fit(X, y).score(X, y) > 0.5


@pytest.mark.slow
def test_calibrated_classifier(where):
    X, y = load_breast_cancer(return_X_y=True)
    model = CalibratedClassifierCV(make_pipeline(StandardScaler(), classifier(where)), cv=3)
    assert model.fit(X, y).score(X, y) > 0.95


@pytest.mark.slow
def test_bagging_and_boosting_and_voting(where):
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    mlp = classifier(where)
    for ensemble in (
        BaggingClassifier(mlp, n_estimators=4, random_state=0),
        AdaBoostClassifier(mlp, n_estimators=3, random_state=0),
        VotingClassifier([("mlp", mlp), ("linear", LogisticRegression())], voting="soft"),
    ):
        assert ensemble.fit(X, y).score(X, y) > 0.93


@pytest.mark.slow
def test_stacking_regressor(where):
    X, y = load_diabetes(return_X_y=True)
    stack = StackingRegressor(
        [("mlp", make_pipeline(StandardScaler(), regressor(where, max_iter=10))), ("ridge", Ridge())]
    )
    assert stack.fit(X, y).score(X, y) > 0.4


def test_multi_output_classifier(where):
    X, y = load_iris(return_X_y=True)
    Y = np.c_[y, y > 1]
    model = MultiOutputClassifier(classifier(where)).fit(X, Y)
    assert (model.predict(X) == Y).mean() > 0.9


def test_several_outputs_at_once(where):
    X, Y = load_linnerud(return_X_y=True)
    X, Y = StandardScaler().fit_transform(X), StandardScaler().fit_transform(Y)
    assert regressor(where).fit(X, Y).score(X, Y) > 0.2


@pytest.mark.slow
def test_inspection(where):
    mpl.use("Agg")
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), regressor(where, max_iter=10)).fit(X, y)
    importance = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    assert {"bmi", "s5"} & set(X.columns[importance.importances_mean.argsort()[-3:]])
    display = PartialDependenceDisplay.from_estimator(model, X, ["bmi", ("bmi", "s5")], grid_resolution=5)
    assert display.axes_.size == 2


def test_sample_weight_is_routed(where):
    X, y = load_iris(return_X_y=True)
    weight = (y != 2).astype(float)
    with config_context(enable_metadata_routing=True):
        mlp = classifier(where).set_fit_request(sample_weight=True)
        mlp.set_score_request(sample_weight=True)
        result = cross_validate(
            make_pipeline(StandardScaler().set_fit_request(sample_weight=False), mlp),
            X,
            y,
            params={"sample_weight": weight},
            return_estimator=True,
            cv=3,
        )
        routing = mlp.set_partial_fit_request(sample_weight=True, classes=True).get_metadata_routing()
    assert result["test_score"].min() > 0.9
    assert all(not (model.predict(X) == 2).any() for model in result["estimator"])
    asked = {name: asks for name, asks in routing.partial_fit.requests.items() if asks is not None}
    assert asked == {"sample_weight": True, "classes": True}
