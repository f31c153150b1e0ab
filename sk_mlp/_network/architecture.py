"""The network that an estimator's parameters describe: its initial values, and its modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from sk_mlp._alike import difference
from sk_mlp._compute.device import PRECISIONS, Precision, over_memory_of, precision_for
from sk_mlp._compute.randomness import Randomness, building

from .activations import Activation, activations_of
from .autograd import IN_TRAINING, load, may_draw, require_outputs, trained_parameters
from .closed_form import ClosedForm
from .init import draw_weights
from .module_network import ModuleNetwork
from .modules import ModuleClasses, build_module
from .network import Network
from .values import Weights


class Architecture:
    """A network of linear layers, or the network that `module(n_features, n_outputs)` builds.

    `description` contains the parameters that describe it: `layer_sizes`, and the estimator's `activation`, `dropout`,
    `normalization` and `module`. These are plain values that a fitted estimator stores.
    """

    def __init__(self, description: Mapping[str, Any], init: str = "glorot_uniform") -> None:
        self.description, self._init = description, init
        self.layer_sizes: tuple[int, ...] = description["layer_sizes"]
        self.factory: Callable[[int, int], nn.Module] | None = description["module"]
        self.normalization: str | None = description["normalization"]

    @cached_property
    def activations(self) -> tuple[Activation, ...]:
        """The activation of each hidden layer; empty for a user-defined module."""
        return () if self.factory else activations_of(self.description["activation"], len(self.layer_sizes) - 2)

    @cached_property
    def dropout(self) -> tuple[float, ...]:
        """The dropout rate of each hidden layer; empty for a user-defined module."""
        return () if self.factory else dropout_rates(self.description["dropout"], len(self.layer_sizes) - 2)

    @property
    def _has_closed_form(self) -> bool:
        """Whether the gradient is known in closed form, without autograd."""
        if self.factory is not None or self.normalization is not None:
            return False
        return all(activation.has_closed_form for activation in self.activations)

    @property
    def is_user_defined(self) -> bool:
        """Whether the network contains a user-defined module or activation."""
        return self.factory is not None or not all(activation.has_closed_form for activation in self.activations)

    def check(self) -> None:
        """Raise ValueError unless there are an activation and a dropout rate for each hidden layer."""
        _ = self.activations, self.dropout

    def require_like(self, fitted: Architecture) -> None:
        """Raise ValueError unless training can continue with the weights of a fitted network."""
        for name in ("module", "normalization", "layer_sizes"):
            before, asked = fitted.description[name], self.description[name]
            found = difference(before, asked)
            if found is not None:
                are_users = name == "module" and None not in (before, asked)
                described = f": {found}" if are_users else ""
                raise ValueError(
                    f"warm_start and partial_fit must go on with the network they left, of {name}={before!r}, "
                    f"got {name}={asked!r}{described}"
                )

    @property
    def is_random(self) -> bool:
        """Whether anything else than the weights of linear layers may be random."""
        return any(self.dropout) or not self._has_closed_form

    @property
    def _linear_names(self) -> tuple[str, ...]:
        """Names of the linear layers in the module; empty for a user-defined module."""
        between = 1 + (self.normalization is not None) + self.is_random  # activation, normalization, dropout
        return tuple(str(i * (1 + between)) for i in range(len(self.layer_sizes) - 1)) if not self.factory else ()

    @property
    def _of_linear(self) -> set[str]:
        """Names of the parameters of the linear layers in the module's state."""
        return {f"{name}.{part}" for name in self._linear_names for part in ("weight", "bias")}

    def draw(self, rng: np.random.RandomState | None, seed: int, dtype: np.dtype) -> Weights:
        """Return initial values, drawn from `rng` for our linear layers, and from `seed` for user-defined modules."""
        assert rng is not None
        if self.factory is not None:
            return Weights([], [], _arrays(self._made_by_user(seed).state_dict(), dtype))
        factors = [activation.init_factor for activation in self.activations]
        factors.append(factors[-1] if factors else 6.0)
        weights = draw_weights(self.layer_sizes, self._init, factors, rng, dtype)
        if self._has_closed_form:
            return weights
        state = self._built(weights, ModuleClasses(), seed).state_dict()
        own = self._of_linear
        return weights._replace(rest=_arrays({name: state[name] for name in state if name not in own}, dtype))

    def precision(self, dtype: str, device: torch.device, n_rows: int, n_values: int) -> Precision:
        """Return the dtypes to compute with; for a user-defined module always those of the parameter `dtype`."""
        return PRECISIONS[dtype] if self.factory else precision_for(dtype, device, n_rows, n_values)

    def network_to_train(self, weights: Weights, seed: int, device: torch.device, precision: Precision) -> Network:
        """Return the network to be trained, on a copy of `weights`; its random numbers depend on `seed`.

        Raises ValueError if a user-defined module or activation returns a wrong shape.
        """
        if self._has_closed_form:
            return ClosedForm(self.layer_sizes, self.activations, self.dropout)
        module = self.module(weights.copy(), IN_TRAINING).train()
        turns = Randomness(seed, device).turn if may_draw(module) else nullcontext
        network = ModuleNetwork(module, self.layer_sizes, self.dropout, self._linear_names, turns)
        network.move_to(device, precision)
        self._try_out(module, torch.empty(0, dtype=precision.master, device=device))
        return network

    def network_to_predict(self, weights: Weights) -> Network:
        """Return the network that predicts with `weights`; user-defined code, which may change them, gets a copy."""
        if self._has_closed_form:
            return ClosedForm(self.layer_sizes, self.activations, ())
        module = self.fitted_module(weights.copy() if self.is_user_defined else weights).eval()
        return ModuleNetwork(module, self.layer_sizes, linear_names=self._linear_names)

    def fitted_module(self, weights: Weights) -> nn.Module:
        """Return the network as a module over the memory of `weights`. Raises ValueError if some are missing."""
        module = self.module(weights, ModuleClasses())
        lacking = module.state_dict(keep_vars=True).keys() - weights.rest.keys() - self._of_linear
        if lacking and self.factory is None:
            raise ValueError(f"module_state_ must hold {sorted(lacking)} of the network, got {sorted(weights.rest)}")
        return module

    def module(self, weights: Weights, classes: ModuleClasses) -> nn.Module:
        """Return the network as a module, built of `classes`, over the memory of `weights`."""
        rest = {name: over_memory_of(value) for name, value in weights.rest.items()}
        if self.factory is not None:
            return load(self._made_by_user(0), rest)
        module = self._built(weights, classes, 0)
        own = module.state_dict(keep_vars=True)  # the parameters themselves, over the memory of `weights`
        load(module, rest | {name: value for name, value in own.items() if name not in rest})
        return module

    def _try_out(self, module: nn.Module, like: Tensor) -> None:
        """Raise ValueError if a user-defined module or activation returns a wrong shape, tried with rows like `like`.

        A module must return `n_outputs` raw predictions per row, an activation as many values as it gets.
        """
        if self.factory is not None:
            n_features, n_outputs = self.layer_sizes
            rows, rule = like.new_zeros(2, n_features), f"rows (n, {n_features}) to raw predictions (n, {n_outputs})"
            require_outputs(_tried(f"module must map {rule}", module, rows), rows, n_outputs)
            return
        assert isinstance(module, nn.Sequential)
        places = [int(name) + 1 + (self.normalization is not None) for name in self._linear_names]
        for activation, place, units in zip(self.activations, places, self.layer_sizes[1:], strict=False):
            if not activation.has_closed_form:
                _require_same_width(module[place], like.new_zeros(2, units))

    def fewest_rows(self, network: Network, n_rows: int, batch_size: int) -> int:
        """Return the minimum number of rows in a batch: 2 if a batch might have 1 but the network cannot train on 1.

        Raises ValueError if batches of at least 2 of the `n_rows` rows are not possible.
        """
        may_be_one = batch_size == 1 or n_rows % batch_size == 1
        if not may_be_one or not self.is_user_defined or network.trains_on_one_row():
            return 1
        if batch_size == 1 or n_rows == 1:
            raise ValueError(
                f"batch_size must give at least 2 rows a batch to a network that cannot be trained on one row (batch "
                f"normalization cannot), got batch_size={batch_size} for {n_rows} row(s)"
            )
        return 2

    def _built(self, weights: Weights, classes: ModuleClasses, seed: int) -> nn.Module:
        """Return a module of linear layers over `weights`, with activations, normalization and dropout."""
        coefs, intercepts = ([over_memory_of(a) for a in arrays] for arrays in (weights.coefs, weights.intercepts))
        makers = [activation.module for activation in self.activations]
        # A network with a state has dropout layers also for a rate of 0, so that names do not depend on the rate.
        dropout = self.dropout if self.is_random else ()
        with building(seed) if self.is_user_defined else nullcontext():
            return build_module(coefs, intercepts, makers, dropout, self.normalization, classes)

    def _made_by_user(self, seed: int) -> nn.Module:
        """Call the user-defined factory; random numbers from PyTorch's generators depend only on `seed`."""
        assert self.factory is not None
        with building(seed):
            module = self.factory(self.layer_sizes[0], self.layer_sizes[-1])
        if not isinstance(module, nn.Module):
            raise ValueError(f"module must return an nn.Module, got {module!r}")
        if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
            raise ValueError(f"module must know the shapes of its parameters, got lazy ones in {module!r}")
        trained = trained_parameters(module)
        if not trained:
            raise ValueError(f"module must have parameters to train, got {module!r}")
        if not all(parameter.is_floating_point() for parameter in trained.values()):
            dtypes = sorted({str(parameter.dtype) for parameter in trained.values()})
            raise ValueError(f"module must have parameters of real numbers, got {', '.join(dtypes)}")
        return copy.deepcopy(module)  # a function may return the same module in each call


def _arrays(state: Mapping[str, Tensor], dtype: np.dtype) -> dict[str, np.ndarray]:
    """Return copies as NumPy arrays, floats in `dtype` (converted through float64, because NumPy has no bfloat16)."""
    for name, value in state.items():
        if name.rpartition(".")[2] == "_extra_state" or not isinstance(value, Tensor):
            raise ValueError(
                f"module and activation must keep their state in parameters and buffers, got {name!r} from "
                f"get_extra_state"
            )
    return {
        name: value.detach().cpu().double().numpy().astype(dtype) if value.is_floating_point()
        else value.detach().cpu().numpy().copy()
        for name, value in state.items()
    }  # fmt: skip


def _tried(rule: str, module: nn.Module, rows: Tensor) -> Any:
    """Return the module's predictions for rows, without an effect on later random numbers.

    Raises ValueError with the text `rule` if the module cannot process the rows.
    """
    was_training = module.training
    try:
        with building(0, rows.device), torch.no_grad():
            return module.eval()(rows)
    except RuntimeError as error:
        raise ValueError(f"{rule}, got {module!r}: {error}") from error
    finally:
        module.train(was_training)


def _require_same_width(activation: nn.Module, rows: Tensor) -> None:
    """Raise ValueError unless an activation returns one value for each value."""
    units = rows.shape[1]
    rule = f"activation must map (n, {units}) to (n, {units})"
    found = _tried(rule, activation, rows)
    if not isinstance(found, Tensor) or found.shape != rows.shape:
        shape = tuple(found.shape) if isinstance(found, Tensor) else found
        raise ValueError(f"{rule}, got {shape} from {activation!r} for n = 2")


def dropout_rates(dropout: Any, n_hidden: int) -> tuple[float, ...]:
    """Return the dropout rate of each hidden layer. Raises ValueError for a wrong number or a rate outside [0, 1)."""
    rates = [dropout] * n_hidden if np.ndim(dropout) == 0 else list(dropout)
    if len(rates) != n_hidden:
        raise ValueError(
            f"dropout must be one rate for all hidden layers or a sequence of one each, {n_hidden} in all, "
            f"got {len(rates)}: {dropout!r}"
        )
    if not all(isinstance(rate, Real) and 0 <= float(rate) < 1 for rate in rates):
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
    return tuple(float(rate) for rate in rates)
