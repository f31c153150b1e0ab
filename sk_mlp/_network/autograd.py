"""Value and gradient through PyTorch's autograd, for one network that is any `nn.Module`.

The module's parameters are made views of the flat buffers, those of two or more dimensions first: they are the coefs
that the L2 penalty counts. Losses and their slopes in raw space stay in closed form; autograd takes over below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sk_mlp._compute.torch_private import has_hooks
from sk_mlp._objective import Objective

from .backprop import Penalty
from .batch import Batch, Rows
from .modules import ModuleClasses
from .network import Buffers

Turns = Callable[[], AbstractContextManager[None]]  # what a module is called in, for what it may draw


class WeightedBatchNorm(nn.BatchNorm1d):
    """Batch normalization whose statistics count rows by their share of the batch's weight.

    Ioffe and Szegedy, "Batch normalization", ICML 2015. So a weight of 2 is the row twice, here too; running variances
    are the batch's own, without PyTorch's `n / (n - 1)`. A batch of one row, which has no variance, is normalised by
    the running statistics and leaves them as they are.
    """

    share: Tensor | None = None  # (n, 1); None where all rows weigh the same

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if self.share is None:
            out, mean, inverse_deviation = torch.native_batch_norm(
                x, self.weight, self.bias, None, None, True, 0.0, self.eps
            )
            self._remember(mean, inverse_deviation.detach() ** -2 - self.eps)
            return out
        mean = (x * self.share).sum(0)
        centred = x - mean
        variance = (centred.square() * self.share).sum(0)
        if self.share.any():
            self._remember(mean, variance)
        return torch.addcmul(self.bias, centred, self.weight * (variance + self.eps).rsqrt())

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards a batch's."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach(), self.momentum)


class MaskedDropout(nn.Dropout):
    """Dropout with the masks that the closed form would take."""

    mask: Tensor | None = None  # (n, units); None where nothing is dropped in any layer

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask if self.training and self.mask is not None else x


IN_TRAINING = ModuleClasses(batch_norm=WeightedBatchNorm, dropout=MaskedDropout)

# Modules that draw nothing from PyTorch's generators when they are called.
_NEVER_DRAW = {
    WeightedBatchNorm, MaskedDropout, nn.Sequential, nn.ModuleList, nn.Linear, nn.Identity, nn.Flatten, nn.BatchNorm1d,
    nn.LayerNorm, nn.GroupNorm, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid,
}  # fmt: skip


def may_draw(module: nn.Module) -> bool:
    """Whether a module may draw from PyTorch's generators, for all that is known of its parts."""
    return any(type(part) not in _NEVER_DRAW or has_hooks(part) for part in module.modules())


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the module's parameters that are not frozen by name, those of two or more dimensions first."""
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return dict(sorted(named.items(), key=lambda item: item[1].ndim < 2))


def bind(module: nn.Module, parameters: Sequence[Tensor]) -> None:
    """Make a module's trained parameters those given, `(1, *shape)` each, over their memory."""
    for parameter, value in zip(trained_parameters(module).values(), parameters, strict=True):
        parameter.data = value[0]


def load(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Make a module's parameters and buffers those of `state`, over its memory, and return the module.

    Unlike `load_state_dict(assign=True)` it leaves parameters that share their memory tied.
    """
    own = module.state_dict(keep_vars=True)
    built = {name: tuple(value.shape) for name, value in own.items()}
    fitted = {name: tuple(value.shape) for name, value in state.items()}
    if built != fitted:
        others = [name for name in sorted(built | fitted) if built.get(name) != fitted.get(name)]
        raise ValueError(
            f"module and activation must build the network that was fitted, with "
            f"{ {name: fitted.get(name) for name in others} }, got { {name: built.get(name) for name in others} }"
        )
    for name, value in own.items():
        value.data = state[name]
    return module


def require_outputs(raw: Any, inputs: Tensor, n_outputs: int) -> None:
    """Raise ValueError unless a user-defined module gave `n_outputs` raw predictions for each row of the inputs."""
    n, n_features = inputs.shape
    if not isinstance(raw, Tensor) or raw.shape != (n, n_outputs):
        found = f"shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else repr(raw)
        raise ValueError(
            f"module must map rows (n, {n_features}) to raw predictions (n, {n_outputs}), got {found} for n = {n}"
        )


def require_graph(raw: Tensor) -> None:
    """Raise ValueError unless a module can be trained by its raw predictions."""
    if not raw.requires_grad:
        raise ValueError(
            "module must give raw predictions that its parameters can be trained by, got a tensor without a graph "
            "(made under torch.no_grad, detached, or by way of NumPy)"
        )


class Autograd:
    """Value and gradient of one module for batches of any size; the interface is `Backprop`'s."""

    def __init__(
        self,
        module: nn.Module,
        buffers: Buffers,
        shape: tuple[int, int],  # of a batch's raw predictions, (n_outputs, n)
        objective: Objective,
        product: torch.dtype,
        turns: Turns = nullcontext,
    ) -> None:
        layout, parameters, gradient = buffers
        self._module, self._objective, self._gradient, self._turns = module, objective, gradient, turns
        bind(module, layout.parameters(parameters))
        for parameter, slope in zip(trained_parameters(module).values(), layout.parameters(gradient), strict=True):
            parameter.grad = slope[0]
        self._raw = parameters.new_empty(1, *shape)
        self._raw_delta = torch.empty_like(self._raw)
        self._cast = autocast(parameters, product)
        self._penalty = Penalty(layout.coef_pieces(parameters), layout.coef_pieces(gradient))
        self._dropouts = [m for m in module.modules() if isinstance(m, MaskedDropout)]
        self._norms = [m for m in module.modules() if isinstance(m, WeightedBatchNorm)]

    def value_and_gradient(self, batch: Batch) -> None:
        """Fill the gradient, and the batch's row losses and norms."""
        for norm in self._norms:
            norm.share = batch.scale[0].T if batch.scale.shape[-1] > 1 else None
        if batch.masks:
            for dropout, mask in zip(self._dropouts, batch.masks, strict=True):
                dropout.mask = mask[0]
        self._gradient.zero_()
        with self._turns():
            with torch.enable_grad(), self._cast:
                inputs = batch.inputs.dense()[0].clone()  # a module may work on it in place
                raw = self._module(inputs)
            require_outputs(raw, inputs, self._raw.shape[1])
            require_graph(raw)
            self._raw.copy_(raw.detach().T)
            self._objective.loss_and_gradient(self._raw, batch.target, batch.losses, self._raw_delta)
            self._raw_delta.mul_(batch.scale)
            raw.backward(self._raw_delta[0].T.to(raw.dtype))
        self._penalty.add(batch)


class ModuleForward:
    """Raw predictions of one module, as it predicts; the interface is `Forward`'s."""

    def __init__(self, module: nn.Module, like: Tensor, product: torch.dtype, turns: Turns = nullcontext) -> None:
        self._module, self._cast, self._dtype, self._turns = module, autocast(like, product), like.dtype, turns

    def __call__(self, inputs: Rows) -> Tensor:
        """Return raw predictions `(1, n_outputs, n)`."""
        was_training = self._module.training
        self._module.eval()
        try:
            with self._turns(), torch.no_grad(), self._cast:
                rows = inputs.dense()[0].clone()  # a module may work on it in place
                return self._module(rows).to(self._dtype).T.unsqueeze(0)
        finally:
            self._module.train(was_training)


def autocast(like: Tensor, product: torch.dtype) -> Any:
    """Return a context in which modules multiply in `product` where that is less than the type of `like`."""
    if product == like.dtype:
        return nullcontext()
    # Within an autocast of the caller's PyTorch would keep the cast weights of one step for the next ones.
    return torch.autocast(like.device.type, product, cache_enabled=False)
