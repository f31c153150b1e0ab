"""Networks that are any `nn.Module`, whose gradient PyTorch's autograd computes."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sk_mlp._compute.device import Precision
from sk_mlp._compute.kernels import Products
from sk_mlp._compute.randomness import building
from sk_mlp._objective import Objective

from .autograd import Autograd, ModuleForward, Turns, bind, trained_parameters
from .layout import Layout
from .network import Buffers, Network
from .values import Weights


@dataclass(frozen=True, eq=False)
class ModuleNetwork(Network):
    """A `Network` that is a module with `layer_sizes[0]` inputs and `layer_sizes[-1]` raw predictions per row.

    The module is bound to the parameters that it computes with, and belongs to one training. `linear_names` are the
    names of our linear layers, and `dropout` contains the rate of each hidden layer; both are empty for a user-defined
    module. The module is called in the context `turns()`, in which it may draw random numbers.
    """

    module: nn.Module
    layer_sizes: tuple[int, ...]
    dropout: tuple[float, ...] = ()
    linear_names: tuple[str, ...] = ()
    turns: Turns = nullcontext

    is_pure = False

    @cached_property
    def _trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name, looked up once: modules are traversed slowly."""
        return trained_parameters(self.module)

    @property
    def key(self) -> Hashable:
        """A unique key: the network trains alone, not in a stack."""
        return id(self)

    def layout(self, k: int) -> Layout:
        """Return the layout of the trained parameters in a flat buffer."""
        assert k == 1
        shapes = {name: tuple(parameter.shape) for name, parameter in self._trained.items()}
        coefs = {name: shape for name, shape in shapes.items() if len(shape) >= 2}
        return Layout(coefs, {name: shape for name, shape in shapes.items() if name not in coefs}, 1)

    def buffers(self) -> dict[str, np.ndarray]:
        """Return copies of the module's state except trained parameters, for example running statistics."""
        return {name: value.to("cpu", copy=True).numpy() for name, value in self._other_values().items()}

    def is_finite(self) -> bool:
        """Whether this state is finite; asked where the module computes."""
        return all(bool(value.isfinite().all()) for value in self._other_values().values())

    def _other_values(self) -> dict[str, Tensor]:
        """Return the module's state except trained parameters, over its memory."""
        trained = self._trained
        return {name: value.detach() for name, value in self.module.state_dict().items() if name not in trained}

    def arrays(self, weights: Weights) -> list[np.ndarray]:
        """Return the trained parameters among `weights`, with the shapes of `layout(1)`.

        A tied parameter has several names; the last one counts, as in `load`. Weights that were set by hand may lack
        the parameters of an activation, which then are those of the module.
        """
        named = dict(weights.rest)
        for name, coef, intercept in zip(self.linear_names, weights.coefs, weights.intercepts, strict=True):
            named |= {f"{name}.weight": coef.T, f"{name}.bias": intercept}
        all_names = self.module.named_parameters(remove_duplicate=False)
        values = {id(parameter): named[name] for name, parameter in all_names if name in named}
        trained = self._trained.values()
        return [values[id(own)] if id(own) in values else own.detach().cpu().numpy() for own in trained]

    def tensors(self, _weights: Weights, device: torch.device, precision: Precision) -> list[Tensor]:
        """Return the trained parameters, which the module already has, on a device with the shapes of `layout(1)`."""
        self.move_to(device, precision)
        return [parameter.detach().unsqueeze(0) for parameter in self._trained.values()]

    def attributes(self, parameters: np.ndarray, buffers: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the fitted attributes for these values: `module_state_`, and `coefs_` etc. of our linear layers."""
        named = dict(zip(self._trained, self.layout(1).arrays(parameters), strict=True))
        rest = {**named, **buffers}
        if not self.linear_names:
            return {"module_state_": rest}
        coefs = [np.ascontiguousarray(rest.pop(f"{name}.weight").T) for name in self.linear_names]
        intercepts = [rest.pop(f"{name}.bias") for name in self.linear_names]
        of_layers = {"coefs_": coefs, "intercepts_": intercepts, "n_layers_": len(self.layer_sizes)}
        return {**of_layers, "module_state_": rest}

    def multiply_adds(self, n: int, _X: Any) -> int:
        """Return an estimate of the multiply-adds for a batch of `n` rows: each parameter once per row."""
        return n * sum(prod(parameter.shape) for parameter in self.module.parameters())

    def input_values(self, _X: Any) -> int:
        """Return how many values of a row of X the network reads: all, because modules need dense rows."""
        return self.layer_sizes[0]

    @property
    def values_per_row(self) -> int:
        """Estimate of the number of values that a module keeps per row, from the output sizes of its weights."""
        return 4 * sum(parameter.shape[0] for parameter in self.module.parameters() if parameter.ndim >= 2)

    def trains_on_one_row(self) -> bool:
        """Whether the module in training mode maps one row to finite numbers; a copy is tried, since it may change."""
        like = next(self.module.parameters())
        try:
            with building(0, like.device), torch.no_grad():
                row = torch.randn(1, self.layer_sizes[0]).to(like)
                return bool(copy.deepcopy(self.module).train()(row).isfinite().all())
        except (ValueError, RuntimeError):
            return False

    def context(self) -> AbstractContextManager[Any]:
        """Return PyTorch's mode without gradients, in which `torch.enable_grad` can record a graph."""
        return torch.no_grad()

    def product_dtype(self, precision: Precision) -> torch.dtype:
        """Return the dtype that inputs and parameters are cast to; autocast in the module may cast them further."""
        return precision.master

    def move_to(self, device: torch.device, precision: Precision) -> None:
        """Move the module to a device, with floats in the master dtype."""
        self.module.to(device, precision.master)

    def value_and_gradient(
        self, buffers: Buffers, n: int, objective: Objective, _products: Products, precision: Precision
    ) -> Autograd:
        """Bind the module to these parameters; return its value and gradient for batches of `n` rows."""
        return Autograd(self.module, buffers, (self.n_outputs, n), objective, precision.product, self.turns)

    def forward(
        self, parameters: Sequence[Tensor], _n: int, _products: Products, precision: Precision
    ) -> ModuleForward:
        """Bind the module to parameters with the shapes of `layout`, and return its predictor."""
        bind(self._trained.values(), parameters)
        return ModuleForward(self.module, parameters[0], precision.product, self.turns)
