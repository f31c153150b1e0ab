"""What a fitted estimator has: plain values, a module on the same memory, and weights that may be assigned."""

import copy
import pickle

import numpy as np
import pytest
import torch
from marking import slow_but
from problems import PROBLEMS, raw_prediction
from small_fits import fitted

from sk_mlp._estimator.fitting import task_of
from sk_mlp._estimator.reading import FitMode, Sample
from sk_mlp._network.activations import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("unconverged")


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
@pytest.mark.parametrize("name", slow_but(["multiclass"], PROBLEMS))
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
