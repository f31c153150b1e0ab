"""Multi-layer perceptrons that are scikit-learn estimators on the outside and PyTorch inside.

Importing this package registers the joblib backend "sk_mlp", under which searches train as stacked networks.
"""

from .classifier import MLPTorchClassifier
from .regressor import MLPTorchRegressor
from .stacking import register

register()

__all__ = ["MLPTorchClassifier", "MLPTorchRegressor"]
__version__ = "0.1.0"
