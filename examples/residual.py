"""A residual network for tables, defined in PyTorch and trained by `MLPTorchClassifier`.

The network is a dozen lines of PyTorch. Scaling, cross-validation, early stopping and class weights work as in
scikit-learn.
"""

from sklearn.datasets import make_classification
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sk_mlp import MLPTorchClassifier


class Block(nn.Module):
    """Adds the output of two layers to its input (Gorishniy et al., "Revisiting deep learning models", 2021)."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2 * width, width)
        )

    def forward(self, X):
        """Return values with the shape of X."""
        return X + self.layers(X)


def resnet(n_features, n_outputs):
    """Build two residual blocks between a first and a last linear layer."""
    return nn.Sequential(
        nn.Linear(n_features, 32), Block(32), Block(32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, n_outputs)
    )


if __name__ == "__main__":
    X, y = make_classification(
        3000, 20, n_informative=10, n_redundant=0, n_classes=4, weights=[0.55, 0.2, 0.15, 0.1], random_state=0
    )
    options = {"class_weight": "balanced", "learning_rate_init": 0.003, "random_state": 0}
    options |= {"early_stopping": True, "scoring": "loss"}
    for name, network in (
        ("one hidden layer", MLPTorchClassifier((32,), **options)),
        ("residual network", MLPTorchClassifier(module=resnet, **options)),
    ):
        scores = cross_val_score(make_pipeline(StandardScaler(), network), X, y, cv=3, scoring="balanced_accuracy")
        print(f"{name}: balanced accuracy {scores.mean():.3f} over three folds")
