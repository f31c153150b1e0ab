"""Every private name of PyTorch's that this package uses, in one place, with what serves where it is gone.

- `fused_adam`: Adam written in PyTorch's public operations (`Adam` in `optimizers.py`), about a third slower.
- `onednn_mm`: `torch.mm`, which is slower on processors of AMD's that compute 512 bits at once.
- Looks at modes: they are taken to be in force, and what follows looks closer by public functions.
- Function modes (`torch.set_default_device` is one): calls of a stacked search share them.
- `thread_setters`: `torch.set_num_threads`, which changes the number for all threads of the process.
- Recorded graphs: operations are called from Python, one after another.
- `default_generators` of CUDA, and that of MPS: `get_rng_state` and `set_rng_state` of `torch.cuda` and `torch.mps`.
- Hooks of modules: every module is taken to draw random numbers.

Operators below `torch.ops.aten` are no part of this list: they are the operations that PyTorch's own autograd calls,
and a test compares each with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TorchDispatchMode"]

# Text to a graph, a graph to a function, and whether it is rewritten before it is run.
_OF_GRAPHS = (
    "parse_ir",
    "_create_function_from_graph",
    "_get_graph_executor_optimize",
    "_set_graph_executor_optimize",
)
_OF_FUNCTION_MODES = ("_get_current_function_mode_stack", "_pop_mode", "_push_mode")


def _always() -> int:
    return 1


# How many function modes are in force, and whether any autocast is: in a tenth of the time that a public look takes.
n_function_modes: Callable[[], int] = getattr(torch._C, "_len_torch_function_stack", _always)
any_autocast: Callable[[], int] = getattr(torch._C, "_is_any_autocast_enabled", _always)


def function_modes() -> tuple[Any, ...]:
    """Return PyTorch's function modes, the innermost last; none where they cannot be seen."""
    if not all(hasattr(torch.overrides, name) for name in _OF_FUNCTION_MODES):
        return ()
    return tuple(torch.overrides._get_current_function_mode_stack())


def replace_function_modes(now: Sequence[Any], modes: Sequence[Any]) -> None:
    """Put function modes in force in place of those that are."""
    for _ in now:
        torch.overrides._pop_mode()
    for mode in modes:
        torch.overrides._push_mode(mode)


@lru_cache
def thread_setters() -> tuple[Callable[[int], object], Callable[[int], int]]:
    """Return what sets OpenMP's and MKL's number of threads for the calling thread alone.

    `torch.set_num_threads` would change MKL's for all threads of the process, and for good that of a thread which comes
    to PyTorch while the number is lowered. It serves where the libraries inside PyTorch cannot be reached by name.
    """
    libraries = ctypes.CDLL(torch._C.__file__)
    set_openmp = getattr(libraries, "omp_set_num_threads", torch.set_num_threads)
    # Returns the number before, 0 for that of the process. Absent from builds of PyTorch without MKL.
    set_mkl = getattr(libraries, "MKL_Set_Num_Threads_Local", lambda _: 0)
    return set_openmp, set_mkl


def default_generators(device_type: str, index: int) -> list[torch.Generator]:
    """Return the generators that modules on a device draw from, besides the CPU's."""
    if device_type == "cuda":
        return [torch.cuda.default_generators[index]]
    return [torch.mps._get_default_mps_generator()] if device_type == "mps" else []


def has_fused_adam() -> bool:
    """Whether PyTorch has Adam as one kernel."""
    return hasattr(torch, "_fused_adam_")


def fused_adam(
    parameters: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], steps: Tensor, **rule: Any
) -> None:
    """Take a step of Adam, as `torch.optim.Adam(fused=True)` does after it has looked at everything."""
    first, second = moments
    torch._fused_adam_(
        [parameters], [gradient], [first], [second], [], [steps],
        weight_decay=0.0, amsgrad=False, maximize=False, **rule,
    )  # fmt: skip


def has_onednn_product() -> bool:
    """Whether oneDNN's product of float32 matrices can be called."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_mm(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b`: the product that compiled PyTorch models call, which has no public name and checks nothing."""
    if a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        raise RuntimeError(f"a product needs matrices that go together, got {a.shape} {a.dtype}, {b.shape} {b.dtype}")
    return torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")


def has_graphs() -> bool:
    """Whether PyTorch has what carries recorded operations out."""
    return all(hasattr(torch._C, name) for name in _OF_GRAPHS)


def function_of_graph(text: str) -> Callable[..., None] | None:
    """Return the function that a graph's text describes; None if Python alone knows an operation in this form."""
    graph = torch._C.parse_ir(text)
    if any(node.kind().startswith("aten::") and node.schema() == "(no schema)" for node in graph.nodes()):
        return None
    function: Callable[..., None] = torch._C._create_function_from_graph("replay", graph)
    return function


def call_graph(function: Callable[..., None], *operands: Any) -> None:
    """Call a graph's function as it is: PyTorch would rewrite the graph first, ten times as long as recording it."""
    before = torch._C._get_graph_executor_optimize()  # of this thread alone
    torch._C._set_graph_executor_optimize(False)
    try:
        function(*operands)
    finally:
        torch._C._set_graph_executor_optimize(before)


def has_hooks(module: nn.Module) -> bool:
    """Whether functions are called before or after a module."""
    return bool(module._forward_pre_hooks or module._forward_hooks)
