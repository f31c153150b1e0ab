"""The warnings, the printed lines and the fit times of a search."""

import re
import warnings
from types import SimpleNamespace

import pytest
import sklearn
from joblib import Parallel, delayed, parallel_config
from searches import CV, LABELS, RATES, X, classifier, nothing_is_left
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from sk_mlp import _hub, stacking


def test_each_warning_comes_once_from_its_member():
    estimators = [classifier(max_iter=n, tol=1.0, n_iter_no_change=3) for n in (3, 30, 4, 30)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with parallel_config("sk_mlp"):
            Parallel()(delayed(e.fit)(X, LABELS) for e in estimators)
    messages = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    assert [re.search(r"\((\d+)\)", message)[1] for message in messages] == ["3", "4"]


@pytest.mark.slow
def test_filters_and_configuration_of_a_call_stay_with_it():
    def fit(i):
        with warnings.catch_warnings(record=True) as caught, sklearn.config_context(working_memory=100 + i):
            warnings.simplefilter("always" if i % 2 else "ignore")
            classifier(random_state=i).fit(X, LABELS)
            assert sklearn.get_config()["working_memory"] == 100 + i
            return len(caught)

    before = nothing_is_left()
    with parallel_config("sk_mlp"):
        assert Parallel()(delayed(fit)(i) for i in range(4)) == [0, 1, 0, 1]
    assert nothing_is_left() == before


def test_verbose_output_of_a_member_stays_together(capsys):
    with parallel_config("sk_mlp"):
        Parallel()(delayed(classifier(max_iter=3, verbose=True, alpha=a).fit)(X, LABELS) for a in (0, 1, 2))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"Iteration {i}" for i in (1, 2, 3)] * 3


def test_verbose_output_of_a_search_follows_its_members(capsys):
    with parallel_config("sk_mlp"):
        GridSearchCV(classifier(max_iter=1, verbose=True), {"alpha": [0, 1]}, cv=CV, verbose=2, refit=False).fit(
            X, LABELS
        )
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["Iteration", "[CV]"] * 6


def test_fit_time_is_a_members_share(one_thread, clock, monkeypatch):
    """The shares of all fits add up to no more than the search took on one thread."""
    clock.step = 1e-3
    for module in (_hub, stacking):
        monkeypatch.setattr(module, "perf_counter", clock)
    monkeypatch.setattr("sklearn.model_selection._validation.time", SimpleNamespace(time=clock))
    search = GridSearchCV(classifier(max_iter=60), RATES, cv=CV, refit=False)
    with parallel_config("sk_mlp"):
        start = clock()
        search.fit(X, LABELS)
        seconds = clock() - start
    times = search.cv_results_["mean_fit_time"]
    assert (times > 0).all()
    assert 0.1 * seconds < 3 * times.sum() < seconds
