"""Check that a fit records its step without PyTorch's compiler, which takes seconds to import."""

import sys
import warnings

from sk_mlp import MLPTorchClassifier
from sk_mlp._compute import replay

warnings.simplefilter("ignore")
MLPTorchClassifier((4,), batch_size=5, max_iter=20, device="cpu").fit([[0.0], [1.0]] * 50, [0, 1] * 50)
assert replay._compiled.cache_info().currsize == 1
assert "torch._dynamo" not in sys.modules
