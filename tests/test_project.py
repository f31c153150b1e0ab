"""The project itself: signatures, imports, sizes, documents and examples."""

import ast
import inspect
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

import sk_mlp
from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._objective import REGRESSION_LOSSES

ROOT = Path(__file__).parent.parent
MODULES = {path.stem: ast.parse(path.read_text()) for path in sorted((ROOT / "sk_mlp").glob("*.py"))}
PAIRS = [(MLPTorchClassifier, MLPClassifier), (MLPTorchRegressor, MLPRegressor)]
OUR_PARAMETERS = {
    "device": "auto", "dtype": "float32", "dropout": 0.0, "normalization": None, "init": "glorot_uniform",
    "module": None,
    "weight_decay": 0.01, "solver_kwargs": None, "warmup_epochs": 0, "max_grad_norm": None, "scoring": None,
    "max_time": None,
}  # fmt: skip
OF_ONE = {
    MLPTorchClassifier: {"class_weight": None, "label_smoothing": 0.0, "loss": "log_loss"},
    MLPTorchRegressor: {"quantile": 0.5, "huber_delta": 1.0},
}

# Who may import whom inside the package; DESIGN: one direction, leaves know only _task (and for its types only).
IMPORTS = {
    "__init__": {"classifier", "regressor", "stacking"},
    "classifier": {"_attributes", "_estimator", "_objective", "_reading", "_targets"},
    "regressor": {"_attributes", "_estimator", "_objective", "_reading", "_targets"},
    "_estimator": {
        "exceptions", "stacking", "_alike", "_architecture", "_attributes", "_autograd", "_baseline", "_callbacks",
        "_device", "_modes", "_network", "_objective", "_optimizers", "_parameters", "_prediction", "_reading", "_task",
        "_validation", "_weights",
    },
    "_reading": {
        "stacking", "_architecture", "_attributes", "_device", "_modes", "_objective", "_parameters", "_targets",
        "_task", "_validation", "_weights",
    },
    "_baseline": {"_batches", "_modes", "_task"},
    "_parameters": {"_activations", "_device", "_modes", "_network", "_optimizers", "_schedules", "_task"},
    "_architecture": {"_activations", "_alike", "_autograd", "_device", "_modes", "_network", "_task"},
    "_prediction": {
        "_activations", "_autograd", "_backprop", "_batches", "_device", "_modes", "_products", "_threads",
        "_validation",
    },
    "stacking": {
        "_ambient", "_device", "_engine", "_hub", "_lbfgs", "_machine", "_modes", "_task", "_threads", "_training",
    },
    "_training": {
        "_autograd", "_backprop", "_batches", "_device", "_engine", "_history", "_modes", "_network", "_objective",
        "_optimizers", "_schedules", "_step", "_stopping", "_task", "_threads",
    },
    "_step": {"_autograd", "_backprop", "_batches", "_optimizers", "_replay"},
    "_lbfgs": {"_batches", "_device", "_engine", "_history", "_modes", "_task"},
    "_engine": {
        "_autograd", "_backprop", "_batches", "_device", "_dropout", "_modes", "_network", "_products", "_task",
    },
    "_autograd": {"_backprop", "_batches", "_network", "_objective"},
    "_backprop": {"_activations", "_batches", "_network", "_objective", "_products"},
    "_batches": {"_device", "_dropout", "_products"},
    "_products": {"_device"},
    "_optimizers": {"_device", "_network", "_task"},
    "_callbacks": {"_modes", "_task"}, "_schedules": {"_task"}, "_stopping": {"_history", "_task"},
    "_hub": {"_ambient"}, "_ambient": {"_modes"}, "_modes": {"_device", "_machine", "_threads"},
    "_objective": {"_alike", "_modes"},
    "_targets": {"_weights"}, "_task": {"_history", "_weights"}, "_validation": {"_columns", "_device"},
    "exceptions": set(), "_activations": set(), "_alike": set(), "_attributes": set(), "_columns": set(),
    "_device": set(), "_dropout": set(), "_history": set(), "_machine": set(), "_network": set(), "_replay": set(),
    "_threads": set(), "_weights": set(),
}  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_signature_is_scikit_learns_and_ours(ours, theirs):
    def parameters(cls):
        return {p.name: (p.default, p.kind) for p in inspect.signature(cls).parameters.values()}

    mine, expected = parameters(ours), parameters(theirs)
    missing = set(expected) - set(mine)
    assert not missing, f"scikit-learn's {theirs.__name__} has parameters that {ours.__name__} lacks: {sorted(missing)}"
    added = {name: default for name, (default, _) in mine.items() if name not in expected}
    assert added == {**OUR_PARAMETERS, **OF_ONE[ours]}
    assert all(mine[name][1] is inspect.Parameter.KEYWORD_ONLY for name in added)
    assert list(mine)[: len(expected)] == list(expected), "the order of scikit-learn's parameters is kept"
    for name, parameter in expected.items():
        assert mine[name] == parameter, f"{name} differs from scikit-learn's"


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_methods_take_what_scikit_learns_take(ours, theirs):
    for name in ("fit", "partial_fit", "predict", "predict_proba", "predict_log_proba", "score"):
        if hasattr(theirs, name):
            mine = inspect.signature(getattr(ours, name)).parameters
            expected = inspect.signature(getattr(theirs, name)).parameters
            assert list(mine)[: len(expected)] == list(expected), name


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_constraints_admit_what_scikit_learns_admit(ours, theirs):
    added = {*OUR_PARAMETERS, *OF_ONE[ours]}
    assert set(ours._parameter_constraints) - added == set(theirs._parameter_constraints)
    for activation in ("identity", "logistic", "tanh", "relu"):
        assert any(c.is_satisfied_by(activation) for c in ours._parameter_constraints["activation"])


def test_losses_hold_scikit_learns():
    of_mlp = MLPRegressor._parameter_constraints["loss"][0].options
    of_boosting = HistGradientBoostingRegressor._parameter_constraints["loss"][0].options
    assert of_mlp | of_boosting <= REGRESSION_LOSSES


def _imported_modules(tree):
    """Modules of the package that a module imports at run time."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found


def test_imports_go_one_way():
    assert {name: _imported_modules(tree) for name, tree in MODULES.items()} == IMPORTS
    settled = set()
    while len(settled) < len(IMPORTS):
        free = {name for name, imports in IMPORTS.items() if imports <= settled} - settled
        assert free, f"a cycle among {set(IMPORTS) - settled}"
        settled |= free


def test_imports_stand_at_the_top():
    for name, tree in MODULES.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                inner = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
                assert not inner, f"{name}.{function.name} imports inside"


def test_one_file_names_device_types():
    for path in (ROOT / "sk_mlp").glob("*.py"):
        tree = ast.parse(path.read_text())
        words = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        # .cpu() and to("cpu") name where NumPy lives, not a device to choose.
        assert path.name == "_device.py" or not words & {"cuda", "mps", "xpu"}


def _code_lines(node, source):
    """Lines of code of a function or class: no blank lines, comments or docstrings."""
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    documented = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(n)]
    prose = sum(n.body[0].end_lineno - n.body[0].lineno + 1 for n in documented)
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#")) - prose


def test_functions_and_classes_stay_small():
    sizes = []
    for path in (ROOT / "sk_mlp").glob("*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.name != "__init__":
                sizes.append(_code_lines(node, source))
                assert sizes[-1] <= 60, f"{path.name}: {node.name} has {sizes[-1]} code lines"
            elif isinstance(node, ast.ClassDef):
                assert _code_lines(node, source) <= 300, f"{path.name}: class {node.name}"
    assert sorted(sizes)[len(sizes) // 2] <= 8


def test_every_public_name_is_documented():
    for name in sk_mlp.__all__:
        cls = getattr(sk_mlp, name)
        documented = set(
            re.findall(r"^    (\w+(?:, \w+)*) : ", inspect.cleandoc(cls.__doc__).replace("\n", "\n    "), re.MULTILINE)
        )
        documented = {word for words in documented for word in words.split(", ")}
        assert set(inspect.signature(cls).parameters) <= documented
        for method, function in inspect.getmembers(cls, inspect.isfunction):
            if not method.startswith("_") and function.__module__.startswith("sk_mlp"):
                assert function.__doc__, f"{name}.{method}"
        assert f"## {name}" in (ROOT / "docs" / "api.md").read_text()


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_code_blocks_run(path, tmp_path, monkeypatch):
    """The Python blocks of a document, one after another, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)):
        exec(compile(block, f"{path.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_readme_names_the_commands():
    readme = (ROOT / "README.md").read_text()
    for target in re.findall(r"make (\w+)", readme):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed
    if path.name == "demo.py":
        accuracies = re.findall(r"Classifier +(0\.\d+)", printed)
        assert len(accuracies) == 2
        assert min(map(float, accuracies)) > 0.95
        assert (tmp_path / "demo_loss_curve.png").stat().st_size > 10_000


def test_docstring_examples_run():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--doctest-modules", "-q", "-p", "no:cacheprovider", "sk_mlp"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"\b3 passed", done.stdout), done.stdout
