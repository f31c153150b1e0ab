"""Print how many threads PyTorch has in forked children, before and after a fit, and then in the parent."""

import os
import signal
import time
import warnings

import numpy as np
import torch

from sk_mlp import MLPTorchClassifier

warnings.simplefilter("ignore")
torch.set_num_threads(2)
X = np.random.default_rng(0).normal(size=(4000, 300)).astype(np.float32)
y = (X[:, 0] > 0).astype(int)


def in_child(call):
    pid = os.fork()
    if pid == 0:
        call()
        os._exit(torch.get_num_threads())
    for _ in range(600):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


print(in_child(lambda: None))
MLPTorchClassifier((4,), max_iter=2, random_state=0, device="cpu").fit(X[:200, :5], y[:200])
print(in_child(lambda: None))
large = MLPTorchClassifier((300, 200), max_iter=1, random_state=0, device="cpu").fit(X, y)
print(in_child(lambda: large.predict(X)))
print(in_child(lambda: large.fit(X, y)))
print(in_child(lambda: MLPTorchClassifier((300, 200), solver="lbfgs", max_iter=1, device="cpu").fit(X, y)))
print(torch.get_num_threads())
