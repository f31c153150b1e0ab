"""What goes beyond scikit-learn's MLP: each option against a known answer, and all of them with everything else."""

import pickle
import re
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from problems import PROBLEMS, raw_prediction
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer, mean_absolute_error
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn.functional import cross_entropy

from sk_mlp import MLPTorchClassifier, MLPTorchRegressor, stacking
from sk_mlp._network.autograd import WeightedBatchNorm
from sk_mlp._network.dropout import Masks, hash_rows
from sk_mlp._network.init import INITIALISATIONS, draw_weights
from sk_mlp._objective import REGRESSION_LOSSES
from sk_mlp._training.schedules import SCHEDULES

pytestmark = pytest.mark.usefixtures("unconverged")
FAST = {"hidden_layer_sizes": (6, 5), "max_iter": 8, "batch_size": 50, "random_state": 0, "learning_rate_init": 0.01}


class Residual(nn.Module):
    """One hidden layer with dropout beside a linear one."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.skip = nn.Linear(n_features, n_outputs)
        self.deep = nn.Sequential(nn.Linear(n_features, 7), nn.ReLU(), nn.Dropout(0.2), nn.Linear(7, n_outputs))

    def forward(self, X):
        return self.skip(X) + self.deep(X)


def tenth_after_three(epoch):
    return 1.0 if epoch < 3 else 0.1


def absolute(raw, target):
    return (raw - target).abs().sum(1)


def plain_cross_entropy(raw, target):
    return cross_entropy(raw, target, reduction="none")


# An option, the problems it is for, and the networks that train together in a search.
OPTIONS = {
    "dropout": {"dropout": 0.3},
    "dropout, one each": {"dropout": (0.5, 0.0)},
    "layer normalization": {"normalization": "layer"},
    "batch normalization": {"normalization": "batch", "dropout": 0.1},
    "activations": {"activation": ("tanh", "silu")},
    "activation module": {"activation": nn.PReLU},
    "activation factories": {"activation": (nn.Tanh, "relu"), "dropout": 0.2},
    "module": {"module": Residual},
    "he_normal": {"init": "he_normal"},
    "adamw": {"solver": "adamw", "weight_decay": 0.5},
    "torch optimizer": {"solver": torch.optim.RMSprop, "solver_kwargs": {"momentum": 0.9}},
    "cosine": {"learning_rate": "cosine", "warmup_epochs": 2},
    "one_cycle": {"learning_rate": "one_cycle", "solver": "sgd"},
    "plateau": {"learning_rate": "plateau", "n_iter_no_change": 1, "tol": 1.0},
    "callable schedule": {"learning_rate": tenth_after_three},
    "max_grad_norm": {"max_grad_norm": 0.05, "solver": "sgd"},
    "max_time": {"max_time": 1e6},
    "scoring": {"scoring": "loss"},
}
OF_ONE = {
    "class_weight": ("classifier", {"class_weight": {10: 3.0}}),
    "label_smoothing": ("classifier", {"label_smoothing": 0.2}),
    "classifier's own loss": ("classifier", {"loss": plain_cross_entropy}),
    "regressor's own loss": ("regressor", {"loss": absolute}),
    **{f"loss={name}": ("regressor", {"loss": name}) for name in sorted(REGRESSION_LOSSES - {"quantile"})},
    "loss=quantile": ("regressor", {"loss": "quantile", "quantile": 0.7}),
}
CASES = [(name, task, options) for name, options in OPTIONS.items() for task in ("classifier", "regressor")]
CASES += [(name, task, options) for name, (task, options) in OF_ONE.items()]
TRAIN_ALONE = {
    "layer normalization", "batch normalization", "activation module", "activation factories", "module",
    "torch optimizer",
}  # fmt: skip


def estimator(task, where, **options):
    return (MLPTorchClassifier if task == "classifier" else MLPTorchRegressor)(**{**FAST, **options, **where})


def data(task):
    """Three classes, or values that any regression loss takes."""
    problem = PROBLEMS["multiclass"]
    return problem.X, problem.y if task == "classifier" else np.exp(PROBLEMS["regression"].y)


def state(fitted):
    """All of a network's numbers."""
    arrays = [*getattr(fitted, "coefs_", []), *getattr(fitted, "intercepts_", [])]
    return [*arrays, *getattr(fitted, "module_state_", {}).values()]


def assert_same(ours, expected, rtol):
    assert len(state(ours)) == len(state(expected)) > 0
    for a, b in zip(state(ours), state(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


ALL = pytest.mark.parametrize(("name", "task", "options"), CASES, ids=[f"{name}, {task}" for name, task, _ in CASES])


@ALL
@pytest.mark.filterwarnings("ignore:scoring='loss' has no effect")  # most of these have no rows to validate on
class TestWithEverythingElse:
    def test_learns_and_differs_from_the_default(self, name, task, options, where):
        X, y = data(task)
        fitted = estimator(task, where, **{**options, "max_iter": 40}).fit(X, y)
        plain = estimator(task, where, max_iter=40).fit(X, y)
        assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
        unlike = not np.allclose(raw_prediction(fitted, X), raw_prediction(plain, X))
        assert unlike or name in ("max_time", "scoring", "loss=squared_error", "classifier's own loss")

    def test_two_runs_give_the_same_bits(self, name, task, options, where):
        X, y = data(task)
        first, second = (estimator(task, where, **options).fit(X, y) for _ in range(2))
        assert_same(first, second, 0)

    def test_pickles_go_on_alike(self, name, task, options, where, rtol):
        X, y = data(task)
        fitted = estimator(task, where, **options).fit(X, y)
        copied = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(raw_prediction(copied, X), raw_prediction(fitted, X))
        assert_same(copied.partial_fit(X, y), fitted.partial_fit(X, y), rtol)
        assert all(isinstance(array, np.ndarray) for array in state(fitted))

    def test_partial_fits_are_a_fit(self, name, task, options, where, rtol):
        """Without shuffling, and but for what a fit does with its own end in view."""
        X, y = data(task)
        options = {**options, "shuffle": False, "tol": 0.0, "n_iter_no_change": 100}
        whole = estimator(task, where, **options).fit(X, y)
        parts = estimator(task, where, **options)
        for _ in range(whole.n_iter_):
            parts.partial_fit(X, y, **({"classes": np.unique(y)} if task == "classifier" else {}))
        if options.get("module") is Residual:  # its dropout draws from PyTorch, anew in each call
            assert parts.loss_curve_[0] == pytest.approx(whole.loss_curve_[0])
        else:
            assert_same(parts, whole, rtol)
            np.testing.assert_allclose(parts.history_["learning_rate"], whole.history_["learning_rate"])

    def test_warm_start_goes_on(self, name, task, options, where):
        X, y = data(task)
        fitted = estimator(task, where, **options, warm_start=True).fit(X, y)
        loss, n = fitted.loss_curve_[-1], fitted.n_iter_
        fitted.fit(X, y)
        assert len(fitted.loss_curve_) == n + fitted.n_iter_
        assert fitted.loss_curve_[n] < 1.5 * loss + 0.1

    def test_weights_are_repetitions(self, name, task, options, where, rtol):
        """At full batch: a weight of 0 is the row removed, of 2 the row twice."""
        X, y = data(task)
        weight = np.arange(len(y)) % 3
        options = {**options, "batch_size": "auto", "shuffle": False, "max_iter": 5}
        weighted = estimator(task, where, **options).fit(X, y, sample_weight=weight)
        repeated = estimator(task, where, **options).fit(X.repeat(weight, 0), y.repeat(weight))
        if options.get("module") is not Residual:  # its dropout draws for each row
            np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=100 * rtol)
            np.testing.assert_allclose(raw_prediction(weighted, X), raw_prediction(repeated, X), rtol=1e-5)

    def test_sparse_rows_are_dense_ones(self, name, task, options, where, rtol):
        X, y = data(task)
        X = np.where(X > 0, X, 0)
        dense, sparse = (estimator(task, where, **options).fit(rows, y) for rows in (X, csr_array(X)))
        assert_same(sparse, dense, rtol)
        np.testing.assert_allclose(raw_prediction(sparse, csr_array(X)), raw_prediction(dense, X), rtol=rtol)

    def test_a_stack_is_its_members_alone(self, name, task, options, where, rtol, monkeypatch):
        X, y = data(task)
        members = [
            estimator(task, where, **{**options, "random_state": seed, "alpha": alpha, "early_stopping": early})
            for seed, alpha, early in ((0, 0.0, False), (1, 0.1, True), (2, 1.0, True))
        ]
        sizes, train = [], stacking.train
        monkeypatch.setattr(stacking, "train", lambda tasks: sizes.append(len(tasks)) or train(tasks))
        rows = [np.arange(150), np.arange(160), np.arange(2, 160)]  # three batches each, of what is not held out
        with parallel_config("sk_mlp"):
            together = Parallel()(delayed(clone(m).fit)(X[r], y[r]) for m, r in zip(members, rows, strict=True))
        assert sizes == ([1, 1, 1] if name in TRAIN_ALONE else [3])
        for ours, member, r in zip(together, members, rows, strict=True):
            alone = clone(member).fit(X[r], y[r])
            assert ours.n_iter_ == alone.n_iter_
            assert_same(ours, alone, rtol)
            for key in ("loss", "validation_loss", "validation_score", "learning_rate", "gradient_norm"):
                np.testing.assert_allclose(ours.history_[key], alone.history_[key], rtol=1e-6, atol=1e-9)

    def test_module_gives_raw_predictions(self, name, task, options, where, rtol):
        X, y = data(task)
        fitted = estimator(task, where, **options).fit(X, y)
        raw = fitted.module_(torch.from_numpy(X.astype(where["dtype"]))).detach().numpy()
        if task == "classifier":
            expected = fitted.decision_function(X)
        else:
            expected = fitted.predict(X)[:, None]
            expected = np.log(expected) if fitted.out_activation_ == "exp" else expected
        np.testing.assert_allclose(raw[:, : expected.shape[1]], expected, rtol=10 * rtol, atol=rtol)


class TestDropout:
    def masks(self, rate, n=4000, widths=(3, 5), epoch=0, seed=1):
        hashes = hash_rows(np.random.default_rng(0).normal(size=(n, 4)))
        made = Masks(widths, np.array([[rate] * len(widths)]), [seed], hashes, torch.float64, torch.device("cpu"))
        return [mask[0].numpy() for mask in next(made.draw(np.arange(n).reshape(1, 1, n), [epoch], 1))]

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_share_scale_and_independence(self, rate):
        """Each unit drops its share, kept values are scaled to a mean of 1, and no two units drop together."""
        mask = np.concatenate(self.masks(rate), axis=1)
        kept = mask > 0
        np.testing.assert_allclose(mask[kept], 1 / (1 - rate), rtol=1e-4)
        np.testing.assert_allclose(kept.mean(0), 1 - rate, atol=5 * np.sqrt(rate * (1 - rate) / len(mask)))
        assert np.abs(np.corrcoef(kept.T) - np.eye(8)).max() < 5 / np.sqrt(len(mask))
        assert abs(np.corrcoef(kept[1:, 0], kept[:-1, 0])[0, 1]) < 5 / np.sqrt(len(mask))

    def test_epochs_and_seeds_differ(self):
        first = self.masks(0.5)[0]
        for other in (self.masks(0.5, epoch=1)[0], self.masks(0.5, seed=2)[0]):
            assert 0.4 < (first == other).mean() < 0.6

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_hash_tells_rows_apart_and_not_their_storage(self, dtype):
        X = np.random.default_rng(0).integers(0, 3, size=(500, 9)).astype(dtype)
        np.testing.assert_array_equal(hash_rows(np.where(X == 0, -0.0, X).astype(dtype)), hash_rows(X))
        grid = np.stack(np.meshgrid(*[[-1.0, 0, 1, 2, 0.5, 1000]] * 5), -1).reshape(-1, 5).astype(dtype)
        assert len(np.unique(hash_rows(grid))) == len(grid)
        hashes = hash_rows(X)
        assert len(np.unique(hashes)) == len(np.unique(X, axis=0))
        np.testing.assert_array_equal(hash_rows(csr_array(X)), hashes)
        np.testing.assert_array_equal(hash_rows(np.tile(X, (200, 1)))[-500:], hashes)  # over several chunks

    def test_none_draws_nothing(self, where):
        """The rows are shuffled and split as without it: only the masks differ."""
        X, y = data("classifier")
        tasks = [estimator("classifier", where, dropout=d, early_stopping=True).fit(X, y) for d in (0.0, 1e-6)]
        np.testing.assert_allclose(tasks[0].coefs_[0], tasks[1].coefs_[0], rtol=1e-4)

    @pytest.mark.parametrize("activation", ["tanh", "gelu", "relu"])
    def test_closed_form_and_modules_drop_alike(self, activation, where, rtol):
        modules = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}
        X, y = data("classifier")
        options = {"dropout": (0.4, 0.1), "early_stopping": True}
        closed = estimator("classifier", where, activation=activation, **options).fit(X, y)
        through = estimator("classifier", where, activation=modules[activation], **options).fit(X, y)
        np.testing.assert_allclose(through.loss_curve_, closed.loss_curve_, rtol=rtol)
        for a, b in zip(through.coefs_, closed.coefs_, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)

    @pytest.mark.parametrize("widths", [(6, 5), (6, 6)])
    def test_modules_drop_in_the_right_layer(self, widths, where, rtol):
        X, y = data("classifier")
        options = {"dropout": (0.0, 0.5), "hidden_layer_sizes": widths}
        closed = estimator("classifier", where, activation="tanh", **options).fit(X, y)
        through = estimator("classifier", where, activation=nn.Tanh, **options).fit(X, y)
        np.testing.assert_allclose(through.loss_curve_, closed.loss_curve_, rtol=rtol)

    def test_rates_next_to_one(self, where):
        X, y = data("regressor")
        fitted = estimator("regressor", where, dropout=np.nextafter(1, 0), max_iter=2).fit(X, y)
        assert np.isfinite(fitted.coefs_[0]).all()

    def test_predictions_drop_nothing(self, where):
        X, y = data("classifier")
        fitted = estimator("classifier", where, dropout=0.5).fit(X, y)
        assert any(isinstance(layer, nn.Dropout) for layer in fitted.module_)
        np.testing.assert_array_equal(fitted.predict_proba(X), fitted.predict_proba(X))


class TestNormalization:
    def test_module_is_of_pytorch_alone(self, where):
        X, y = data("classifier")
        for normalization, kind in (("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)):
            fitted = estimator("classifier", where, normalization=normalization, dropout=0.1).fit(X, y)
            kinds = [type(layer) for layer in fitted.module_]
            assert kinds == [nn.Linear, kind, nn.ReLU, nn.Dropout] * 2 + [nn.Linear]
            assert pickle.loads(pickle.dumps(fitted.module_)).state_dict().keys() == fitted.module_.state_dict().keys()

    def test_batch_statistics_are_pytorchs(self, rng):
        """Values and gradients of a batch; running variances are the biased ones."""
        x = torch.from_numpy(rng.normal(size=(20, 3)) * 5 + 2).requires_grad_()
        ours, theirs = WeightedBatchNorm(3).double(), nn.BatchNorm1d(3).double()
        for norm in (ours, theirs):
            nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(0))
        weight = torch.from_numpy(rng.normal(size=(20, 3)))
        gradients = []
        for norm in (ours, theirs):
            out = norm(x)
            gradients.append((out, *torch.autograd.grad((out * weight).sum(), [x, norm.weight, norm.bias])))
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var - 0.9, (theirs.running_var - 0.9) * 19 / 20)

    def test_weights_count_as_repetitions(self, rng):
        x = torch.from_numpy(rng.normal(size=(6, 3)))
        counts = torch.tensor([1, 2, 3, 0, 1, 1])
        weighted, repeated = WeightedBatchNorm(3).double(), WeightedBatchNorm(3).double()
        weighted.share = (counts / counts.sum()).unsqueeze(1)
        torch.testing.assert_close(weighted(x).repeat_interleave(counts, 0), repeated(x.repeat_interleave(counts, 0)))
        torch.testing.assert_close(weighted.running_var, repeated.running_var)

    def test_a_batch_without_weight_is_forgotten(self, where):
        """Rows of weight 0 fill whole batches and leave no trace in the running statistics."""
        X, y = data("regressor")
        options = {"normalization": "batch", "batch_size": 20, "shuffle": False, "solver": "sgd", "momentum": 0.0}
        weighted = estimator("regressor", where, **options).fit(X + 100, y, np.arange(160) < 40)
        alone = estimator("regressor", where, **options).fit(X[:40] + 100, y[:40])
        running = [fitted.module_state_["1.running_mean"] for fitted in (weighted, alone)]
        np.testing.assert_allclose(*running, rtol=1e-9)

    @pytest.mark.parametrize("batch_size", [1, 53])
    def test_a_batch_of_one_row(self, batch_size, where):
        """160 rows in batches of 53 leave one."""
        X, y = data("regressor")
        fitted = estimator("regressor", where, normalization="batch", batch_size=batch_size).fit(X, y)
        assert all(np.isfinite(array).all() for array in state(fitted))

    def test_running_statistics_predict_and_stop_early_with_the_best(self, where):
        X, y = data("classifier")
        fitted = estimator(
            "classifier", where, normalization="batch", early_stopping=True, max_iter=60, validation_fraction=0.4
        ).fit(X, y, X_val=X, y_val=y)
        np.testing.assert_allclose(fitted.score(X, y), fitted.best_validation_score_)
        assert {"1.running_mean", "1.running_var", "1.weight"} <= set(fitted.module_state_)


class TestActivations:
    def test_a_sequence_is_one_each(self, where):
        X, y = data("classifier")
        fitted = estimator("classifier", where, activation=["tanh", "gelu"]).fit(X, y)
        assert [type(layer) for layer in fitted.module_][1::2] == [nn.Tanh, nn.GELU]
        same = estimator("classifier", where, activation=["tanh", "tanh"]).fit(X, y)
        assert_same(same, estimator("classifier", where, activation="tanh").fit(X, y), 0)

    def test_parameters_of_a_module_are_trained(self, where):
        X, y = data("classifier")
        fitted = estimator("classifier", where, activation=nn.PReLU, learning_rate_init=0.1).fit(X, y)
        assert fitted.module_state_["1.weight"].shape == (1,)
        assert abs(fitted.module_state_["1.weight"][0] - 0.25) > 1e-3
        assert isinstance(fitted.module_[1], nn.PReLU)

    def test_what_a_module_draws_is_seeded(self, where):
        class Scale(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.randn(1))

            def forward(self, x):
                return torch.tanh(x) * self.scale

        X, y = data("classifier")
        before = torch.get_rng_state()
        first, second = (estimator("classifier", where, activation=Scale).fit(X, y) for _ in range(2))
        assert_same(first, second, 0)
        first.predict(X)
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
    @pytest.mark.parametrize("name", PROBLEMS)
    def test_autograd_trains_the_same_network(self, name, solver, where, rtol):
        problem, tanh = PROBLEMS[name], {}
        for activation in ("tanh", nn.Tanh):
            options = {**FAST, **problem.options, "solver": solver, "max_iter": 10}
            tanh[activation] = problem.ours(**options, activation=activation, **where).fit(problem.X, problem.y)
        closed, through = tanh.values()
        np.testing.assert_allclose(through.loss_curve_, closed.loss_curve_, rtol=rtol)
        for a, b in zip(through.coefs_ + through.intercepts_, closed.coefs_ + closed.intercepts_, strict=True):
            np.testing.assert_allclose(a, b, rtol=100 * rtol, atol=100 * rtol)


class TestInit:
    @pytest.mark.parametrize("init", INITIALISATIONS)
    def test_scale_and_intercepts(self, init):
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

    def test_torch_is_nn_linears(self):
        linear = nn.Linear(400, 300)
        sizes = (400, 300)
        coefs, intercepts, _ = draw_weights(sizes, "torch", (6.0,), np.random.RandomState(0), np.float64)
        for ours, theirs in ((coefs[0], linear.weight), (intercepts[0], linear.bias)):
            np.testing.assert_allclose(np.abs(ours).max(), theirs.abs().max().item(), rtol=0.02)
            np.testing.assert_allclose(ours.std(), theirs.std().item(), rtol=0.1)


class TestModule:
    def test_replaces_the_network_alone(self, where):
        X, y = data("classifier")
        fitted = estimator("classifier", where, module=Residual, early_stopping=True).fit(X, y)
        assert isinstance(fitted.module_, Residual)
        assert not hasattr(fitted, "coefs_")
        assert set(fitted.module_state_) == set(Residual(8, 3).state_dict())
        assert fitted.predict_proba(X).shape == (160, 3)
        assert fitted.set_params(module=None).fit(X, y).coefs_[0].shape == (8, 6)
        assert not hasattr(fitted, "module_state_")

    def test_linear_module_is_logistic_regression(self, where):
        X, y = data("classifier")
        options = {"alpha": 1.0, "max_iter": 1000, "tol": 1e-10, "solver": "lbfgs"}
        fitted = estimator("classifier", {**where, "dtype": "float64"}, module=nn.Linear, **options).fit(X, y)
        expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(X, y)
        np.testing.assert_allclose(fitted.predict_proba(X), expected.predict_proba(X), atol=1e-4)

    def test_its_memory_is_the_states(self, where):
        X, y = data("regressor")
        fitted = estimator("regressor", where, module=Residual).fit(X, y)
        before = fitted.predict(X)
        with torch.no_grad():
            fitted.module_.skip.bias.add_(1.0)
        np.testing.assert_allclose(fitted.predict(X), before + 1, rtol=1e-5)

    def test_frozen_parameters_stay(self, where):
        def frozen(n_features, n_outputs):
            module = Residual(n_features, n_outputs)
            module.skip.requires_grad_(False)
            return module

        X, y = data("regressor")
        options = {"module": frozen, "alpha": 1.0}
        long, short = (estimator("regressor", where, **options, max_iter=n).fit(X, y) for n in (8, 1))
        np.testing.assert_array_equal(long.module_state_["skip.weight"], short.module_state_["skip.weight"])
        assert not np.array_equal(long.module_state_["deep.0.weight"], short.module_state_["deep.0.weight"])

    def test_tied_parameters_stay_tied(self, where):
        class Tied(nn.Module):
            def __init__(self, n_features, n_outputs):
                super().__init__()
                self.first, self.second = nn.Linear(n_features, n_features), nn.Linear(n_features, n_features)
                self.second.weight = self.first.weight
                self.last = nn.Linear(n_features, n_outputs)

            def forward(self, x):
                return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))

        X, y = data("regressor")
        fitted = estimator("regressor", where, module=Tied).fit(X, y)
        state = fitted.module_state_
        np.testing.assert_array_equal(state["first.weight"], state["second.weight"])
        module = fitted.module_
        assert module.first.weight is module.second.weight

    def test_a_function_may_return_one_module_each_time(self, where, rtol):
        one = Residual(8, 1)
        X, y = data("regressor")
        fits = [estimator("regressor", where, module=lambda *_: one).fit(X, y) for _ in range(2)]
        assert_same(*fits, 0)

    def test_few_rows_are_of_the_type_asked_for(self, device):
        class OfFloats(nn.Linear):
            def forward(self, x):
                return super().forward(x.float())

        X, y = data("regressor")
        fitted = MLPTorchRegressor(**FAST, module=OfFloats, device=device).fit(X[:100], y[:100])
        assert fitted.predict(X[:3]).shape == (3,)

    def test_pytorchs_generator_is_left_alone(self, where):
        X, y = data("regressor")
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        estimator("regressor", where, module=Residual).fit(X, y).predict(X)
        assert torch.equal(torch.rand(1), expected)

    def test_in_bfloat16(self, device):
        X, y = data("classifier")
        fitted = MLPTorchClassifier(
            **{**FAST, "max_iter": 60}, normalization="layer", dtype="bfloat16", device=device
        ).fit(X, y)
        assert fitted.score(X, y) > 0.7


class TestClassWeight:
    @pytest.mark.parametrize("name", ["binary", "multiclass"])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_is_a_sample_weight(self, name, weighted, where, rtol):
        problem = PROBLEMS[name]
        own = np.random.RandomState(0).uniform(0.5, 2, 160) if weighted else np.ones(160)
        classes = np.unique(problem.y)
        of_class = dict(zip(classes.tolist(), [0.5, 2.0, 3.0], strict=False))
        balanced = compute_class_weight("balanced", classes=classes, y=problem.y, sample_weight=own)
        for class_weight, weight in (
            (of_class, np.array([of_class[label] for label in problem.y])),
            ("balanced", balanced[np.searchsorted(classes, problem.y)]),
            ({classes[0]: 2.0}, np.where(problem.y == classes[0], 2.0, 1.0)),
        ):
            ours = problem.ours(**FAST, **where, class_weight=class_weight).fit(problem.X, problem.y, own)
            assert_same(ours, problem.ours(**FAST, **where).fit(problem.X, problem.y, own * weight), 10 * rtol)

    def test_of_labels_multiply(self, where, rtol):
        problem = PROBLEMS["multilabel"]
        each = [{1: 3.0}, {0: 0.5, 1: 2.0}, {}]
        weight = np.prod([[d.get(v, 1.0) for v in column] for d, column in zip(each, problem.y.T, strict=True)], axis=0)
        ours = problem.ours(**FAST, **where, class_weight=each).fit(problem.X, problem.y)
        assert_same(ours, problem.ours(**FAST, **where).fit(problem.X, problem.y, weight), 10 * rtol)
        every = problem.ours(**FAST, **where, class_weight={1: 2.0}).fit(problem.X, problem.y)
        assert_same(every, problem.ours(**FAST, **where).fit(problem.X, problem.y, 2.0 ** problem.y.sum(1)), 10 * rtol)

    def test_counts_in_validation_too(self, where):
        X, y = data("classifier")
        options = {"class_weight": {10: 5.0}, "early_stopping": True, "scoring": "accuracy"}
        by_scorer = estimator("classifier", where, **options).fit(X, y)
        by_default = estimator("classifier", where, **{**options, "scoring": None}).fit(X, y)
        np.testing.assert_allclose(by_scorer.validation_scores_, by_default.validation_scores_, rtol=1e-6)

    def test_more_classes_than_there_are(self, where):
        """As a fold of a search may have it."""
        X, y = data("classifier")
        estimator("classifier", where, class_weight={0: 1.0, 10: 2.0, 20: 1.0, 30: 5.0}).fit(X, y)


class TestLosses:
    @pytest.mark.parametrize(
        ("loss", "optimum"),
        [
            ("squared_error", np.mean),
            ("absolute_error", np.median),
            ("quantile", lambda y: np.quantile(y, 0.8)),
            ("poisson", np.mean),
            ("gamma", np.mean),
            ("gaussian_nll", np.mean),
            (absolute, np.median),
        ],
    )
    def test_an_intercept_alone_finds_the_known_answer(self, loss, optimum, where):
        y = np.random.RandomState(0).gamma(2.0, size=501)
        options = {"alpha": 0.0, "tol": 0.0, "n_iter_no_change": np.inf, "learning_rate": "cosine"}
        fitted = MLPTorchRegressor(
            loss, (), max_iter=1500, batch_size=501, learning_rate_init=0.02, random_state=0,
            quantile=0.8 if loss == "quantile" else 0.5, **options, **where,
        ).fit(np.zeros((501, 1)), y)  # fmt: skip
        np.testing.assert_allclose(fitted.predict([[0.0]]), optimum(y), rtol=5e-3)

    def test_standard_deviations(self, where):
        """Means and log-variances that are linear in X are just what a network without hidden layers has."""
        rng = np.random.RandomState(0)
        X = rng.uniform(-1, 1, (5000, 1))
        Y = np.c_[X[:, 0] + 0.2 * np.exp(X[:, 0]) * rng.normal(size=5000), 3 * X[:, 0] + 0.1 * rng.normal(size=5000)]
        fitted = MLPTorchRegressor("gaussian_nll", (), solver="lbfgs", alpha=0.0, random_state=0, **where).fit(X, Y)
        mean, std = fitted.predict([[-1.0], [0.5]], return_std=True)
        np.testing.assert_allclose(mean, [[-1.0, -3.0], [0.5, 1.5]], atol=0.01)
        np.testing.assert_allclose(std, [[0.2 * np.exp(-1), 0.1], [0.2 * np.exp(0.5), 0.1]], rtol=0.05)
        assert (fitted.n_outputs_, fitted.score(X, Y) > 0.5) == (2, True)
        one = clone(fitted).fit(X, Y[:, 0])
        assert [part.shape for part in one.predict(X, return_std=True)] == [(5000,), (5000,)]
        np.testing.assert_allclose(one.predict([[0.5]], return_std=True)[1], std[1, 0], rtol=0.01)

    def test_own_loss_is_the_built_in_one(self, where, rtol):
        X, y = data("classifier")
        own = estimator("classifier", where, loss=plain_cross_entropy).fit(X, y)
        assert_same(own, estimator("classifier", where).fit(X, y), rtol)
        X, y = data("regressor")
        own = estimator("regressor", where, loss=absolute).fit(X, y)
        assert_same(own, estimator("regressor", where, loss="absolute_error").fit(X, y), rtol)

    def test_own_loss_sees_rows_first(self, where):
        seen = {}
        for name in ("binary", "multiclass", "multilabel", "regression", "regression_many"):
            problem = PROBLEMS[name]

            def loss(raw, target, name=name):
                seen[name] = tuple(raw.shape[1:]), tuple(target.shape[1:]), target.dtype.is_floating_point
                return raw.square().sum(1)

            problem.ours(**FAST, **where, loss=loss).fit(problem.X, problem.y)
        assert seen == {
            "binary": ((1,), (1,), True),
            "multiclass": ((3,), (), False),
            "multilabel": ((3,), (3,), True),
            "regression": ((1,), (1,), True),
            "regression_many": ((3,), (3,), True),
        }


class TestOptimisation:
    def reference(self, fitted, X, y, make_optimizer, epochs):
        """Train PyTorch's own network from the same start on all rows at once; return its losses."""
        module = fitted.module_
        optimizer = make_optimizer(module)
        losses = []
        for _ in range(epochs):
            loss = cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y))
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return losses

    @pytest.mark.parametrize(
        ("options", "make"),
        [
            ({"solver": "adam"}, lambda m: torch.optim.Adam(m.parameters(), lr=0.01)),
            (
                {"solver": "adamw", "weight_decay": 0.3},
                lambda m: torch.optim.AdamW(
                    [
                        {"params": [p for p in m.parameters() if p.ndim == 2], "weight_decay": 0.3},
                        {"params": [p for p in m.parameters() if p.ndim == 1], "weight_decay": 0.0},
                    ],
                    lr=0.01,
                ),
            ),
            (
                {"solver": torch.optim.RMSprop, "solver_kwargs": {"alpha": 0.9}},
                lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, alpha=0.9),
            ),
            ({"solver": torch.optim.AdamW}, lambda m: torch.optim.AdamW(m.parameters(), lr=0.01)),
        ],
    )
    def test_steps_are_pytorchs(self, options, make):
        X, y = PROBLEMS["multiclass"].X, PROBLEMS["multiclass"].y // 10
        options = {**options, "alpha": 0.0, "batch_size": 160, "max_iter": 20, "n_iter_no_change": 100, "epsilon": 1e-8}
        ours = MLPTorchClassifier(**{**FAST, **options}, dtype="float64", device="cpu").fit(X, y)
        start = MLPTorchClassifier(
            **{**FAST, **options, "max_iter": 1, "learning_rate_init": 1e-300}, dtype="float64", device="cpu"
        ).fit(X, y)
        np.testing.assert_allclose(ours.loss_curve_, self.reference(start, X, y, make, 20), rtol=1e-5)

    @pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", torch.optim.SGD])
    def test_schedules_set_the_rate_of_each_epoch(self, solver, where):
        X, y = data("regressor")
        options = {"max_iter": 10, "n_iter_no_change": 100, "solver": solver, "learning_rate_init": 0.01}

        def rates(**more):
            return estimator("regressor", where, **{**options, **more}).fit(X, y).history_["learning_rate"] / 0.01

        np.testing.assert_allclose(rates(), 1)
        np.testing.assert_allclose(rates(learning_rate="cosine"), (1 + np.cos(np.pi * np.arange(10) / 10)) / 2)
        np.testing.assert_allclose(rates(learning_rate=tenth_after_three), [1] * 3 + [0.1] * 7)
        np.testing.assert_allclose(rates(warmup_epochs=4)[:5], [0.2, 0.4, 0.6, 0.8, 1])
        warm = rates(warmup_epochs=4, learning_rate="cosine")
        np.testing.assert_allclose(warm[4:], (1 + np.cos(np.pi * np.arange(6) / 6)) / 2)
        cycle = rates(learning_rate="one_cycle")
        np.testing.assert_allclose(cycle[[0, 3]], [1 / 25, 1])
        assert (np.diff(cycle[:4]) > 0).all()
        assert (np.diff(cycle[3:]) < 0).all()

    def test_a_function_is_asked_for_epochs_that_come(self, where):
        X, y = data("regressor")
        fitted = estimator("regressor", where, learning_rate=[1.0, 0.5, 0.1].__getitem__, max_iter=3).fit(X, y)
        np.testing.assert_allclose(fitted.history_["learning_rate"], [0.01, 0.005, 0.001])

    @pytest.mark.parametrize("learning_rate", ["cosine", "one_cycle"])
    def test_a_schedule_at_its_end_is_no_failure(self, learning_rate, where):
        X, y = data("regressor")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert estimator("regressor", where, learning_rate=learning_rate).fit(X, y).n_iter_ == 8

    def test_one_cycle_is_pytorchs(self):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        # PyTorch counts both ends, the rise to 0.3 of what is left without the first.
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=101, pct_start=31 / 101)
        expected = []
        for _ in range(100):
            expected.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        fitted = MLPTorchRegressor(
            hidden_layer_sizes=(),
            learning_rate="one_cycle",
            max_iter=100,
            n_iter_no_change=100,
            learning_rate_init=1e-3,
        ).fit(*data("regressor"))
        np.testing.assert_allclose(fitted.history_["learning_rate"] * 1e3, expected, rtol=1e-6, atol=1e-9)

    def test_plateaus_divide_the_rate_until_it_is_nothing(self, where):
        X, y = data("regressor")
        fitted = estimator(
            "regressor",
            where,
            learning_rate="plateau",
            tol=1e9,
            n_iter_no_change=1,
            max_iter=50,
            learning_rate_init=1e-3,
        ).fit(X, y)
        rates = fitted.history_["learning_rate"]
        np.testing.assert_allclose(rates, 1e-3 * np.array([1] * 3 + [0.1] * 2 + [0.01] * 2 + [0.001] * 2), rtol=1e-6)

    @pytest.mark.parametrize("schedule", sorted(SCHEDULES))
    def test_warm_starts_begin_schedules_anew(self, schedule, where):
        X, y = data("regressor")
        fitted = (
            estimator("regressor", where, learning_rate=schedule, solver="sgd", warm_start=True).fit(X, y).fit(X, y)
        )
        rates = fitted.history_["learning_rate"]
        assert rates[0] == rates[fitted.n_iter_]

    @pytest.mark.parametrize("solver", ["adam", "sgd"])
    def test_gradients_are_kept_within_a_norm(self, solver, where):
        X, y = data("regressor")
        options = {"solver": solver, "batch_size": 160, "momentum": 0.0, "max_iter": 1, "alpha": 0.1}
        free = estimator("regressor", where, **options).fit(X, y)
        start = estimator("regressor", where, **{**options, "learning_rate_init": 1e-12}).fit(X, y)
        norm = free.history_["gradient_norm"][0]
        far = estimator("regressor", where, **options, max_grad_norm=2 * norm).fit(X, y)
        assert_same(far, free, 0)
        near = estimator("regressor", where, **options, max_grad_norm=norm / 4).fit(X, y)
        assert near.history_["gradient_norm"][0] == pytest.approx(norm)
        if solver == "sgd":
            moved = [np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(state(e), state(start), strict=True)))
                     for e in (free, near)]  # fmt: skip
            np.testing.assert_allclose(moved, [0.01 * norm, 0.01 * norm / 4], rtol=1e-3)

    def test_the_penalty_counts_in_the_norm(self):
        X, y = data("regressor")
        fitted = MLPTorchRegressor(
            hidden_layer_sizes=(), solver="sgd", momentum=0.0, alpha=3.0, max_iter=1, batch_size=160, dtype="float64",
            learning_rate_init=1e-12, random_state=0, device="cpu",
        ).fit(X, y)  # fmt: skip
        residual = fitted.predict(X) - y
        slope = np.r_[X.T @ residual + 3.0 * fitted.coefs_[0].ravel(), residual.sum()] / 160
        np.testing.assert_allclose(fitted.history_["gradient_norm"], np.linalg.norm(slope), rtol=1e-6)


class TestValidation:
    def split(self, task):
        X, y = data(task)
        return X[:110], y[:110], X[110:], y[110:]

    @pytest.mark.parametrize("task", ["classifier", "regressor"])
    def test_rows_to_validate_on_take_the_place_of_held_out_ones(self, task, where):
        X, y, X_val, y_val = self.split(task)
        fitted = estimator(task, where, early_stopping=True, max_iter=30, n_iter_no_change=3)
        fitted.fit(X, y, X_val=X_val, y_val=y_val)
        np.testing.assert_allclose(fitted.best_validation_score_, fitted.score(X_val, y_val), rtol=1e-5)
        assert len(fitted.validation_scores_) == len(fitted.validation_loss_curve_) == fitted.n_iter_
        assert fitted.t_ == 110 * fitted.n_iter_  # all rows are trained on

    def test_without_early_stopping_they_only_watch(self, where, rtol):
        X, y, X_val, y_val = self.split("classifier")
        watched = estimator("classifier", where).fit(X, y, X_val=X_val, y_val=y_val)
        assert_same(watched, estimator("classifier", where).fit(X, y), rtol)
        np.testing.assert_allclose(watched.validation_scores_[-1], watched.score(X_val, y_val))
        expected = log_loss(y_val, watched.predict_proba(X_val))
        np.testing.assert_allclose(watched.validation_loss_curve_[-1], expected, rtol=1e-5)
        assert watched.best_loss_ == min(watched.loss_curve_)

    def test_weights_of_theirs(self, where):
        X, y, X_val, y_val = self.split("classifier")
        weight = np.arange(50) % 3
        weighted = estimator("classifier", where).fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=weight)
        repeated = estimator("classifier", where).fit(X, y, X_val=X_val.repeat(weight, 0), y_val=y_val.repeat(weight))
        np.testing.assert_allclose(weighted.validation_scores_, repeated.validation_scores_)
        np.testing.assert_allclose(weighted.validation_loss_curve_, repeated.validation_loss_curve_, rtol=1e-5)

    def test_partial_fit_records_them(self, where):
        X, y, X_val, y_val = self.split("classifier")
        fitted = estimator("classifier", where)
        fitted.partial_fit(X, y, classes=[0, 10, 20])
        assert fitted.validation_scores_ is None
        for _ in range(2):
            fitted.partial_fit(X, y, X_val=X_val, y_val=y_val)
        np.testing.assert_array_equal(np.isnan(fitted.history_["validation_loss"]), [True, False, False])
        np.testing.assert_allclose(fitted.validation_scores_[-1], fitted.score(X_val, y_val))

    def test_through_a_pipeline_that_transforms_them(self, where):
        X, y, X_val, y_val = self.split("regressor")
        X, X_val = 5 * X + 3, 5 * X_val + 3
        scaler = StandardScaler().fit(X)
        with config_context(enable_metadata_routing=True):
            network = estimator("regressor", where, early_stopping=True).set_fit_request(X_val=True, y_val=True)
            pipeline = Pipeline([("scale", StandardScaler()), ("network", network)], transform_input=["X_val"])
            pipeline.fit(X, y, X_val=X_val, y_val=y_val)
        alone = clone(network).fit(scaler.transform(X), y, X_val=scaler.transform(X_val), y_val=y_val)
        np.testing.assert_allclose(pipeline[-1].validation_scores_, alone.validation_scores_)

    def test_data_frames(self, where):
        X, y, X_val, y_val = self.split("classifier")
        frame, val = (pd.DataFrame(rows, columns=list("abcdefgh")) for rows in (X, X_val))
        fitted = estimator("classifier", where, early_stopping=True, scoring="roc_auc_ovr")
        fitted.fit(frame, y, X_val=val, y_val=y_val)
        held_out = clone(fitted).fit(frame, pd.Series(y))
        assert len(held_out.validation_scores_) == held_out.n_iter_

    def test_sparse_rows_beside_dense_ones(self, where):
        X, y, X_val, y_val = self.split("classifier")
        dense = estimator("classifier", where).fit(X, y, X_val=X_val, y_val=y_val)
        for rows, val in ((X, csr_array(X_val)), (csr_array(X), X_val)):
            mixed = estimator("classifier", where).fit(rows, y, X_val=val, y_val=y_val)
            np.testing.assert_allclose(mixed.validation_loss_curve_, dense.validation_loss_curve_, rtol=1e-5)

    def test_partial_fit_keeps_what_it_learned(self, where):
        """Each call is one step on the way: early stopping has nothing to take back."""
        X, y, X_val, y_val = self.split("classifier")
        watched = estimator("classifier", where, early_stopping=True)
        plain = estimator("classifier", where)
        for _ in range(10):
            watched.partial_fit(X, y, classes=[0, 10, 20], X_val=X_val, y_val=y_val)
            plain.partial_fit(X, y, classes=[0, 10, 20])
        assert_same(watched, plain, 1e-6)

    def test_another_scoring_begins_anew(self, where):
        X, y, X_val, y_val = self.split("classifier")
        fitted = estimator("classifier", where, early_stopping=True, warm_start=True, n_iter_no_change=3, max_iter=20)
        fitted.fit(X, y, X_val=X_val, y_val=y_val)
        before = fitted.coefs_[0].copy()
        fitted.set_params(scoring="loss").fit(X, y, X_val=X_val, y_val=y_val)
        assert fitted.best_validation_score_ < 0
        assert not np.array_equal(fitted.coefs_[0], before)


class TestScoring:
    @pytest.mark.parametrize(
        ("task", "scoring", "same"),
        [("classifier", "accuracy", True), ("regressor", "r2", True), ("classifier", "neg_log_loss", False),
         ("regressor", make_scorer(mean_absolute_error, greater_is_better=False), False)],
    )  # fmt: skip
    @pytest.mark.parametrize("weighted", [False, True])
    def test_a_scorer_counts(self, task, scoring, same, weighted, where):
        X, y = data(task)
        weight = np.random.RandomState(0).uniform(0.5, 2, 160) if weighted else None
        options = {"early_stopping": True, "max_iter": 20, "n_iter_no_change": 3}
        fitted = estimator(task, where, **options, scoring=scoring).fit(X, y, sample_weight=weight)
        plain = estimator(task, where, **options).fit(X, y, sample_weight=weight)
        n = min(plain.n_iter_, fitted.n_iter_)
        close = np.allclose(fitted.validation_scores_[:n], plain.validation_scores_[:n], rtol=1e-5)
        assert close == same
        assert fitted.best_validation_score_ == max(fitted.validation_scores_)

    def test_neg_log_loss_is_minus_the_loss(self, where):
        X, y = data("classifier")
        curves = [
            estimator("classifier", where, early_stopping=True, scoring=scoring).fit(X, y).validation_scores_
            for scoring in ("loss", "neg_log_loss")
        ]
        np.testing.assert_allclose(*curves, rtol=1e-5)

    def test_a_callable_sees_a_fitted_estimator(self, where):
        def score(fitted, X, y):
            assert fitted.predict(X).shape == y.shape
            return float(np.abs(fitted.coefs_[0]).sum())

        X, y = data("regressor")
        weight = np.ones(160)
        fitted = estimator("regressor", where, early_stopping=True, scoring=score).fit(X, y, weight)
        assert fitted.best_validation_score_ == pytest.approx(np.abs(fitted.coefs_[0]).sum(), rel=1e-5)

    def test_weights_go_to_scorers_that_take_them(self, where):
        def weighted(fitted, X, y, sample_weight=None):
            return float(sample_weight.sum())

        X, y = data("regressor")
        weight = np.random.RandomState(0).uniform(size=160)
        for scoring in ("max_error", weighted, partial(weighted), partial(lambda fitted, X, y: 1.0)):
            scoring = "neg_max_error" if scoring == "max_error" else scoring
            estimator("regressor", where, early_stopping=True, scoring=scoring).fit(X, y, weight)

    def test_in_a_search(self, where):
        X, y = data("classifier")
        search = GridSearchCV(
            make_pipeline(StandardScaler(), estimator("classifier", where, early_stopping=True, scoring="roc_auc_ovr")),
            {"mlptorchclassifier__alpha": [1e-4, 1.0]},
            cv=3,
        )
        expected = clone(search).fit(X, y).cv_results_["mean_test_score"]
        with parallel_config("sk_mlp"):
            np.testing.assert_allclose(search.fit(X, y).cv_results_["mean_test_score"], expected)


class TestGoingOn:
    """With other parameters than before."""

    @pytest.mark.parametrize(
        ("before", "after", "message"),
        [
            ({}, {"normalization": "layer"}, "of normalization=None, got normalization='layer'"),
            ({"normalization": "batch"}, {"normalization": None}, "of normalization='batch', got normalization=None"),
            ({"normalization": "batch"}, {"normalization": "layer"}, "of normalization='batch', got norm"),
            ({}, {"module": Residual}, "of module=None, got module=<class .*Residual'>$"),
            ({}, {"hidden_layer_sizes": (3,)}, r"of layer_sizes=\(8, 6, 5, 1\), got layer_sizes=\(8, 3, 1\)"),
            ({"module": Residual}, {"module": nn.Linear}, "of module=<class .*Residual'>, got module="),
            ({"activation": nn.PReLU}, {"activation": nn.Tanh}, "build the network that was fitted, with"),
        ],
    )
    def test_another_network_is_an_error(self, before, after, message, where):
        X, y = data("regressor")
        fitted = estimator("regressor", where, **before).fit(X, y)
        expected = fitted.predict(X)
        fitted.set_params(**after)
        np.testing.assert_array_equal(fitted.predict(X), expected)  # as fitted
        with pytest.raises(ValueError, match=message):
            fitted.partial_fit(X, y)

    @pytest.mark.parametrize("network", [{}, {"normalization": "batch"}])
    def test_another_dropout_is_not(self, network, where):
        X, y = data("regressor")
        fitted = estimator("regressor", where, **network).fit(X, y)
        fitted.set_params(dropout=0.5).partial_fit(X, y).set_params(dropout=0.0).partial_fit(X, y)
        assert len(fitted.loss_curve_) == 10

    def test_torch_optimizers(self, where):
        X, y = data("regressor")
        fitted = estimator("regressor", where, solver=torch.optim.SGD, solver_kwargs={"momentum": 0.9}).fit(X, y)
        still = fitted.set_params(solver_kwargs={"momentum": 0.0}, learning_rate_init=1e-30).partial_fit(X, y)
        coefs = [coef.copy() for coef in still.coefs_]
        for coef, expected in zip(still.partial_fit(X, y).coefs_, coefs, strict=True):
            np.testing.assert_array_equal(coef, expected)  # no momentum is left
        for solver in (torch.optim.RMSprop, torch.optim.Adagrad, "adam"):
            fitted.set_params(solver=solver, solver_kwargs=None).partial_fit(X, y)

    def test_many_partial_fits_take_equal_time(self, where):
        """What is kept of each epoch is added at the end of the same memory; curves are worked out when asked for."""
        X, y = data("regressor")
        fitted = estimator("regressor", where)
        for _ in range(17):
            fitted.partial_fit(X, y)
        memory = fitted._progress["history"]["columns"]["loss"]
        for n in range(18, 33):
            fitted.partial_fit(X, y)
            assert fitted._progress["history"]["columns"]["loss"] is memory
            assert len(fitted.loss_curve_) == n
        assert not {"history_", "loss_curve_", "validation_scores_"} & vars(fitted).keys()


class TestTime:
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_an_end_is_set(self, solver, where):
        X, y = data("classifier")
        fitted = estimator("classifier", where, solver=solver, max_iter=10_000, max_time=1e-9, tol=0.0)
        with pytest.warns(ConvergenceWarning, match=r"passed max_time=1e-09 seconds"):
            fitted.fit(X, y)
        assert fitted.n_iter_ == len(fitted.loss_curve_) == 1

    def test_it_keeps_the_best(self, where):
        X, y = data("classifier")
        fitted = estimator(
            "classifier", where, early_stopping=True, max_iter=100_000, max_time=0.2, n_iter_no_change=np.inf
        )
        with pytest.warns(ConvergenceWarning, match="max_time"):
            fitted.fit(X, y, X_val=X, y_val=y)
        np.testing.assert_allclose(fitted.score(X, y), max(fitted.validation_scores_))


class TestHistory:
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_a_frame_takes_it(self, solver, where):
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


class TestVerbose:
    def test_a_number_of_epochs(self, where, capsys):
        X, y = data("classifier")
        estimator("classifier", where, verbose=3, early_stopping=True).fit(X, y)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines] == ["Iteration 3", "Iteration 6", "Iteration 8"]
        pattern = r"Iteration \d: loss \d\.\d{6}, validation score 0\.\d{6}, learning rate 0\.01, \d\.\d\d s"
        assert all(re.fullmatch(pattern, line) for line in lines)

    @pytest.mark.parametrize("options", [{"max_iter": 7}, {"tol": 10.0, "n_iter_no_change": 2, "max_iter": 50}])
    def test_the_last_epoch_once(self, options, where, capsys):
        X, y = data("classifier")
        for verbose in (2, 1, 100):
            fitted = estimator("classifier", where, verbose=verbose, **options).fit(X, y)
            printed = re.findall(r"^Iteration (\d+): ", capsys.readouterr().out, re.MULTILINE)
            expected = {n for n in range(1, fitted.n_iter_ + 1) if n % verbose == 0} | {fitted.n_iter_}
            assert [int(n) for n in printed] == sorted(expected)

    def test_calls_of_partial_fit_are_counted(self, where, capsys):
        X, y = data("regressor")
        fitted = estimator("regressor", where, verbose=3)
        for _ in range(7):
            fitted.partial_fit(X, y)
        assert re.findall(r"^Iteration (\d+): ", capsys.readouterr().out, re.MULTILINE) == ["3", "6"]

    def test_lbfgs(self, where, capsys):
        X, y = data("classifier")
        estimator("classifier", where, verbose=4, solver="lbfgs").fit(X, y)
        assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["Iteration 4", "Iteration 8"]


def test_the_lectures_run(where):
    """Unscaled digits, 64-32-16-10, all rows at once, PyTorch's initial weights and Adam; there it is 0.25 to 0.40."""
    X, y = load_digits(return_X_y=True)
    losses = [
        MLPTorchClassifier(
            (32, 16), init="torch", alpha=0.0, batch_size=len(X), max_iter=100, n_iter_no_change=100, random_state=seed,
            **where,
        ).fit(X, y).loss_curve_
        for seed in range(3)
    ]  # fmt: skip
    assert all(2.3 < curve[0] < 3.5 for curve in losses)
    assert all(0.2 < curve[90] < 0.5 for curve in losses)
