"""Hidden activations: value and derivative, written to given buffers, and their `nn.Module`.

Each derivative is the ATen kernel that autograd itself would call, here called without a graph. These kernels read
either the output or the input of the activation; `Activation.keeps_input` says which of the two must be kept until the
backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_aten = torch.ops.aten

# Constants of Klambauer et al., "Self-Normalizing Neural Networks", 2017.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_LEAKY_SLOPE = 0.01  # torch.nn.LeakyReLU's default
# Above this input, softplus equals its argument to the last bit of a float64.
_SOFTPLUS_LINEAR = 40.0


class Activation(NamedTuple):
    """One elementwise activation.

    `forward(z, out)` fills `out` (which is `z` itself unless `keeps_input`). `backward(gradient, kept)` multiplies
    `gradient` in place by the derivative, where `kept` is the output, or the input if `keeps_input`. If both are None,
    only the module is known, and autograd computes the derivative.
    """

    name: str
    forward: Callable[[Tensor, Tensor], object] | None
    backward: Callable[[Tensor, Tensor], object] | None
    module: Callable[[], nn.Module]
    keeps_input: bool = False
    init_factor: float = 6.0  # of Glorot's bound, sqrt(factor / (fan_in + fan_out))

    @property
    def has_closed_form(self) -> bool:
        """Whether the derivative is known in closed form."""
        return self.backward is not None


def _nothing(_a: Tensor, _b: Tensor) -> None:
    """Do nothing, for the identity and its derivative."""


def _logistic(name: str) -> Activation:
    """Return the logistic sigmoid under `name`."""
    return Activation(
        name,
        lambda z, out: torch.sigmoid(z, out=out),
        lambda grad, out: _aten.sigmoid_backward.grad_input(grad, out, grad_input=grad),
        nn.Sigmoid,
        init_factor=2.0,
    )


_TABLE = (
    Activation("identity", _nothing, _nothing, nn.Identity),
    _logistic("logistic"),
    _logistic("sigmoid"),
    Activation(
        "tanh",
        lambda z, out: torch.tanh(z, out=out),
        lambda grad, out: _aten.tanh_backward.grad_input(grad, out, grad_input=grad),
        nn.Tanh,
    ),
    Activation(
        "relu",
        lambda z, _: torch.relu_(z),
        lambda grad, out: _aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad),
        nn.ReLU,
    ),
    Activation(
        "leaky_relu",
        lambda z, _: F.leaky_relu_(z, _LEAKY_SLOPE),
        lambda grad, out: _aten.leaky_relu_backward.grad_input(grad, out, _LEAKY_SLOPE, True, grad_input=grad),
        nn.LeakyReLU,
    ),
    Activation(
        "elu",
        lambda z, _: F.elu_(z),
        lambda grad, out: _aten.elu_backward.grad_input(grad, 1.0, 1.0, 1.0, True, out, grad_input=grad),
        nn.ELU,
    ),
    Activation(
        "selu",
        lambda z, _: torch.selu_(z),
        lambda grad, out: _aten.elu_backward.grad_input(
            grad, _SELU_ALPHA, _SELU_SCALE, 1.0, True, out, grad_input=grad
        ),
        nn.SELU,
    ),
    Activation(
        "gelu",
        lambda z, out: _aten.gelu.out(z, out=out),
        lambda grad, z: _aten.gelu_backward.grad_input(grad, z, grad_input=grad),
        nn.GELU,
        keeps_input=True,
    ),
    Activation(
        "silu",
        lambda z, out: _aten.silu.out(z, out=out),
        lambda grad, z: _aten.silu_backward.grad_input(grad, z, grad_input=grad),
        nn.SiLU,
        keeps_input=True,
    ),
    Activation(
        "mish",
        lambda z, out: _aten.mish.out(z, out=out),
        # The only kernel here without a variant that writes to a given buffer.
        lambda grad, z: grad.copy_(_aten.mish_backward(grad, z)),
        nn.Mish,
        keeps_input=True,
    ),
    Activation(
        "softplus",
        lambda z, out: _aten.softplus.out(z, 1.0, _SOFTPLUS_LINEAR, out=out),
        lambda grad, z: _aten.softplus_backward.grad_input(grad, z, 1.0, _SOFTPLUS_LINEAR, grad_input=grad),
        lambda: nn.Softplus(threshold=_SOFTPLUS_LINEAR),
        keeps_input=True,
    ),
)

ACTIVATIONS = {activation.name: activation for activation in _TABLE}


def activations_of(activation: Any, n_hidden: int) -> tuple[Activation, ...]:
    """Return the activation of each hidden layer, from one for all layers or a sequence with one for each.

    Raises ValueError for a sequence of another length, an unknown name, or a value that cannot make an `nn.Module`.
    """
    if isinstance(activation, str) or not isinstance(activation, Sequence | np.ndarray):
        return (_activation_of(activation),) * n_hidden
    each = list(activation)
    if len(each) != n_hidden:
        raise ValueError(
            f"activation must be one for all hidden layers or a sequence of one each, {n_hidden} in all, "
            f"got {len(each)}: {activation!r}"
        )
    return tuple(_activation_of(one) for one in each)


def _activation_of(activation: Any) -> Activation:
    """Return the activation of one layer, from a name or from a callable that makes a module."""
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if isinstance(activation, str | nn.Module) or not callable(activation):
        raise ValueError(
            f"activation must be among {sorted(ACTIVATIONS)}, or an nn.Module class or a function that makes an "
            f"nn.Module, got {activation!r}"
        )
    return Activation("user-defined", None, None, activation)
