"""Print how many MiB a fit takes at its peak beyond one copy of its input where it has to be, and its parameters.

Anonymous memory is what a process cannot give back: pages of a memory map do not count. The kernel keeps no record of
its peak, so a thread looks every half millisecond.
"""

import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from sk_mlp import MLPTorchClassifier


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak(threading.Thread):
    def run(self):
        self.value, self.ended = 0, False
        while not self.ended:
            self.value = max(self.value, anonymous())
            time.sleep(0.0005)


warnings.simplefilter("ignore")
case, path, hidden, n = sys.argv[1], sys.argv[2], int(sys.argv[3]), 100_000
if case == "memory map":
    X = np.lib.format.open_memmap(path, "w+", "f4", (n, 400))
    for start in range(0, n, 10_000):
        X[start : start + 10_000] = np.random.default_rng(0).random((10_000, 400), dtype="f4")
    X = np.load(path, mmap_mode="r")
elif "sparse" in case:
    indices = np.random.default_rng(0).integers(20_000, size=(n, 50), dtype="i4")
    indices.sort(axis=1)
    values = np.ones(indices.size, "f8" if "float64" in case else "f4")
    X = sp.csr_array((values, indices.ravel(), np.arange(0, indices.size + 1, 50, dtype="i4")), shape=(n, 20_000))
else:
    X = np.random.default_rng(0).random((n, 400), dtype="f8" if "float64" in case else "f4")
y = np.arange(n) % 3
estimator = MLPTorchClassifier((hidden,), max_iter=2, early_stopping="stopping" in case)
estimator.fit(X[:2000], y[:2000])
copy = 0 if "float64" not in case else X.data.size * 8 if "sparse" in case else X.nbytes // 2
n_parameters = sum(a.size for a in estimator.coefs_ + estimator.intercepts_)
del estimator.coefs_, estimator._optimizer_state
peak = Peak()
before = anonymous()
peak.start()
estimator.fit(X, y)
peak.ended = True
peak.join()
print(peak.value - before - (copy + 8 * 4 * n_parameters) / 2**20)
