"""Searches in processes of their own: by Dask, and how much memory they take."""

import sys

import pytest
from processes import run_script


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.slow
def test_memory_of_a_search_is_bounded():
    """Measured by the operating system: 300 candidates in 5 folds, which unbounded would hold 3 GiB."""
    assert float(run_script("memory_of_a_search.py", 300)) < 2048


@pytest.mark.slow
def test_dask_runs_the_same_search_on_two_processes(tmp_path):
    pytest.importorskip("distributed")
    run_script("search_by_dask.py", cwd=tmp_path)
