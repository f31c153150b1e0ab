"""Networks as PyTorch modules over the memory of given tensors."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn


class ModuleClasses(NamedTuple):
    """The module classes of a network, in addition to linear layers and activations."""

    layer_norm: Callable[[int], nn.Module] = nn.LayerNorm
    batch_norm: Callable[[int], nn.Module] = nn.BatchNorm1d
    dropout: Callable[[float], nn.Module] = nn.Dropout

    def normalization(self, name: str | None, units: int) -> list[nn.Module]:
        """Return the modules that normalize the values of a hidden layer before its activation."""
        return [] if name is None else [{"layer": self.layer_norm, "batch": self.batch_norm}[name](units)]


def build_module(
    coefs: Sequence[Tensor],
    intercepts: Sequence[Tensor],
    activations: Sequence[Callable[[], nn.Module]],
    dropout: Sequence[float],
    normalization: str | None,
    classes: ModuleClasses = ModuleClasses(),  # noqa: B008  (immutable)
) -> nn.Sequential:
    """Return a module of linear layers over the memory of the given tensors.

    Each of them except the last is followed by normalization, if any, an activation, and dropout, if `dropout` is not
    empty.
    """
    linears = [_linear(coef, intercept) for coef, intercept in zip(coefs, intercepts, strict=True)]
    layers: list[nn.Module] = []
    for i, (linear, activation) in enumerate(zip(linears, activations, strict=False)):
        layers += [linear, *classes.normalization(normalization, linear.out_features), _made(activation)]
        layers += [classes.dropout(rate) for rate in dropout[i : i + 1]]
    return nn.Sequential(*layers, linears[-1])


def _made(activation: Callable[[], nn.Module]) -> nn.Module:
    """Return the module that `activation()` makes. Raises ValueError if this is no module."""
    try:
        made = activation()
    except TypeError as error:
        raise ValueError(
            f"activation must make an nn.Module when called without arguments (nn.ReLU, not torch.relu), "
            f"got {activation!r}: {error}"
        ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"activation must make an nn.Module, got {made!r} from {activation!r}")
    return made


def _linear(coef: Tensor, intercept: Tensor) -> nn.Linear:
    """Return an `nn.Linear` that shares the memory of `coef` `(fan_in, fan_out)` and `intercept` `(fan_out,)`."""
    fan_in, fan_out = coef.shape
    linear = nn.Linear(fan_in, fan_out, device="meta")
    linear.weight, linear.bias = nn.Parameter(coef.T), nn.Parameter(intercept)
    linear.register_state_dict_post_hook(_with_contiguous_weight)
    return linear


def _with_contiguous_weight(
    linear: nn.Module, state: MutableMapping[str, Tensor], prefix: str, local_metadata: object
) -> None:
    """Replace a weight that is a transposed view by a contiguous copy: safetensors, for example, rejects such views."""
    weight = state[f"{prefix}weight"]
    if not isinstance(weight, nn.Parameter):  # with `keep_vars`, the state contains the parameters themselves
        state[f"{prefix}weight"] = weight.contiguous()
