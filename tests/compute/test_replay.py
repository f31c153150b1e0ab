"""Steps that are recorded and replayed give the same bits as steps that Python calls."""

import numpy as np
import pytest
import torch
import torch.utils._python_dispatch as modes
from marking import slow_but_every
from problems import PROBLEMS
from processes import run_script

from sk_mlp import MLPTorchRegressor
from sk_mlp._compute import replay as replay_module
from sk_mlp._compute.replay import Replay, record
from sk_mlp._compute.threads import in_threads
from sk_mlp._compute.torch_private import has_graphs
from sk_mlp._network.activations import ACTIVATIONS
from sk_mlp._training import step

NETWORK = {"hidden_layer_sizes": (6, 5), "max_iter": 60, "batch_size": 60, "n_iter_no_change": 99, "random_state": 0}
# Each kind of step: what the problem is, and the options that make the difference.
STEPS = [
    *(("multiclass", {"activation": name}) for name in ACTIVATIONS),
    *((name, {}) for name in PROBLEMS),
    *(("poisson", {"loss": loss}) for loss in ("absolute_error", "quantile", "huber", "gaussian_nll", "squared_error")),
    ("multiclass", {"solver": "sgd"}),
    ("multiclass", {"solver": "sgd", "nesterovs_momentum": False, "learning_rate": "invscaling"}),
    ("multiclass", {"solver": "sgd", "learning_rate": "adaptive", "tol": 10.0}),
    ("multiclass", {"solver": "adamw", "weight_decay": 0.1, "learning_rate": "one_cycle"}),
    ("multiclass", {"learning_rate": "cosine", "max_grad_norm": 0.3}),
    ("multiclass", {"learning_rate": lambda epoch: 0.01 / (1 + epoch)}),
    ("multiclass", {"dropout": 0.3, "activation": "tanh"}),
    ("multiclass", {"label_smoothing": 0.1}),
    ("multiclass", {"class_weight": "balanced"}),
    ("multiclass", {"early_stopping": True, "scoring": "loss"}),
    ("multiclass", {"dtype": "float64"}),
    ("multiclass", {"dtype": "bfloat16"}),
    ("multiclass", {"hidden_layer_sizes": ()}),
    ("multiclass", {"beta_1": 0.0}),
    ("multiclass", {"epsilon": 1e-310, "dtype": "float64"}),
    ("regression_many", {"sample_weight": True}),
]
# What cannot be recorded: code of users and modules may differ each time.
UNRECORDED = [
    {"solver": torch.optim.SGD},
    {"normalization": "layer"},
    {"activation": torch.nn.ReLU},
    {"loss": lambda raw, target: torch.nn.functional.cross_entropy(raw, target, reduction="none")},
]


def _name(value):
    """Return a name for a test, the same one in each process."""
    if isinstance(value, str):
        return value
    return ",".join(f"{key}={getattr(option, '__name__', option)}" for key, option in value.items()) or "plain"


pytestmark = pytest.mark.skipif(not has_graphs(), reason="this PyTorch has no entrance to its interpreter")


def _fit(name, options):
    problem = PROBLEMS[name]
    options = {**NETWORK, "device": "cpu", **options}
    weights = {"sample_weight": np.arange(len(problem.y)) % 3.0} if options.pop("sample_weight", False) else {}
    cls = MLPTorchRegressor if "loss" in options and isinstance(options["loss"], str) else problem.ours
    return cls(**{**problem.options, **options}).fit(problem.X, problem.y, **weights)


def _values(estimator):
    history = {name: values for name, values in estimator.history_.items() if name != "seconds"}
    return [*estimator.coefs_, *estimator.intercepts_, *history.values()]


@pytest.fixture
def recordings(monkeypatch):
    """What was recorded, or None for each time that it could not be."""
    found = []

    def watched(function, operands):
        found.append(record(function, operands))
        return found[-1]

    monkeypatch.setattr(step, "record", watched)
    return found


@pytest.mark.parametrize(("problem", "options"), slow_but_every(9, STEPS), ids=_name)
def test_replayed_steps_are_the_same_to_the_bit(problem, options, recordings, monkeypatch, unconverged):
    replayed = _fit(problem, options)
    assert recordings
    assert all(isinstance(recording, Replay) for recording in recordings)
    monkeypatch.setattr(step, "record", lambda function, _: function())
    for ours, expected in zip(_values(replayed), _values(_fit(problem, options)), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("options", UNRECORDED, ids=_name)
def test_what_cannot_be_recorded_is_called(options, recordings, unconverged):
    assert _fit("multiclass", options).n_iter_ == NETWORK["max_iter"]
    assert not any(recordings)


def test_few_steps_are_not_recorded(recordings, unconverged):
    _fit("multiclass", {"max_iter": 20})
    assert not recordings


@pytest.mark.parametrize("name", ["parse_ir", "_create_function_from_graph", "_set_graph_executor_optimize"])
def test_without_the_entrance(name, monkeypatch, unconverged):
    expected = _values(_fit("multiclass", {}))
    monkeypatch.delattr(torch._C, name)
    assert not has_graphs()
    for ours, values in zip(_values(_fit("multiclass", {})), expected, strict=True):
        np.testing.assert_array_equal(ours, values)


class TestRecord:
    """Recording of functions, without estimators."""

    def test_operands_and_what_keeps_its_place(self):
        total, factor = torch.zeros(3), torch.full((), 2.0)
        first, second = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])
        replay = record(lambda: total.add_(first * factor).add_(0.5, alpha=2), [first])
        assert total.tolist() == [3.0, 5.0, 7.0]
        replay([second])
        assert total.tolist() == [24.0, 46.0, 68.0]
        factor.fill_(0.0)
        replay([second])
        assert total.tolist() == [25.0, 47.0, 69.0]

    def test_several_results_at_once(self):
        values, out = torch.arange(6.0), torch.zeros(3)

        def add_halves():
            left, right = values.chunk(2)
            torch.add(left, right, out=out)

        replay = record(add_halves, [values])
        replay([torch.ones(6)])
        assert out.tolist() == [2.0, 2.0, 2.0]

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x.add_(x.sum().item()),
            lambda x: x.add_(torch.tensor([1.0, 2.0])),
            lambda x: torch.sub(0.5, x, out=x),
        ],
        ids=["a number that Python reads", "a tensor that Python makes", "a form that Python alone knows"],
    )
    def test_none_for_what_it_cannot_hold(self, function):
        x = torch.ones(2)
        assert record(lambda: function(x), [x]) is None
        y = torch.ones(2)
        function(y)
        assert torch.equal(x, y)  # done once all the same

    @pytest.mark.parametrize("value", [0.1, float("inf"), 5e-324, -1e300, 1 / 3])
    def test_numbers_are_no_text(self, value):
        """PyTorch would read them by the decimal point of the process's locale."""
        x, expected = torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        replay = record(lambda: x.mul_(value).add_(0.5, alpha=2), [x])
        replay([x])
        for _ in range(2):
            expected.mul_(value).add_(0.5, alpha=2)
        assert torch.equal(x, expected)
        with replay_module._Recorder() as recorder:
            x.mul_(value).add_(0.5, alpha=0.25)
        assert "." not in replay_module._Writer([x]).write(recorder.calls).text.replace("...", "")

    def test_recordings_in_several_threads(self):
        """Modes of PyTorch's share settings of the whole process, which must be afterwards as they were before."""
        names = [name for name in vars(modes) if name.startswith("_is_in_") and isinstance(vars(modes)[name], bool)]
        before = {name: getattr(modes, name) for name in names}
        assert before

        def record_many():
            x = torch.ones(2)
            for _ in range(100):
                assert record(lambda: x.mul_(1.5).add_(x), [x]) is not None

        in_threads([record_many] * 4, 4)
        assert {name: getattr(modes, name) for name in names} == before

    def test_a_pytorch_that_reads_graphs_differently(self, monkeypatch):
        def fail(_):
            raise RuntimeError("unknown")

        monkeypatch.setattr(torch._C, "parse_ir", fail)
        x = torch.ones(2)
        assert record(lambda: x.mul_(7.25), [x]) is None
        assert x.tolist() == [7.25, 7.25]

    def test_errors_come_through_and_leave_the_setting(self):
        x = torch.ones(2, 3)
        replay = record(lambda: torch.mm(x, x.T), [x])
        with pytest.raises(RuntimeError, match="number of dimensions"):
            replay([torch.ones(2)])
        assert torch._C._get_graph_executor_optimize()

    @pytest.mark.slow
    def test_the_compiler_is_not_imported(self):
        """It would take seconds."""
        run_script("fit_without_the_compiler.py")


def test_classifiers_of_one_shape_share_a_compiled_step(unconverged):
    _fit("multiclass", {})
    before = replay_module._compiled.cache_info()
    _fit("multiclass", {"hidden_layer_sizes": (7, 3), "alpha": 0.1, "random_state": 1})
    after = replay_module._compiled.cache_info()
    assert after.misses == before.misses
    assert after.hits > before.hits
