"""The lines that a fit prints."""

import re

import pytest
from options import estimator
from problems import data

pytestmark = pytest.mark.usefixtures("unconverged")


def test_a_line_every_so_many_epochs(where, capsys):
    X, y = data("classifier")
    estimator("classifier", where, verbose=3, early_stopping=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Iteration 3", "Iteration 6", "Iteration 8"]
    pattern = r"Iteration \d: loss \d\.\d{6}, validation score 0\.\d{6}, learning rate 0\.01, \d\.\d\d s"
    assert all(re.fullmatch(pattern, line) for line in lines)


@pytest.mark.parametrize("options", [{"max_iter": 7}, {"tol": 10.0, "n_iter_no_change": 2, "max_iter": 50}])
def test_the_last_epoch_has_one_line(options, where, capsys):
    X, y = data("classifier")
    for verbose in (2, 1, 100):
        fitted = estimator("classifier", where, verbose=verbose, **options).fit(X, y)
        printed = re.findall(r"^Iteration (\d+): ", capsys.readouterr().out, re.MULTILINE)
        expected = {n for n in range(1, fitted.n_iter_ + 1) if n % verbose == 0} | {fitted.n_iter_}
        assert [int(n) for n in printed] == sorted(expected)


def test_calls_of_partial_fit_count_as_epochs(where, capsys):
    X, y = data("regressor")
    fitted = estimator("regressor", where, verbose=3)
    for _ in range(7):
        fitted.partial_fit(X, y)
    assert re.findall(r"^Iteration (\d+): ", capsys.readouterr().out, re.MULTILINE) == ["3", "6"]


def test_iterations_of_lbfgs_have_lines_too(where, capsys):
    X, y = data("classifier")
    estimator("classifier", where, verbose=4, solver="lbfgs").fit(X, y)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["Iteration 4", "Iteration 8"]
