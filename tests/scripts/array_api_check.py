"""Run scikit-learn's check of array API input for a class and a JSON list of its options; print how often it ran.

It runs only where SciPy was imported in its array API mode.
"""

import json
import sys
import warnings

from sklearn.utils.estimator_checks import estimator_checks_generator

import sk_mlp

warnings.simplefilter("ignore")
cls, configurations, name = getattr(sk_mlp, sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
n_run = 0
for configuration in configurations:
    for estimator, check in estimator_checks_generator(cls(**configuration)):
        if check.func.__name__ == name:
            check(estimator)
            n_run += 1
print("run", n_run)
