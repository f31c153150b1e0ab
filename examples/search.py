"""Search hyper-parameters of a small network twice: one fit after another, and as one stacked network."""

from time import perf_counter

from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier

X, y = load_digits(return_X_y=True)
stop = {"early_stopping": True, "scoring": "loss", "n_iter_no_change": 5}
network = MLPTorchClassifier((32, 16), batch_size=32, random_state=0, **stop)
grid = {
    "mlptorchclassifier__learning_rate_init": [1e-3, 3e-3, 1e-2],
    "mlptorchclassifier__alpha": [1e-5, 1e-3, 1e-1],
}
search = GridSearchCV(make_pipeline(StandardScaler(), network), grid, cv=5, refit=False)

for backend, name in (("sequential", "fit by fit"), ("sk_mlp", "as one network")):
    start = perf_counter()
    with parallel_config(backend):
        search.fit(X, y)
    best = {key.split("__")[1]: value for key, value in search.best_params_.items()}
    print(f"{name:>15}: {perf_counter() - start:.2f} s, score {search.best_score_:.4f} with {best}")
