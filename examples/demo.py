"""Train on scikit-learn's digits in a Pipeline, compare with scikit-learn's own MLP, and draw the loss curves.

Run with `make demo`, or `python examples/demo.py` if sk_mlp[plot] is installed.
"""

from pathlib import Path
from time import perf_counter

import matplotlib as mpl
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_mlp import MLPTorchClassifier

mpl.use("Agg")
import matplotlib.pyplot as plt

OPTIONS = {"hidden_layer_sizes": (100,), "max_iter": 500, "random_state": 0}
PICTURE = Path("demo_loss_curve.png")


def timed_fit(classifier, X, y):
    """Return a fitted pipeline and the time of the fit in seconds."""
    start = perf_counter()
    model = make_pipeline(StandardScaler(), classifier).fit(X, y)
    return model, perf_counter() - start


def main():
    """Print one line for each classifier and write the picture."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0)
    timed_fit(MLPTorchClassifier((10,), tol=1.0, n_iter_no_change=1), X_train, y_train)  # PyTorch's first call is slow
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    print(f"{'':<28}{'test accuracy':>14}{'epochs':>8}{'seconds':>9}")
    for name, cls, style in (
        ("scikit-learn MLPClassifier", MLPClassifier, "-"),
        ("MLPTorchClassifier", MLPTorchClassifier, "--"),
    ):
        model, seconds = timed_fit(cls(**OPTIONS), X_train, y_train)
        mlp = model[-1]
        print(f"{name:<28}{model.score(X_test, y_test):>14.4f}{mlp.n_iter_:>8}{seconds:>9.2f}")
        axes.plot(mlp.loss_curve_, style, label=name)
    axes.set(xlabel="epoch", ylabel="training loss", yscale="log", title="Same seed, same network: digits, 64-100-10")
    axes.legend()
    figure.savefig(PICTURE, dpi=120)
    print(f"loss curves: {PICTURE.resolve()}")


if __name__ == "__main__":
    main()
