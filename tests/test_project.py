"""The project itself: signatures, imports, sizes, documents and examples."""

import ast
import inspect
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

import sk_mlp
from sk_mlp import MLPTorchClassifier, MLPTorchRegressor
from sk_mlp._objective import REGRESSION_LOSSES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sk_mlp"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}  # by their dotted names within the package
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
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

# Rooms (folders, and modules beside them), and the rooms that each may import from.
ROOMS = {
    "_alike": set(),
    "_compute": set(),
    "exceptions": set(),
    "_objective": {"_alike", "_compute"},
    "_network": {"_alike", "_compute", "_objective"},
    "_training": {"_compute", "_network", "_objective"},
    "_estimator": {"_alike", "_compute", "_network", "_objective", "_training", "exceptions"},
    "classifier": {"_estimator", "_objective"},
    "regressor": {"_estimator", "_objective"},
    "_ambient": {"_compute"},
    "_hub": {"_ambient"},
    "stacking": {"_ambient", "_compute", "_hub", "_training"},
    "__init__": {"classifier", "regressor", "stacking"},
}


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


def _imported_modules(name, tree):
    """Modules of the package that a module imports at run time, by their dotted names within it."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            room = name.rpartition(".")[0] if node.level else ""
            path = (node.module or "").removeprefix("sk_mlp").lstrip(".")
            if node.level or (node.module or "").split(".")[0] == "sk_mlp":
                module = ".".join(filter(None, [room, path]))
                found |= {module} if module in MODULES else {f"{module}.{a.name}".lstrip(".") for a in node.names}
    return found


IMPORTS = {name: _imported_modules(name, tree) for name, tree in MODULES.items()}


def test_rooms_import_in_one_direction():
    for name, imports in IMPORTS.items():
        room = name.split(".")[0]
        others = {module.split(".")[0] for module in imports} - {room}
        assert others <= ROOMS[room], f"{name} imports from {sorted(others - ROOMS[room])}"


def test_no_imports_in_a_circle():
    settled = set()
    while len(settled) < len(IMPORTS):
        free = {name for name, imports in IMPORTS.items() if imports <= settled} - settled
        assert free, f"a cycle among {set(IMPORTS) - settled}"
        settled |= free


def test_private_names_of_others_stand_in_one_file_each():
    """Names that scikit-learn and PyTorch do not promise to keep, as they are imported or looked up."""
    for name, tree in MODULES.items():
        imported = {
            (node.module, alias.name)
            for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module for alias in node.names
        }  # fmt: skip
        for module, one in imported:
            is_private = any(part.startswith("_") for part in [*module.split(".")[1:], one])
            assert not is_private or module.split(".")[0] not in ("sklearn", "torch") or name.endswith("_private"), name
        looked_up = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_of_torch(node)}
        assert name.endswith("torch_private") or not any(one.startswith("_") for one in looked_up), (name, looked_up)


def _is_of_torch(node):
    """Whether an attribute is looked up on `torch` or a module of its."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "torch"


def test_imports_stand_at_the_top():
    for name, tree in MODULES.items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                inner = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
                assert not inner, f"{name}.{function.name} imports inside"


def test_one_file_names_device_types():
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        words = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        # .cpu() and to("cpu") name where NumPy lives, not a device to choose.
        assert path.name == "device.py" or not words & {"cuda", "mps", "xpu"}


def _code_lines(node, source):
    """Lines of code of a function or class: no blank lines, comments or docstrings."""
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    documented = [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(n)]
    prose = sum(n.body[0].end_lineno - n.body[0].lineno + 1 for n in documented)
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#")) - prose


def test_functions_and_classes_stay_small():
    sizes = []
    for path in PACKAGE.rglob("*.py"):
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


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_code_blocks_run(path, tmp_path, monkeypatch):
    """The Python blocks of a document, one after another, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)):
        exec(compile(block, f"{path.name}, block {number}", "exec"), namespace)


# PyPI shows the README without the files around it, so that links into this repository may be absolute.
HERE = r"https://(?:github\.com/sk-mlp/sk-mlp/(?:blob|tree|raw)|raw\.githubusercontent\.com/sk-mlp/sk-mlp)/main/"
LINKED = [*sorted(ROOT.glob("*.md")), *DOCUMENTS[1:]]


@pytest.mark.parametrize("path", LINKED, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (path.parent / target).exists(), target
    for target in re.findall(rf"\]\({HERE}([^)#?]+)", text):
        assert (ROOT / target).exists(), target


def test_addresses_of_the_project_lead_somewhere():
    """Those that PyPI shows, and the one of an estimator's HTML representation."""
    for address in [*PROJECT["urls"].values(), MLPTorchClassifier._doc_link_template]:
        assert address.startswith("https://github.com/sk-mlp/sk-mlp"), address
        for target in re.findall(rf"^{HERE}([^#]+)", address):
            assert (ROOT / target).exists(), target


def test_the_estimators_link_is_in_the_projects_documentation():
    source = MLPTorchClassifier._doc_link_template.split("/docs/")[0]
    assert source == f"{PROJECT['urls']['Source']}/blob/main"
    assert PROJECT["urls"]["Documentation"] == f"{PROJECT['urls']['Source']}/tree/main/docs"


def test_the_makefile_names_tests_that_there_are():
    named = re.findall(r"(tests/\S+\.py)::(\w+)", (ROOT / "Makefile").read_text())
    assert named
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(), path


def test_readme_names_the_commands():
    readme = (ROOT / "README.md").read_text()
    for target in re.findall(r"make ([\w-]+)", readme):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.slow
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


def test_versions_agree():
    assert PROJECT["dynamic"] == ["version"], "sk_mlp.__version__ is the one place"
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [sk_mlp.__version__]
    titles = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] in {"Unreleased", sk_mlp.__version__}
    releases = [Version(title) for title in titles if title != "Unreleased"]
    assert releases == sorted(set(releases), reverse=True)
    assert all(release <= Version(sk_mlp.__version__) for release in releases)


def test_classifiers_name_the_pythons_tested():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    (tested,) = re.findall(r"^ +python: \[(.+)\]$", (ROOT / ".github/workflows/ci.yml").read_text(), re.MULTILINE)
    assert named == re.findall(r"[\d.]+", tested)
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_oldest_versions_are_the_lower_bounds():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints-oldest.txt").read_text(), re.MULTILINE))
    extras = [bound for bounds in PROJECT["optional-dependencies"].values() for bound in bounds]
    bounds = dict(re.findall(r"^([\w-]+)>=(\S+)$", "\n".join([*PROJECT["dependencies"], *extras]), re.MULTILINE))
    for name in bounds.keys() - {"ruff", "mypy", "skorch"}:  # tools and contestants, which the suite does not run with
        assert re.fullmatch(rf"{re.escape(bounds[name])}(\.0)*", pins[name]), f"{name}: {bounds[name]}, {pins[name]}"


def test_dependencies_are_what_is_imported():
    imported = set()
    for tree in MODULES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    names = {"sklearn": "scikit-learn"}
    needed = {names.get(module, module) for module in imported - sys.stdlib_module_names - {"sk_mlp"}}
    assert needed == {re.match(r"[\w-]+", dependency)[0] for dependency in PROJECT["dependencies"]}
