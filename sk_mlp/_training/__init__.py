"""Training: how a `FitTask` becomes a `FitResult`. Read `loop.py` first."""
