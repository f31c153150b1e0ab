"""Everything for scikit-learn: checks of parameters and data, fitted attributes, predictions, callbacks."""
