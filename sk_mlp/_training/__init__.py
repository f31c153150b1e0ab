"""How: a `FitTask` becomes a `FitResult`. Read `loop.py` first."""
