"""Value and gradient by PyTorch's autograd, for one network that is any `nn.Module`.

The parameters of the module become views of the flat buffers. Those of two or more dimensions come first; they are the
coefs in the L2 penalty. Losses and their derivatives by the raw predictions are computed in closed form, and autograd
continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

Turns = Callable[[], AbstractContextManager[None]]  # contexts for a module's calls, with the random numbers of its fit


class WeightedBatchNorm(nn.BatchNorm1d):
    """Batch normalization with weighted statistics (Ioffe and Szegedy, "Batch normalization", ICML 2015).

    A weight of 2 is therefore equivalent to repeating the row. Running variances use the variance of the batch itself,
    without PyTorch's factor `n / (n - 1)`. A batch of one row, which has no variance, is normalized by the running
    statistics and does not change them.
    """

    share: Tensor | None = None  # weights divided by their sum, (n, 1); None if all rows have the same weight

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
        """Move the running statistics towards those of a batch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(variance.detach(), self.momentum)


class MaskedDropout(nn.Dropout):
    """Dropout with the same masks as a network in closed form."""

    mask: Tensor | None = None  # (n, units); None if all rates are 0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask if self.training and self.mask is not None else x


IN_TRAINING = ModuleClasses(batch_norm=WeightedBatchNorm, dropout=MaskedDropout)

# Modules that never draw from PyTorch's generators when they are called.
_NEVER_DRAW = {
    WeightedBatchNorm, MaskedDropout, nn.Sequential, nn.ModuleList, nn.Linear, nn.Identity, nn.Flatten, nn.BatchNorm1d,
    nn.LayerNorm, nn.GroupNorm, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid,
}  # fmt: skip


def may_draw(module: nn.Module) -> bool:
    """Whether a module may draw from PyTorch's generators: True unless all its parts are known not to draw."""
    return any(type(part) not in _NEVER_DRAW or has_hooks(part) for part in module.modules())


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return, by name, the module's parameters that are not frozen, those of two or more dimensions first."""
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return dict(sorted(named.items(), key=lambda item: item[1].ndim < 2))


def bind(trained: Iterable[nn.Parameter], parameters: Sequence[Tensor]) -> None:
    """Make a module's trained parameters use the memory of the given ones, `(1, *shape)` each."""
    for parameter, value in zip(trained, parameters, strict=True):
        parameter.data = value[0]


def load(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Make a module's parameters and buffers use the memory of `state`, and return the module.

    Unlike with `load_state_dict(assign=True)`, parameters that share their memory continue to share it.
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
    """Raise ValueError unless a user-defined module returned `n_outputs` raw predictions for each row of the inputs."""
    n, n_features = inputs.shape
    if not isinstance(raw, Tensor) or raw.shape != (n, n_outputs):
        found = f"shape {tuple(raw.shape)}" if isinstance(raw, Tensor) else repr(raw)
        raise ValueError(
            f"module must map rows (n, {n_features}) to raw predictions (n, {n_outputs}), got {found} for n = {n}"
        )


def require_graph(raw: Tensor) -> None:
    """Raise ValueError unless raw predictions depend on the parameters in a way that autograd knows."""
    if not raw.requires_grad:
        raise ValueError(
            "module must give raw predictions that its parameters can be trained by, got a tensor without a graph "
            "(made under torch.no_grad, detached, or by way of NumPy)"
        )


class Autograd:
    """Value and gradient of one module for batches of one size; it has the interface of `Backprop`."""

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
        trained = trained_parameters(module).values()
        bind(trained, layout.parameters(parameters))
        for parameter, slope in zip(trained, layout.parameters(gradient), strict=True):
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
                inputs = batch.inputs.dense()[0].clone()  # a module may change it in place
                raw = self._module(inputs)
            require_outputs(raw, inputs, self._raw.shape[1])
            require_graph(raw)
            self._raw.copy_(raw.detach().T)
            self._objective.loss_and_gradient(self._raw, batch.target, batch.losses, self._raw_delta)
            self._raw_delta.mul_(batch.scale)
            raw.backward(self._raw_delta[0].T.to(raw.dtype))
        self._penalty.add(batch)


class ModuleForward:
    """Raw predictions of one module in evaluation mode; it has the interface of `Forward`."""

    def __init__(self, module: nn.Module, like: Tensor, product: torch.dtype, turns: Turns = nullcontext) -> None:
        self._module, self._cast, self._dtype, self._turns = module, autocast(like, product), like.dtype, turns

    def __call__(self, inputs: Rows) -> Tensor:
        """Return raw predictions `(1, n_outputs, n)`."""
        was_training = self._module.training
        self._module.eval()
        try:
            with self._turns(), torch.no_grad(), self._cast:
                rows = inputs.dense()[0].clone()  # a module may change it in place
                return self._module(rows).to(self._dtype).T.unsqueeze(0)
        finally:
            self._module.train(was_training)


def autocast(like: Tensor, product: torch.dtype) -> Any:
    """Return a context in which modules compute products in the dtype `product`, if that is not the dtype of `like`."""
    if product == like.dtype:
        return nullcontext()
    # Without a cache: inside an autocast of the caller, PyTorch would reuse the cast weights in later steps.
    return torch.autocast(like.device.type, product, cache_enabled=False)
