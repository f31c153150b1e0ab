"""Multi-layer perceptrons that are scikit-learn estimators on the outside and PyTorch inside."""

from .classifier import MLPTorchClassifier
from .regressor import MLPTorchRegressor

__all__ = ["MLPTorchClassifier", "MLPTorchRegressor"]
__version__ = "0.1.0"
