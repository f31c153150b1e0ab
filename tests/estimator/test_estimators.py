"""The two estimators as a user meets them: tasks, methods, fitted attributes, warnings."""

import copy
import pickle
import re
import threading
import warnings

import numpy as np
import pytest
import torch
from problems import PROBLEMS, raw_prediction
from scipy.sparse import coo_matrix, csc_array, csr_array, csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.validation import check_is_fitted

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._estimator.fitting import task_of
from sk_mlp._estimator.prediction import predict_rows
from sk_mlp._estimator.reading import FitMode, Sample
from sk_mlp._network.activations import ACTIVATIONS
from sk_mlp._network.forward import Forward
from sk_mlp._training.optimizers import Optimizer

FAST = {"hidden_layer_sizes": (10, 6), "max_iter": 15, "random_state": 0}
pytestmark = pytest.mark.usefixtures("unconverged")


def fitted(problem, where, **options):
    return problem.ours(**{**FAST, **problem.options, **options}, **where).fit(problem.X, problem.y)


@pytest.mark.parametrize(
    ("name", "out_activation", "n_outputs"),
    [
        ("binary", "logistic", 1),
        ("multiclass", "softmax", 3),
        ("multilabel", "logistic", 3),
        ("regression", "identity", 1),
        ("regression_many", "identity", 3),
        ("poisson", "exp", 1),
    ],
)
def test_the_task_picks_head_and_loss(name, out_activation, n_outputs, where):
    estimator = fitted(PROBLEMS[name], where)
    assert (estimator.out_activation_, estimator.n_outputs_) == (out_activation, n_outputs)


@pytest.mark.parametrize("name", PROBLEMS)
def test_fitted_attributes_are_plain_values(name, where):
    estimator = fitted(PROBLEMS[name], where, early_stopping=True)
    array = np.dtype(where["dtype"])
    assert all(type(a) is np.ndarray and a.dtype == array for a in estimator.coefs_ + estimator.intercepts_)
    assert all(type(value) is float for value in estimator.loss_curve_ + estimator.validation_scores_)
    assert all(type(getattr(estimator, name)) is int for name in ("n_iter_", "t_", "n_layers_", "n_outputs_"))
    assert estimator.best_loss_ is None
    assert estimator.best_validation_score_ == max(estimator.validation_scores_)
    assert not any(isinstance(value, torch.Tensor) for value in vars(estimator).values())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_module_gives_raw_predictions(name, activation, where, rtol):
    problem = PROBLEMS[name]
    estimator = fitted(problem, where, activation=activation)
    X = torch.from_numpy(problem.X.astype(where["dtype"]))
    raw = estimator.module_(X).detach().numpy()
    if hasattr(estimator, "decision_function"):
        expected = estimator.decision_function(problem.X).reshape(raw.shape)
    else:
        predicted = estimator.predict(problem.X).reshape(raw.shape)
        expected = np.log(predicted) if name == "poisson" else predicted
    np.testing.assert_allclose(raw, expected, rtol=10 * rtol, atol=rtol)


def test_module_lives_on_the_coefs(where):
    problem = PROBLEMS["multiclass"]
    estimator = fitted(problem, where)
    before = estimator.predict_proba(problem.X)
    module = estimator.module_
    assert isinstance(module, torch.nn.Sequential)
    with torch.no_grad():
        module[0].weight.mul_(0.5)
        module[-1].bias.add_(1.0)
    assert not np.allclose(estimator.predict_proba(problem.X), before)
    np.testing.assert_array_equal(estimator.coefs_[0].T, module[0].weight.detach())


def test_assigned_coefs_change_predictions(where):
    problem = PROBLEMS["regression"]
    estimator = fitted(problem, where)
    estimator.coefs_ = [np.zeros_like(coef) for coef in estimator.coefs_]
    estimator.intercepts_[-1] = np.array([2.5])
    np.testing.assert_allclose(estimator.predict(problem.X), 2.5)
    estimator.coefs_[0][:] = 1.0  # in place
    assert estimator.module_[0].weight.detach().eq(1).all()


@pytest.mark.parametrize(
    "assigned",
    [
        lambda coef: coef[::-1],
        lambda coef: coef.astype(">f8"),
        lambda coef: coef.astype(np.float16),
        lambda coef: coef.tolist(),
        lambda coef: np.broadcast_to(coef[:1], coef.shape),
    ],
)
def test_assigned_coefs_of_any_kind(assigned, where):
    problem = PROBLEMS["regression"]
    estimator = fitted(problem, where)
    estimator.coefs_[0] = assigned(estimator.coefs_[0])
    expected = estimator.predict(problem.X)
    X = torch.from_numpy(problem.X.astype(where["dtype"]))
    np.testing.assert_allclose(estimator.module_(X).detach()[:, 0], expected, rtol=1e-3, atol=1e-5)
    estimator.partial_fit(problem.X, problem.y)


def test_a_changed_loss_waits_for_the_next_fit(where):
    problem = PROBLEMS["poisson"]
    estimator = problem.ours(**FAST, **where).fit(problem.X, problem.y)
    before = estimator.predict(problem.X)
    estimator.set_params(loss="poisson", warm_start=True)
    np.testing.assert_array_equal(estimator.predict(problem.X), before)
    with pytest.raises(ValueError, match=r"must keep the output activation .*'identity', got loss='poisson'"):
        estimator.fit(problem.X, problem.y)
    assert estimator.set_params(warm_start=False).fit(problem.X, problem.y).out_activation_ == "exp"


def test_another_schedule_starts_at_the_initial_rate(where):
    problem = PROBLEMS["regression"]
    options = {**FAST, "solver": "sgd", "momentum": 0.0, "shuffle": False}
    decayed = problem.ours(**options, learning_rate="invscaling", power_t=1.0, **where).fit(problem.X, problem.y)
    fresh = copy.deepcopy(decayed).set_params(learning_rate="constant", warm_start=True, max_iter=1)
    decayed.set_params(learning_rate="constant").partial_fit(problem.X, problem.y)
    np.testing.assert_array_equal(decayed.coefs_[0], fresh.fit(problem.X, problem.y).coefs_[0])


@pytest.mark.parametrize("name", PROBLEMS)
def test_predictions_change_nothing(name, where):
    problem = PROBLEMS[name]
    estimator = fitted(problem, where)
    before = pickle.dumps(estimator)
    raw_prediction(estimator, problem.X)
    estimator.predict(problem.X)
    estimator.score(problem.X, problem.y)
    assert pickle.dumps(estimator) == before


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("copier", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy])
def test_copies_predict_and_go_on_alike(name, copier, where):
    problem = PROBLEMS[name]
    estimator = fitted(problem, where)
    twin = copier(estimator)
    np.testing.assert_array_equal(raw_prediction(twin, problem.X), raw_prediction(estimator, problem.X))
    for e in (estimator, twin):
        e.partial_fit(problem.X, problem.y)
    np.testing.assert_array_equal(raw_prediction(twin, problem.X), raw_prediction(estimator, problem.X))


@pytest.mark.parametrize(
    "y",
    [
        np.array(["b", "a", "c"]),
        np.array(["b", "a", "c"], dtype=object),
        np.array([3, -1, 7]),
        np.array([3, -1, 7], dtype=object),
        np.array([2.0, 1.0, 5.0]),
        np.array([2, 1, 5], dtype=np.uint8),
        np.array([True, False, True]),
        np.array([True, False, True], dtype=object),
        ["b", "a", "c"],
        [0, 1, 0],
    ],
    ids=str,
)
def test_labels_of_many_kinds(y, where, rng):
    X = rng.normal(size=(60, 4)) + 5 * np.eye(4)[np.arange(60) % 3]
    y = np.tile(y, 20) if isinstance(y, np.ndarray) else y * 20
    estimator = MLPTorchClassifier((10,), learning_rate_init=0.05, random_state=0, **where).fit(X, y)
    np.testing.assert_array_equal(estimator.classes_, np.unique(np.asarray(y).tolist()))
    assert estimator.score(X, np.asarray(np.asarray(y).tolist())) > 0.9
    assert set(estimator.predict(X)) <= set(np.asarray(y).tolist())


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_one_class_only_as_in_scikit_learn(solver, where, rng):
    X, y = rng.normal(size=(30, 3)), np.full(30, "only")
    ours = MLPTorchClassifier(**FAST, solver=solver, **where).fit(X, y)
    theirs = MLPClassifier(**FAST, solver=solver).fit(X, y)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-3)


def test_one_class_stops_early_as_in_scikit_learn(where, rng):
    X, y = rng.normal(size=(300, 3)), np.full(300, "only")
    options = {**FAST, "max_iter": 300, "early_stopping": True, "n_iter_no_change": 5}
    ours, theirs = MLPTorchClassifier(**options, **where).fit(X, y), MLPClassifier(**options).fit(X, y)
    assert ours.validation_scores_ == theirs.validation_scores_


@pytest.mark.parametrize("y", [np.ones(300), np.r_[np.ones(299), 2.0]], ids=["constant", "nearly constant"])
def test_constant_targets_stop_early_as_in_scikit_learn(y, where, rng):
    X = rng.normal(size=(300, 3))
    options = {**FAST, "max_iter": 100, "early_stopping": True, "n_iter_no_change": 5}
    ours, theirs = MLPTorchRegressor(**options, **where).fit(X, y), MLPRegressor(**options).fit(X, y)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "found"),
    [(csr_array, csr_array), (csc_array, csr_array), (csr_matrix, csr_matrix), (coo_matrix, csr_matrix)],
)
def test_sparse_multilabel_targets_come_back_sparse(given, found, where):
    problem = PROBLEMS["multilabel"]
    dense = fitted(problem, where)
    sparse = problem.ours(**FAST, **where).fit(problem.X, given(problem.y))
    predicted = pickle.loads(pickle.dumps(sparse)).predict(problem.X)
    assert type(predicted) is found
    np.testing.assert_array_equal(predicted.toarray(), dense.predict(problem.X))


@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel"])
def test_probabilities_belong_together(name, where):
    problem = PROBLEMS[name]
    estimator = fitted(problem, where)
    proba, log_proba = estimator.predict_proba(problem.X), estimator.predict_log_proba(problem.X)
    logits = estimator.decision_function(problem.X)
    np.testing.assert_allclose(np.log(proba), log_proba, rtol=1e-6, atol=1e-8)
    if name == "multilabel":
        np.testing.assert_array_equal(estimator.predict(problem.X), (proba > 0.5).astype(int))
        np.testing.assert_array_equal(logits > 0, proba > 0.5)
        return
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-14)
    np.testing.assert_array_equal(estimator.predict(problem.X), estimator.classes_[proba.argmax(1)])
    assert logits.shape == ((len(problem.X),) if name == "binary" else proba.shape)


@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel"])
def test_log_proba_is_finite_for_huge_logits(name, where):
    problem = PROBLEMS[name]
    estimator = fitted(problem, where)
    estimator.coefs_ = [coef * 1e4 for coef in estimator.coefs_]
    assert np.abs(estimator.decision_function(problem.X)).max() > 1e6
    assert np.isfinite(estimator.predict_log_proba(problem.X)).all()
    assert (estimator.predict_proba(problem.X) > 0).all()


# Where the optimum is known: no hidden layer is a linear model, an intercept alone a mean.
@pytest.mark.parametrize(
    ("name", "linear"),
    [
        ("binary", LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000)),
        ("multiclass", LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000)),
        ("regression", Ridge(alpha=2.0)),
        ("regression_many", Ridge(alpha=2.0)),
        ("poisson", PoissonRegressor(alpha=2.0 / 160, tol=1e-10, max_iter=10_000)),
    ],
)
def test_no_hidden_layer_is_the_linear_model(name, linear, where):
    problem = PROBLEMS[name]
    linear.fit(problem.X, problem.y)
    network = fitted(problem, where, hidden_layer_sizes=(), solver="lbfgs", alpha=2.0, tol=1e-10, max_iter=2000)
    np.testing.assert_allclose(
        raw_prediction(network, problem.X), raw_prediction(linear, problem.X), rtol=2e-4, atol=2e-5
    )


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("cls", [MLPTorchClassifier, MLPTorchRegressor])
def test_partial_fit_is_there_unless_lbfgs(cls, solver):
    assert hasattr(cls(solver=solver), "partial_fit")
    assert not hasattr(cls(solver="lbfgs"), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        cls(solver="lbfgs").partial_fit  # noqa: B018 (the access raises)


def test_partial_fit_honours_a_changed_rate(where):
    """scikit-learn keeps the rate of the first call; here parameters mean what they say (docs/decisions.md)."""
    problem = PROBLEMS["regression"]
    estimators = [problem.ours(**FAST, **where).partial_fit(problem.X, problem.y) for _ in range(2)]
    before = estimators[0].coefs_[0].copy()
    for estimator, rate in zip(estimators, (1e-3, 1e-9), strict=True):
        estimator.set_params(learning_rate_init=rate).partial_fit(problem.X, problem.y)
    assert not np.allclose(estimators[0].coefs_[0], before, atol=1e-5)
    np.testing.assert_allclose(estimators[1].coefs_[0], before, atol=1e-6)


def test_warm_start_from_one_solver_to_another(where):
    problem = PROBLEMS["multiclass"]
    estimator = fitted(problem, where, warm_start=True, solver="lbfgs")
    loss = estimator.loss_
    for solver in ("adam", "sgd", "lbfgs"):
        estimator.set_params(solver=solver, learning_rate_init=1e-4).fit(problem.X, problem.y)
        assert estimator.loss_ <= loss * 1.05


class TestWarnings:
    def test_max_iter(self, where):
        problem = PROBLEMS["multiclass"]
        with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\) reached"):
            problem.ours(max_iter=3, **where).fit(problem.X, problem.y)

    def test_lbfgs(self, where):
        problem = PROBLEMS["multiclass"]
        with pytest.warns(ConvergenceWarning, match=r"(?s)lbfgs failed to converge after 3 iteration.*max_iter=3"):
            problem.ours(max_iter=3, solver="lbfgs", **where).fit(problem.X, problem.y)

    def test_clipped_batch(self, where):
        problem = PROBLEMS["multiclass"]
        with pytest.warns(UserWarning, match="larger than sample size. It is going to be clipped"):
            problem.ours(**FAST, batch_size=1000, **where).fit(problem.X, problem.y)

    def test_points_at_the_caller(self, where):
        problem = PROBLEMS["multiclass"]
        with pytest.warns(ConvergenceWarning) as record:
            problem.ours(max_iter=3, **where).fit(problem.X, problem.y)
        assert [warning.filename for warning in record] == [__file__]


class TestInterrupt:
    """Ctrl-C keeps what was learned, with a warning."""

    @pytest.mark.parametrize("early_stopping", [False, True])
    @pytest.mark.parametrize("solver", ["adam", "sgd"])
    def test_in_the_middle_of_an_epoch(self, solver, early_stopping, where, monkeypatch):
        problem = PROBLEMS["multiclass"]
        rules = [cls for cls in Optimizer.__subclasses__() for cls in (cls, *cls.__subclasses__())]
        for rule in rules:
            monkeypatch.setattr(rule, "prepare", self._interrupting(rule.prepare, after=8))
        estimator = problem.ours(
            **FAST, solver=solver, early_stopping=early_stopping, batch_size=40, verbose=False, **where
        )
        with pytest.warns(UserWarning, match="interrupted"):
            estimator.fit(problem.X, problem.y)
        assert 1 <= estimator.n_iter_ == len(estimator.loss_curve_) <= 2
        assert estimator.predict(problem.X).shape == (len(problem.X),)
        assert torch.get_num_threads() >= 1

    def test_lbfgs(self, where, monkeypatch):
        import sk_mlp._training.lbfgs as module

        problem = PROBLEMS["multiclass"]
        search = module._Search
        monkeypatch.setattr(search, "_value_and_gradient", self._interrupting(search._value_and_gradient, after=9))
        with pytest.warns(UserWarning, match="interrupted"):
            estimator = fitted(problem, where, solver="lbfgs")
        assert 1 <= estimator.n_iter_ < 9
        assert estimator.loss_ == min(estimator.loss_curve_)

    @staticmethod
    def _interrupting(function, after):
        calls = []

        def wrapper(*args):
            calls.append(1)
            if len(calls) > after:
                raise KeyboardInterrupt
            return function(*args)

        return wrapper


def test_thread_count_is_restored_after_an_error(where, monkeypatch):
    before = torch.get_num_threads()
    problem = PROBLEMS["multiclass"]

    def fail(self):
        assert torch.get_num_threads() == 1
        raise RuntimeError("in the middle")

    for rule in Optimizer.__subclasses__():
        for cls in (rule, *rule.__subclasses__()):
            monkeypatch.setattr(cls, "prepare", fail)
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="in the middle"):
            fitted(problem, where)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_small_products_run_on_one_thread(solver, where, monkeypatch):
    """In training and in predictions, down to the smallest: a second thread costs more than it gives."""
    before, seen, forward = torch.get_num_threads(), set(), Forward.__call__

    def watched(self, inputs):
        seen.add(torch.get_num_threads())
        return forward(self, inputs)

    monkeypatch.setattr(Forward, "__call__", watched)
    torch.set_num_threads(2)
    try:
        fitted(PROBLEMS["multiclass"], where, solver=solver, hidden_layer_sizes=(2,)).predict(PROBLEMS["multiclass"].X)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_thread_count_of_other_threads_is_left_alone(where, monkeypatch):
    """Neither OpenMP's number nor MKL's, neither now nor later, of a thread that is there or of one to come."""
    before, found = torch.get_num_threads(), []
    go_on = [threading.Event(), threading.Event()]

    def look():
        mkl = re.search(r"mkl_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())
        found.append((torch.get_num_threads(), mkl and int(mkl[1])))

    def look_later():
        go_on[0].wait()
        look()
        go_on[1].wait()
        look()

    def step_watched(self):
        go_on[0].set()
        newcomer = threading.Thread(target=look)
        newcomer.start()
        newcomer.join()

    monkeypatch.setattr("sk_mlp._training.optimizers.SGD.prepare", step_watched)
    torch.set_num_threads(2)
    try:
        look()
        resident = threading.Thread(target=look_later)
        resident.start()
        fitted(PROBLEMS["multiclass"], where, solver="sgd", max_iter=1, batch_size=160)
        go_on[1].set()
        resident.join()
    finally:
        torch.set_num_threads(before)
    assert len(found) == 4
    assert set(found) == {found[0]}


@pytest.mark.parametrize("table", ["digits", "20,000 rows"])
def test_bfloat16_is_as_accurate(table, device):
    if table == "digits":
        X, y = load_digits(return_X_y=True)
        X = X / 16
    else:
        X, y = make_classification(20_000, 40, n_informative=20, n_classes=5, class_sep=1.5, random_state=0)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=0)
    accuracy = {
        dtype: MLPTorchClassifier(max_iter=25, random_state=0, device=device, dtype=dtype)
        .fit(X_train, y_train)
        .score(X_test, y_test)
        for dtype in ("float32", "bfloat16")
    }
    assert accuracy["float32"] > 0.9
    assert abs(accuracy["float32"] - accuracy["bfloat16"]) <= 0.005


def test_bfloat16_learns(device):
    problem = PROBLEMS["multiclass"]
    options = {"hidden_layer_sizes": (32,), "max_iter": 60, "random_state": 0, "learning_rate_init": 0.01}
    exact = problem.ours(**options, device=device).fit(problem.X, problem.y)
    rough = problem.ours(**options, device=device, dtype="bfloat16").fit(problem.X, problem.y)
    assert rough.coefs_[0].dtype == np.float32
    assert rough.predict_proba(problem.X).dtype == np.float64
    assert abs(exact.score(problem.X, problem.y) - rough.score(problem.X, problem.y)) < 0.05
    np.testing.assert_allclose(rough.loss_curve_[:5], exact.loss_curve_[:5], rtol=0.02)


@pytest.mark.parametrize("name", PROBLEMS)
def test_early_stopping_keeps_the_best_weights(name, where):
    problem = PROBLEMS[name]
    estimator = problem.ours(
        hidden_layer_sizes=(10,),
        early_stopping=True,
        max_iter=30,
        learning_rate_init=0.05,
        random_state=0,
        **problem.options,
        **where,
    )
    task, _ = task_of(estimator, Sample(problem.X, problem.y), Sample(None, None), FitMode(goes_on=False))
    estimator.fit(problem.X, problem.y)
    rows = task.validation.table.rows
    score = estimator.score(problem.X[rows], problem.y[rows])
    np.testing.assert_allclose(score, estimator.best_validation_score_, rtol=1e-4, atol=1e-6)


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


def test_values_for_another_parameter(where):
    for rate in (0.01, 1, np.float32(0.5)):
        with pytest.raises(ValueError, match=r"'learning_rate' .* Did you mean learning_rate_init=.*\?$"):
            MLPTorchClassifier(learning_rate=rate, **where).fit([[0.0], [1.0]], [0, 1])
    for sizes in (8, (8, 4), [8]):
        with pytest.raises(ValueError, match=r"'loss' .* Did you mean hidden_layer_sizes=.*\?$"):
            MLPTorchRegressor(sizes, **where).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match=r"'learning_rate' .* Got 'slow' instead.$"):
        MLPTorchClassifier(learning_rate="slow", **where).fit([[0.0], [1.0]], [0, 1])


UNREAD = [
    (MLPTorchRegressor, {"quantile": 0.9}, "quantile=0.9 has no effect without loss='quantile'"),
    (MLPTorchRegressor, {"loss": "huber", "quantile": 0.9}, "quantile=0.9 has no effect without loss='quantile'"),
    (MLPTorchRegressor, {"huber_delta": 2.0}, "huber_delta=2.0 has no effect without loss='huber'"),
    (MLPTorchClassifier, {"scoring": "accuracy"}, "scoring='accuracy' has no effect without rows to validate on"),
    (
        MLPTorchClassifier,
        {"scoring": "loss", "solver": "lbfgs", "early_stopping": True},
        "scoring='loss' has no effect without rows to validate on",
    ),
    (MLPTorchClassifier, {"weight_decay": 0.1}, "weight_decay=0.1 has no effect without solver='adamw'"),
    (
        MLPTorchClassifier,
        {"weight_decay": 0.1, "solver": torch.optim.AdamW},
        "weight_decay=0.1 has no effect without solver='adamw'",
    ),
    (
        MLPTorchClassifier,
        {"warmup_epochs": 3, "solver": "lbfgs"},
        "warmup_epochs=3 has no effect without a solver that",
    ),
    (MLPTorchClassifier, {"max_grad_norm": 1.0, "solver": "lbfgs"}, "max_grad_norm=1.0 has no effect without a solver"),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
class TestParametersThatNothingReads:
    X, y = PROBLEMS["binary"].X, np.arange(160) % 2

    @pytest.mark.parametrize(("cls", "options", "message"), UNREAD, ids=[case[2] for case in UNREAD])
    def test_are_warned_of(self, cls, options, message, where):
        with pytest.warns(UserWarning, match=message) as caught:
            cls(**{**FAST, **options}, **where).fit(self.X, self.y)
        assert [one.filename for one in caught if "no effect" in str(one.message)] == [__file__]

    @pytest.mark.parametrize(
        "options",
        [
            {"loss": "quantile", "quantile": 0.9}, {"loss": "huber", "huber_delta": 2.0}, {"quantile": 0.5},
            {"solver": "adamw", "weight_decay": 0.1}, {"early_stopping": True, "scoring": "r2"}, {"scoring": None},
            {"warmup_epochs": 3, "max_grad_norm": 1.0}, {"momentum": 0.5}, {"huber_delta": np.float64(1)},
        ],
    )  # fmt: skip
    def test_others_are_not(self, options, where):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            MLPTorchRegressor(**{**FAST, **options}, **where).fit(self.X, self.y)

    def test_a_scorer_of_some_calls_of_partial_fit(self, where):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clf = MLPTorchClassifier(**FAST, **where, scoring="accuracy")
            clf.partial_fit(self.X, self.y, classes=[0, 1]).partial_fit(self.X, self.y, X_val=self.X, y_val=self.y)
        assert len(clf.validation_scores_) == 1


PUBLIC = ("coefs_", "intercepts_", "n_features_in_", "n_outputs_", "out_activation_", "n_layers_")


def made_by_hand(fitted, **options):
    """An estimator that has never been fitted, with the public attributes of another."""
    made = type(fitted)(**{**fitted.get_params(), **options})
    for name in (*PUBLIC, *(["classes_"] if hasattr(fitted, "classes_") else [])):
        setattr(made, name, getattr(fitted, name))
    return made


class TestMadeByHand:
    """What federated learning does, and who loads weights from a file."""

    @pytest.mark.parametrize("name", PROBLEMS)
    def test_predicts(self, name, where):
        problem = PROBLEMS[name]
        expected = fitted(problem, where, activation="tanh")
        made = made_by_hand(expected)
        check_is_fitted(made)
        np.testing.assert_array_equal(made.predict(problem.X), expected.predict(problem.X))
        np.testing.assert_array_equal(raw_prediction(made, problem.X), raw_prediction(expected, problem.X))
        assert made.module_[0].weight.shape == (made.coefs_[0].shape[1], 8)
        assert len(made.history_["loss"]) == 0

    @pytest.mark.parametrize("name", PROBLEMS)
    def test_goes_on(self, name, where, unconverged):
        problem = PROBLEMS[name]
        expected = fitted(problem, where)
        start = [coef.copy() for coef in expected.coefs_]
        for again in (
            made_by_hand(expected).set_params(learning_rate_init=1e-12).partial_fit(problem.X, problem.y),
            made_by_hand(expected, warm_start=True, learning_rate_init=1e-12, max_iter=1).fit(problem.X, problem.y),
        ):
            for coef, before in zip(again.coefs_, start, strict=True):
                np.testing.assert_allclose(coef, before, atol=1e-6)
            assert len(again.loss_curve_) == 1

    def test_standard_deviations(self, where):
        problem = PROBLEMS["regression_many"]
        expected = fitted(problem, where, loss="gaussian_nll")
        found = made_by_hand(expected).predict(problem.X, return_std=True)
        np.testing.assert_array_equal(found, expected.predict(problem.X, return_std=True))

    @pytest.mark.parametrize("name", ["binary", "regression"])
    def test_half_made_is_not_fitted(self, name, where):
        problem = PROBLEMS[name]
        for missing in (*PUBLIC[:5], *(["classes_"] if name == "binary" else [])):
            made = made_by_hand(fitted(problem, where))
            delattr(made, missing)
            for call in (made.predict, check_is_fitted, lambda X, made=made: made.module_):
                with pytest.raises(NotFittedError):
                    call(made if call is check_is_fitted else problem.X)
            if missing not in ("coefs_", "intercepts_"):
                with pytest.raises(NotFittedError, match=rf"must come with \['{missing}'\] to predict without a fit"):
                    made.predict(problem.X)

    @pytest.mark.parametrize("network", [{"normalization": "batch"}, {"activation": [torch.nn.PReLU] * 2}])
    def test_a_network_with_a_state_needs_it(self, network, where):
        problem = PROBLEMS["regression"]
        expected = fitted(problem, where, **network)
        made = made_by_hand(expected)
        with pytest.raises(ValueError, match=r"module_state_ must hold \[.*\] of the network, got \[\]"):
            made.predict(problem.X)
        made.module_state_ = expected.module_state_
        np.testing.assert_array_equal(made.predict(problem.X), expected.predict(problem.X))

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            (
                "multiclass",
                {"classes_": np.array([2, 0, 1])},
                "must be different labels in ascending order, got .2 0 1",
            ),
            ("multiclass", {"classes_": np.arange(2)}, "must belong together, got 2 classes, 'softmax' and 3 output"),
            ("multiclass", {"out_activation_": "tanh"}, "must belong together, got 3 classes, 'tanh' and 3 output"),
            ("binary", {"classes_": np.arange(3)}, "must belong together, got 3 classes, 'logistic' and 1 output"),
            (
                "regression",
                {"out_activation_": "tanh"},
                r"must be among \['exp', 'identity'\], got 'tanh'",
            ),
            ("regression", {"coefs_": [np.ones((8, 2))]}, "coefs_ must be matrices that lead from 8 features to 1 out"),
        ],
    )
    def test_what_does_not_fit_together(self, name, change, message, where):
        made = made_by_hand(fitted(PROBLEMS[name], where))
        for attribute, value in change.items():
            setattr(made, attribute, value)
        with pytest.raises(ValueError, match=message):
            made.predict(PROBLEMS[name].X)


def test_standard_deviations_take_one_pass(where, monkeypatch):
    passes, X = [], PROBLEMS["regression"].X
    reg = fitted(PROBLEMS["regression"], where, loss="gaussian_nll")
    monkeypatch.setattr("sk_mlp._estimator.fitted.predict_rows", lambda *args: passes.append(1) or predict_rows(*args))
    mean, std = reg.predict(X, return_std=True)
    assert len(passes) == 1
    np.testing.assert_array_equal(mean, reg.predict(X))
    for part in (mean, std):
        assert part.shape == (160,)
        assert part.flags.c_contiguous


@pytest.mark.parametrize("network", [{}, {"normalization": "batch", "dropout": 0.1}])
def test_the_state_of_a_module_is_contiguous(network, where):
    """As safetensors asks for."""
    estimator = fitted(PROBLEMS["multiclass"], where, **network)
    module = estimator.module_
    state = module.state_dict()
    assert all(value.is_contiguous() for value in state.values())
    assert all(value.is_contiguous() for value in torch.nn.ModuleList([module]).state_dict().values())
    np.testing.assert_array_equal(state["0.weight"], estimator.coefs_[0].T)
    module.load_state_dict({name: torch.zeros_like(value) for name, value in state.items()})
    assert (estimator.coefs_[0] == 0).all()
    kept = module.state_dict(keep_vars=True)
    assert kept["0.weight"] is module[0].weight
