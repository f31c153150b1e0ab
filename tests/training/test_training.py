"""A stack trains as its members do alone, and leaves its tasks as they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from marking import slow_but
from problems import PROBLEMS
from scipy.sparse import csr_array

from sk_mlp._estimator.fitting import task_of
from sk_mlp._estimator.reading import FitMode, Sample
from sk_mlp._network.closed_form import ClosedForm
from sk_mlp._network.init import draw_weights
from sk_mlp._network.layout import Layout
from sk_mlp._network.network import Buffers, pack
from sk_mlp._network.values import Weights
from sk_mlp._training import epochs as epochs_module
from sk_mlp._training import optimizers as _optimizers
from sk_mlp._training.loop import train
from sk_mlp._training.run import stack_key
from sk_mlp._training.task import Status, Table, Validation

CALL = FitMode(goes_on=False)
# What may differ between the members of one stack; one dict a member.
MEMBERS = {
    "adam": [
        {},
        {"learning_rate_init": 0.03, "alpha": 1.0},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-4},
        {"random_state": 7, "max_iter": 4},
        {"n_iter_no_change": 1, "tol": 0.1},
        {"shuffle": False},
    ],
    "sgd": [
        {},
        {"momentum": 0.3, "alpha": 0.5},
        {"nesterovs_momentum": False, "learning_rate_init": 0.05},
        {"learning_rate": "invscaling", "power_t": 0.2},
        {"learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 0.05},
        {"max_iter": 3, "random_state": 4},
    ],
}


def tasks(problem, solver, where, weighted, early_stopping):
    """Return one task a member, over three data sets of unequal size, each shared by two; one never stops early."""
    rng = np.random.RandomState(1)
    inputs = [problem.X[:150], problem.X[:147] + 0.1, problem.X[:141].copy()]
    made = []
    for i, options in enumerate(MEMBERS[solver]):
        common = {"hidden_layer_sizes": (6, 5), "max_iter": 12, "batch_size": 50, "random_state": 0}
        rates = {"learning_rate_init": 0.01, "solver": solver, "early_stopping": early_stopping and i != 3}
        estimator = problem.ours(**{**problem.options, **common, **rates, **options}, **where)
        X = inputs[i % 3]
        weight = rng.uniform(0, 2, len(X)) if weighted and i % 2 else None
        made.append(task_of(estimator, Sample(X, problem.y[: len(X)], weight), Sample(None, None), CALL)[0])
    return made


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", MEMBERS)
@pytest.mark.parametrize("name", slow_but(["multiclass"], PROBLEMS))
def test_stack_is_its_members_alone(name, solver, weighted, early_stopping, where, rtol):
    problem = PROBLEMS[name]
    together = train(tasks(problem, solver, where, weighted, early_stopping))
    alone = [train([task])[0] for task in tasks(problem, solver, where, weighted, early_stopping)]
    assert len({result.n_iter for result in alone}) > 1  # members end at different epochs
    assert len({stack_key(task) for task in tasks(problem, solver, where, weighted, early_stopping)}) == 1
    for ours, expected in zip(together, alone, strict=True):
        assert (ours.n_iter, ours.status, ours.message) == (expected.n_iter, expected.status, expected.message)
        np.testing.assert_allclose(ours.state.parameters, expected.state.parameters, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(ours.progress.history.loss, expected.progress.history.loss, rtol=rtol)
        scores, expected_scores = (one.progress.history.where_scored("validation_score") for one in (ours, expected))
        np.testing.assert_allclose(scores, expected_scores, atol=rtol)


def test_sparse_stack_is_its_members_alone(where, rtol):
    def sparse(task):
        table = task.table._replace(X=csr_array(task.table.X))
        validation = task.validation and Validation(task.validation.table._replace(X=table.X))
        return replace(task, table=table, validation=validation)

    problem = PROBLEMS["multiclass"]
    made = [sparse(task) for task in tasks(problem, "adam", where, True, True)]
    alone = [sparse(task) for task in tasks(problem, "adam", where, True, True)]
    for ours, task in zip(train(made), alone, strict=True):
        np.testing.assert_allclose(ours.state.parameters, train([task])[0].state.parameters, rtol=rtol, atol=rtol)


def test_a_stack_validates_in_chunks(where, rtol, monkeypatch):
    """Members of unequal size, one without validation rows."""
    found = []
    for n_bytes in (16 * 2**20, 3000):
        monkeypatch.setattr("sk_mlp._training.validation._VALIDATION_BYTES", n_bytes)
        made = tasks(PROBLEMS["multiclass"], "adam", where, True, True)
        assert {task.validation is None for task in made} == {True, False}
        found.append([result.progress.history for result in train(made)])
    for at_once, in_chunks in zip(*found, strict=True):
        for name in ("validation_loss", "validation_score"):
            np.testing.assert_allclose(at_once.where_scored(name), in_chunks.where_scored(name), rtol=rtol)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rows_that_nobody_trains_on_change_nothing(order, where, rtol):
    """The unweighted of two members trains on the second half of twice the rows."""
    alone, together = ([tasks(PROBLEMS["multiclass"], "adam", where, True, False)[i] for i in order] for _ in range(2))
    for i, task in enumerate(together):
        X, target, weight, rows, _ = task.table
        if weight is None:
            twice = Table(np.vstack([X, X]), np.vstack([target, target]), None, rows + len(X))
            together[i] = replace(task, table=twice)
    for ours, expected in zip(train(together), train(alone), strict=True):
        np.testing.assert_allclose(ours.state.parameters, expected.state.parameters, rtol=rtol, atol=rtol)


def test_a_task_is_left_as_it_was(where):
    task = tasks(PROBLEMS["multiclass"], "adam", where, True, False)[0]
    parameters, X, target = task.parameters.copy(), task.table.X.copy(), task.table.target.copy()
    train([task])
    np.testing.assert_array_equal(task.parameters, parameters)
    np.testing.assert_array_equal(task.table.X, X)
    np.testing.assert_array_equal(task.table.target, target)


def test_two_runs_give_the_same_bits(where):
    first, second = (train(tasks(PROBLEMS["multiclass"], "adam", where, True, True)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.state.parameters, b.state.parameters)


@pytest.mark.parametrize("k", [1, 3])
def test_layout_joins_and_parts(k, rng):
    sizes = (4, 3, 2)
    network = ClosedForm(sizes, (), ())
    drawn = [draw_weights(sizes, "glorot_uniform", (6.0, 6.0), rng, np.float64) for _ in range(k)]
    packed = [torch.from_numpy(pack(network.arrays(weights), np.float64)) for weights in drawn]
    layout = Layout.of_layers(sizes, k)
    flat = layout.join(packed)
    for i, vector in enumerate(packed):
        assert torch.equal(layout.member(flat, i), vector)
        fitted = network.attributes(vector.numpy(), {})
        coefs, intercepts = fitted["coefs_"], fitted["intercepts_"]
        (*hidden_coefs, output_coef), (*hidden_intercepts, output_intercept) = layout.layers(flat)
        for block, coef in zip([*hidden_coefs, output_coef.mT], coefs, strict=True):
            np.testing.assert_array_equal(block[i], coef)
        for block, intercept in zip([*hidden_intercepts, output_intercept.mT], intercepts, strict=True):
            np.testing.assert_array_equal(block[i, 0], intercept)
        np.testing.assert_array_equal(pack(network.arrays(Weights(coefs, intercepts, {})), np.float64), vector)
        squares = sum(piece[i].square().sum() for piece in layout.coef_pieces(flat))
        np.testing.assert_allclose(squares, sum((coef**2).sum() for coef in coefs))


def test_spread_gives_each_member_its_value():
    layout = Layout.of_layers((4, 3, 2), 3)
    values = layout.spread([1.0, 2.0, 3.0], torch.empty(0))
    for i in range(3):
        assert (layout.member(values, i) == i + 1).all()
    assert layout.spread([0.5, 0.5, 0.5], torch.empty(0)) == 0.5


@pytest.mark.parametrize("rates", [[0.01, 0.01], [0.01, 0.002]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_adam_is_the_written_rule(dtype, rates, rng, device):
    settings = [
        tasks(PROBLEMS["regression"], "adam", {"device": "cpu", "dtype": "float64"}, False, False)[2].settings
    ] * 2
    layout = Layout.of_layers((30, 20, 3), 2)
    start = torch.from_numpy(rng.normal(size=2 * layout.n_parameters)).to(device, dtype)
    gradients = [torch.from_numpy(rng.normal(size=start.numel())).to(start) for _ in range(20)]
    ends = []
    for rule in (_optimizers.Adam, _optimizers.FusedAdam):
        parameters, gradient = start.clone(), torch.empty_like(start)
        optimizer = rule(Buffers(layout, parameters, gradient), settings, [{}, {}])
        optimizer.set_rates(rates)
        for values in gradients:
            gradient.copy_(values)
            optimizer.step()
        ends.append((parameters, optimizer.state(1)))
    torch.testing.assert_close(ends[0][0], ends[1][0])
    for name, value in ends[0][1].items():
        np.testing.assert_allclose(ends[1][1][name], value, rtol=1e-5)


def test_adam_is_torch_adam(rng):
    """The rate of scikit-learn's form and epsilon / sqrt(1 - beta_2**t) in PyTorch's are one rule."""
    settings = tasks(PROBLEMS["regression"], "adam", {"device": "cpu", "dtype": "float64"}, False, False)[0].settings
    settings = replace(settings, epsilon=1e-16)  # where the two forms of epsilon no longer matter
    layout = Layout.of_layers((6, 5), 1)
    parameters = torch.from_numpy(rng.normal(size=layout.n_parameters))
    expected = parameters.clone().requires_grad_()
    gradient = torch.empty_like(parameters)
    ours = _optimizers.Adam(Buffers(layout, parameters, gradient), [settings], [{}])
    ours.set_rates([0.01])
    theirs = torch.optim.Adam([expected], lr=0.01, eps=1e-16)
    for _ in range(10):
        gradient.copy_(torch.from_numpy(rng.normal(size=gradient.shape)))
        expected.grad = gradient.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(parameters, expected.detach())


def test_each_status_has_a_message():
    settings = tasks(PROBLEMS["regression"], "adam", {"device": "cpu", "dtype": "float64"}, False, False)[0].settings
    for status in Status:
        assert "{" not in status.message(settings)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"batch_size": 33}], ids=str)
def test_rows_are_the_same_by_long_indices(options, monkeypatch, unconverged):
    """Half as long ones serve as far as they reach."""
    problem = PROBLEMS["multiclass"]

    def curve():
        return (
            problem.ours(**{"max_iter": 5, "random_state": 0, "device": "cpu", **options})
            .fit(problem.X, problem.y)
            .loss_curve_
        )

    short = curve()
    monkeypatch.setattr(epochs_module, "_LEAST_LONG", 0)
    assert curve() == short
