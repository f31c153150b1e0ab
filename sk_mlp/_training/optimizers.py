"""First-order optimizers over the flat parameters of k networks.

Every hyper-parameter is an operand that multiplies a flat buffer: a number if it is the same for all members, otherwise
one value per element (`Layout.spread`). One rule therefore serves one network or a hundred.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sk_mlp._compute.device import over_memory_of
from sk_mlp._compute.torch_private import fused_adam
from sk_mlp._network.layout import Layout
from sk_mlp._network.network import Buffers

from .settings import Settings


class Optimizer(ABC):
    """Base class of the optimizers, for k members with their rates, and slots of one value per parameter.

    `states` are those of an earlier training, checked by `resumed`, or empty. All values that change from step to step
    are in tensors that keep their memory, so that `move` can be recorded.
    """

    slots: tuple[str, ...] = ()
    rule: str  # training continues from a state only under the same rule

    def __init__(
        self,
        buffers: Buffers,
        settings: Sequence[Settings],
        states: Sequence[Mapping[str, Any]],
    ) -> None:
        self._layout, self._parameters, self._gradient = buffers
        self._settings, self._states = settings, states
        self._slot = {name: self._join_slot(name, states) for name in self.slots}
        self._n_earlier = [int(state.get("steps", 0)) for state in states]
        self._n_steps = 0
        self._scratch = torch.empty_like(self._parameters)
        self._rates: list[float] = []
        # For one network a scalar, for several one value per parameter.
        one = self._layout.k == 1
        self._rate = self._parameters.new_empty(()) if one else torch.empty_like(self._parameters)

    def set_rates(self, rates: Sequence[float]) -> None:
        """Set each member's learning rate for the steps to come."""
        if self._rates != rates:
            self._rates = list(rates)
            spread = self._spread(rates)
            if isinstance(spread, Tensor):
                self._rate.copy_(spread)
            else:
                self._rate.fill_(spread)

    def step(self) -> None:
        """Move the parameters once along the gradient."""
        self.prepare()
        self.move()

    def prepare(self) -> None:
        """Count a step, and set the values that depend on the number of steps."""
        self._n_steps += 1

    @abstractmethod
    def move(self) -> None:
        """Carry out the prepared step."""

    def shard(self, span: slice) -> Optimizer:
        """Return an optimizer for a span of one network's parameters, over the same memory; `prepare` the whole."""
        shard = copy(self)
        shard._parameters, shard._gradient = self._parameters[span], self._gradient[span]
        shard._slot = {name: values[span] for name, values in self._slot.items()}
        shard._scratch = self._scratch[span]
        return shard

    def state(self, i: int) -> dict[str, Any]:
        """Return the slots of member `i`, packed, and its number of steps."""
        slots = {name: self._layout.member(flat, i).cpu().numpy() for name, flat in self._slot.items()}
        return {**slots, "steps": self._n_earlier[i] + self._n_steps}

    def labelled_state(self, i: int) -> dict[str, Any]:
        """Return the state of member `i`, with the rule and the shapes that `resumed` checks."""
        return {**self.state(i), "rule": self.rule, "parameters": dict(self._layout.shapes)}

    def _spread(self, values: Sequence[float]) -> float | Tensor:
        return self._layout.spread(values, self._parameters)

    def _hyper(self, value: Callable[[Settings], float]) -> float | Tensor:
        """Return the values of a function of each member's settings, as an operand."""
        return self._spread([value(settings) for settings in self._settings])

    def _join_slot(self, name: str, states: Sequence[Mapping[str, Any]]) -> Tensor:
        """Return a flat buffer of the members' earlier slots, zero for members without one."""
        zeros = self._parameters.new_zeros(self._layout.n_parameters)
        return self._layout.join(  # `join` copies
            [over_memory_of(state[name]).to(zeros) if name in state else zeros for state in states]
        )


class SGD(Optimizer):
    """Gradient descent with (Nesterov) momentum, `v <- momentum v - rate g`, then `w <- w + v`.

    Nesterov's momentum looks one step ahead: `w <- w + momentum v - rate g` with the new `v` (Sutskever et al., 2013).
    """

    slots = ("velocity",)
    rule = "sgd"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._momentum = self._hyper(lambda s: s.momentum)
        # w <- w + look v - take rate g, where (look, take) is (momentum, 1) for Nesterov and (1, 0) without.
        self._look = self._hyper(lambda s: s.momentum if s.nesterovs_momentum else 1.0)
        self._take = self._hyper(lambda s: 1.0 if s.nesterovs_momentum else 0.0)

    def move(self) -> None:
        velocity, scratch = self._slot["velocity"], self._scratch
        pull = torch.mul(self._gradient, self._rate, out=scratch)
        velocity.mul_(self._momentum).sub_(pull)
        self._parameters.sub_(pull.mul_(self._take))
        self._parameters.add_(torch.mul(velocity, self._look, out=scratch))


class MomentOptimizer(Optimizer):
    """Base class of the forms of Adam: two moments, and weight decay.

    As AdamW (Loshchilov and Hutter, 2019), a step first multiplies the coefs, not the intercepts, by
    `1 - rate weight_decay`.
    """

    slots = ("first_moment", "second_moment")
    rule = "adam"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._weight_decays = [s.weight_decay if s.solver == "adamw" else 0.0 for s in self._settings]
        self._coefs = self._layout.coef_pieces(self._parameters) if any(self._weight_decays) else []
        self._shrinkage = self._parameters.new_ones(len(self._settings), 1)

    def shard(self, span: slice) -> Optimizer:
        shard = super().shard(span)
        assert isinstance(shard, MomentOptimizer)
        shard._coefs = [self._parameters[self._layout.coefs_in(span)].unsqueeze(0)] if self._coefs else []
        return shard

    def set_rates(self, rates: Sequence[float]) -> None:
        super().set_rates(rates)
        if self._coefs:
            factors = [[1 - rate * decay] for rate, decay in zip(rates, self._weight_decays, strict=True)]
            self._shrinkage.copy_(self._parameters.new_tensor(factors))

    def move(self) -> None:
        for coefs in self._coefs:
            coefs.mul_(self._shrinkage)
        self._move_along_moments()

    def _correction(self, i: int) -> float:
        """Return the factor of member `i`'s rate that corrects the bias of moments that began at zero."""
        settings, t = self._settings[i], self._n_earlier[i] + self._n_steps
        return (1 - settings.beta_2**t) ** 0.5 / (1 - settings.beta_1**t)

    @abstractmethod
    def _move_along_moments(self) -> None:
        """Take Adam's step, without weight decay."""


class Adam(MomentOptimizer):
    """Adam (Kingma and Ba, 2014), with the bias corrections folded into the rate as in section 2 of the paper.

    `w <- w - rate sqrt(1 - beta_2**t) / (1 - beta_1**t) m / (sqrt(v) + epsilon)`.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._beta_1, self._beta_2 = self._hyper(lambda s: s.beta_1), self._hyper(lambda s: s.beta_2)
        self._rest_1, self._rest_2 = self._hyper(lambda s: 1 - s.beta_1), self._hyper(lambda s: 1 - s.beta_2)
        self._epsilon = self._hyper(lambda s: s.epsilon)
        self._corrections = self._parameters.new_ones(len(self._settings))
        self._owners = self._layout.owners(self._parameters.device)

    def shard(self, span: slice) -> Optimizer:
        shard = super().shard(span)
        assert isinstance(shard, Adam)
        shard._owners = self._owners[span]
        return shard

    def prepare(self) -> None:
        super().prepare()
        corrections = [self._correction(i) for i in range(len(self._settings))]
        self._corrections.copy_(self._parameters.new_tensor(corrections))

    def _move_along_moments(self) -> None:
        m, v, g, scratch = self._slot["first_moment"], self._slot["second_moment"], self._gradient, self._scratch
        m.mul_(self._beta_1).add_(torch.mul(g, self._rest_1, out=scratch))
        torch.mul(g, g, out=scratch)
        v.mul_(self._beta_2).add_(scratch.mul_(self._rest_2))
        torch.sqrt(v, out=scratch)
        torch.div(m, scratch.add_(self._epsilon), out=scratch)
        self._parameters.sub_(scratch.mul_(self._rate).mul_(self._corrections.index_select(0, self._owners)))


class FusedAdam(MomentOptimizer):
    """Adam's rule as one kernel, for members with the same betas, epsilon and number of steps.

    The kernel is private to PyTorch. `torch.optim.Adam(fused=True)` calls it too, but takes several times as long.
    The kernel corrects the bias before it adds epsilon, `Adam` above after that. The kernel therefore gets an infinite
    number of steps, for which it corrects nothing, and a rate that is already corrected.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._pace = torch.ones((), dtype=torch.float64, device="cpu")  # rate with bias correction, for all members
        _require_alike(self._parameters, self._gradient, self._scratch, *self._slot.values())
        self._many_steps = self._parameters.new_full((), np.inf, dtype=torch.float32)

    def prepare(self) -> None:
        super().prepare()
        rate = self._rates[0] if self._layout.k == 1 else 1.0
        self._pace.fill_(rate * self._correction(0))

    def _move_along_moments(self) -> None:
        if self._layout.k == 1:
            self._subtract_step(self._parameters)
        else:
            # The kernel has one rate. It computes the step from zero, which is then multiplied by the members' rates.
            self._subtract_step(self._scratch.zero_())
            self._parameters.addcmul_(self._scratch, self._rate)

    def _subtract_step(self, values: Tensor) -> None:
        """Subtract the step of the rule, with the rate `_pace`, from `values`."""
        settings = self._settings[0]
        fused_adam(
            values,
            self._gradient,
            (self._slot["first_moment"], self._slot["second_moment"]),
            self._many_steps,
            lr=self._pace,
            beta1=settings.beta_1,
            beta2=settings.beta_2,
            eps=settings.epsilon,
        )


class TorchOptimizer(Optimizer):
    """Any optimizer class of PyTorch, for one network whose parameters are one flat tensor."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        (settings,) = self._settings
        assert isinstance(settings.solver, type)
        self._optimizer = _torch_optimizer(settings, self._parameters, self._gradient)
        self.rule = _rule_of(type(self._optimizer))
        if self._states[0]:
            # Copies, because the optimizer works in place; `load_state_dict` casts floats to the parameter's dtype.
            earlier = _each_leaf(self._states[0]["torch"], torch.tensor, np.ndarray)
            self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": earlier})

    def set_rates(self, rates: Sequence[float]) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rates[0]

    def move(self) -> None:
        self._optimizer.step()

    def state(self, i: int) -> dict[str, Any]:
        by_parameter = self._optimizer.state_dict()["state"]
        return {"torch": _each_leaf(by_parameter, lambda x: x.cpu().numpy().copy(), Tensor)}


def _torch_optimizer(settings: Settings, parameters: Tensor, gradient: Tensor) -> torch.optim.Optimizer:
    """Return an optimizer of one flat parameter over the memory of both tensors."""
    assert isinstance(settings.solver, type)
    parameter = nn.Parameter(parameters)
    parameter.grad = gradient
    return settings.solver([parameter], **{"lr": settings.learning_rate_init, **(settings.solver_kwargs or {})})


def _rule_of(solver: type[torch.optim.Optimizer]) -> str:
    """Return the name of an optimizer class."""
    return f"{solver.__module__}.{solver.__qualname__}"


def _each_leaf(tree: Any, convert: Callable[[Any], Any], kind: type) -> Any:
    """Return nested dictionaries and lists with each leaf of `kind` converted."""
    if isinstance(tree, dict):
        return {key: _each_leaf(value, convert, kind) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_each_leaf(value, convert, kind) for value in tree]
    return convert(tree) if isinstance(tree, kind) else tree


def _require_alike(*tensors: Tensor) -> None:
    """Raise RuntimeError unless all are contiguous and of one shape, dtype and device: kernels do not check this."""
    kinds = {(tensor.shape, tensor.dtype, tensor.device, tensor.is_contiguous()) for tensor in tensors}
    if len(kinds) > 1 or not tensors[0].is_contiguous():
        raise RuntimeError(f"a kernel needs tensors of one kind in contiguous memory, got {kinds}")


def resumed(state: Mapping[str, Any], settings: Settings, layout: Layout) -> Mapping[str, Any]:
    """Return the state of an earlier training if its rule and parameters are the same, else an empty state.

    Raises ValueError if the state contradicts itself, as in a damaged file: optimizers do not check its shapes.
    """
    shapes = state.get("parameters") if isinstance(state, Mapping) else None
    # The names have the same order as the packed values, so their order must agree too.
    if shapes != layout.shapes or list(shapes) != list(layout.shapes):
        return {}
    if isinstance(settings.solver, type):
        return _resumed_of_torch(state, settings, layout.n_parameters)
    kind = SGD if settings.solver == "sgd" else MomentOptimizer
    if state.get("rule") != kind.rule:
        return {}
    for slot in kind.slots:
        _require_array(slot, state.get(slot), {"float32", "float64"}, (layout.n_parameters,))
    steps = state.get("steps")
    if type(steps) is not int or not 0 <= steps < 2**53:
        raise ValueError(f"the optimizer's steps must be a number of steps, got {steps!r}")
    return state


def _resumed_of_torch(state: Mapping[str, Any], settings: Settings, n: int) -> Mapping[str, Any]:
    """Return the state if the same optimizer class, with similar options, has left it; else an empty state.

    A value whose shape after a first step is that of the parameter, `(n,)`, or of a number, `()`, must have that shape.
    """
    assert isinstance(settings.solver, type)
    optimizer = _torch_optimizer(settings, torch.zeros(n), torch.zeros(n))
    optimizer.step()
    if state.get("rule") != _rule_of(settings.solver):
        return {}
    found = state.get("torch")
    for i, values in optimizer.state_dict()["state"].items():
        own = found.get(i) if isinstance(found, dict) else None
        if not isinstance(own, dict) or not values.keys() <= own.keys():
            return {}
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape in ((n,), ()):
                dtypes = {"float32", "float64"} if value.is_floating_point() else {value.numpy().dtype.name}
                _require_array(key, own[key], dtypes, tuple(value.shape))
    return state


def _require_array(name: str, found: Any, dtypes: set[str], shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a part of an optimizer's state is an array with one of these dtypes and this shape."""
    if not isinstance(found, np.ndarray) or found.dtype.name not in dtypes or found.shape != shape:
        given = f"shape {found.shape}, {found.dtype}" if isinstance(found, np.ndarray) else repr(found)
        raise ValueError(f"the optimizer's {name} must have shape {shape}, as its parameters have, got {given}")


def require_usable(solver: type[torch.optim.Optimizer], options: Mapping[str, Any], rate: float) -> None:
    """Raise ValueError unless the optimizer can be made and can take a step without a closure."""
    if "lr" in options:
        raise ValueError(f"solver_kwargs must not hold 'lr', which is learning_rate_init, got lr={options['lr']!r}")
    closure = inspect.signature(solver.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(f"solver must step without a closure, got {solver.__name__}; 'lbfgs' is SciPy's L-BFGS-B")
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    try:
        solver([parameter], **{"lr": rate, **options}).step()
    except Exception as error:
        raise ValueError(
            f"solver and solver_kwargs must make an optimizer of one flat parameter, got {solver.__name__} with "
            f"{dict(options)!r}: {error}"
        ) from error


def optimizer_class(
    settings: Sequence[Settings], states: Sequence[Mapping[str, Any]], has_fused_adam: bool
) -> type[Optimizer]:
    """Return the optimizer class for members with these settings and states."""
    if isinstance(settings[0].solver, type):
        return TorchOptimizer
    if settings[0].solver == "sgd":
        return SGD
    rules = {(s.beta_1, s.beta_2, s.epsilon) for s in settings}
    in_step = len({state.get("steps", 0) for state in states}) == 1
    return FusedAdam if has_fused_adam and len(rules) == 1 and in_step else Adam


class GradientNorms:
    """The norms of the gradients of k members, and clipping to a maximum norm (Pascanu et al., ICML 2013)."""

    def __init__(
        self,
        pieces: Sequence[Tensor],  # views of the gradient that cover it, (k, size) each
        limits: Sequence[float | None],
    ) -> None:
        self._pieces, self._all = pieces, range(len(pieces))
        self._limits: Tensor | None = None
        if any(limit is not None for limit in limits):
            self._limits = pieces[0].new_tensor([np.inf if limit is None else limit for limit in limits])
        self._of_pieces = pieces[0].new_zeros(len(pieces), len(limits))  # before clipping
        self._each_piece = self._of_pieces.unbind()

    @property
    def has_limits(self) -> bool:
        """Whether gradients are clipped."""
        return self._limits is not None

    def clip(self) -> None:
        """Scale down the gradients of members whose norm is above their limit."""
        if self._limits is not None:
            self.measure(self._all)
            self.limit(self._all)

    def last(self) -> list[float]:
        """Return each member's norm in the last step, before clipping."""
        if self._limits is None:
            self.measure(self._all)
        return self._norms().tolist()

    def measure(self, pieces: Iterable[int]) -> None:
        """Compute the norms of some pieces."""
        for i in pieces:
            torch.linalg.vector_norm(self._pieces[i], 2, 1, out=self._each_piece[i])

    def limit(self, pieces: Iterable[int]) -> None:
        """Scale down some pieces; all pieces must have been measured."""
        assert self._limits is not None
        norms = self._norms()
        factors = torch.where(norms > self._limits, self._limits / norms, 1.0).unsqueeze(1)
        for i in pieces:
            self._pieces[i].mul_(factors)

    def _norms(self) -> Tensor:
        """Return each member's norm `(k,)`."""
        return torch.linalg.vector_norm(self._of_pieces, 2, 0)
