"""How many threads PyTorch has in a fit, and afterwards."""

import re
import threading

import pytest
import torch
from problems import PROBLEMS
from small_fits import fitted
from user_code import torch_threads

from sk_mlp._network.forward import Forward
from sk_mlp._training.optimizers import Optimizer

pytestmark = pytest.mark.usefixtures("unconverged")


def test_thread_count_is_restored_after_an_error(where, monkeypatch):
    problem = PROBLEMS["multiclass"]

    def fail(self):
        assert torch.get_num_threads() == 1
        raise RuntimeError("in the middle")

    for rule in Optimizer.__subclasses__():
        for cls in (rule, *rule.__subclasses__()):
            monkeypatch.setattr(cls, "prepare", fail)
    with torch_threads(2):
        with pytest.raises(RuntimeError, match="in the middle"):
            fitted(problem, where)
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_small_products_run_on_one_thread(solver, where, monkeypatch):
    """In training and in predictions, down to the smallest: a second thread costs more than it gives."""
    seen, forward = set(), Forward.__call__

    def watched(self, inputs):
        seen.add(torch.get_num_threads())
        return forward(self, inputs)

    monkeypatch.setattr(Forward, "__call__", watched)
    with torch_threads(2):
        fitted(PROBLEMS["multiclass"], where, solver=solver, hidden_layer_sizes=(2,)).predict(PROBLEMS["multiclass"].X)
        assert torch.get_num_threads() == 2
    assert seen == {1}


def test_thread_count_of_other_threads_is_left_alone(where, monkeypatch):
    """Neither OpenMP's number nor MKL's, neither now nor later, of a thread that is there or of one to come."""
    found = []
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
    with torch_threads(2):
        look()
        resident = threading.Thread(target=look_later)
        resident.start()
        fitted(PROBLEMS["multiclass"], where, solver="sgd", max_iter=1, batch_size=160)
        go_on[1].set()
        resident.join()
    assert len(found) == 4
    assert set(found) == {found[0]}
