"""All private names of PyTorch that this package uses, with the replacement of each if it is missing.

- `fused_adam`: Adam in public operations of PyTorch (`Adam` in `optimizers.py`), about a third slower.
- `onednn_mm`: `torch.mm`, which is slower on AMD processors that compute 512 bits at once.
- Checks of modes: modes are assumed to be set, and later code checks them by public functions.
- Function modes (for example `torch.set_default_device`): the calls of a stacked search share them.
- `thread_setters`: `torch.set_num_threads`, which changes the number for all threads of the process.
- Recorded graphs: operations are called from Python, one after another.
- `default_generators` of CUDA and of MPS: `get_rng_state` and `set_rng_state` of `torch.cuda` and `torch.mps`.
- Hooks of modules: every module is assumed to draw random numbers.

Operators in `torch.ops.aten` are not in this list: PyTorch's own autograd calls them, and a test compares each of them
with autograd.
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

# From text to a graph, from a graph to a function, and whether a graph is rewritten before it runs.
_OF_GRAPHS = (
    "parse_ir",
    "_create_function_from_graph",
    "_get_graph_executor_optimize",
    "_set_graph_executor_optimize",
)
_OF_FUNCTION_MODES = ("_get_current_function_mode_stack", "_pop_mode", "_push_mode")


def _always() -> int:
    return 1


# The number of active function modes, and whether any autocast is active; public functions take ten times as long.
n_function_modes: Callable[[], int] = getattr(torch._C, "_len_torch_function_stack", _always)
any_autocast: Callable[[], int] = getattr(torch._C, "_is_any_autocast_enabled", _always)


def function_modes() -> tuple[Any, ...]:
    """Return PyTorch's active function modes, the innermost last; an empty tuple if they cannot be read."""
    if not all(hasattr(torch.overrides, name) for name in _OF_FUNCTION_MODES):
        return ()
    return tuple(torch.overrides._get_current_function_mode_stack())


def replace_function_modes(now: Sequence[Any], modes: Sequence[Any]) -> None:
    """Replace the active function modes `now` by `modes`."""
    for _ in now:
        torch.overrides._pop_mode()
    for mode in modes:
        torch.overrides._push_mode(mode)


@lru_cache
def thread_setters() -> tuple[Callable[[int], object], Callable[[int], int]]:
    """Return two functions that set the number of threads of OpenMP and of MKL, only for the calling thread.

    `torch.set_num_threads` would change MKL's number for all threads of the process, and permanently for a thread that
    uses PyTorch for the first time while the number is lowered. It is the replacement if the functions of the libraries
    inside PyTorch are not found.
    """
    libraries = ctypes.CDLL(torch._C.__file__)
    set_openmp = getattr(libraries, "omp_set_num_threads", torch.set_num_threads)
    # Returns the previous number; 0 means the number of the process. Builds of PyTorch without MKL lack it.
    set_mkl = getattr(libraries, "MKL_Set_Num_Threads_Local", lambda _: 0)
    return set_openmp, set_mkl


def cuda_generator(index: int) -> torch.Generator:
    """Return the random generator of a CUDA device."""
    return torch.cuda.default_generators[index]


def mps_generator() -> torch.Generator:
    """Return the random generator of MPS."""
    return torch.mps._get_default_mps_generator()


def has_fused_adam() -> bool:
    """Whether PyTorch has Adam as one kernel."""
    return hasattr(torch, "_fused_adam_")


def fused_adam(
    parameters: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], steps: Tensor, **rule: Any
) -> None:
    """Take a step of Adam, like `torch.optim.Adam(fused=True)` but without its checks."""
    first, second = moments
    torch._fused_adam_(
        [parameters], [gradient], [first], [second], [], [steps],
        weight_decay=0.0, amsgrad=False, maximize=False, **rule,
    )  # fmt: skip


def has_onednn_product() -> bool:
    """Whether oneDNN's product of float32 matrices can be called."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_mm(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b`, by the product of compiled PyTorch models, which has no public name and checks no shapes."""
    if a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        raise RuntimeError(f"a product needs matrices that go together, got {a.shape} {a.dtype}, {b.shape} {b.dtype}")
    return torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")


def has_graphs() -> bool:
    """Whether PyTorch has the functions that carry out recorded operations."""
    return all(hasattr(torch._C, name) for name in _OF_GRAPHS)


def function_of_graph(text: str) -> Callable[..., None] | None:
    """Return the function that a graph's text describes; None if an operation exists in this form only in Python."""
    graph = torch._C.parse_ir(text)
    if any(node.kind().startswith("aten::") and node.schema() == "(no schema)" for node in graph.nodes()):
        return None
    function: Callable[..., None] = torch._C._create_function_from_graph("replay", graph)
    return function


def call_graph(function: Callable[..., None], *operands: Any) -> None:
    """Call a graph's function without rewriting the graph, which would take ten times as long as recording it."""
    before = torch._C._get_graph_executor_optimize()  # only of this thread
    torch._C._set_graph_executor_optimize(False)
    try:
        function(*operands)
    finally:
        torch._C._set_graph_executor_optimize(before)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks, which are functions that are called before or after it."""
    return bool(module._forward_pre_hooks or module._forward_hooks)
